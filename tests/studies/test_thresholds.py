"""What moves the thresholds: counts by cause, overlap of masks, paired differences."""

import numpy as np
import pytest
from synthetic_results import BUDGET, curve, put, put_search, search, ticket

from studies.figures import thresholds
from studies.page import write

DECAY_ONLY = {"threshold_gradient": False}
LINES = [{"epoch": epoch, "step": 100 * epoch, "kept": 800 - 10 * epoch,
          "pruned_by_decay": 8 * epoch,
          "pruned_by_gradient": 2 * epoch,
          "kept_by_gradient": epoch} for epoch in range(0, 42, 2)]


def table(start):
    """(100, 8) with BUDGET entries from `start` on."""
    values = np.zeros(800, np.float32)
    values[start:start + BUDGET] = 1.0
    return values.reshape(100, 8)


def made(out):
    counts = np.arange(100)
    runs = []
    for seed in (1, 2, 3):
        runs += [put_search(out, search(f"s{seed}", seed, thresholds={"lines": LINES}), counts,
                            table(0)),
                 put_search(out, search(f"c{seed}", seed, own=DECAY_ONLY,
                                        thresholds={"lines": LINES}),
                            counts,
                            table(BUDGET // 2)),
                 put(out, ticket(f"t{seed}", seed, searched=f"s{seed}", auc=0.80 + seed / 100),
                     curve()),
                 put(out, ticket(f"u{seed}", seed, searched=f"c{seed}", auc=0.79 + seed / 100,
                                 own=DECAY_ONLY), curve())]
    return [*runs, put(out, search("d1", 1, own={"threshold_decay": "decoupled"}), curve())]


def numbers(page):
    return {number.what: number for number in page.numbers}


def test_counts_overlap_and_paired_difference_by_hand(tmp_path):
    page = thresholds.build(made(tmp_path), tmp_path, "movielens", "fm")
    found = numbers(page)
    assert found["pruned by decay at the end, coupled decay (PEP)"].values == [320, 320, 320]
    assert found["pruned by the gradient at the end, coupled decay (PEP)"].values == [80, 80, 80]
    assert found["kept by the gradient at the end, coupled decay, no loss gradient"].values == [
        40,
        40,
        40,
    ]
    share = found[f"share of the learned mask that decay alone keeps too, {BUDGET} parameters"]
    assert (share.values, share.beside) == ([0.5] * 3, f"by chance {BUDGET / 800:.3f}")
    gain = found[f"learned less decay alone at {BUDGET} parameters, paired"]
    assert gain.values == pytest.approx([0.01] * 3)
    assert gain.beside == "95 % interval ± 0.0000: higher"
    assert (
        "run d1 (seed 1) has no `thresholds`: it was searched before that was recorded; search "
        "again"
        in page.missing
    )
    assert "search with decoupled decay: seeds 2, 3" in page.missing
    assert "search with no decay: no run (seeds 1, 2, 3)" in page.missing


def test_a_mask_is_taken_of_the_search_that_has_it(tmp_path):
    """Though another one, with a longer list of other budgets, stands for the seed."""
    runs = made(tmp_path)
    longer = [put(tmp_path, search(f"x{seed}", seed, snapshots=["4", "3"],
                                   thresholds={"lines": LINES}), curve()) for seed in (1, 2, 3)]
    page = thresholds.build([*runs, *longer], tmp_path, "movielens", "fm")
    share = f"share of the learned mask that decay alone keeps too, {BUDGET} parameters"
    assert numbers(page)[share].values == [0.5] * 3
    without = [run for run in (*runs, *longer) if run["run_id"] not in ("s1", "s2", "s3")]
    page = thresholds.build(without, tmp_path, "movielens", "fm")
    assert share not in numbers(page)
    assert "masks of both causes at one budget and seed" in page.missing


def test_searches_with_a_cause_taken_away_never_pass_for_the_published_one(tmp_path):
    page = thresholds.build([run for run in made(tmp_path) if run["run_id"][0] in "cdu"], tmp_path,
                            "movielens", "fm")
    assert "search with coupled decay (PEP): no run (seeds 1, 2, 3)" in page.missing
    assert not any("(PEP)" in number.what for number in page.numbers)


def test_rows_name_their_runs_and_the_picture_is_drawn(tmp_path):
    page = thresholds.build(made(tmp_path), tmp_path, "movielens", "fm")
    written = write(page, tmp_path / "pages")
    assert [path.suffix for path in written] == [".csv", ".png", ".md"]
    assert {row["panel"] for row in page.rows} == {"search", "causes", "overlap", "retraining"}
    assert page.rows[-1]["runs"] == "u3"
    assert [row["runs"] for row in page.rows if row["panel"] == "overlap"] == ["s1 c1", "s2 c2",
                                                                               "s3 c3"]


def test_the_right_panel_has_the_budgets_of_both_masks_alone(tmp_path):
    runs = [*made(tmp_path),
            put(tmp_path, ticket("far", budget=5, searched="s1", auc=0.5), curve())]
    right = thresholds.build(runs, tmp_path, "movielens", "fm").figure.axes[2]
    assert [list(container.lines[0].get_xdata()) for container in right.containers] == [[BUDGET],
                                                                                        [BUDGET]]


def test_panels_with_nothing_say_so(tmp_path):
    left, _, right = thresholds.build([ticket("t1")], tmp_path, "movielens", "fm").figure.axes
    assert [text.get_text() for text in (*left.texts, *right.texts)] == [
        "no curve yet", "no budget that both masks have"]
    assert not len(left.get_xticks())
    assert not len(right.get_xticks())


@pytest.mark.parametrize(("decay", "told"), [
    ("none", "the decay-only threshold does not move) at the end, no decay"),
    ("decoupled", "the decay-only threshold hardly moves) at the end, decoupled decay")])
def test_a_threshold_that_does_not_move_has_pruned_nothing(tmp_path, decay, told):
    own = search("n1", own={"threshold_decay": decay}, thresholds={"lines": LINES})
    page = thresholds.build([own], tmp_path, "movielens", "fm")
    assert numbers(page)[f"pruned as the value itself decayed to 0 ({told}"].values == [320]
    assert not any("by decay" in name for name in numbers(page))
