"""The water line's page and the list of its runs."""

import itertools
from argparse import Namespace
from functools import partial

import pytest
import tiny
from synthetic_results import result

from engine.run import Unfinished
from studies import plan, recipes, tuning, waterline_runs
from studies.figures import waterline
from studies.page import write
from studies.published import PRESETS


def quantised(run_id, seed, size, auc, test=None, settings=None, embedding="uniform", **asked):
    own = {"lr": 8e-3, "max_epochs": 14, "l2_regularization": 3e-5, **(settings or {})}
    made = result(run_id, "quantise", seed, auc=auc, own=own, embedding=embedding,
                  without_finetuning={"test_auc": auc - 0.1})
    made["test_auc"] = auc if test is None else test
    made["identity"]["extra"] = {"stage": "quantise", "source": f"d{seed}", "compression": asked}
    made["compression"] = {**asked, "source": f"d{seed}",
                           "stored": {"table": size, "others": 500, "whole": size + 500},
                           "whole_model": {"test_auc": made["test_auc"] - 0.001}}
    return made


def ours(seed, budget, auc, **changes):
    return quantised(f"w{seed}{budget}{changes}", seed, budget - 1, auc, method="waterline",
                     bytes=budget, **changes)


def uniform(seed, size, auc, test=None, bits=4, **settings):
    return quantised(f"u{seed}{size}{bits}{settings}", seed, size, auc, test, settings,
                     method="lowbit", scheme="uniform", bits=bits, width=4)


def made():
    runs = [result(f"d{seed}", seed=seed, auc=0.85, own={"ema": 0.9}) for seed in (1, 2)]
    for seed in (1, 2):
        runs += [ours(seed, 20_000, 0.84 + seed / 1000), ours(seed, 10_000, 0.83),
                 ours(seed, 20_000, 0.82, rotation=False),
                 uniform(seed, 21_000, 0.80, test=0.81 + seed / 1000)]
    return [*runs,
            # better on the test rows, but not on validation; and one that is too large
            uniform(1, 22_000, 0.79, test=0.90, bits=8), uniform(1, 40_000, 0.88, bits=2),
            uniform(1, 19_000, 0.87, bits=3)]


def test_a_schemes_curve_has_one_trial_a_size():
    trials = {str(size): [uniform(1, size, auc)] for size, auc in (
        (10_000, 0.80), (10_400, 0.82), (15_000, 0.81), (20_000, 0.83))}
    assert [runs[0]["compression"]["stored"]["table"]
            for runs in waterline._upper(trials, waterline._bytes)] == [10_400, 20_000]
    trials["10000"][0]["compression"]["stored"]["whole"] = 30_000  # with other layers
    trials["10400"][0]["compression"]["stored"]["whole"] = 29_000
    wholes = [waterline._whole(runs[0]) for runs in waterline._upper(trials, waterline._whole)]
    assert wholes == sorted(wholes) == [15_500, 20_500]


def test_baselines_take_the_budget_or_more_and_validation_chooses_among_them(tmp_path):
    page = waterline.build(made(), tmp_path, "movielens", "fm")
    small, large = page.tables[0].rows
    assert large[:2] == ("20,000", "19,999")
    assert large[4:6] == ("uniform", "21,000")
    assert large[7] == "+0.0300"
    assert small[4] == "-"
    numbers = {number.what: number for number in page.numbers}
    lead = numbers["the water line less the best other at 20,000 bytes"]
    assert lead.values == pytest.approx([0.03, 0.03])
    lines = page.tables[1].rows
    assert [line[:2] for line in lines] == [
        ("10,000", "water line"), ("20,000", "water line"), ("20,000", "uniform")]
    assert lines[-1][3] == "2"  # trials near the budget
    assert "beside 10,000 bytes: uniform, product quantisation" in " ".join(page.missing)


def test_validation_chooses_columns_and_retraining_by_the_first_seed(tmp_path):
    narrow = [ours(1, 20_000, 0.86, width=8), ours(2, 20_000, 0.83, width=8),
              ours(1, 20_000, 0.85, width=4)]
    page = waterline.build([*made(), *narrow], tmp_path, "movielens", "fm")
    line = next(line for line in page.tables[1].rows if line[:2] == ("20,000", "water line"))
    assert line[2].startswith("width 8, ")
    assert line[3] == "3"
    assert page.tables[0].rows[1][3].startswith("0.845")  # the mean of both seeds
    slower = [ours(seed, 20_000, 0.87, settings={"lr": 4e-3}) for seed in (1, 2)]
    page = waterline.build([*made(), *narrow, *slower], tmp_path, "movielens", "fm")
    line = next(line for line in page.tables[1].rows if line[:2] == ("20,000", "water line"))
    assert (line[2], line[3]) == ("lr 0.004, epochs 14, decay 3e-05", "4")
    # an ablation is held against all columns, retrained as it was
    [whole, changed] = page.tables[2].rows
    assert whole[:2] == ("nothing, 20,000 bytes", "19,999")
    assert changed[0] == "rotation False, 20,000 bytes"


def test_the_best_other_is_that_of_the_best_mean_over_the_most_seeds(tmp_path):
    def pq(seed, auc):
        return quantised(f"p{seed}", seed, 21_000, auc, method="lowbit", scheme="pq", bits=4)

    def mde(seed, auc):
        return quantised(f"m{seed}", seed, 21_000, auc, method="lowbit", scheme="mde", bits=4)

    lucky = [*made(), pq(1, 0.81), pq(2, 0.70), mde(1, 0.89)]
    [_, large] = waterline.build(lucky, tmp_path, "movielens", "fm").tables[0].rows
    assert large[4] == "uniform"


def mask(seed, entries, size, auc):
    made = quantised(f"k{seed}{entries}", seed, size, auc, embedding="masked", method="lowbit",
                     scheme="mask", bits=8)
    made["identity"]["extra"] |= {"mask": f"m{seed}{entries}", "initial": "i", "others": "o"}
    return {**made, "num_embedding_params": entries}


def test_masks_of_other_numbers_of_entries_are_other_trials(tmp_path):
    masks = [mask(1, 5000, 30_000, 0.88), mask(1, 3000, 21_000, 0.86), mask(2, 3000, 21_200, 0.86)]
    page = waterline.build([*made(), *masks], tmp_path, "movielens", "fm")
    line = next(line for line in page.tables[1].rows if line[1] == "PEP's mask"
                and line[0] == "20,000")
    assert line[2].startswith("bits 8, entries 5,000, ")
    assert (line[3], line[4], line[7]) == ("2", "30,000", "1")  # trials, bytes, seeds
    groups = waterline._grouped(masks, {}).values()
    assert sorted([run["seed"] for run in runs] for runs in groups) == [[1], [1, 2]]


def test_tables_made_of_other_trainings_are_no_means(tmp_path):
    runs = [result("d1", seed=1, auc=0.85, own={"ema": 0.9}),
            result("d2", seed=2, auc=0.5, own={"lr": 0.1}), ours(1, 20_000, 0.84),
            ours(2, 20_000, 0.4)]
    page = waterline.build(runs, tmp_path, "movielens", "fm")
    found = {number.what: list(number.values) for number in page.numbers}
    assert found["test AUC, the water line, 20,000 bytes"] == [0.84]
    assert found["test AUC, the dense model, float32"] == [0.85]


def test_runs_on_other_rows_are_left_out_and_counted(tmp_path):
    other = {**uniform(1, 21_500, 0.95), "manifest": "sample"}
    page = waterline.build([*made(), other], tmp_path, "movielens", "fm")
    assert page.tables[0].rows == waterline.build(made(), tmp_path, "movielens",
                                                  "fm").tables[0].rows
    assert page.left_out == ["Left out: 1 run of other data."]


def test_ablations_stand_beside_the_method_at_their_budget(tmp_path):
    page = waterline.build(made(), tmp_path, "movielens", "fm")
    names = [row[0] for row in page.tables[2].rows]
    assert names == ["nothing, 20,000 bytes", "rotation False, 20,000 bytes"]
    written = write(page, tmp_path / "pages")
    assert [path.suffix for path in written] == [".csv", ".png", ".md"]
    assert len(page.rows) == len(made()) - 2


def test_without_a_run_the_page_says_how_to_make_one(tmp_path):
    page = waterline.build([result("d1")], tmp_path, "movielens", "fm")
    assert page.missing == ["the water line: no run; `python reproduce.py waterline --dataset "
                            "movielens --model fm`"]


def test_a_masked_run_is_peps_mask_and_another_one_is_by_magnitude():
    asked = {"method": "lowbit", "scheme": "mask", "bits": 4}
    masked = quantised("a", 1, 9, 0.8, embedding="masked", **asked)
    assert waterline.scheme_of(masked) == waterline.PEP_MASK
    assert waterline.scheme_of(quantised("b", 1, 9, 0.8, **asked)) == "mask"


# --- the list of runs

GIVEN = Namespace(dataset="movielens", model="fm", seeds=[1, 2, 3], out="tmp", dense=4129 * 64,
                  scheme=None)


def test_every_baseline_has_12_trials_or_fewer_near_each_budget_and_a_mask_15():
    for budget in waterline_runs.BUDGETS["fm"]:
        for name in waterline_runs.BASELINES:
            trials = waterline_runs.trials(GIVEN, name, budget)
            assert len(trials) <= (15 if name == "mask" else 12)
            assert len({trial.words for trial in trials}) == len(trials)
            assert trials or name in ("pep", "mde", "qr", "pq", "mgqe", "uniform")
    every = [waterline_runs.trials(GIVEN, name, 20_000) for name in waterline_runs.BASELINES]
    assert [len(trials) for trials in every[:5]] == [12] * 5
    assert len(waterline_runs.trials(GIVEN, "mask", 10_000)) == 15


def test_the_water_line_has_the_retrainings_of_the_baselines_and_12_trials_or_fewer():
    for budget in waterline_runs.BUDGETS["fm"]:
        own = waterline_runs.trials(GIVEN, waterline_runs.METHOD, budget)
        ways = {trial.how for trial in waterline_runs.trials(GIVEN, "mask", budget)}
        assert {trial.how for trial in own} == ways
        assert len({trial.words for trial in own}) == len(own) <= 12
        assert own[0].shape == waterline_runs.Shape()


def test_narrower_tables_leave_an_entry_a_bit_or_two():
    widths = {budget: [shape.width for shape in waterline_runs.narrower(GIVEN, budget)]
              for budget in waterline_runs.BUDGETS["fm"]}
    assert widths == {10_000: [16, 12, 24], 20_000: [32, 24, 48], 35_000: [48, 32, 24],
                      70_000: [48], 135_000: []}
    closed = Namespace(**{**vars(GIVEN), "dense": None})  # as in a plan of everything
    assert waterline_runs.narrower(closed, 10_000) == []
    assert len(waterline_runs.needs(closed)) > 20


@pytest.mark.parametrize("model", waterline_runs.BUDGETS)
def test_a_plan_names_each_run_once(model):
    given = Namespace(**{**vars(GIVEN), "model": model})
    needs = waterline_runs.needs(given)
    assert len({need.what for need in needs}) == len(needs) > 100
    assert needs[0].what == f"{model} recipe seed 1"
    # of DeepFM's narrow table 2 bits an entry are fewer bytes than the ablations have
    assert any("one rung of 2 bits" in need.what for need in needs) == (model != "deepfm")


def test_data_without_published_settings_start_from_the_chosen_recipe(tmp_path, monkeypatch):
    given = Namespace(**{**vars(GIVEN), "dataset": "frappe", "dense": 5385 * 64})
    own = waterline_runs._recipe(given)
    assert own["latent_dim"] == 64
    chosen = recipes.settings_of(tmp_path, "frappe", "fm")  # the shipped one
    assert {name: own[name] for name in chosen if name != "latent_dim"} == {
        name: value for name, value in chosen.items() if name != "latent_dim"}
    trials = waterline_runs.trials(given, "pep", 10_000)
    kept = {dict(trial.source)["retrain_emb_param"] for trial in trials}
    assert set() < kept <= set(PRESETS["frappe"]["candidate_p"])
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "nothing is chosen")
    with pytest.raises(FileNotFoundError, match="how autoint is trained on frappe is not chosen"):
        waterline_runs.needs(Namespace(**{**vars(given), "model": "autoint", "out": tmp_path}))


def small(tmp_path, monkeypatch):
    """A plan on made data, and its place."""
    tiny.install(monkeypatch, tiny.dataset())
    monkeypatch.setitem(waterline_runs.PRESETS, "movielens", tiny.SETTINGS)
    monkeypatch.setitem(waterline_runs.RECIPES, "fm", {"embedding": "uniform", "latent_dim": 8,
                                                       "ema": 0.9})
    usual = waterline_runs.Retraining(1, 0.02)
    monkeypatch.setattr(waterline_runs, "usual", lambda model: usual)
    given = Namespace(**{**vars(GIVEN), "dense": 198 * 4, "seeds": [1, 2]})
    return given, tiny.context(tmp_path)


def test_the_runs_of_a_plan_are_resumable_and_the_best_trial_is_taken(tmp_path, monkeypatch):
    given, context = small(tmp_path, monkeypatch)
    usual = waterline_runs.usual("fm")
    plain = waterline_runs.OwnTrial(600, waterline_runs.Shape(), usual)
    method = partial(waterline_runs.run, given, plain, 1)
    trials = waterline_runs.trials(given, "uniform", 600)[:2]
    monkeypatch.setattr(waterline_runs, "trials", lambda given, name, budget: trials)
    with pytest.raises(Unfinished):
        waterline_runs._best(given, "uniform", 600, 2, tiny.context(tmp_path, dry_run=True))
    assert method(context) == method(tiny.context(tmp_path, dry_run=True))
    best = waterline_runs.chosen([waterline_runs.run(given, trial, 1, context)
                                  for trial in trials])
    further = [waterline_runs._further(given, "uniform", 600, words, context)
               for words in waterline_runs.FURTHER]
    lr = best["settings"]["lr"]
    assert [(made["settings"]["lr"], made["settings"]["max_epochs"]) for made in further] == [
        (2 * lr, 1), (lr, 2)]
    found = waterline_runs._best(given, "uniform", 600, 2, context)
    assert found["seed"] == 2
    assert found["identity"]["settings"] == waterline_runs.chosen([best, *further])["identity"][
        "settings"]
    need = plan.PlannedRun("again", ("fm", "uniform"),
                           partial(waterline_runs._best, given, "uniform", 600, 2))
    assert plan.missing([need], context) == []


def test_the_best_trial_of_the_water_line_is_taken_with_other_seeds(tmp_path, monkeypatch):
    given, context = small(tmp_path, monkeypatch)
    shapes = [waterline_runs.Shape(width=width) for width in (5, 6)]
    monkeypatch.setattr(waterline_runs, "narrower", lambda given, budget: shapes)
    usual = waterline_runs.usual("fm")
    monkeypatch.setattr(waterline_runs, "_ways",
                        lambda model: [usual, waterline_runs.Retraining(1, 0.04)])
    monkeypatch.setattr(waterline_runs, "FURTHER", {})
    results = [waterline_runs.run(given, trial, 1, context)
               for trial in waterline_runs.trials(given, waterline_runs.METHOD, 600)]
    tried = [(made["compression"].get("width"), made["settings"]["lr"]) for made in results]
    assert tried == list(itertools.product((None, 5, 6), (0.02, 0.04)))
    best = results.index(waterline_runs.chosen(results))
    found = waterline_runs._best(given, waterline_runs.METHOD, 600, 2, context)
    assert (found["seed"], found["compression"].get("width"), found["settings"]["lr"]) == (
        2, *tried[best])


def test_data_whose_training_nobody_has_chosen_are_refused():
    given = Namespace(**{**vars(GIVEN), "dataset": "criteo"})
    with pytest.raises(ValueError, match=r"for criteo none is chosen; give --dataset movielens or"):
        waterline_runs.needs(given)


def test_a_baseline_may_start_from_a_run_of_its_own(tmp_path, monkeypatch):
    _, context = small(tmp_path, monkeypatch)
    trial = waterline_runs.Trial(waterline_runs.Scheme("qr", 4), waterline_runs.Retraining(1, 0.02),
                                 (("embedding", "qr"), ("latent_dim", 4), ("qr_collisions", 2)))
    made = waterline_runs.run(GIVEN, trial, 1, context)
    assert made["settings"]["embedding"] == "qr"
    assert made["compression"]["scheme"] == "qr"
    assert "qr_collisions=2" in trial.words
