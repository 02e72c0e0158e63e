"""Figures 2 to 4: all schemes."""

import csv
import json
import struct
import sys

import pytest
from synthetic_results import lr, result, search, ticket

from studies.figures import fig2
from studies.page import write

SEEDS = (1, 2, 3)


def second_sizes():
    """With them each scheme of `made` has a second size, so that it is drawn."""
    return [ticket("t9", 1, 9000, searched="s1"),
            result("u9", params=400, own={"latent_dim": 4})]


def made(dataset="movielens"):
    about = {"dataset": dataset}
    return [*(lr(f"l{seed}", seed, **about) for seed in SEEDS),
            *(search(f"s{seed}", seed, **about) for seed in SEEDS),
            *(ticket(f"t{seed}", seed, 6541, searched=f"s{seed}", auc=0.84 + seed / 1000, **about)
              for seed in SEEDS),
            ticket("fresh", 1, 6541, re_init=True, **about),
            ticket("coarse", 1, 400, own={"threshold_type": "dimension"}, **about),
            ticket("rewound", 1, 6541, own={"rewind": "embedding"}, **about),
            result("u1", auc=0.80, **about), result("u2", seed=2, auc=0.82, **about),
            result("mde1", embedding="mde", params=300, own={"mde_alpha": 0.1}, **about)]


def test_numbers_and_what_is_missing(tmp_path):
    page = fig2.build(made(), tmp_path, "movielens", "fm")
    assert [(number.what, pytest.approx(sum(number.values) / len(number.values)), number.seeds,
             number.paper)
            for number in page.numbers] == [
        ("test AUC, LR", 0.77, 3, 0.7717), ("test AUC, PEP at 6,541 parameters", 0.842, 3, 0.8368),
        ("test AUC, uniform (latent_dim 8) at 800 parameters", 0.81, 2, None),
        ("best point of PEP over that of uniform, % of AUC", 100 * (0.842 / 0.81 - 1), 2, None)]
    assert page.missing == ["mgqe: no run (seeds 1, 2, 3)",
                            "mde: runs that no tuning chose (1) (seeds 1, 2, 3)",
                            "darts: no run (seeds 1, 2, 3)",
                            "uniform (latent_dim 8) at 800 parameters: seed 3"]
    assert page.numbers[1].why == "our uniform tables score higher than the paper's too"
    assert page.left_out[0].endswith(": 2.")  # fresh and coarse; "rewound" does not count beside t1
    # of the made share of positives
    assert page.numbers[1].sampling == pytest.approx(0.00144, abs=1e-5)


def test_runs_of_other_lengths_are_no_seeds_of_whole_ones(tmp_path):
    short = [result(f"u{seed}", seed=seed, auc=0.72, stop_reason="max_epochs",
                    own={"max_epochs": 1})
             for seed in (1, 2)]
    page = fig2.build([*short, result("u3", seed=3, auc=0.74)], tmp_path, "movielens", "fm")
    assert [(number.what, number.values) for number in page.numbers] == [
        ("test AUC, uniform (latent_dim 8) at 800 parameters", [0.74])]
    assert page.left_out == ["Left out (FM and LR): 2 runs of other lengths. This page takes whole "
                             "runs alone (`studies/pooling.py`)."]


def test_a_sample_says_so_and_stands_beside_nothing(tmp_path):
    data = {"rows": 10_000, "positives": 2500, "field_sizes": {}}
    runs = [ticket(f"t{seed}", seed, 1067, dataset="criteo") for seed in SEEDS]
    for run in runs:
        run["data"] = data
    written = write(fig2.build(runs, tmp_path, "criteo", "fm"), tmp_path / "pages")
    assert written[-1].read_text().startswith(
        "# Figure 3: AUC and log-loss against size, FM on Criteo, a sample of 10,000 of "
        "45,840,617 rows")
    assert "0.7941" not in written[-1].read_text()
    whole = ticket("w", 1, 1067, dataset="criteo", auc=0.79, manifest="whole")
    page = fig2.build([*runs, whole], tmp_path, "criteo", "fm")
    assert (page.sample, page.numbers[0].values, page.numbers[0].paper) == ("", [0.79], 0.7941)
    assert "3 runs of other data" in page.left_out[0]


def test_untuned_tickets_of_other_settings_are_left_out_as_a_baselines_are(tmp_path):
    more = [ticket("decayed", 1, 6541, own={"l2_regularization": 1e-3}, auc=0.9),
            search("far", own={"threshold_init": -8.0}),
            ticket("ticket", 2, 6541, searched="far", auc=0.91)]
    page = fig2.build([*made(), *more], tmp_path, "movielens", "fm")
    assert {row["runs"] for row in page.rows if row["scheme"].startswith("PEP")} == {"t1", "t2",
                                                                                     "t3"}
    assert page.numbers[-1].values == [pytest.approx(100 * (0.842 / 0.81 - 1))]


def test_the_best_point_of_a_scheme_that_no_tuning_chose_says_so(tmp_path):
    (tmp_path / "tuned").mkdir()
    trials = [{"run_id": "u1", "settings": {"latent_dim": 8}}]
    (tmp_path / "tuned" / "movielens_fm_uniform.json").write_text(json.dumps({"chosen": trials}))
    page = fig2.build(made(), tmp_path, "movielens", "fm")
    assert page.numbers[-1].what == "best point of PEP (untuned) over that of uniform, % of AUC"


def test_tuned_schemes_come_with_their_settings(tmp_path):
    (tmp_path / "tuned").mkdir()
    trials = [{"run_id": "mde1", "settings": {"mde_alpha": 0.1}}]
    (tmp_path / "tuned" / "movielens_fm_mde.json").write_text(json.dumps({"chosen": trials}))
    page = fig2.build(made(), tmp_path, "movielens", "fm")
    assert "test AUC, mde (mde_alpha 0.1) at 300 parameters" in [number.what
                                                                 for number in page.numbers]
    assert "mde (mde_alpha 0.1) at 300 parameters: seeds 2, 3" in page.missing


def test_rows_name_their_run_and_the_picture_spans_two_columns(tmp_path):
    table, picture, text = write(fig2.build(made(), tmp_path, "movielens", "fm"),
                                 tmp_path / "pages")
    assert [row["runs"] for row in csv.DictReader(table.open())] == ["l1", "l2", "l3", "t1", "t2",
                                                                     "t3", "u1", "u2"]
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1400, 1120)
    assert "Warning" not in text.read_text()


def test_older_runs_without_bytes_are_named_and_stay_in_the_left_panels(tmp_path):
    results = [*made(), *second_sizes()]
    for run in results:
        if run["run_id"] in ("u1", "u2", "u9"):
            del run["inference_bytes"]
    page = fig2.build(results, tmp_path, "movielens", "fm")
    assert (
        "run u2 (seed 2) has no `inference_bytes`: it is older, and not in the right panels"
        in page.missing
    )
    assert [len(axes.containers) for axes in page.figure.axes] == [2, 1, 2, 1]


@pytest.mark.parametrize(("dataset", "stem"),
                         [("criteo", "fig3_criteo_fm"), ("avazu", "fig4_avazu_fm")])
def test_the_data_set_decides_the_number_and_coarse_thresholds_belong_to_large_data(tmp_path,
                                                                                    dataset, stem):
    page = fig2.build(made(dataset), tmp_path, dataset, "fm")
    assert page.stem == stem
    assert any(row["runs"] == "coarse" for row in page.rows)
    assert (
        "PEP at 1,067 parameters, the paper's PEP-0: no run" in page.missing or dataset == "avazu"
    )
    gains = [number.paper for number in page.numbers if "best point" in number.what]
    assert gains == [0.59 if dataset == "criteo" else None]


def test_budgets_that_no_ticket_has_are_listed_with_the_reason(tmp_path):
    asked = {"own": {"candidate_p": [700, 500, 72]}, "snapshots": ["700"], "params": 600}
    results = [*made(), *second_sizes(), search("as_reached", **asked)]
    page = fig2.build(results, tmp_path, "movielens", "fm")
    assert "PEP at 700 parameters: not retrained" in page.missing
    assert "PEP at 500 parameters: no search reached it" in page.missing


@pytest.mark.parametrize("content", ['{"chosen": ', "[]", "{}"])
def test_a_corrupt_tuning_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "movielens_fm_mde.json").write_text(content)
    with pytest.raises(ValueError,
                       match=r"movielens_fm_mde\.json is corrupt .*; delete it, or run"):
        fig2.build(made(), tmp_path, "movielens", "fm")


def test_no_display_is_needed(tmp_path, monkeypatch):
    """pyplot alone chooses a backend, some of which want one; whatever imports it fails here."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    write(fig2.build(made(), tmp_path, "movielens", "fm"), tmp_path)
    assert (tmp_path / "fig2_movielens_fm.png").stat().st_size > 10_000
