"""Overlap of masks against two kinds of chance, and rank correlation of sizes."""

import numpy as np
import pytest
from synthetic_results import BUDGET, put_search, search

from studies.figures import stability
from studies.page import write

COUNTS = np.arange(100)


def table(sizes, start=0):
    """(100, 8): feature i keeps the sizes[i] entries from `start` on, round the end."""
    columns = (np.arange(8)[None] - start) % 8
    return (columns < np.asarray(sizes)[:, None]).astype(np.float32)


SIZES = np.array([0, 1, 2, 4] * 25)


def made(out, *tables):
    return [put_search(out, search(f"s{seed}", seed), COUNTS, each) for seed,
            each in enumerate(tables, 1)]


def pair(page):
    [row] = [row for row in page.rows if row["seeds"] == "1 2"]
    return row


def test_equal_masks_overlap_wholly_and_chance_is_what_it_is(tmp_path):
    page = stability.build(made(tmp_path, table(SIZES), table(SIZES)), tmp_path, "movielens", "fm")
    row = pair(page)
    kept = SIZES.sum()
    assert (row["overlap"], row["rank_correlation"]) == (1.0, pytest.approx(1.0))
    assert row["by_chance"] == pytest.approx(kept / 800)
    assert row["by_chance_within_features"] == pytest.approx((SIZES ** 2).sum() / 8 / kept)
    assert row["runs"] == "s1 s2"
    assert "search with feature-dimension thresholds: seed 3" in page.missing


def test_equal_sizes_at_other_coordinates_share_no_entry(tmp_path):
    row = pair(stability.build(made(tmp_path, table(SIZES), table(SIZES, 4)), tmp_path, "movielens",
                               "fm"))
    assert (row["overlap"], row["rank_correlation"]) == (0.0, pytest.approx(1.0))


def test_random_coordinates_overlap_as_chance_within_features_says(tmp_path):
    rng = np.random.default_rng(0)
    drawn = [np.stack([rng.permutation(line) for line in table(SIZES)]) for _ in range(2)]
    row = pair(stability.build(made(tmp_path, *drawn), tmp_path, "movielens", "fm"))
    assert row["overlap"] == pytest.approx(row["by_chance_within_features"], abs=0.08)
    assert row["by_chance_within_features"] > 1.5 * row["by_chance"]


def test_sizes_that_are_frequency_and_noise_correlate_but_not_beyond_frequency(tmp_path):
    rng = np.random.default_rng(1)
    sizes = [np.clip(COUNTS // 15 + rng.integers(-1, 2, 100), 0, 8) for _ in range(2)]
    row = pair(stability.build(made(tmp_path, *map(table, sizes)), tmp_path, "movielens", "fm"))
    assert row["rank_correlation"] > 0.8
    assert abs(row["beyond_frequency"]) < 0.25


def test_the_same_search_for_other_budgets_adds_its_snapshots(tmp_path):
    runs = made(tmp_path, table(SIZES), table(SIZES))
    for seed in (1, 2):
        more = search(f"x{seed}", seed, own={"candidate_p": [20]}, snapshots=["20"])
        runs.append(put_search(tmp_path, more, COUNTS, table(SIZES // 2), budget=20))
    page = stability.build(runs, tmp_path, "movielens", "fm")
    assert {row["budget"] for row in page.rows} == {BUDGET, 20}
    assert len(page.rows) == 2


def test_one_seed_or_a_broken_snapshot_is_missing_and_named_and_a_picture_needs_two(tmp_path):
    runs = made(tmp_path, table(SIZES), table(SIZES))
    (tmp_path / "embedding" / "fm" / "alias_s2" / f"{BUDGET}.npz").write_bytes(b"PK")
    page = stability.build(runs, tmp_path, "movielens", "fm")
    assert any(f"alias_s2/{BUDGET}.npz cannot be read" in line for line in page.missing)
    assert "snapshots of two seeds at one budget" in page.missing
    assert page.figure is None


def test_the_picture_is_written(tmp_path):
    page = stability.build(made(tmp_path, table(SIZES), table(SIZES, 1), table(SIZES, 2)), tmp_path,
                           "movielens", "fm")
    assert [path.suffix for path in write(page, tmp_path / "pages")] == [".csv", ".png", ".md"]
    assert len(page.figure.axes) == 4
