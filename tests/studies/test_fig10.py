"""Figure 10: four granularities."""

import csv
import struct

from synthetic_results import BUDGET, DENSE, curve, put, search, ticket

from studies.figures import fig10
from studies.page import write


def made(out):
    """Two granularities; the search with coarse thresholds has one seed and its ticket no curve."""
    coarse = {"own": {"threshold_type": "dimension"}}
    return [
        *(
            put(out, search(f"s{seed}", seed, params=60 + seed), curve(last=60))
            for seed in (1, 2, 3)
        ),
        *(
            put(
                out,
                ticket(f"t{seed}", seed, searched=f"s{seed}", auc=0.8 + seed / 100),
                curve(0.8 + seed / 100),
            )
            for seed in (1, 2, 3)
        ),
        put(out, ticket("far", 1, budget=400), curve()),
        put(out, search("c", **coarse), curve(last=90)),
        put(out, ticket("ct", searched="c", **coarse)),
    ]


def test_numbers_and_what_is_missing(tmp_path):
    page = fig10.build(made(tmp_path), tmp_path, "movielens", "fm")
    assert [(number.what, sum(number.values), number.seeds) for number in page.numbers] == [
        ("parameters at the end of the search, dimension", 60, 1),
        (f"test AUC of the ticket at {BUDGET} parameters, dimension", 0.8, 1),
        ("parameters at the end of the search, feature-dimension", 61 + 62 + 63, 3),
        (f"test AUC of the ticket at {BUDGET} parameters, feature-dimension", 0.81 + 0.82 + 0.83,
         3)]
    assert page.missing == [
        "search with global thresholds: no run (seeds 1, 2, 3)",
        "retrained ticket with global thresholds: no run (seeds 1, 2, 3)",
        "search with dimension thresholds: seeds 2, 3",
        "retrained ticket with dimension thresholds at 72 parameters: seeds 2, 3",
        f"the curve of run ct (dimension, {BUDGET}, seed 1): its folder has no curve.jsonl",
        "search with feature thresholds: no run (seeds 1, 2, 3)",
        "retrained ticket with feature thresholds: no run (seeds 1, 2, 3)"]


def test_rows_name_their_run_and_the_picture_spans_two_columns(tmp_path):
    table, picture, _ = write(fig10.build(made(tmp_path), tmp_path, "movielens", "fm"),
                              tmp_path / "pages")
    rows = list(csv.DictReader(table.open()))
    first = next(row for row in rows if row["panel"] == "search" and row["runs"] == "s1")
    assert (first["line"], first["epoch"], float(first["num_embedding_params"])) == (
        "feature-dimension", "2", round(DENSE + (60 - DENSE) / 10))
    assert {row["runs"] for row in rows} == {"s1", "s2", "s3", "t1", "t2", "t3", "c", "ct"}
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert (width, height) == (1400, 520)


def test_a_picture_of_curves_that_are_gone_is_kept(tmp_path):
    results = made(tmp_path)
    picture = write(fig10.build(results, tmp_path, "movielens", "fm"), tmp_path / "pages")[1]
    before = picture.read_bytes()
    (tmp_path / "runs" / "s2" / "curve.jsonl").unlink()  # the rest could still be drawn
    words = write(fig10.build(results, tmp_path, "movielens", "fm"),
                  tmp_path / "pages")[-1].read_text()
    assert picture.read_bytes() == before
    assert "older than this page" in words
    assert "the curve of run s2 (feature-dimension, seed 2): its folder has no curve.jsonl" in words


def test_a_broken_curve_is_named(tmp_path):
    results = made(tmp_path)
    (tmp_path / "runs" / "s2" / "curve.jsonl").write_text('{"epoch": 2')
    page = fig10.build(results, tmp_path, "movielens", "fm")
    assert any("the curve of run s2 (feature-dimension, seed 2): curve.jsonl cannot be read" in line
               for line in page.missing)
