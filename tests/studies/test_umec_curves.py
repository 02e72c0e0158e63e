"""UMEC's two figures: which runs belong to them, what is missing, and what is written."""

import csv

import pytest
from synthetic_results import result

from studies.figures import umec_fig2, umec_fig3
from studies.page import text, write


def made(run_id, method="umec", budget=0.5, seed=1, joint=True, auc=0.8, accuracy=0.79, **more):
    about = {"method": method, "budget": budget, "resource_left": 1.0 if method == "dense"
             else budget - 0.01,
             "widths": {"a": 16, "b": 0}, "neurons": [5, 4], "groups": "field",
             "resource": "flops_top", "epochs": 2,
             "finetune_epochs": 1, "scratch": method == "handmade",
             "dynamics": {"joint": joint, "faithful": False},
             **more}
    return result(run_id, "finetune", seed, "dlrm", "criteo", auc=auc, test_accuracy=accuracy,
                  compression=about)


def results():
    return [made("u1"), made("u2", seed=2, accuracy=0.77), made("u3", budget=0.1, auc=0.7),
            made("m1", "magnitude"),
            made("d1", "dense", 1.0, accuracy=0.8), made("d2", "dense", 1.0, seed=2, accuracy=0.8),
            made("h1", "handmade"), made("f1", joint=False, budget=0.9),
            made("k1", budget=0.35, resource="params_all"),
            made("w1", budget=0.35, groups="field_dim"),
            result("other", model="fm", dataset="criteo")]


def test_numbers_are_means_over_seeds_and_stand_beside_the_papers(tmp_path):
    page = umec_fig2.build(results(), tmp_path, "criteo", "fm")
    found = {number.what: number for number in page.numbers}
    assert list(found["AUC, UMEC at 0.5"].values) == [0.8, 0.8]
    assert list(found["AUC, UMEC at 0.1"].values) == [0.7]
    assert list(found["accuracy, whole model"].values) == [0.8, 0.8]
    less = found["accuracy less the whole model's, UMEC at 0.5"]
    assert list(less.values) == pytest.approx([-0.01, -0.03])
    assert less.paper == pytest.approx(0.00004)
    assert {run["run_id"] for run in page.behind} == {"u1", "u2", "u3", "m1", "d1", "d2", "h1"}
    assert "umec at budget 0.5: seed 3" in page.missing
    assert "umec at budget 0.05: seeds 1, 2, 3" in page.missing
    assert "magnitude at budget 0.5: seeds 2, 3" in page.missing


def test_the_table_has_a_line_a_budget_and_a_column_a_method(tmp_path):
    page = umec_fig2.build(results(), tmp_path, "criteo", "dlrm")
    [table] = page.tables
    assert table.head == ("test AUC at budget", "UMEC", "magnitude", "narrow by hand, scratch")
    assert list(map(tuple, table.rows)) == [
        ("whole model", "0.8000 ± 0.0000", "", ""),
        ("0.5", "0.8000 ± 0.0000", "0.8000", "0.8000"), ("0.1", "0.7000", "", "")]
    assert table.markdown() in text(page)
    assert umec_fig2.build([], tmp_path, "criteo", "dlrm").tables == []


def test_the_picture_shows_the_measured_compression_and_every_row_names_its_run(tmp_path):
    page = umec_fig2.build(results(), tmp_path, "criteo", "dlrm")
    axes = page.figure.axes[0]
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert [label.get_text() for label in page.figure.axes[1].get_xticklabels()] == ["0.51", "0.91"]
    places = [line.get_xdata()[0] for line in lines.values()]
    assert len(set(places)) == len(places)  # the methods stand side by side
    assert list(lines["UMEC"].get_ydata()) == pytest.approx([0.78, 0.79])
    assert set(lines) == {"UMEC", "magnitude", "narrow by hand, scratch"}
    table, picture, written = write(page, tmp_path)
    rows = list(csv.DictReader(table.open()))
    assert {row["runs"] for row in rows} == {"u1", "u2", "u3", "m1", "d1", "d2", "h1"}
    assert [(row["compression"], row["fields"], row["neurons"]) for row in rows
            if row["runs"] == "u1"] == [
        ("0.51", "1", "5 4")]
    assert picture.stat().st_size > 10_000
    assert "Missing:" in written.read_text()


def test_fields_alone_are_another_figure_and_settings_are_not_mixed(tmp_path):
    page = umec_fig3.build(results(), tmp_path, "criteo", "dlrm")
    assert {run["run_id"] for run in page.behind} == {"f1", "d1", "d2"}
    longer = [made(f"l{seed}", budget=0.5, seed=seed, epochs=9) for seed in range(20)]
    page = umec_fig2.build([*results(), *longer], tmp_path, "criteo", "dlrm")
    assert {run["run_id"] for run in page.behind} == {run["run_id"] for run in longer}
    assert "Left out: 7 runs of other settings or data." in text(page)


def test_the_whole_model_counts_once_a_seed_and_one_descent_is_a_line_of_its_own(tmp_path):
    page = umec_fig2.build([*results(), made("d3", "dense", 1.0, joint=False, accuracy=0.8),
                            made("o1", along=[0.5, 0.1], auc=0.6)], tmp_path, "criteo", "dlrm")
    found = {number.what: list(number.values) for number in page.numbers}
    assert found["accuracy, whole model"] == [0.8, 0.8]
    assert found["AUC, UMEC at 0.5"] == [0.8, 0.8]
    assert found["AUC, UMEC, one descent at 0.5"] == [0.6]


def test_random_units_do_not_flatten_the_others(tmp_path):
    page = umec_fig2.build([*results(), made("r1", "random", auc=0.5)], tmp_path, "criteo", "dlrm")
    low, high = page.figure.axes[1].get_ylim()
    assert 0.68 < low < 0.7
    assert 0.8 < high < 0.82


def test_a_seed_counts_once_and_small_models_of_another_training_are_left_out(tmp_path):
    bases = [result(name, model="dlrm", dataset="criteo", own={"max_epochs": most})
             for name, most in (("base", 20), ("short", 10))]
    runs = [made("a", base="base"), made("again", base="base", accuracy=0.5),
            made("b", seed=2, base="base"),
            made("s", seed=3, base="short")]
    page = umec_fig2.build([*bases, *runs], tmp_path, "criteo", "dlrm")
    assert {run["run_id"] for run in page.behind} == {"a", "b"}
    assert "Left out: 1 run of other settings or data." in text(page)


def test_small_models_that_were_asked_for_in_another_way_are_left_out(tmp_path):
    other = {"dynamics": {"joint": True, "faithful": False, "zlr": 50.0}}
    kept = {"keep_fields": ["a"], "budget": 0.5}
    page = umec_fig2.build([*results(), made("x", seed=3, auc=0.5, **other),
                            made("y", seed=4, auc=0.5, **kept)], tmp_path, "criteo", "dlrm")
    found = {number.what: number for number in page.numbers}
    assert list(found["AUC, UMEC at 0.5"].values) == [0.8, 0.8]
    assert "Left out: 2 runs of other settings or data." in text(page)


def test_a_sample_is_called_one_and_has_nothing_beside_it(tmp_path):
    runs = results()
    for run in runs:
        run["data"] = {"rows": 10_000, "positives": 2500}
    page = umec_fig2.build(runs, tmp_path, "criteo", "dlrm")
    assert page.title.endswith("DLRM on Criteo, a sample of 10,000 of 45,840,617 rows")
    assert all(number.paper is None for number in page.shown_numbers)
    assert any(number.paper is not None for number in page.numbers)
