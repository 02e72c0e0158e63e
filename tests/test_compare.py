"""compress.py and reproduce.py from the shell's side, on a tiny set and in this process."""

import json
import logging
from functools import partial

import numpy as np
import pytest
import tiny
from shipped import train_movielens, train_movielens_retrain

import compress
import reproduce
from benchmarks import bench_epoch
from compression.afm import command as afm
from compression.afm.compress import Choice
from compression.finetune import FineTuning
from engine import snapshots
from studies import (
    afm_runs,
    collect,
    curves,
    names,
    planned_runs,
    recipes,
    run_figures,
    schemes,
    script_options,
    scripts,
    tuning,
)
from studies.collect import results_in
from studies.figures import extreme, table4
from studies.figures.baselines import entries
from studies.page import Page
from studies.published import PRESETS

pytestmark = pytest.mark.usefixtures("no_pictures")
SIZE = sum(tiny.SIZES.values()) * 4


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """Run a script's main as if it were called with these words; results go to tmp_path."""
    tiny.install(monkeypatch, tiny.dataset())
    script = {**tiny.SETTINGS, "dataset": "movielens", "candidate_p": [300, 150, 100],
              "rewind": "all"}
    monkeypatch.setitem(PRESETS, "movielens", script)
    tiny.publish(monkeypatch, script, tiny.dataset().manifest["rows"])
    monkeypatch.setitem(schemes.BUDGETS, ("movielens", "fm"), [300, 100])
    monkeypatch.setattr(schemes, "LONG", {"max_epochs": 4})
    monkeypatch.setattr(schemes, "GRIDS",
                        {"uniform": {"latent_dim": [2, 4], "l2_regularization": [1e-5, 1e-3]},
                                             "darts": {"darts_widths": [[1, 2]],
                                                       "darts_epochs": [1]},
                                             **dict.fromkeys(schemes.PRUNED)})

    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "no shipped settings")
    # decoding them takes longer than most commands here
    monkeypatch.setattr(collect, "SHIPPED", tmp_path / "no shipped records")
    monkeypatch.setattr(bench_epoch, "bench", partial(bench_epoch.bench, steps=2, rounds=1))
    monkeypatch.setattr(extreme, "BUDGETS", (300, 100))
    monkeypatch.setattr(extreme, "WIDTHS", (4,))

    def call(script, *words):
        words = [*map(str, words), *(["--out", str(tmp_path)] if words else [])]
        if script is reproduce and words and not {"report", "plan", "--jobs"} & {*words}:
            words += ["--jobs", "1"]  # the tiny set is of this process
        monkeypatch.setattr("sys.argv", [script.__file__, *words])
        script.main()

    return call


def test_tuning_chooses_and_the_comparison_runs_every_scheme_at_it(shell, tmp_path, capsys):
    for scheme in ("uniform", "darts"):
        shell(reproduce, "tune", "--embedding", scheme, "--trials", 4)
    tuned = {path.stem.removeprefix("movielens_fm_"): json.loads(path.read_text())["chosen"]
             for path in (tmp_path / "tuned").glob("*.json")}
    assert {name: len(trials) for name, trials in tuned.items()} == {"uniform": 2, "darts": 1}
    shell(reproduce, "compare", "--seeds", 1, 2)
    page = Page("baselines", "movielens", "fm", "all schemes")
    found = entries(page, results_in(tmp_path), tuned)
    shown = {(entry.scheme, round(entry.mean("num_embedding_params"))): len(entry.results)
             for entry in found}
    for scheme in ("PEP", "magnitude pruning", "iterative pruning", "random mask",
                   "random mask, PEP's share a field"):
        assert [shown[scheme, budget] for budget in (100, 300)] == [2, 2]
    assert [shown["uniform", width * SIZE // 4] for width in (2, 4)] == [2, 2]
    assert sum(number == 2 for (scheme, _), number in shown.items() if scheme == "darts") >= 1
    runs = set((tmp_path / "runs").glob("*/result.json"))
    times = {path: path.stat().st_mtime_ns for path in runs}
    capsys.readouterr()
    shell(reproduce, "compare", "--seeds", 1, 2)
    assert {path: path.stat().st_mtime_ns
            for path in (tmp_path / "runs").glob("*/result.json")} == times


def test_pruning_and_pep_are_tuned_budget_by_budget(shell, tmp_path, monkeypatch):
    monkeypatch.setattr(schemes, "GRIDS", {
        "pep": {"threshold_init": [-3.0, -2.4]}, "magnitude": {"l2_regularization": [1e-5, 1e-3]}})
    tuned = {}
    for scheme in schemes.GRIDS:
        shell(reproduce, "tune", "--embedding", scheme, "--trials", 4)
        tuned[scheme] = json.loads((tmp_path / "tuned"
                                    / f"movielens_fm_{scheme}.json").read_text())["chosen"]
        assert [trial["num_embedding_params"] for trial in tuned[scheme]] == [100, 300]
    shell(reproduce, "compare", "--scheme", "pep", "--scheme", "magnitude", "--seeds", 1, 2)
    page = Page("baselines", "movielens", "fm", "all schemes")
    found = entries(page, results_in(tmp_path), tuned)
    # what magnitude pruning started from
    found = [entry for entry in found if entry.scheme != "uniform"]
    assert [(entry.scheme, entry.mean("num_embedding_params"), len(entry.results))
            for entry in found] == [
        ("PEP", 100, 2), ("PEP", 300, 2), ("magnitude pruning", 100, 2),
        ("magnitude pruning", 300, 2)]
    for entry, trial in zip(found, [*tuned["pep"], *tuned["magnitude"]], strict=True):
        assert {result["seed"] for result in entry.results} == {1, 2}
        assert trial["run_id"] in {result["run_id"] for result in entry.results}


def test_settings_chosen_for_another_model_are_tried_as_they_are(shell, tmp_path, monkeypatch):
    monkeypatch.setitem(schemes.BUDGETS, ("movielens", "deepfm"), [200, 120])
    monkeypatch.setattr(
        schemes,
        "GRIDS",
        {
            "uniform": {"latent_dim": [2, 4], "l2_regularization": [1e-5, 1e-3]},
            "magnitude": {"l2_regularization": [1e-5, 1e-3]},
        },
    )
    for scheme, sizes in (("uniform", [400, 800]), ("magnitude", [120, 200])):
        shell(reproduce, "tune", "--embedding", scheme)
        path = tmp_path / "tuned" / f"movielens_fm_{scheme}.json"
        written = json.loads(path.read_text())
        written["chosen"] = [trial for trial in written["trials"]
                             if trial["settings"]["l2_regularization"] == 1e-3]
        path.write_text(json.dumps(written, sort_keys=True))  # one decay at both sizes
        shell(reproduce, "tune", "--embedding", scheme, "--model", "deepfm", "--settings-of", "fm")
        of_fm, own = (json.loads((tmp_path / "tuned"
                                  / f"movielens_{model}_{scheme}.json").read_text())
                      for model in ("fm", "deepfm"))
        assert [trial["num_embedding_params"] for trial in own["chosen"]] == sizes
        assert own["chosen"] == own["trials"]
        assert own["settings_of"] == "fm"
        assert "settings_of" not in of_fm
        for one, other in zip(own["chosen"], of_fm["chosen"], strict=True):
            assert one["settings"]["l2_regularization"] == other["settings"]["l2_regularization"]
            assert one["run_id"] != other["run_id"]
    shell(reproduce, "compare", "--model", "deepfm", "--scheme", "uniform", "--seeds", 1,
          "--dry-run")


@pytest.mark.parametrize(("words", "message"), [
    (("tune",), "tune chooses the settings of one scheme: name it, as in `python reproduce.py tune "
                "--embedding mde`"),
    (("tune", "--embedding", "uniform", "--dataset", "all"), "tune is of one data set"),
    (("tune", "--embedding", "unifrom"), "unknown embedding 'unifrom'; did you mean 'uniform'"),
    (("tune", "--embedding", "uniform", "--settings-of", "fm"),
     "takes the settings of another model than --model fm"),
    (("tune", "--embedding", "uniform", "--settings-of", "deepfn"), "unknown model 'deepfn'"),
    (("fig10", "--set", "lr=0.1", "--set", "gk=2"),
     r"takes no --set; to run other settings: python train_movielens.py --set lr=0.1 --set gk=2"),
    (("tune", "--embedding", "uniform", "--trials", "1"),
     "--trials 1 is fewer than one for each of the 2 sizes"),
    (("tune", "--embedding", "uniform", "--trials", "-3"), "--trials -3 is fewer"),
    (("compare", "--jobs", "0"), "--jobs must be between 1 and"),
    (("compare", "--jobs", "-1"), "--jobs must be between 1 and"),
    (("compare", "--jobs", "100000"), "--jobs must be between 1 and"),
    (("tune", "--embedding", "mgq"), "unknown embedding 'mgq'"),
    (("compare", "--dataset", "movilens"), "unknown dataset 'movilens'; did you mean 'movielens'"),
    (("compare", "--scheme", "imbue"), "unknown scheme 'imbue'"),
    (("compare", "--model", "deepfn"), "unknown model 'deepfn'; did you mean 'deepfm'"),
    (("fig1",), "unknown command 'fig1'"),
    (("extrem",), "unknown command 'extrem'; did you mean 'extreme'")])
def test_what_makes_no_sense_is_refused(shell, words, message):
    with pytest.raises(ValueError, match=message):
        shell(reproduce, *words)


@pytest.mark.parametrize("words", [
    ("compare", "--embedding", "mde"), ("compare", "--settings-of", "deepfm"),
    ("tune", "--embedding", "uniform", "--scheme", "darts"), ("report", "--model", "fm"),
    ("plan", "--jobs", "2")])
def test_a_command_has_its_own_options_alone(shell, words, capsys):
    with pytest.raises(SystemExit):
        shell(reproduce, *words)
    assert f"unrecognized arguments: {words[-2]}" in capsys.readouterr().err


def test_settings_of_a_model_that_was_not_tuned_are_asked_for(shell):
    with pytest.raises(FileNotFoundError,
                       match=r"movielens_deepfm_uniform\.json; run `python reproduce\.py tune`"):
        shell(reproduce, "tune", "--embedding", "uniform", "--settings-of", "deepfm")


def test_budgets_fit_the_table(shell, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(schemes.BUDGETS, ("movielens", "fm"), [SIZE + 1, 300, 100])
    shell(reproduce, "compare", "--scheme", "imp", "--seeds", 3, "--dry-run")
    assert "2 runs missing" in capsys.readouterr().out
    monkeypatch.setitem(schemes.BUDGETS, ("movielens", "fm"), [SIZE + 1])
    with pytest.raises(ValueError, match=rf"the table has {SIZE} parameters, the budgets of fm on "
                                         rf"movielens are"):
        shell(reproduce, "compare", "--scheme", "imp", "--seeds", 3)


@pytest.mark.parametrize("dataset", ["criteo", "avazu"])
@pytest.mark.parametrize("model", ["fm", "deepfm", "autoint"])
def test_the_scripts_search_down_to_every_budget_of_the_paper(dataset, model):
    assert set(schemes.BUDGETS[dataset, model]) <= set(PRESETS[dataset]["candidate_p"])
    assert (
        schemes.BUDGETS[dataset, model][-1]
        == table4.PAPER[dataset][table4.method_of(dataset, model)].params
    )


@pytest.mark.parametrize("model", ["fm", "deepfm", "autoint"])
def test_the_search_on_movielens_gets_down_to_the_papers_budgets(model):
    assert set(schemes.BUDGETS["movielens", model]) <= set(PRESETS["movielens"]["candidate_p"])


def test_random_masks_are_like_peps_by_field_or_by_feature(shell, tmp_path):
    shell(reproduce, "compare", "--seeds", 1, "--scheme", "random_per_field", "--scheme",
          "random_per_feature")
    like, by_field, by_feature = (
        snapshots.read(tmp_path / "embedding" / "fm" / f"movielens_{scheme}_d4_seed1"
                       / "100.npz")[0].table != 0
        for scheme in ("pep", "random_per_field", "random_per_feature"))
    starts = np.cumsum((0, *list(tiny.SIZES.values())[:-1]))
    assert np.array_equal(np.add.reduceat(like.sum(1), starts),
                          np.add.reduceat(by_field.sum(1), starts))
    assert np.array_equal(like.sum(axis=1), by_feature.sum(axis=1))
    assert not np.array_equal(like, by_field)
    assert not np.array_equal(like, by_feature)


def test_compress_writes_snapshots_and_says_how_to_go_on(shell, tmp_path, capsys):
    run = tiny.train(tmp_path, embedding="uniform")["run_id"]
    shell(compress, "magnitude", "--run", run, "--budget", 200, "--budget", 50)
    said = capsys.readouterr().out
    assert "snapshots of 200, 50 parameters" in said
    assert "train_movielens_retrain.py --model fm --alias movielens_magnitude_d4_seed1" in said
    shell(compress, "imp", "--run", run, "--budget", 200, "--keep", 0.6)
    shell(compress, "random", "--run", run, "--budget", 70, "--alias", "drawn")
    folder = tmp_path / "embedding" / "fm"
    assert sorted(path.name for path in folder.iterdir()) == [
        "drawn", "movielens_imp_d4_seed1", "movielens_magnitude_d4_seed1"]
    assert snapshots.names(folder / "drawn") == ["70"]
    shell(compress, "random", "--run", run, "--like", folder / "drawn" / "70.npz")
    shell(compress, "random", "--run", run, "--like", folder / "drawn" / "70.npz", "--per",
          "feature")
    for per in ("field", "feature"):
        assert snapshots.names(folder / f"movielens_random_per_{per}_d4_seed1") == ["70"]


def test_other_tables_of_one_run_are_not_mixed_up(shell, tmp_path, capsys):
    run = tiny.train(tmp_path, embedding="uniform")["run_id"]
    folder = tmp_path / "embedding" / "fm"
    for words, other in ((("imp", "--budget", 200), ("imp", "--budget", 200, "--keep", 0.3)),
                         (("random", "--budget", 70), ("random", "--budget", 90, "--budget", 70))):
        shell(compress, words[0], "--run", run, *words[1:])
        shell(compress, words[0], "--run", run, *words[1:])  # the same again is nothing new
        with pytest.raises(FileExistsError,
                           match=r"\.npz holds another table, .* choose another --alias"):
            shell(compress, other[0], "--run", run, *other[1:])
        shell(compress, other[0], "--run", run, *other[1:], "--overwrite")
    runs = len([*(tmp_path / "runs").iterdir()])
    for words in (("--keep", 0.5), ("--run", tiny.train(tmp_path, embedding="uniform",
                                                        lr=0.3)["run_id"])):
        with pytest.raises(FileExistsError, match="choose another --alias"):
            shell(compress, "imp", "--run", run, "--budget", 200, *words)
    assert len([*(tmp_path / "runs").iterdir()]) == runs + 1  # refused before the first round
    assert snapshots.read(folder / "movielens_imp_d4_seed1"
                          / "200.npz")[0].meta["how"] == "keep 0.3"
    like = folder / "movielens_imp_d4_seed1" / "200.npz"
    with pytest.raises(ValueError, match=r"several masks have as many entries \(\[200, 200\]\)"):
        shell(compress, "random", "--run", run, "--like", like, "--like", like)
    with pytest.raises(ValueError, match="--per feature says what --like takes over"):
        shell(compress, "random", "--run", run, "--budget", 70, "--per", "feature")
    with pytest.raises(FileNotFoundError, match=r"there is no snapshot .*nowhere\.npz for --like"):
        shell(compress, "random", "--run", run, "--like", tmp_path / "nowhere.npz")


@pytest.mark.parametrize("words", [(), ("--budget", 3, "--like", "x.npz")])
def test_random_takes_one_of_its_two_options(shell, tmp_path, words):
    run = tiny.train(tmp_path, embedding="uniform")["run_id"]
    with pytest.raises(ValueError, match="either --budget or --like"):
        shell(compress, "random", "--run", run, *words)


def test_a_snapshot_of_another_shape_is_refused(shell, tmp_path):
    run = tiny.train(tmp_path, embedding="uniform")["run_id"]
    other = snapshots.save(tmp_path, "7", np.ones((3, 3)), {})
    with pytest.raises(ValueError, match=r"of shape \(3, 3\), the run's table of \(200, 4\)"):
        shell(compress, "random", "--run", run, "--like", other)


@pytest.fixture
def shipped_records(shell, monkeypatch):
    monkeypatch.setattr(collect, "SHIPPED", curves.SHIPPED)


@pytest.mark.usefixtures("shipped_records")
def test_what_would_be_run_is_listed_without_running(shell, tmp_path, capsys):
    shell(reproduce, "tune", "--embedding", "uniform", "--dry-run")
    shell(reproduce, "compare", "--scheme", "imp", "--scheme", "imp", "--seeds", 3, 3, "--dry-run")
    said = capsys.readouterr().out.splitlines()
    lines = [line.partition(" (about")[0] for line in said]  # by the shipped records
    assert said[0].startswith("4 runs missing, about ")
    assert lines[1] == "  fm uniform latent_dim=2 l2_regularization=1e-05 seed 1"
    assert said[-3].startswith("2 runs missing, about ")
    assert lines[-2:] == ["  fm imp retrain_emb_param=300 seed 3",
                          "  fm imp retrain_emb_param=100 seed 3"]
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "embedding").exists()


def test_the_times_of_table_2_are_measured_once(shell, tmp_path, capsys):
    shell(reproduce, "table2", "--dry-run")
    assert "1 run missing" in capsys.readouterr().out
    shell(reproduce, "table2")
    assert "epoch_movielens" in (tmp_path / "figures" / "table2_movielens.csv").read_text()
    record = tmp_path / "benchmarks" / "epoch_movielens.json"
    before = record.read_bytes()
    capsys.readouterr()
    shell(reproduce, "table2")
    assert capsys.readouterr().out.splitlines()[0] == "nothing is missing"
    assert record.read_bytes() == before
    record.write_bytes(before[:100])
    shell(reproduce, "table2")
    assert len(record.read_bytes()) > 500


def test_the_runs_behind_every_page_are_made_once_and_the_pages_are_written(shell, tmp_path,
                                                                            monkeypatch, capsys):
    monkeypatch.setitem(planned_runs.SHOWN, "movielens", 100)
    monkeypatch.setattr(schemes, "GRIDS", dict.fromkeys(schemes.PRUNED))
    # FM has no layers: left out
    few = [(Choice(emb_rank=2), FineTuning()), (Choice(mlp_rank=2), FineTuning())]
    monkeypatch.setattr(afm_runs, "STUDY", few)
    monkeypatch.setattr(afm, "BATCHES", (1,))
    monkeypatch.setattr(planned_runs, "UMEC_STEPS", 8)
    monkeypatch.setattr(planned_runs, "UMEC_FIGURES",
                        {"umec-fig2": (True, ("umec", "magnitude", "dense"), (0.5,)),
                         "umec-fig3": (False, ("umec", "group-lasso", "dense"), (0.9,))})

    def runs():
        return {path.parent.name for path in (tmp_path / "runs").glob("*/result.json")}

    for page in reproduce.PAGES:
        # has no runs; has budgets for a real table; is of another data set
        if page in ("table2", "waterline", "starts", "leaderboard"):
            continue
        # one seed has nothing to be compared with
        words = (page, "--seeds", 1, *([2] if page == "stability" else []))
        before = runs()
        shell(reproduce, *words)
        said = capsys.readouterr().out.splitlines()
        [text] = (tmp_path / "figures").glob(f"{page}_movielens*.md")
        table = text.with_suffix(".csv")
        assert {str(text), str(table)} <= set(said)
        every = runs()
        assert any(name in table.read_text() for name in every)
        shell(reproduce, *words, "--dry-run")
        assert capsys.readouterr().out.splitlines()[0] == "nothing is missing"
        if every == before:  # they are those of the pages above
            continue
        gone = min(every - before)
        (tmp_path / "runs" / gone / "result.json").unlink()
        shell(reproduce, *words, "--dry-run")
        assert "missing" in (said := capsys.readouterr().out)
        assert "nothing" not in said
        shell(reproduce, *words)
        assert runs() == every
        capsys.readouterr()


def test_the_report_is_one_file_with_what_there_is_and_what_there_is_not(shell, tmp_path,
                                                                         monkeypatch):
    monkeypatch.setitem(planned_runs.SHOWN, "movielens", 100)
    shell(reproduce, "fig11", "--seeds", 1)
    shell(reproduce, "report")
    content = (tmp_path / "report.html").read_text()
    assert content.count("data:image/png;base64,") >= 1
    assert "http" not in content
    assert "What has not been run" in content
    assert "viewport" in content


def test_the_cost_of_everything_is_told_by_model_without_training(shell, tmp_path, monkeypatch,
                                                                  capsys):
    monkeypatch.setattr(names, "MODELS", ("fm",))
    monkeypatch.setattr(planned_runs, "PAGES", {"fig11": None, "table3": None})
    monkeypatch.setattr(schemes, "GRIDS", {"uniform": {"latent_dim": [4]}})
    shell(reproduce, "fig11", "--seeds", 1)
    made = sorted((tmp_path / "runs").iterdir())
    capsys.readouterr()
    shell(reproduce, "plan", "--seeds", 1)
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["data", "set", "model", "device"]
    # a uniform table of width 4 (Figure 11's own, too), the search, LR for the data: two of three
    # are there
    assert line.split()[-5:-3] == ["4", "3"]
    assert sorted((tmp_path / "runs").iterdir()) == made


def test_the_cost_of_all_data_sets_skips_a_model_whose_training_is_not_chosen(shell, monkeypatch,
                                                                              capsys):
    monkeypatch.setattr(names, "MODELS", ("fm", "autoint"))
    monkeypatch.setattr(run_figures, "PRESETS", {"movielens": None, "frappe": None})
    monkeypatch.setattr(planned_runs, "everything", lambda given: [])
    monkeypatch.setattr(recipes, "require", require_fm_alone)
    shell(reproduce, "plan", "--dataset", "all", "--seeds", 1)
    skipped, _, *lines = capsys.readouterr().out.splitlines()
    assert skipped == "skipped: frappe (how autoint is trained is not chosen)"
    assert [line.split()[:2] for line in lines] == [
        ["movielens", "fm"], ["movielens", "autoint"], ["frappe", "fm"]]


def require_fm_alone(out, dataset, *models):
    if dataset == "frappe" and "autoint" in models:
        raise FileNotFoundError("how autoint is trained is not chosen")


def test_the_report_of_nothing_says_so(shell, tmp_path):
    shell(reproduce, "report")
    assert "Nothing has been run yet" in (tmp_path / "report.html").read_text()


def test_without_a_word_it_says_what_it_can_do(shell, capsys):
    shell(reproduce)
    assert "reproduce.py tune" in capsys.readouterr().out


@pytest.mark.parametrize(("what", "same"),
                         [("fig3", ("fig2", "criteo")), ("fig4", ("fig2", "avazu")),
                                            ("fig9", ("fig8", "avazu"))])
def test_figures_of_other_data_go_by_their_own_number_too(shell, capsys, what, same):
    shell(reproduce, what, "--dry-run")
    own = capsys.readouterr().out
    shell(reproduce, same[0], "--dataset", same[1], "--dry-run")
    assert own == capsys.readouterr().out
    with pytest.raises(ValueError, match=f"{what} is {same[0]} of {same[1]}; for movielens ask for "
                                         f"{same[0]} --dataset movielens"):
        shell(reproduce, what, "--dataset", "movielens")


@pytest.mark.parametrize("what", ["report", "fig11", "plan"])
def test_an_output_folder_that_cannot_be_written_to_is_named_before_anything_is_run(shell, tmp_path,
                                                                                    monkeypatch,
                                                                                    what):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["reproduce.py", what, "--out", str(tmp_path / "file" / "out")])
    with pytest.raises(OSError, match=r"cannot write to the folder .*file/out .*; choose another "
                                      r"with --out"):
        reproduce.main()


def test_a_half_written_result_says_which_file_and_is_rebuilt_when_it_is_deleted(shell, tmp_path,
                                                                                 capsys):
    shell(reproduce, "table3", "--seeds", 1)
    [result] = (tmp_path / "runs").glob("*/result.json")
    whole = json.loads(result.read_text())
    result.write_text(result.read_text()[:200])
    with pytest.raises(ValueError,
                       match=r"result\.json is corrupt .*; delete it, or run again with --force"):
        shell(reproduce, "table3", "--seeds", 1)
    result.unlink()
    shell(reproduce, "table3", "--seeds", 1)
    assert tiny.without_times(json.loads(result.read_text())) == tiny.without_times(whole)


def test_schemes_that_are_not_tuned_are_left_out_and_named(shell, capsys):
    shell(reproduce, "compare", "--seeds", 1, "--dry-run")
    said = capsys.readouterr().out
    for scheme in ("uniform", "darts"):
        assert (
            f"left out, because it is not tuned: {scheme} (python reproduce.py tune --embedding "
            f"{scheme})"
            in said
        )
    assert "fm pep retrain_emb_param=100 seed 1" in said


def test_finished_runs_are_not_named_one_by_one(shell, caplog):
    shell(reproduce, "tune", "--embedding", "uniform")
    with caplog.at_level(logging.INFO, "pep"):
        shell(reproduce, "compare", "--scheme", "uniform", "--seeds", 1, "--dry-run")
    assert not caplog.records


def test_a_comparison_without_a_tuning_says_what_to_do(shell):
    with pytest.raises(FileNotFoundError,
                       match=r"run `python reproduce\.py tune` for this scheme first"):
        shell(reproduce, "compare", "--scheme", "uniform")


def test_the_scripts_run_what_was_tuned(shell, tmp_path, monkeypatch, capsys):
    shell(reproduce, "tune", "--embedding", "uniform")
    monkeypatch.setattr(train_movielens, "SETTINGS", {**tiny.SETTINGS, "max_epochs": 1})
    made = len(results_in(tmp_path))
    shell(train_movielens, "--embedding", "uniform", "--tuned", SIZE - 1)
    [chosen, _] = json.loads((tmp_path / "tuned"
                              / "movielens_fm_uniform.json").read_text())["chosen"]
    assert f"{chosen['num_embedding_params']:,}" in capsys.readouterr().out
    assert len(results_in(tmp_path)) == made  # it is the very run of the tuning, as long too
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "tuned").rename(tmp_path / "shipped")
    shell(train_movielens, "--embedding", "uniform", "--tuned", SIZE - 1)
    assert len(results_in(tmp_path)) == made
    shell(train_movielens, "--embedding", "uniform", "--tuned", SIZE - 1, "--set", "max_epochs=2")
    assert len(results_in(tmp_path)) == made + 1


def test_the_scripts_search_and_retrain_as_pep_was_tuned(shell, tmp_path, monkeypatch):
    monkeypatch.setattr(schemes, "GRIDS", {"pep": {"threshold_init": [-2.5, -2.4]}})
    shell(reproduce, "tune", "--embedding", "pep", "--trials", 4)
    path = tmp_path / "tuned" / "movielens_fm_pep.json"
    written = json.loads(path.read_text())
    written["chosen"] = [trial for trial in written["trials"]
                         if trial["settings"]["threshold_init"] == -2.4]
    path.write_text(json.dumps(written))
    search = PRESETS["movielens"]
    monkeypatch.setattr(train_movielens, "SETTINGS", search)
    monkeypatch.setattr(train_movielens_retrain, "SETTINGS",
                        {**search, **schemes.LONG, "retrain_emb_param": "all"})
    made = len(results_in(tmp_path))
    shell(train_movielens, "--tuned", 100)
    shell(train_movielens_retrain, "--tuned", 100)
    assert len(results_in(tmp_path)) == made


OWN_TABLE = {"label": "", "split": "auto", "eval_interval": 2, "lr": 1e-3}


def tuned_file(out, name, settings, training=()):
    (out / "tuned").mkdir(exist_ok=True)
    trial = {"settings": settings, "training": dict(training), "num_embedding_params": 100}
    (out / "tuned" / f"{name}.json").write_text(json.dumps({"trials": [trial], "chosen": [trial]}))


def read_tuned(out, script, *words, retraining=False):
    variants, usual = scripts._variants(script, retraining), scripts._usual(script)
    options = script_options.parser("about", variants, retraining, "label" in script)
    given = options.parse_args(["--tuned", "100", "--out", str(out), *words])
    return script_options.read(given, script, variants, usual)


def test_what_was_tuned_on_another_data_set_than_the_scripts_is_trained_as_it_was(tmp_path):
    tuned_file(tmp_path, "recipe_frappe_fm", {"lr": 0.01, "ema": 0.99, "latent_dim": 10})
    tuned_file(tmp_path, "frappe_fm_pep", {"threshold_init": -8.0, "retrain_emb_param": 100},
               {"candidate_p": [300, 100], "lr": 0.01})
    data = ("--data", str(tmp_path / "frappe"))
    settings, context, _ = read_tuned(tmp_path, OWN_TABLE, *data)
    assert settings.data.dataset == "frappe"
    assert settings.search.candidate_p == (300, 100)
    train = settings.train
    assert (train.lr, train.eval_interval, train.max_epochs, train.ema) == (0.01, 1, 150, 0)
    assert context.alias == "frappe_pep_threshold_init_-8.0_d64_seed1"
    settings, context, decisive = read_tuned(tmp_path, OWN_TABLE, *data, retraining=True)
    train = settings.train
    assert (train.lr, train.eval_interval, train.max_epochs, train.ema) == (0.01, 1, 300, 0.99)
    assert context.alias == "frappe_pep_threshold_init_-8.0_d64_seed1"
    assert "threshold_init" in decisive


def test_what_departs_from_the_tuned_settings_has_another_name(tmp_path):
    tuned_file(tmp_path, "movielens_fm_pep", {"threshold_init": -8.0, "retrain_emb_param": 100})
    own = PRESETS["movielens"]
    assert read_tuned(tmp_path, own)[1].alias == "movielens_pep_threshold_init_-8.0_d64_seed1"
    assert read_tuned(tmp_path, own, "--set", "lr=0.01")[1].alias == (
        "movielens_pep_lr_0.01_threshold_init_-8.0_d64_seed1")
    assert read_tuned(tmp_path, own, "--set", "threshold_init=-6")[1].alias == (
        "movielens_pep_threshold_init_-6.0_d64_seed1")
    assert "published" in read_tuned(tmp_path, own, "--published")[1].alias


def test_fewer_trials_than_there_were_are_refused(shell):
    shell(reproduce, "tune", "--embedding", "uniform", "--trials", 4)
    with pytest.raises(ValueError, match=r"movielens_fm_uniform\.json holds 4 trials, more than "
                                         r"these 2; move it away first"):
        shell(reproduce, "tune", "--embedding", "uniform", "--trials", 2)


def test_a_tuning_without_trials_is_corrupt(shell, tmp_path):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "movielens_fm_uniform.json").write_text('{"chosen": []}')
    with pytest.raises(ValueError,
                       match=r"movielens_fm_uniform\.json is corrupt \(no trials under 'chosen'\)"):
        shell(reproduce, "compare", "--scheme", "uniform")


@pytest.mark.usefixtures("shipped_records")
def test_shipped_settings_and_times_are_used(shell, tmp_path, monkeypatch, capsys):
    shell(reproduce, "tune", "--embedding", "uniform")
    (tmp_path / "tuned").rename(tmp_path / "shipped")
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "shipped")
    capsys.readouterr()
    shell(reproduce, "compare", "--scheme", "uniform", "--scheme", "lr", "--seeds", 7, "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 runs missing, about ")
    assert [line.partition(" (about ")[0].split()[:2] for line in lines[1:]] == [
        ["fm", "uniform"], ["fm", "uniform"], ["linear", "lr"]]
    assert all("(about" in line for line in lines[1:])  # LR by the shipped records, nobody ran it


@pytest.mark.parametrize("page", reproduce.OF_EVERY_MODEL)
def test_a_page_that_is_of_no_single_model_takes_none(page, capsys):
    with pytest.raises(SystemExit):
        reproduce.read([page, "--model", "deepfm"])
    assert "unrecognized arguments: --model deepfm" in capsys.readouterr().err
    assert reproduce.read([page]).model == "fm"
