"""Figure 5: which fields interact."""

import csv
import struct

import numpy as np
import pytest
from synthetic_results import BUDGET, SIZES, WIDTH, put, result, ticket

from studies.figures import fig5
from studies.page import write

ROWS = sum(SIZES.values())


def table(seed):
    return np.random.default_rng(seed).normal(size=(ROWS, WIDTH)).astype(np.float32)


def made(out):
    mask = (np.random.default_rng(9).random((ROWS, WIDTH)) < 0.5).astype(np.float32)
    return [*(put(out, result(f"u{seed}", seed=seed), table=table(seed)) for seed in (1, 2)),
            put(out, result("u3", seed=3)),
            put(out, ticket("t1"), table=table(1), mask=mask)]


def test_interactions_by_hand():
    # fields a (rows 0, 1), b (row 2), c (row 3); |a.b| = 1, 2, |a.c| = 2, 4, |b.c| = 2
    matrix = fig5.interactions(np.array([[1.0, 0], [-2, 1], [1, 0], [2, 8]]), [2, 1, 1])
    mean_ab, mean_ac, bc = 1.5, (2 + 4) / 2, 2
    total = 2 * (mean_ab + mean_ac + bc)
    assert matrix[0, 1] == pytest.approx(mean_ab / total)
    assert matrix[0, 2] == pytest.approx(mean_ac / total)
    assert matrix[2, 1] == pytest.approx(bc / total)
    assert np.isnan(np.diag(matrix)).all()
    assert np.nansum(matrix) == pytest.approx(1)


def test_a_large_field_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr(fig5, "SAMPLE", 3)
    vectors = np.array([[1.0], [100], [2], [100], [3]])  # rows 0, 2 and 4 are kept
    matrix = fig5.interactions(np.concatenate([vectors, [[1.0], [1.0]]]), [5, 1, 1])
    assert matrix[0, 1] / matrix[1, 2] == pytest.approx(2)


@pytest.mark.parametrize(("rows", "message"),
                         [(3, "the fields have 4 features, the table has 3 rows"),
                                               (4, "the table is empty")])
def test_tables_that_do_not_fit_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        fig5.interactions(np.zeros((rows, 2)), [2, 1, 1])


def test_a_tickets_table_is_zero_outside_its_mask(tmp_path):
    made(tmp_path)
    path = tmp_path / "runs" / "t1" / "model.safetensors"
    mask = np.random.default_rng(9).random((ROWS, WIDTH)) < 0.5
    assert np.array_equal(fig5.table_of(path), table(1) * mask)


def test_the_mean_over_seeds_its_difference_and_what_is_missing(tmp_path):
    page = fig5.build(made(tmp_path), tmp_path, "movielens", "fm")
    sizes = list(SIZES.values())
    before = np.mean([fig5.interactions(table(seed), sizes) for seed in (1, 2)], axis=0)
    after = fig5.interactions(fig5.table_of(tmp_path / "runs" / "t1" / "model.safetensors"), sizes)
    row = next(row for row in page.rows
               if (row.get("field"), row.get("other_field")) == ("age", "year"))
    assert row["without_pruning"] == pytest.approx(before[0, 2])
    assert row["difference"] == pytest.approx(after[0, 2] - before[0, 2])
    assert row["runs"] == "u1 u2 t1"
    assert page.missing == [f"retrained ticket at {BUDGET} parameters: seeds 2, 3",
                            "the table of run u3 (seed 3): its folder has no model.safetensors"]


def test_the_picture_has_three_panels_and_spans_two_columns(tmp_path):
    page = fig5.build(made(tmp_path), tmp_path, "movielens", "fm")
    assert [axes.get_title() for axes in page.figure.axes if axes.get_title()] == [
        "without pruning, 800 parameters", f"with pruning, {BUDGET} parameters", "difference"]
    text, picture, _ = write(page, tmp_path / "pages")
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1400, 620)
    assert all(row["runs"] for row in csv.DictReader(text.open()))


def test_older_runs_borrow_the_field_sizes_of_the_same_data_or_are_named(tmp_path):
    results = made(tmp_path)
    for run in results[:3]:
        del run["data"]
    assert fig5.build(results, tmp_path, "movielens", "fm").rows[-1]["runs"] == "u1 u2 t1"
    del results[3]["data"]
    page = fig5.build(results, tmp_path, "movielens", "fm")
    assert ("run t1 (seed 1) has no `data.fields`: it is older, and the order of its fields in the "
            "table is not known"
            in page.missing)
    assert page.figure is None
    assert [number.values for number in page.numbers] == [[800] * 3, [BUDGET]]


def test_results_whose_fields_have_no_order_borrow_it_or_are_named(tmp_path):
    results = made(tmp_path)
    for run in results[:3]:
        del run["data"]["fields"]
    page = fig5.build(results, tmp_path, "movielens", "fm")
    assert [row["field"] for row in page.rows
            if row["panel"] == "interaction"][::2] == ["age", "age", "zip"]
    del results[3]["data"]["fields"]
    assert fig5.build(results, tmp_path, "movielens", "fm").figure is None


def test_weights_that_are_broken_or_of_another_kind_are_named(tmp_path):
    results = made(tmp_path)
    (tmp_path / "runs" / "u1" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "runs" / "u2" / "model.safetensors").unlink()
    page = fig5.build(results, tmp_path, "movielens", "fm")
    assert any(line.startswith("the table of run u1 (seed 1): model.safetensors cannot be read")
               for line in page.missing)
    assert [axes.get_title() for axes in page.figure.axes
            if axes.get_title()] == [f"with pruning, {BUDGET} parameters"]
