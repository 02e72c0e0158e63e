"""Figure 6: sparsity and frequency."""

import csv
import struct

import numpy as np
import pytest
from synthetic_results import BUDGET, WIDTH, put, put_search, search

from studies import masks
from studies.figures import fig6
from studies.page import write

FREQUENCIES = np.arange(100) ** 2  # the first feature was never seen
KEPT = np.minimum(np.arange(100) // 12, WIDTH)


def table():
    return (np.arange(WIDTH) < KEPT[:, None]).astype(np.float32)


def made(out):
    return [put_search(out, search(f"s{seed}", seed), FREQUENCIES, table()) for seed in (1, 2, 3)]


def test_numbers_by_hand(tmp_path):
    page = fig6.build(made(tmp_path), tmp_path, "movielens", "fm")
    assert {number.what: (pytest.approx(np.mean(number.values)), number.seeds)
            for number in page.numbers} == {
        "share kept at the end of the search, 0 to 9": (0, 3),
        "share kept at the end of the search, 10 to 4,000": (1 - 40 / 80, 3),
        "correlation of frequency and kept entries (ranks)": (pytest.approx(0.991, abs=0.005), 3)}
    assert page.missing == []


def test_the_budget_is_that_of_figure_5_whichever_search_has_it(tmp_path):
    longer = [put(tmp_path, search(f"x{seed}", seed, snapshots=["4", "3"])) for seed in (1, 2, 3)]
    for run in longer:
        np.save(tmp_path / "runs" / run["run_id"] / "popularity.npy", FREQUENCIES)
    page = fig6.build([*made(tmp_path), *longer], tmp_path, "movielens", "fm")
    assert {row["budget"] for row in page.rows if row["panel"] == "result"} == {BUDGET}
    assert page.numbers[-1].seeds == 3


def test_the_correlation_is_of_ranks():
    assert masks.rank_correlation(np.array([1, 10, 100, 1000]),
                                  np.array([0, 2, 1, 3])) == pytest.approx(
        1 - 6 * 2 / (4 * 15))  # Spearman's formula without ties


def test_rows_of_the_three_panels(tmp_path):
    page = fig6.build(made(tmp_path), tmp_path, "movielens", "fm")
    cells = [row for row in page.rows if row["panel"] == "c"]
    assert sum(row["features"] for row in cells) == 99
    # rows 1 to 11 keep nothing
    assert sum(row["features"] for row in cells if row["kept_from"] == 0) == 11
    assert {row["budget"] for row in cells} == {BUDGET}
    line = next(row for row in page.rows if row["panel"] == "b" and row["epoch"] == 10
                and row["runs"] == "s2")
    assert (line["group"], line["kept_mean"], line["kept_std"]) == ("0 to 9", 0.5, 0.1)


def test_three_panels_over_two_columns_with_the_spread_as_a_shade(tmp_path):
    page = fig6.build(made(tmp_path), tmp_path, "movielens", "fm")
    left, middle, right, _ = page.figure.axes
    assert left.get_xscale() == right.get_xscale() == "log"
    assert middle.lines[0].get_ydata()[2] == pytest.approx(0.8)
    shade = middle.collections[0].get_paths()[0].vertices
    assert shade[np.isclose(shade[:, 0], 4), 1].min() == pytest.approx(0.7)
    text, picture, _ = write(page, tmp_path / "pages")
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1400, 560)
    assert {row["runs"] for row in csv.DictReader(text.open())} == {"s1", "s2", "s3"}


def test_older_searches_and_lost_files_are_named(tmp_path):
    results = made(tmp_path)
    del results[0]["sparsity"]
    (tmp_path / "runs" / "s2" / "popularity.npy").unlink()
    (tmp_path / "runs" / "s3" / "popularity.npy").write_bytes(b"half")
    page = fig6.build(results, tmp_path, "movielens", "fm")
    assert page.missing[0].startswith("run s1 (seed 1) has no `sparsity`")
    assert (
        page.missing[1]
        == "frequencies of the features, run s2 (seed 2): its folder has no feature_counts.npy"
    )
    assert page.missing[2].startswith("frequencies of the features, run s3 (seed 3): "
                                      "popularity.npy cannot be read")
    assert [number.seeds for number in page.numbers] == [2, 2, 1]


@pytest.mark.parametrize(("change", "said"), [
    (lambda folder: (folder / f"{BUDGET}.npz").unlink(), f"there is no alias_s1/{BUDGET}.npz"),
    (lambda folder: (folder / f"{BUDGET}.npz").write_bytes(b"half"),
     f"alias_s1/{BUDGET}.npz cannot be read"),
    (lambda folder: np.savez(folder / f"{BUDGET}.npz", table=table(),
                             meta=np.array('{"run_id": "z"}')),
     f"alias_s1/{BUDGET}.npz is by now of another search, z")])
def test_a_snapshot_that_cannot_be_used_is_named(tmp_path, change, said):
    results = made(tmp_path)
    change(tmp_path / "embedding" / "fm" / "alias_s1")
    page = fig6.build(results, tmp_path, "movielens", "fm")
    assert any(line.startswith(f"snapshot of run s1 (seed 1): {said}") for line in page.missing)
    assert {row["runs"] for row in page.rows if row["panel"] == "c"} == {"s2"}


def test_a_record_alone_draws_the_trajectory(tmp_path):
    page = fig6.build([put(tmp_path, search("s1"))], tmp_path, "movielens", "fm")
    assert [axes.get_title() for axes in page.figure.axes] == ["(b)"]
