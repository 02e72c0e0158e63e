"""The scripts as a user runs them, on a small made folder: a few real processes, the rest in this
one."""

import contextlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from makers import tree, write_movielens
from shipped import ROOT, train_movielens, train_movielens_retrain

from engine import cli, snapshots, stages
from studies import published, script_options, scripts

BASELINE = ("latent_dim=8", "max_epochs=2", "eval_interval=1", "batch_size=256")
QUICK = (*BASELINE, "candidate_p=[400, 150]")
QUIET = "tensorboard=false"
CROSSING = ("threshold_init=-3", "lr=0.02", "log_interval=1", "candidate_p=[1500, 1200, 900]",
            "max_epochs=6")
ALIAS = ("movielens_pep_batch_size_256_candidate_p_400-150_eval_interval_1_max_epochs_2"
         "_d8_seed1")
FULL = OSError(28, "No space left on device")
KEYS = {"run_id", "stage", "seed", "settings", "identity", "manifest", "data", "stop_reason",
        "epochs", "steps", "selected_epoch", "validation_auc", "validation_logloss", "test_auc",
        "test_logloss", "published_protocol", "train_loss", "num_embedding_params",
        "inference_bytes", "num_embedding_params_dense", "seconds_per_epoch", "samples_per_second",
        "seconds", "processor_seconds", "peak_memory_bytes", "commit", "versions",
        "device", "threads"}


def sets(*assignments):
    return [f"--set={assignment}" for assignment in assignments]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The sources alone, as a fresh clone has them: no data, no cache, no results."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("data", "models", "engine", "compression", "studies", "utils"):
        shutil.copytree(ROOT / name, folder / name,
                        ignore=shutil.ignore_patterns("cache", "ml-1m", "criteo", "avazu"))
    # the shipped dicts may have been edited
    for name, call, preset in (("train_movielens", "search", "PRESETS"),
                               ("train_movielens_retrain", "retrain", "RETRAIN")):
        (folder / f"{name}.py").write_text(
            "from studies import published, scripts\n"
            # processes of --jobs import the script
            "if __name__ == '__main__':\n"
            f"    scripts.{call}('', published.{preset}['movielens'])\n")
    return folder


def process(clone, script, *arguments, cwd=None):
    return subprocess.run([sys.executable, str(clone / script), *arguments], cwd=cwd or clone,
                          capture_output=True,
                          text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def finished(clone, made_data, tmp_path_factory):
    """A search by a process of a fresh clone that was started in another folder, and a retraining
    of all its snapshots in this process."""
    cwd = tmp_path_factory.mktemp("work")
    search = process(clone, "train_movielens.py", "--data", str(made_data), *sets(*QUICK), cwd=cwd)
    assert search.returncode == 0, search.stderr
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.chdir(cwd)
        patch.setenv("PEP_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-scripts"))
        patch.setattr(sys, "argv", ["x", "--data", str(made_data), *sets(*QUICK, QUIET),
                                    "--jobs", "1"])
        cli.main(train_movielens_retrain.main)
    return {"out": cwd / "tmp", "cwd": cwd, "search": search.stdout, "retrain": said.getvalue()}


class Shell:
    """Runs the scripts in this process with fixed --data, --out and quick settings."""

    def __init__(self, out, data, monkeypatch, capsys):
        self.out, self.data, self.monkeypatch, self.capsys = out, str(data), monkeypatch, capsys

    def __call__(self, script, *arguments, quick=True):
        """(exit code, standard output, standard error)."""
        words = [*sets(*QUICK, QUIET)] if quick else []
        self.monkeypatch.setattr(sys, "argv", ["x", "--data", self.data, "--out", str(self.out),
                                               *words, *arguments])
        code = 0
        try:
            cli.main(script.main)
        except SystemExit as stop:
            code = stop.code
        return (code, *self.capsys.readouterr())

    def search(self, *arguments, **options):
        return self(train_movielens, *arguments, **options)

    def retrain(self, *arguments, quick=True):
        words = sets(*BASELINE, QUIET) if quick else []
        return self(train_movielens_retrain, "--jobs", "1", *words, *arguments, quick=False)

    def results(self, stage=None):
        found = [json.loads(path.read_text())
                 for path in sorted(self.out.glob("runs/*/result.json"))]
        return {result["run_id"]: result for result in found if stage in (None, result["stage"])}

    def alias(self, name=None, model="fm"):
        """A folder of snapshots; without a name the only one, or that of the quick settings."""
        searched = list((self.out / "embedding" / model).glob("*"))
        if name is None:
            name = searched[0].name if len(searched) == 1 else ALIAS
        return self.out / "embedding" / model / name


@pytest.fixture
def shell(tmp_path, made_data, monkeypatch, capsys, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "cache-of-scripts"
    monkeypatch.setenv("PEP_CACHE", str(cache))
    return Shell(tmp_path / "out", made_data, monkeypatch, capsys)


@pytest.fixture
def after(shell, finished):
    """A shell whose output folder holds the finished search and retrain."""
    shutil.copytree(finished["out"], shell.out)
    return shell


def stored(shell):
    """The files of searches and runs; figures are drawn from all of them, so every script may draw
    them anew."""
    return {name: stamp for name, stamp in tree(shell.out).items()
            if not name.startswith("figures/") and not name.endswith("/.lock")}


def result_of(shell, count):
    return next(r for r in shell.results("retrain").values() if r["num_embedding_params"] == count)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# search, then retrain


def test_search_leaves_the_snapshots_at_their_budgets_beside_the_initial_table(finished):
    folder = finished["out"] / "embedding" / "fm" / ALIAS
    assert names(folder) == ["150.magnitude.npz", "150.npz", "400.magnitude.npz", "400.npz",
                             "initial.npz", "search.json"]
    initial, others = snapshots.read(folder / "initial.npz")
    assert {name: array.size for name, array in others.items()} == {"linear.layer.bias": 1,
                                                                    "linear.layer.fc.weight": len(
                                                                        initial.table)}
    bound = math.sqrt(6 / sum(initial.table.shape))
    assert 0.9 * bound < abs(initial.table).max() <= bound
    for count in (400, 150):
        snapshot, _ = snapshots.read(folder / f"{count}.npz")
        assert snapshot.num_params() == count
        assert snapshot.meta["source"] == "cut_last"
        assert 0 < snapshot.meta["without_retraining"]["test_auc"] < 1
        assert snapshot.table.shape == initial.table.shape


def test_every_run_has_its_own_folder_and_nothing_is_left_beside_the_results(finished):
    assert names(finished["cwd"]) == ["tmp"]
    assert set(names(finished["out"])) - {"figures"} == {"embedding", "runs"}
    assert names(finished["out"] / "embedding" / "fm") == [ALIAS]
    folders = list((finished["out"] / "runs").iterdir())
    assert len(folders) == 3
    for folder in folders:
        stage = json.loads((folder / "result.json").read_text())["stage"]
        assert {path.name for path in folder.iterdir()} - {".lock"} == {
            "curve.jsonl", "result.json",
            *(["tensorboard", "feature_counts.npy"] if stage == "search" else
                                            ["model.safetensors"])}
    assert len(list(finished["out"].glob("runs/*/tensorboard/search_fm_pep_seed1/events.*"))) == 1


def test_results_say_everything(after):
    results = after.results()
    assert sorted((result["stage"], result["num_embedding_params"])
                  for result in results.values())[:2] == [
        ("retrain", 150), ("retrain", 400)]
    for run_id, result in results.items():
        assert set(result) >= KEYS
        assert result["run_id"] == run_id
        assert result["seed"] == 1
        assert result["settings"]["latent_dim"] == 8
        assert result["settings"]["embedding"] == ("pep" if result["stage"] == "search"
                                                   else "masked")
        assert (result["stop_reason"], result["epochs"], result["steps"]) == ("max_epochs", 2, 16)
        assert result["num_embedding_params_dense"] == 8 * len(snapshots.read(after.alias()
                                                                              / "400.npz")[0].table)
        assert 0 < result["test_auc"] < 1
        assert 0 < result["validation_auc"] < 1
        assert 0 < result["test_logloss"] < 9
        assert 0 < result["seconds_per_epoch"] < result["seconds"]
        assert 0 < result["processor_seconds"] < 2 * result["threads"] * result["seconds"]
        assert result["samples_per_second"] == pytest.approx(1965 / result["seconds_per_epoch"])
        # of tensors alone where a GPU computes
        assert result["peak_memory_bytes"] > (0 if torch.cuda.is_available() else 50 * 2**20)
        assert result["threads"] == 1
        assert set(result["published_protocol"]) == {"best_test_auc", "best_test_logloss",
                                                     "patience"}
    search, = after.results("search").values()
    assert search["snapshots"] == ["400", "150", "400.magnitude", "150.magnitude"]
    assert search["budgets_not_reached"] == [400, 150]
    assert search["alias"] == ALIAS


def test_the_curve_has_one_line_an_evaluation_and_agrees_with_the_result(after):
    for run_id, result in after.results().items():
        lines = [json.loads(line)
                 for line in (after.out / "runs" / run_id / "curve.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
        assert [line["step"] for line in lines] == [8, 16]
        assert set(lines[0]) >= {"train_loss", "validation_auc", "validation_logloss", "test_auc",
                                 "test_logloss", "num_embedding_params"}
        protocol = result["published_protocol"]
        assert protocol["best_test_auc"] == max(line["test_auc_mean_of_batches"] for line in lines)
        assert protocol["best_test_logloss"] == min(line["test_logloss"] for line in lines)
        selected = next(line for line in lines if line["epoch"] == result["selected_epoch"])
        assert result["test_auc"] == pytest.approx(selected["test_auc"])
        if result["stage"] == "retrain":
            assert selected["validation_auc"] == max(line["validation_auc"] for line in lines)
        else:
            assert selected is lines[-1]


def test_the_table_on_standard_output_has_one_line_a_result(finished, after):
    dense = f"{result_of(after, 400)['num_embedding_params_dense']:,}"
    search, retrain = finished["search"].splitlines(), finished["retrain"].splitlines()
    # ! after so short a search
    heads = [line.split()[0] for line in search if not line.startswith("!")]
    assert heads == ["stage", "search", "*", "snapshots:", "to"]
    folder, command = (line.partition(": ")[2] for line in search[-2:])
    assert (finished["cwd"] / folder / "400.npz").exists()
    words = command.split()
    assert words[0] == "python"
    assert words[1].endswith("train_movielens_retrain.py")
    assert words[2:6] == ["--model", "fm", "--alias", ALIAS]
    assert words[6] == "--data"
    assert [line.split()[:3] for line in retrain[1:3]] == [["retrain", "400†", dense],
                                                           ["retrain", "150†", dense]]
    assert {line.split()[-1] for line in (search[1], *retrain[1:3])} == set(after.results())


def test_budgets_as_reached_bear_their_own_count_and_are_found_by_budget(shell):
    assert shell.search(*sets(*CROSSING, "budget=as_reached"))[0] == 0
    counts = [int(name) for name in snapshots.names(shell.alias())]
    assert all(count <= budget for count, budget in zip(counts, (1500, 1200, 900), strict=True))
    assert counts != [1500, 1200, 900]
    assert shell.retrain(*sets("retrain_emb_param=1200"))[0] == 0
    retrained, = shell.results("retrain").values()
    assert retrained["num_embedding_params"] == counts[1]
    assert retrained["snapshot"]["source"] == "reached"


def test_budgets_that_were_not_reached_as_reached_are_named(shell, caplog):
    assert shell.search(*sets(*CROSSING, "budget=as_reached", "candidate_p=[1500, 3]",
                              "max_epochs=1"))[0] == 0
    result, = shell.results().values()
    assert result["budgets_not_reached"] == [3]
    assert len(result["snapshots"]) == 1
    assert "[3]" in "".join(record.getMessage() for record in caplog.records if record.levelname
                            == "WARNING")


@pytest.mark.parametrize(("arguments", "params"),
                         [(("--model", "linear"), 0), (("--embedding", "uniform"), None)])
def test_baselines_are_trained_and_leave_no_snapshots(shell, arguments, params):
    own = BASELINE[1:] if "linear" in arguments else BASELINE  # it has no width
    code, out, _ = shell.search(*arguments, *sets(*own, QUIET), quick=False)
    result, = shell.results().values()
    assert code == 0
    assert result["stage"] == out.splitlines()[1].split()[0] == "train"
    assert result["num_embedding_params"] == (result["num_embedding_params_dense"] if params is None
                                              else params)
    assert not (shell.out / "embedding").exists()


def test_retrain_takes_model_settings_from_the_search(shell):
    assert shell.search("--model", "deepfm", "--alias", "mine",
                        *sets("mlp_dims=[7]", "candidate_p=[300]"))[0] == 0
    code, _, error = shell.retrain("--model", "deepfm", "--alias", "mine")
    assert code == 0, error
    result, = shell.results("retrain").values()
    assert result["settings"]["mlp_dims"] == [7]
    assert result["num_embedding_params"] == 300


# again


def test_what_is_finished_is_not_run_again_even_in_another_process(after):
    before = stored(after)
    code, out, _ = after.search()
    assert code == 0
    assert next(iter(after.results("search"))) in out
    assert after.retrain()[0] == 0
    assert stored(after) == before


def test_force_runs_again_and_gives_the_same_result(after):
    before, times = after.results(), stored(after)
    assert after.search("--force")[0] == 0
    assert after.retrain("--force")[0] == 0
    assert set(after.results()) == set(before)
    for run_id, result in after.results().items():
        name = f"runs/{run_id}/result.json"
        assert stored(after)[name][1] > times[name][1]
        assert (result["test_auc"], result["train_loss"]) == (before[run_id]["test_auc"],
                                                              before[run_id]["train_loss"])
    for name in ("400.npz", "150.npz", "initial.npz"):
        path = f"embedding/fm/{ALIAS}/{name}"
        assert stored(after)[path][1] > times[path][1]


@pytest.mark.slow  # each process imports torch; test_jobs.py has a smaller case
def test_retraining_side_by_side_gives_the_same_results(after):
    before = after.results("retrain")
    assert len(before) == 2
    assert after(train_movielens_retrain, "--force")[0] == 0  # a process a core
    found = after.results("retrain")
    assert {run_id: tiny.without_times(result) for run_id, result in found.items()} == {
        run_id: tiny.without_times(result) for run_id, result in before.items()}
    assert all(result["seconds"] != before[run_id]["seconds"] for run_id, result in found.items())


def test_a_new_alias_gets_copies_without_training(after):
    before = stored(after)
    assert after.search("--alias", "mine")[0] == 0
    assert set(before.items()) <= set(stored(after).items())
    assert names(after.alias("mine")) == names(after.alias())
    for name in ("400.npz", "150.npz", "400.magnitude.npz", "150.magnitude.npz", "initial.npz"):
        assert (after.alias("mine") / name).read_bytes() == (after.alias() / name).read_bytes()
    assert after.retrain("--alias", "mine")[0] == 0
    assert len(after.results()) == 3


def test_a_search_whose_snapshots_are_gone_is_run_again(after, caplog):
    before = (after.alias() / "150.npz").read_bytes()
    (after.alias() / "150.npz").unlink()
    assert after.search()[0] == 0
    assert "snapshots are no longer in" in caplog.text
    assert (after.alias() / "150.npz").read_bytes() == before


# refused before any data is read


REFUSED = {
    "unknown setting": (sets("laten_dim=8"), "did you mean 'latent_dim'"),
    "another embedding's": (sets("mgqe_centroids=512"), "or add --embedding mgqe"),
    "no sign": (sets("latent_dim"), "--set takes key=value, got 'latent_dim'"),
    "model": (["--model", "deepfn"], "unknown model 'deepfn'; did you mean 'deepfm'?"),
}


@pytest.mark.parametrize("script", [train_movielens, train_movielens_retrain])
def test_settings_are_listed_as_the_run_would_have_them(shell, script):
    code, out, _ = shell(script, "--model", "deepfm", "--set", "lr=0.5", "--settings", quick=False)
    assert code == 0
    assert "  lr = 0.5 (default 0.001; >= 0): learning rate\n" in out
    assert "  model = deepfm (" in out
    assert not shell.out.exists()


@pytest.mark.parametrize("script", [train_movielens, train_movielens_retrain])
@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_setting_is_refused_before_data_or_snapshots_are_looked_for(shell, script, what):
    arguments, message = REFUSED[what]
    shell.data = "/nonexistent"
    code, out, error = shell(script, *arguments)
    assert (code, out, len(error.splitlines())) == (2, "", 1)
    assert error.startswith("error: ")
    assert message in error
    assert not shell.out.exists()


EARLY = {
    "masked": (["--embedding", "masked"], "use the retrain script"),
    "no budget": (sets("candidate_p=[]"), "candidate_p is empty"),
    "alias with a path": (["--alias", "../mine"],
                          "--alias must be a plain folder name, got '../mine'"),
    "alias of dots": (["--alias", ".."], "--alias must be a plain folder name"),
    "alias of a training": (["--embedding", "uniform", "--alias", "mine"],
                            "--alias is of a search's folder of snapshots, and uniform makes none"),
    "negative seed": (["--seed", "-1"], "must lie between 0 and 2^63 - 1, got -1"),
    "empty alias": (["--alias", ""], "--alias must be a plain folder name"),
}


@pytest.mark.parametrize("what", EARLY)
def test_what_needs_no_data_to_be_refused_is_refused_before_data_is_looked_for(shell, what):
    arguments, message = EARLY[what]
    shell.data = "/nonexistent"
    code, _, error = shell.search(*arguments)
    assert code == 2
    assert message in error


def test_cuda_asked_for_and_absent_is_refused_before_data_is_looked_for(shell, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shell.data = "/nonexistent"
    code, _, error = shell.search("--device", "cuda")
    assert code == 2
    assert error.startswith("error: --device cuda was asked for, but torch")


def test_an_output_folder_that_cannot_be_written_is_refused_before_data_is_looked_for(shell,
                                                                                      tmp_path):
    (tmp_path / "file").write_text("x")
    shell.data, shell.out = "/nonexistent", tmp_path / "file" / "out"
    code, _, error = shell.search()
    assert code == 2
    assert error.startswith(f"error: cannot write to the folder {shell.out}")
    assert "--out" in error


def test_absent_data_is_an_error_that_names_the_folder_and_the_files(shell):
    shell.data = "/nonexistent"
    code, _, error = shell.search()
    assert code == 2
    assert "--data: /nonexistent lacks ratings.dat, users.dat, movies.dat" in error
    assert "demo.py" in error


def test_budgets_beyond_the_table_are_skipped_aloud_and_an_error_when_none_remains(shell, caplog):
    code, _, error = shell.search(*sets("candidate_p=[90000, 80000]"))
    assert code == 2
    assert (
        "no budget of candidate_p [90000, 80000] lies within the table's 2280 parameters" in error)
    assert shell.search(*sets("candidate_p=[90000, 300]"))[0] == 0
    assert "are skipped: [90000]" in caplog.text
    assert snapshots.names(shell.alias()) == ["300", "300.magnitude"]


@pytest.mark.parametrize("script", ["train_movielens", "train_movielens_retrain"])
def test_help_shows_options_and_examples(monkeypatch, capsys, script):
    module = {"train_movielens": train_movielens,
              "train_movielens_retrain": train_movielens_retrain}[script]
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main(module.main)
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(option in shown for option in ("--set", "--seed", "--data", "--device", "--alias",
                                              "--out", "--force"))
    examples = [line for line in module.__doc__.splitlines() if f"python {script}.py" in line]
    assert len(examples) >= 3
    assert all(line in shown.splitlines() for line in examples)


def test_published_means_the_published_protocol_but_for_what_the_user_sets(caplog):
    variants, preset = published.VARIANTS["movielens"], published.PRESETS["movielens"]
    parser = script_options.parser("", variants)
    options = parser.parse_args(["--published", *sets("early_stop=3", "latent_dim=64")])
    with caplog.at_level("INFO", "pep"):
        settings, _, explicit = script_options.read(options, preset, variants, preset)
    assert "but for the random numbers" in caplog.text  # what it cannot reproduce
    train, search = settings.train, settings.search
    assert (train.eval_interval, train.early_stop, train.log_interval) == (5, 3, 1)
    assert (train.early_stop_metric, search.budget) == ("published_protocol", "as_reached")
    assert (search.candidate_p, settings.model.latent_dim) == ((50_000, 30_000, 20_000), 64)
    assert explicit == {"early_stop", "latent_dim"}
    assert "published" in stages.alias_folder(Path("tmp"), settings, 1, None).name
    options = parser.parse_args(["--published"])
    settings, _, _ = script_options.read(options, preset, variants, preset)
    assert (settings.train.early_stop, settings.model.latent_dim) == (40, 32)
    settings, _, _ = script_options.read(parser.parse_args([]), preset, variants, preset)
    assert (settings.train.eval_interval, settings.train.early_stop) == (2, 8)


# snapshots that are absent, corrupt or of something else


def test_a_snapshot_that_does_not_exist_is_an_error_that_lists_the_existing_ones(after):
    code, _, error = after.retrain(*sets("retrain_emb_param=7"))
    assert code == 2
    assert "there is no snapshot 7 in" in error
    assert "there are: 400, 150, 400.magnitude, 150.magnitude" in error


def test_a_search_that_does_not_exist_is_an_error_that_lists_the_existing_ones(after):
    code, _, error = after.retrain("--seed", "9")
    assert code == 2
    assert "there is no search in" in error
    assert "movielens_pep_d8_seed9" in error
    assert f"there are: {ALIAS})" in error


def test_snapshots_of_other_data_are_refused(after, tmp_path):
    after.data = str(write_movielens(tmp_path / "other", seed=1))
    before = stored(after)
    code, _, error = after.retrain()
    assert code == 2
    assert "were made from other data" in error
    assert stored(after) == before


@pytest.mark.parametrize("name", ["150.npz", "400.npz", "initial.npz"])
@pytest.mark.parametrize("damage", ["noise", "cut off"])
def test_a_corrupt_snapshot_is_refused_before_anything_is_trained(after, name, damage):
    path = after.alias() / name
    path.write_bytes(b"noise" if damage == "noise" else path.read_bytes()[:-30])
    before = stored(after)
    code, _, error = after.retrain("--force")
    assert code == 2
    assert f"{name} is corrupt" in error
    assert "run the search again" in error
    assert stored(after) == before


def test_an_initial_table_that_is_gone_is_refused_before_anything_is_trained(after):
    (after.alias() / "initial.npz").unlink()
    before = stored(after)
    code, _, error = after.retrain("--force")
    assert code == 2
    assert "initial.npz" in error
    assert "run the search again" in error
    assert stored(after) == before


@pytest.mark.parametrize(("assignment", "had"), [("latent_dim=32", "8"), ("model=deepfm", None),
                                                 ("gk=2.0", "1.0"), ("with_ids=true", "False"),
                                                 ("threshold_type=field", "'feature_dim'"),
                                                 ("embedding=uniform", "'pep'")])
def test_a_setting_that_contradicts_the_search_is_refused(after, assignment, had):
    before = stored(after)
    code, _, error = after.retrain("--alias", ALIAS, *sets(assignment))
    assert code == 2
    if had is None:
        assert "there is no search in" in error
    else:
        assert f"was given, but the snapshot was made with {had}" in error
        assert assignment.partition("=")[0] in error
    assert stored(after) == before


# one search's files are never another's


def only(files, part):
    return {name: stamp for name, stamp in files.items() if part(name)}


def test_two_seeds_share_no_file(after):
    before = stored(after)
    assert after.search("--seed", "2")[0] == 0
    assert after.retrain("--seed", "2")[0] == 0
    files = stored(after)
    assert only(files, before.__contains__) == before
    assert len(after.results()) == 6
    assert names(after.out / "embedding" / "fm") == [
        ALIAS, ALIAS.replace("seed1", "seed2")]
    masks = {snapshots.mask_hash(snapshots.read(after.alias(alias) / "400.npz")[0])
             for alias in names(after.out / "embedding/fm")}
    assert len(masks) == 2


def test_another_data_set_under_the_same_alias_is_refused_until_overwrite_is_given(after, tmp_path):
    before, first = stored(after), after.data
    other = str(write_movielens(tmp_path / "other", seed=1))
    after.data = other
    code, _, error = after.search()
    assert code == 2
    assert "belongs to another search" in error
    assert "--overwrite" in error
    assert stored(after) == before

    assert after.search("--alias", "other")[0] == 0
    assert after.retrain("--alias", "other")[0] == 0
    assert only(stored(after), before.__contains__) == before
    assert len(after.results()) == 6

    assert after.search("--overwrite")[0] == 0
    runs = only(before, lambda name: name.startswith("runs/"))
    assert only(stored(after), runs.__contains__) == runs
    assert (snapshots.owner_of(after.alias())["manifest"]
            == snapshots.owner_of(after.alias("other"))["manifest"])

    after.data = first
    code, _, error = after.search()
    assert code == 2
    assert "belongs to another search" in error


def test_a_trial_takes_a_folder_of_its_own_which_its_retraining_finds(after, caplog):
    before = stored(after)
    assert after.search(*sets("gk=2.0"))[0] == 0
    trial = ALIAS.replace("max_epochs", "gk_2.0_max_epochs")
    assert set(names(after.out / "embedding" / "fm")) == {ALIAS, trial}
    assert only(stored(after), before.__contains__) == before
    code, _, error = after.retrain(*sets("max_epochs=1"))
    assert code == 2
    assert f"2 searches in {after.out / 'embedding' / 'fm'} fit; name one with --alias:" in error
    with caplog.at_level("INFO", "pep"):
        assert after.retrain(*sets("gk=2.0"))[0] == 0
    assert f"retraining the snapshots in {after.alias(trial)}" in caplog.messages


def test_a_retraining_keeps_to_its_search(after):
    for words, message in ((sets("candidate_p=[5]"), "the search had [400, 150]; to retrain one"),
                           (sets("budget=as_reached"), "the search had exact"),
                           (("--alias", ALIAS, "--seed", "2"), "has seed 1, and --seed 2 was")):
        code, _, error = after.retrain(*words)
        assert code == 2
        assert message in error
    assert after.retrain(*sets("candidate_p=[400, 150]", "retrain_emb_param=150"))[0] == 0


def test_options_that_a_search_has_no_use_for(shell):
    for words, message in ((sets("retrain_emb_param=7"), "or use the retrain script"),
                           (("--recipe_fm", "--published"), "--published sets"),
                           (sets("early_stop=3"), "early_stop changes nothing for a search"),
                           (sets("early_stop_metric=loss"), "give it to the retraining"),
                           (("--alias=-x",), "--alias must be a plain folder name")):
        code, _, error = shell.search(*words)
        assert code == 2
        assert message in error


def test_a_search_that_reaches_no_budget_names_no_retraining(shell):
    code, said, _ = shell.search(*sets("budget=as_reached", "candidate_p=[3]"))
    assert code == 0
    assert "to retrain them" not in said
    code, _, error = shell.retrain()
    assert code == 2
    assert "if it has run and reached no budget" in error


def test_who_reads_half_of_the_output_gets_no_error(monkeypatch, capsys):
    def work():
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit) as stop:
        cli.main(work)
    assert stop.value.code == 141
    assert capsys.readouterr().err == ""


# full disks


def test_a_full_disk_at_a_snapshot_is_an_error_and_the_same_command_goes_on_from_there(shell,
                                                                                       monkeypatch):
    arguments = sets(*CROSSING, "checkpoint_seconds=0")
    original = np.savez_compressed

    def fill(file, **arrays):
        if "/.900." in file.name:
            file.write(b"PK half")
            raise FULL
        original(file, **arrays)

    monkeypatch.setattr(np, "savez_compressed", fill)
    code, _, error = shell.search(*arguments)
    assert code == 2
    assert "No space left" in error
    assert names(shell.alias()) == ["1200.npz", "1500.npz", "initial.npz", "search.json"]
    assert shell.results() == {}
    monkeypatch.setattr(np, "savez_compressed", original)
    assert shell.search(*arguments)[0] == 0
    result, = shell.results().values()
    assert result["snapshots"] == ["1500", "1200", "900"]


def test_a_stopped_search_that_goes_on_under_another_alias_leaves_all_budgets_there(shell,
                                                                                    monkeypatch):
    arguments = sets(*CROSSING, "checkpoint_seconds=0")
    original = snapshots.save

    def stop(folder, name, *rest, **more):
        if name == "900":
            raise FULL
        return original(folder, name, *rest, **more)

    monkeypatch.setattr(snapshots, "save", stop)
    assert shell.search(*arguments)[0] == 2
    monkeypatch.setattr(snapshots, "save", original)
    assert shell.search("--alias", "mine", *arguments)[0] == 0
    assert snapshots.names(shell.alias("mine")) == ["1500", "1200", "900"]


def test_a_recipe_of_a_retraining_leaves_the_embedding_to_the_snapshot():
    recipe = scripts._variants(train_movielens_retrain.SETTINGS, retraining=True)["recipe_fm"]
    assert recipe["ema"] == 0.999
    assert "embedding" not in recipe
    of_a_search = scripts._variants(train_movielens.SETTINGS, retraining=False)["recipe_fm"]
    assert of_a_search["embedding"] == "uniform"
