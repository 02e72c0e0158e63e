"""Runs go into one csv and come back; what pictures draw of their files stays beside it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from PIL import Image
from synthetic_results import (
    BUDGET,
    SIZES,
    curve,
    factored,
    put,
    put_search,
    result,
    search,
    ticket,
)

from compression.loaded_run import find_result
from engine import stages
from engine.settings import parse
from studies import curves, page, records, runs_csv
from studies.collect import results_in
from studies.curves import SHIPPED
from studies.pages import existing, redraw
from studies.runs_csv import COMMON, NOT_KEPT
from utils import recorded
from utils.files import sha256_of

FIGURES = SHIPPED / "figures"
THRESHOLDS = {"lines": [{"epoch": 0, "step": 0, "kept": 800, "mean": -15.0},
                        {"epoch": 2, "step": 200, "kept": 700, "mean": -14.5, "decay_only": -14.0}]}
UMEC = {"method": "umec", "budget": 0.1, "dynamics": {"joint": True, "keep": [], "slr": 0.05},
        "widths": {**dict.fromkeys(SIZES, 4), "numbers": 0}, "neurons": [3, 2], "base": "b1"}


def umec(run_id, **more):
    made = result(run_id, "finetune", compression={**UMEC, "history": [{"energy": [1.0]}], **more})
    made["identity"] |= {"extra": {"method": "umec", "dynamics": UMEC["dynamics"], "stage": "x"},
                         "algorithm_version": 2}
    return made


RESULTS = {
    "training": result("a", own={"lr": 0.1}, seconds=1.5, device="AMD EPYC", threads=1),
    "widths": result("a", test_accuracy=None, features_by_width={"1": 5, "16": 0}),
    "search": search("s1", thresholds=THRESHOLDS, budgets_not_reached=[72]),
    "ticket": ticket("t1", own={"candidate_p": [1, 2], "made": "two words"}),
    "AFM": factored("f1", layers={"mlp.mlp.4": 16}, intervals={"test_auc": [0.1, 0.2]}),
    "UMEC": umec("c1"), "UMEC, other fields": umec("c2", widths={"age": 3}),
    "other types": result("a", own={"threshold_gradient": 1, "lr": 1, "with_linear": 0}),
    "digits": result("1" * 12, commit="1e5"),
    "older": {name: value for name, value in result("o").items() if name not in
              ("data", "commit", "inference_bytes")}}


def kept(made):
    """Of a result, what the csv keeps."""
    made = json.loads(json.dumps({key: value for key, value in made.items()
                                  if key not in NOT_KEPT}))
    made["published_protocol"].pop("best_test_logloss")
    made["identity"] = {"extra": {}, "algorithm_version": 1, **made["identity"]}
    made["settings"] = {**COMMON, **made["settings"]}
    made.get("compression", {}).pop("history", None)
    return recorded.translate_result(made)


@pytest.mark.parametrize("made", RESULTS.values(), ids=RESULTS)
def test_what_is_written_is_read_back(tmp_path, made):
    put(tmp_path, made)
    path = tmp_path / "shipped" / "runs.csv"
    assert runs_csv.append(path, tmp_path) == ([made["run_id"]], [])
    [found] = runs_csv.read(path)
    assert json.dumps(found, sort_keys=True) == json.dumps(kept(made), sort_keys=True)


def test_what_a_run_of_today_says_of_its_data_is_kept(tmp_path, monkeypatch):
    tiny.install(monkeypatch, tiny.dataset())
    made = tiny.train(tmp_path, embedding="uniform", max_epochs=1)
    path = tmp_path / "shipped" / "runs.csv"
    runs_csv.append(path, tmp_path)
    assert runs_csv.read(path)[0]["data"] == made["data"]


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"\0" * 9])
def test_a_csv_with_bytes_that_are_no_text_is_an_error_that_names_it(tmp_path, damage):
    path = tmp_path / "shipped" / "runs.csv"
    put(tmp_path, result("a"))
    runs_csv.append(path, tmp_path)
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(ValueError, match=f"{path}.*restore it"):
        runs_csv.read(path)


def test_a_run_is_one_line_until_it_is_replaced(tmp_path):
    path = tmp_path / "shipped" / "runs.csv"
    for made in (result("b"), search("a", thresholds=THRESHOLDS)):
        put(tmp_path, made)
    assert runs_csv.append(path, tmp_path) == (["a", "b"], [])
    before = path.read_bytes()
    assert runs_csv.append(path, tmp_path) == ([], [])
    assert path.read_bytes() == before
    other = {"lines": THRESHOLDS["lines"][:1]}
    put(tmp_path, search("a", thresholds=other))
    put(tmp_path, result("c"))
    assert runs_csv.append(path, tmp_path) == (["c"], ["a"])
    assert runs_csv.read(path)[0]["thresholds"] == THRESHOLDS
    assert runs_csv.append(path, tmp_path, replace=True) == (["a"], [])
    assert [run["run_id"] for run in runs_csv.read(path)] == ["a", "b", "c"]
    assert runs_csv.read(path)[0]["thresholds"] == other


def test_equal_spectra_are_kept_once_and_survive_a_replacement(tmp_path):
    path = tmp_path / "shipped" / "runs.csv"
    for name in ("a", "b"):
        put(tmp_path, factored(name))
    runs_csv.append(path, tmp_path)
    assert len(curves.read_tables(path.parent).spectra) == 1
    other = factored("a")
    other["compression"]["spectra"]["fields"]["age"] = [9.0]
    put(tmp_path / "later", other)  # a alone
    runs_csv.append(path, tmp_path / "later", replace=True)
    ages = [run["compression"]["spectra"]["fields"]["age"] for run in runs_csv.read(path)]
    assert ages == [[9.0], [2.0, 1.0, 0.0]]


def test_planted_data_are_kept_apart(tmp_path):
    path = tmp_path / "shipped" / "runs.csv"
    put(tmp_path, result("a"))
    put(tmp_path / "planted" / "9_rows", result("b"))
    runs_csv.append(path, tmp_path)
    assert runs_csv.kinds(path) == ["", "9_rows"]
    assert [run["run_id"] for run in results_in(path.parent)] == ["a"]
    assert [run["run_id"] for run in results_in(path.parent, planted="9_rows")] == ["b"]


def test_a_folder_of_planted_data_is_known_by_its_place(tmp_path):
    path, folder = tmp_path / "shipped" / "runs.csv", tmp_path / "planted" / "9_rows"
    put(folder, result("b"))
    runs_csv.append(path, folder)
    assert runs_csv.kinds(path) == ["9_rows"]
    lines = redraw(folder, ["table3"], new=True)
    assert [line.rpartition("/")[2] for line in lines] == ["table3_planted_movielens.md"]
    assert "SYNTHETIC" in (folder / "figures" / "table3_planted_movielens.md").read_text()


def test_a_replaced_curve_has_nothing_of_the_old_one(tmp_path):
    curves.keep_evaluations(tmp_path, {"r": curve(epochs=8), "other": curve(epochs=4)})
    curves.keep_evaluations(tmp_path, {"r": curve(end=0.7, epochs=4)})
    known = curves._by_run(tmp_path / curves.FOLDER / "by_epoch.csv")
    assert [line["epoch"] for line in known["r"]] == [2, 4]
    assert [line["epoch"] for line in known["other"]] == [2, 4]
    assert known["r"][-1]["test_auc"] == curve(end=0.7, epochs=4)[-1]["test_auc"]


def test_shipped_results_are_added_where_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("studies.collect.SHIPPED", tmp_path / "shipped")
    for name in ("a", "b"):
        put(tmp_path / "all", result(name, auc=0.5))
    runs_csv.append(tmp_path / "shipped" / "runs.csv", tmp_path / "all")
    put(tmp_path / "out", result("b", auc=0.7))
    assert [run["run_id"] for run in results_in(tmp_path / "out")] == ["b"]
    found = {run["run_id"]: run["test_auc"] for run in results_in(tmp_path / "out", shipped=True)}
    assert found == {"a": 0.5, "b": 0.7}


def shipped_one(tmp_path):
    put(tmp_path, result("a"))
    path = tmp_path / "shipped" / "runs.csv"
    runs_csv.append(path, tmp_path)
    return path


def test_a_csv_of_another_form_is_refused_and_left_alone(tmp_path, capsys):
    path = shipped_one(tmp_path)
    path.write_text(path.read_text().replace("test_auc", "auc", 1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"not known: auc; columns that it lacks: test_auc\."):
        runs_csv.read(path)
    with pytest.raises(ValueError, match="is of another form"):
        records.main([str(tmp_path), "--to", str(path.parent)])
    assert path.read_bytes() == before


@pytest.mark.parametrize(("column", "text", "said"), [
    ("test_auc", "x", "it lacks test_auc"), ("settings", "latent_dim=x", "settings.latent_dim"),
    ("identity", "nosuch", "nosuch"), ("data", "no", "'no'"), ("spectra", "z", "'z'"),
    ("sizes", "1 2", "shorter"), ("other", "thresholds={}", "'a'")])
def test_a_broken_line_is_named(tmp_path, column, text, said):
    path = shipped_one(tmp_path)
    [line] = runs_csv.lines(path)
    cells = [text if name == column else line[name] for name in runs_csv.HEAD]
    path.write_text(f"{','.join(runs_csv.HEAD)}\n{','.join(cells)}\n")
    with pytest.raises(ValueError, match=f"the line of run a cannot be read .*{said}"):
        runs_csv.read(path)


@pytest.mark.parametrize("more", ["", ",,"])
def test_a_line_that_was_cut_or_grew_is_named(tmp_path, more):
    path = shipped_one(tmp_path)
    head, line = path.read_text().splitlines()
    path.write_text(f"{head}\n{line + more if more else line[:40]}\n")
    with pytest.raises(ValueError, match="line 2 has not the columns of the head"):
        runs_csv.read(path)


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no finished run in"):
        records.main([str(tmp_path / "nosuch"), "--to", str(tmp_path / "shipped")])


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = shipped_one(tmp_path)
    before = path.read_bytes()
    put(tmp_path, result("b"))
    monkeypatch.setattr("csv.DictWriter.writerows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runs_csv.append(path, tmp_path)
    assert path.read_bytes() == before
    assert list(path.parent.glob(".*")) == []


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    """A folder of runs, and one of shipped records with the pages that draw files of runs."""
    rng = np.random.default_rng(0)
    out, folder = tmp_path / "out", tmp_path / "shipped"
    for seed in (1, 2):
        table = np.zeros(800, np.float32)
        table[rng.permutation(800)[:BUDGET]] = 1.0
        put_search(out, search(f"s{seed}", seed), np.arange(100), table.reshape(100, 8))
        put(out, ticket(f"t{seed}", seed, searched=f"s{seed}"), curve(),
            rng.normal(size=(100, 8)).astype(np.float32), table.reshape(100, 8))
        put(out, result(f"u{seed}", seed=seed), curve(),
            rng.normal(size=(100, 8)).astype(np.float32))
    (folder / "figures").mkdir(parents=True)
    for name in ("fig5", "fig6", "fig8", "fig10", "fig11", "stability", "thresholds"):
        (folder / "figures" / f"{name}_movielens_fm.md").write_text("")
    monkeypatch.setattr(curves, "SHIPPED", folder)
    return out, folder


def test_pages_are_the_same_without_the_files_of_the_runs(experiments):
    out, folder = experiments
    runs_csv.append(folder / "runs.csv", out)
    wanted = {made.stem: (made.rows, page.text(made), made.drawn)
              for made in existing(folder, out)}
    assert any(made.lost for made in existing(folder))
    records.keep_drawn(out, folder)
    shutil.rmtree(out)
    found = {made.stem: (made.rows, page.text(made), made.drawn) for made in existing(folder)}
    assert found == wanted
    assert not any(made.lost for made in existing(folder))
    assert all(made.drawn for made in existing(folder))


def test_files_of_a_result_that_was_left_out_are_not_kept(experiments, capsys):
    out, folder = experiments
    records.main([str(out), "--to", str(folder)])
    assert "6 runs, 6 of them written now" in capsys.readouterr().out
    before = curves.evaluations("u1")
    put(out, result("u1", auc=0.7), curve(end=0.7))
    put(out, result("u2", seed=2), curve(end=0.7))
    records.main([str(out), "--to", str(folder)])
    assert f"another result in {out}: 1 run," in capsys.readouterr().out
    assert curves.evaluations("u1") == before
    assert curves.evaluations("u2")[-1]["test_auc"] == curve(end=0.7)[-1]["test_auc"]


def test_a_shipped_run_without_files_is_told_apart(tmp_path, monkeypatch):
    put(tmp_path, search("abc"))
    path = tmp_path / "shipped" / "runs.csv"
    runs_csv.append(path, tmp_path)
    monkeypatch.setattr(recorded, "RUNS_CSV", path)
    said = recorded.shipped_words("ab")
    assert "Run abc (search of fm on movielens, seed 1) is among the shipped records" in said
    assert recorded.shipped_words(alias="alias_abc", model="fm") == said
    assert not recorded.shipped_words(alias="alias_abc", model="deepfm")
    with pytest.raises(FileNotFoundError, match=r"Run abc .* no weights and no snapshots"):
        find_result("abc", SimpleNamespace(out=tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match=r"Run abc .* no weights and no snapshots"):
        stages.retrain(parse({}), 1, SimpleNamespace(out=tmp_path / "out", alias="alias_abc"))
    assert recorded.shipped_words("xyz") == recorded.shipped_words(alias="alias_x") == ""


def test_what_a_line_leaves_out_never_changes():
    """Lines depend on these values: a name may be added when a new setting comes, none changed."""
    text = json.dumps(COMMON, sort_keys=True)
    assert sha256_of(text)[:12] == "c50097024073"


def test_ids_follow_from_the_shipped_identities():
    path = SHIPPED / "runs.csv"
    found = []
    for kind in runs_csv.kinds(path):
        found += runs_csv.read(path, kind)
    assert len(found) >= 1441
    assert [run["run_id"] for run in found if runs_csv.run_id_of(run) != run["run_id"]] == []


def redrawn(folder):
    """Writes every shipped page anew, beside the pictures that are shipped."""
    for picture in FIGURES.glob("*.png"):
        shutil.copy(picture, folder)
    return folder


def test_every_shipped_page_is_drawn_again_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("studies.figures.budget_curve.png", lambda figure, about=None: b"")
    redraw(to=redrawn(tmp_path))
    texts = sorted(path.name for path in FIGURES.iterdir() if path.suffix in (".md", ".csv"))
    assert len(texts) >= 44
    assert [name for name in texts
            if (tmp_path / name).read_bytes() != (FIGURES / name).read_bytes()] == []


@pytest.mark.slow
def test_every_shipped_picture_is_drawn_again_dot_for_dot(tmp_path):
    redraw(to=redrawn(tmp_path))
    pictures = [path.name for path in FIGURES.glob("*.png")]
    assert len(pictures) >= 20
    different = []
    for name in pictures:
        with Image.open(tmp_path / name) as new, Image.open(FIGURES / name) as old:
            if new.size != old.size or new.tobytes() != old.tobytes():
                different.append(name)
    assert different == []
