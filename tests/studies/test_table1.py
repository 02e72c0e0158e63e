"""Table 1: ticks from measurements."""

import numpy as np
import pytest
from synthetic_results import BUDGET, put, put_search, put_times, result, search, ticket

from studies.figures import table1


def made(out):
    """PEP a little better than the base model at BUDGET and worse below; hashing worse; DartsEmb of
    one seed."""
    table = np.zeros((100, 8), np.float32)
    table[:9] = 1.0
    runs = []
    for seed in (1, 2, 3):
        auc = 0.8 + seed / 1000
        runs += [put(out, result(f"b{seed}", seed=seed, auc=auc, seconds_per_epoch=2.0)),
                 put_search(out, search(f"s{seed}", seed), np.arange(100), table),
                 put(out, ticket(f"t{seed}", seed, searched=f"s{seed}", auc=auc + 0.002)),
                 put(out, ticket(f"u{seed}", seed, budget=20, searched=f"s{seed}",
                                 auc=auc - 0.01 - seed / 5000)),
                 put(out, result(f"h{seed}", seed=seed, embedding="hash", params=300,
                                 auc=auc - 0.02 + seed / 5000,
                                 seconds_per_epoch=2.2))]
    return [*runs, put(out, result("d1", embedding="darts", params=300,
                                   features_by_width={"1": 90, "8": 10}))]


@pytest.fixture
def cells(tmp_path, monkeypatch):
    monkeypatch.setattr(table1.fig2, "points", points)
    put_times(tmp_path, "movielens")
    page = table1.build(made(tmp_path), tmp_path, "movielens", "fm")
    lines = page.tables[0].rows
    return page, {line[0]: dict(zip(table1.HEAD, line, strict=True)) for line in lines}


def points(page, found, *others):
    groups = {}
    for run in found:
        if run["stage"] != "search" and run["settings"]["embedding"] != "uniform":
            name = {"masked": "PEP"}.get(run["settings"]["embedding"], run["settings"]["embedding"])
            groups.setdefault((name, run["num_embedding_params"]), []).append(run)
    return [table1.Entry(name, "", runs, False) for (name, _), runs in groups.items()]


def test_ticks_follow_the_paired_differences_sizes_and_times(cells):
    page, lines = cells
    pep = lines["PEP"]
    assert (pep["performance"], pep["fewer parameters"],
            pep["computation"]) == ("yes (yes)", "yes (yes)", "yes (yes)")
    assert (pep["smallest as good"], pep["its bytes"],
            pep["epoch over base's"]) == (str(BUDGET), str(4 * BUDGET),
                                                                                     "+25 %")
    assert (pep["sizes of features"], pep["sizes from one search"]) == ("2", "2")
    assert lines["DartsEmb"]["computation"] == "no (no)"
    assert lines["DartsEmb"]["sizes of features"] == "2"
    assert lines["DartsEmb"]["performance"] == "? (yes)"  # one seed shows nothing
    assert (lines["double hashing"]["performance"],
            lines["double hashing"]["fewer parameters"]) == ("no", "no")
    # timed in runs of its own alone
    assert (lines["double hashing"]["computation"],
            lines["double hashing"]["epoch over base's"]) == ("?", "")
    assert "mde: no run" in page.missing


def test_rows_name_their_runs_once(cells):
    page, _ = cells
    [pep] = [row for row in page.rows if row["scheme"] == "PEP"]
    assert pep["runs"] == "t1 t2 t3"
    assert {run["run_id"] for run in page.behind} == {"b1", "b2", "b3", "t1", "t2", "t3", "d1",
                                                      "h1", "h2", "h3"}


def test_without_a_base_model_there_is_no_table(tmp_path):
    page = table1.build([], tmp_path, "movielens", "fm")
    assert page.tables == []
    assert "base model, uniform: no run (seeds 1, 2, 3)" in page.missing


def test_without_the_benchmark_the_cost_is_not_ticked(tmp_path, monkeypatch):
    monkeypatch.setattr(table1.fig2, "points", points)
    page = table1.build(made(tmp_path), tmp_path, "movielens", "fm")
    assert "times of an epoch: there is no epoch_movielens.json" in page.missing
    assert {line[0]: line[6] for line in page.tables[0].rows}["PEP"] == "? (yes)"


@pytest.mark.parametrize(("gains", "tick", "smallest"), [
    ((-0.0064, -0.0052), "?", ""),  # two seeds, and zero lies in the interval
    ((-0.0005, -0.0005), "?", ""),  # two seeds, however alike
    ((-0.009, -0.001, -0.004), "?", ""),  # not shown to be lower is not shown to be as good
    ((-0.0095, -0.0058, -0.0060), "no", ""),
    ((-0.0005, -0.0004, -0.0006), "yes", "300"),  # lower, and by less than the margin
    ((0.001, 0.002, 0.003), "yes", "300")])
def test_yes_needs_an_interval_above_the_margin_and_three_seeds(tmp_path, monkeypatch, gains, tick,
                                                                smallest):
    monkeypatch.setattr(table1.fig2, "points", points)
    runs = [search("s1"), *(result(f"b{seed}", seed=seed) for seed in (1, 2, 3))]
    runs += [result(f"h{seed}", seed=seed, embedding="hash", params=300, auc=0.8 + gain)
             for seed, gain in enumerate(gains, 1)]
    page = table1.build(runs, tmp_path, "movielens", "fm")
    line = dict(zip(table1.HEAD, page.tables[0].rows[-1], strict=True))
    assert (line["performance"], line["fewer parameters"],
            line["smallest as good"]) == (tick, tick, smallest)
