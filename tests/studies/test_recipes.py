"""Training settings of data without published ones: trials, the choice, and what runs by it."""

import argparse
import itertools
import json

import pytest
import tiny

import reproduce
from data.registry import DATASETS
from studies import collect, pooling, recipes, schemes, tuning
from studies.collect import results_in
from studies.figures import leaderboard
from studies.published import PRESETS
from studies.recipes import Recipe

pytestmark = pytest.mark.usefixtures("no_pictures")
FRAPPE = "frappe"
SIZE = sum(tiny.SIZES.values()) * 4


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """reproduce.py as called with these words, on a tiny set under the name of Frappe."""
    made = tiny.dataset()
    monkeypatch.setitem(DATASETS, FRAPPE, lambda *arguments: made)
    script = {**tiny.SETTINGS, "dataset": FRAPPE, "candidate_p": [300, 150, 100]}
    monkeypatch.setitem(PRESETS, FRAPPE, script)
    tiny.publish(monkeypatch, script, made.manifest["rows"])
    monkeypatch.setitem(schemes.BUDGETS, (FRAPPE, "fm"), [300, 100])
    for module, name in ((recipes, "LIMITS"), (schemes, "LONG")):
        monkeypatch.setattr(module, name, {"max_epochs": 3, "tensorboard": False})
    monkeypatch.setattr(schemes, "GRIDS", {
        "uniform": {"latent_dim": [2, 4], "l2_regularization": [1e-5, 1e-4]},
        "pep": {"threshold_init": [-3.0, -2.4]}, "magnitude": {"l2_regularization": [1e-5]}})
    monkeypatch.setitem(schemes.COMPARED, FRAPPE, ("lr", *schemes.GRIDS))
    monkeypatch.setitem(pooling.SPLIT, FRAPPE, "random")
    monkeypatch.setitem(recipes.WIDTHS, FRAPPE, 4)
    monkeypatch.setitem(recipes.RECIPES, FRAPPE, {
        "linear": Recipe("linear", {"lr": [0.01, 0.02], "weight_decay": [0.0]}, published=0.5),
        "fm": Recipe("fm", {"lr": [0.01, 0.03], "l2_regularization": [1e-4, 1e-3],
                            "ema": [0.0, 0.5]}, published=0.5)})
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "no shipped settings")
    monkeypatch.setattr(collect, "SHIPPED", tmp_path / "no shipped records")

    def call(*words):
        words = [*words, "--out", str(tmp_path), "--jobs", "1"]
        monkeypatch.setattr("sys.argv", ["reproduce.py", *words])
        reproduce.main()

    return call


def test_twelve_trials_pair_every_value_with_every_learning_rate():
    for dataset, known in recipes.RECIPES.items():
        for name, recipe in known.items():
            points = recipes.trials(dataset, name)
            assert len(points) == len({json.dumps(point) for point in points}) == recipes.TRIALS
            for setting, values in recipe.grid.items():
                for rate in recipe.grid["lr"]:
                    tried = {str(point[setting]) for point in points if point["lr"] == rate}
                    assert setting == "lr" or tried == set(map(str, values))


def test_what_validation_chose_trains_every_scheme(shell, tmp_path, capsys):
    for model in ("linear", "fm"):
        shell("recipe", "--dataset", FRAPPE, "--model", model)
    written = json.loads((tmp_path / "tuned" / "recipe_frappe_fm.json").read_text())
    [best] = written["chosen"]
    assert len(written["trials"]) == 4
    assert "test" not in json.dumps(written)
    assert best["validation_auc"] == max(trial["validation_auc"] for trial in written["trials"])
    for scheme in schemes.GRIDS:
        shell("tune", "--dataset", FRAPPE, "--embedding", scheme, "--trials", "4")
    shell("frappe", "--model", "fm", "--seeds", "1", "2")
    shell("leaderboard", "--dataset", FRAPPE, "--seeds", "1", "2")
    chosen = best["settings"]
    results = [run for run in results_in(tmp_path) if run["settings"]["model"] == "fm"]
    kinds = {run["settings"]["embedding"] for run in results}
    assert kinds == {"uniform", "pep", "masked"}
    trained = {run["run_id"] for run in results}
    for run in results:
        settings = run["settings"]
        if run["run_id"] in {trial["run_id"] for trial in written["trials"]}:
            continue
        assert settings["lr"] == chosen["lr"]
        # a search has no average of its weights, its tickets have
        assert settings["ema"] == (0.0 if run["stage"] == "search" else chosen["ema"])
        if settings["embedding"] == "pep":
            assert settings["l2_regularization"] == chosen["l2_regularization"]
    assert schemes.OF_OTHERS == {"weight_decay": 1e-5}  # of all data sets: nothing is added
    decays = json.loads((tmp_path / "tuned" / "frappe_fm_uniform.json").read_text())["trials"]
    assert sorted({trial["settings"]["l2_regularization"] for trial in decays}) == pytest.approx(
        [chosen["l2_regularization"], 10 * chosen["l2_regularization"]])
    page = (tmp_path / "figures" / "frappe_frappe_fm.md").read_text()
    assert page.startswith("# AUC and log-loss against size, FM on Frappe")
    assert all(f"| {name} |" in page for name in ("LR", "uniform", "PEP", "magnitude pruning"))
    board = leaderboard.build(results_in(tmp_path), tmp_path, FRAPPE, "fm")
    assert [number.seeds for number in board.numbers] == [2, 2]
    assert not board.sample
    assert {row["runs"] for row in board.rows if row["model"] == "FM"} <= trained


def test_a_trial_that_diverges_ends_neither_the_others_nor_the_choice(shell, tmp_path, monkeypatch,
                                                                      capsys, caplog):
    monkeypatch.setitem(recipes.RECIPES, FRAPPE, {
        "fm": Recipe("fm", {"lr": [1e30, 0.01], "l2_regularization": [1e-4]})})
    for again in (False, True):
        shell("recipe", "--dataset", FRAPPE, "--model", "fm")
        written = json.loads((tmp_path / "tuned" / "recipe_frappe_fm.json").read_text())
        [best] = written["chosen"]
        assert best["settings"]["lr"] == 0.01
        assert "the loss is nan" in written["trials"][0]["diverged"]
        out = capsys.readouterr().out
        assert ("nothing is missing" in out) == again
        assert "1/2 latent_dim=4 lr=1e+30 l2_regularization=0.0001: diverged, never chosen" in out
        assert ("diverged and is never chosen: run " in caplog.text) != again
        caplog.clear()


def test_without_a_recipe_nothing_is_run(shell, tmp_path):
    with pytest.raises(FileNotFoundError, match="recipe --dataset frappe --model fm"):
        shell("frappe", "--model", "fm")
    with pytest.raises(FileNotFoundError, match="not chosen yet"):
        shell("tune", "--dataset", FRAPPE, "--embedding", "uniform")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError, match="movielens is trained as published"):
        shell("recipe", "--model", "fm")
    with pytest.raises(ValueError, match="recipe is of real data"):
        shell("recipe", "--dataset", FRAPPE, "--model", "fm", "--planted", "1000")
    with pytest.raises(ValueError, match="did you mean 'deepfm'"):
        recipes.known("movielens_ids", "depfm")
    assert recipes.training_of(tmp_path, "movielens", "fm") == {}
    with pytest.raises(ValueError, match=r"unknown dataset 'movielens'.*frappe"):
        shell("leaderboard", "--dataset", "movielens")
    assert reproduce.read(["leaderboard"]).dataset == FRAPPE


def test_the_decays_of_other_data_sets_are_as_listed(tmp_path):
    given = reproduce.read(["tune", "--embedding", "uniform", "--out", str(tmp_path)])
    assert schemes.grid(given, "uniform") == schemes.GRIDS["uniform"]


def test_frappe_counts_with_its_own_split():
    run = {"settings": {"dataset": FRAPPE, "split": "auto", "max_epochs": 300, "embedding": "qr",
                        "model": "fm"}, "stage": "train", "manifest": "m", "run_id": "r"}
    data = pooling.Data(None, "")
    rows = {"m": pooling.ROWS[FRAPPE]}
    assert pooling.why_not(run, {}, rows, data, tuned=True) is None
    other = {**run, "settings": {**run["settings"], "split": "random:3"}}
    assert pooling.why_not(other, {}, rows, data, tuned=True) == "other data"


@pytest.mark.parametrize("dataset", ["movielens", "movielens_ids", "criteo", "avazu", "frappe"])
@pytest.mark.parametrize("model", ["fm", "deepfm", "autoint"])
def test_a_search_saves_the_budgets_that_are_compared(dataset, model, tmp_path):
    given = reproduce.read(["compare", "--dataset", dataset, "--model", model])
    given.dense = None
    assert {*schemes.budgets(given)} <= {*PRESETS[dataset]["candidate_p"]}


def test_where_no_paper_gives_pep_a_width_it_is_tuned_and_holds_the_budget():
    given = argparse.Namespace(dataset="movielens_ids", model="fm", out="no/such",
                               dense=13_837 * 64)
    found = schemes.points(given, "pep", 12)
    tried = {(point["retrain_emb_param"], point["latent_dim"]) for point in found}
    assert tried == {*itertools.product((200_000, 100_000, 50_000, 23_675), (64, 16, 8))} - {
        (200_000, 8)}
    given.dataset = FRAPPE
    assert all("latent_dim" not in point for point in schemes.points(given, "pep", 12))
