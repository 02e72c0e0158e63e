"""Figures 8 and 9: ticket, fresh values, no retraining, base model."""

import csv
import struct

import pytest
from synthetic_results import BUDGET, curve, put, result, search, ticket

from studies.figures import fig8
from studies.page import write

SEEDS = (1, 2, 3)


def made(out, dataset="criteo"):
    return [
        *(put(out, search(f"s{seed}", seed, dataset=dataset), curve()) for seed in SEEDS),
        *(
            put(
                out,
                ticket(
                    f"t{seed}", seed, dataset=dataset, searched=f"s{seed}", auc=0.8 + seed / 100
                ),
                curve(0.8 + seed / 100, epochs=18 + 2 * seed),
            )
            for seed in SEEDS
        ),
        *(
            put(out, ticket(f"b{seed}", seed, 70, dataset=dataset, searched=f"s{seed}"), curve())
            for seed in SEEDS
        ),
        put(out, ticket("r1", 1, dataset=dataset, re_init=True), curve(0.79)),
        put(out, result("u1", dataset=dataset), curve(0.78)),
        put(out, result("narrow", dataset=dataset, own={"latent_dim": 4}), curve(0.7)),
    ]


def test_numbers_and_what_is_missing(tmp_path):
    page = fig8.build(made(tmp_path), tmp_path, "criteo", "fm")
    assert {number.what: (pytest.approx(sum(number.values) / len(number.values)), number.seeds)
            for number in page.numbers} == {
        "test log-loss, winning ticket": (0.38, 3), "test AUC, winning ticket": (0.82, 3),
        "test log-loss, fresh values": (0.4, 1), "test AUC, fresh values": (0.8, 1),
        "test log-loss, base model": (0.4, 1), "test AUC, base model": (0.8, 1),
        "test log-loss, no retraining": (0.41, 3), "test AUC, no retraining": (0.79, 3)}
    assert page.missing == [f"re-initialised ticket at {BUDGET} parameters: seeds 2, 3",
                            "base model, uniform d 24: seeds 2, 3"]


def test_the_budget_is_one_that_was_retrained_from_fresh_values_too(tmp_path):
    results = [run for run in made(tmp_path) if run["run_id"] != "r1"]
    page = fig8.build(results, tmp_path, "criteo", "fm")
    assert (
        page.missing[0] == f"re-initialised ticket at {BUDGET} parameters: no run (seeds 1, 2, 3)"
    )
    results += [ticket("t9", 1, 400, dataset="criteo"),
                ticket("r9", 1, 400, dataset="criteo", re_init=True)]
    page = fig8.build(results, tmp_path, "criteo", "fm")
    assert page.missing[:2] == ["winning ticket at 400 parameters: seeds 2, 3",
                                "re-initialised ticket at 400 parameters: seeds 2, 3"]


def test_lines_are_means_as_far_as_all_seeds_go_and_the_level_stands_beside_them(tmp_path):
    page = fig8.build(made(tmp_path), tmp_path, "criteo", "fm")
    axes = page.figure.axes[1]
    drawn = {line.get_label(): line for line in axes.lines}
    assert list(drawn["winning ticket"].get_xdata()) == list(range(2, 22, 2))
    assert drawn["winning ticket"].get_ydata()[0] == pytest.approx(0.82 - 0.1 / 2)
    assert set(drawn["no retraining"].get_ydata()) == {0.79}
    assert [text.get_text() for text in page.figure.legends[0].get_texts()] == [
        "winning ticket", "fresh values", "base model", "no retraining"]


def test_rows_name_their_run_and_the_picture_spans_two_columns(tmp_path):
    table, picture, _ = write(fig8.build(made(tmp_path), tmp_path, "criteo", "fm"),
                              tmp_path / "pages")
    rows = list(csv.DictReader(table.open()))
    assert [row["runs"] for row in rows if row["panel"] == "result"
            and row["line"] == "no retraining"] == [
        "t1", "t2", "t3"]
    assert {row["runs"] for row in rows} == {"t1", "t2", "t3", "r1", "u1"}
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert (width, height) == (1400, 560)


@pytest.mark.parametrize(("dataset", "name", "title"), [
    ("criteo", "fig8", "Figure 8:"), ("avazu", "fig9", "Figure 9:"),
    ("movielens", "fig8", "As Figures 8 and 9:")])
def test_the_data_set_decides_the_number(tmp_path, dataset, name, title):
    page = fig8.build(made(tmp_path, dataset), tmp_path, dataset, "fm")
    assert page.stem == f"{name}_{dataset}_fm"
    assert page.title.startswith(title)


def test_older_tickets_are_named(tmp_path):
    results = made(tmp_path)
    del next(run for run in results if run["run_id"] == "t2")["snapshot"]["without_retraining"]
    page = fig8.build(results, tmp_path, "criteo", "fm")
    assert any(line.startswith("no retraining, seed 2: the snapshot of run t2")
               for line in page.missing)
    assert page.numbers[-1].seeds == 2


def test_without_curves_no_empty_scales_are_drawn(tmp_path):
    # no folder has a curve
    page = fig8.build([ticket("t1"), result("u1")], tmp_path, "movielens", "fm")
    assert page.figure is None
    assert {number.what for number in page.numbers} >= {"test AUC, winning ticket",
                                                        "test AUC, no retraining"}
