"""AFM's page: groups over seeds, both scores, speeds, baselines, and what is missing."""

import csv

import pytest
from synthetic_results import factored, put, result, ticket

from studies.figures import afm_curves, afm_page
from studies.page import text, write
from studies.series import series_of


def control(run_id, seed=1, epochs=1, auc=0.82):
    made = factored(run_id, "dense", seed, epochs, auc, 800)
    made["identity"]["extra"] = {"compression": {"method": "dense"}}
    made["compression"] = {name: made["compression"][name]
                           for name in ("method", "source", "parameters", "file_bytes")}
    return made


def build(tmp_path, *results):
    """The page of some runs, beside the dense runs (dense1, ...) that fine-tunings start from."""
    seeds = {made["seed"] for made in results if made["stage"] == "finetune"}
    return built(tmp_path, *results, *(result(f"dense{seed}", seed=seed) for seed in seeds))


def built(tmp_path, *results):
    return afm_page.build([put(tmp_path, made) for made in results], tmp_path, "movielens", "fm")


def cells(page, *start):
    [line] = [line for line in text(page).splitlines()
              if line.startswith("| " + " | ".join(start) + " |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_seeds_share_a_line_with_both_scores(tmp_path):
    page = build(tmp_path, factored("a", emb_rank=2), factored("b", emb_rank=2, seed=2, auc=0.81),
                 factored("c", "svd", emb_rank=2, auc=0.79), control("d"))
    line = cells(page, "AFM", "emb-rank 2", "1", "200")
    assert line[3:7] == ["200", "301", "100", "1,500"]
    assert line[8:10] == ["0.7850 ± 0.0071", "0.8050 ± 0.0071"]
    assert line[-1] == "2"
    assert cells(page, "dense", "-", "1")[9] == "0.8200"
    assert cells(page, "SVD of the weights", "emb-rank 2", "1", "200")[8] == "0.7700"
    assert cells(page, "AFM", "emb-rank 2", "-", "64")[4:] == ["1,000", "3,000", "3.00", "2"]


def test_a_gpus_runs_are_timed_on_both(tmp_path):
    made = {**factored("a", emb_rank=2), "device": "NVIDIA H200"}
    made["compression"]["samples_per_second_cpu"] = {"dense": {"64": 10}, "factored": {"64": 15}}
    page = build(tmp_path, made)
    assert cells(page, "AFM", "emb-rank 2", "NVIDIA H200", "64")[4:] == ["1,000", "3,000", "3.00",
                                                                         "1"]
    assert cells(page, "AFM", "emb-rank 2", "its processor", "64")[4:] == ["10", "15", "1.50", "1"]


def test_runs_that_were_timed_with_fewer_batch_sizes_are_left_out(tmp_path):
    old, new = factored("a", emb_rank=2), factored("b", emb_rank=2, seed=2)
    for found in old["compression"]["samples_per_second"].values():
        del found["64"]
    lines = text(build(tmp_path, old, new)).splitlines()
    assert [line.split(" | ")[3:] for line in lines
            if line.startswith("| AFM | emb-rank 2 |")][1:] == [
        ["1", "100", "80", "0.80", "1 |"], ["64", "1,000", "3,000", "3.00", "1 |"]]


def test_what_was_not_fine_tuned_has_no_score_for_it(tmp_path):
    page = build(tmp_path, factored("a", emb_rank=2, epochs=0), factored("b", emb_rank=2, auc=0.81))
    starts = ("| AFM | emb-rank 2 | 0 | 200", "| AFM | emb-rank 2 | 1 | 200")
    lines = [line for line in text(page).splitlines() if line.startswith(starts)]
    assert sorted("| 0.7800 | - |" in line for line in lines) == [False, True]
    written = {path.suffix: path for path in write(page, tmp_path / "pages")}
    rows = list(csv.DictReader(written[".csv"].open()))
    assert {(row["epochs"], row["test_auc"]) for row in rows} == {("0", ""), ("1", "0.81")}
    assert {row["runs"] for row in rows} == {"a", "b"}
    assert written[".png"].stat().st_size > 10_000


def test_what_is_missing_is_said(tmp_path):
    assert any("compress.py afm" in line for line in build(tmp_path, result("u")).missing)
    page = build(tmp_path, factored("a", emb_rank=2), result("u"))
    assert any("--no-control" in line for line in page.missing)
    assert any(line.startswith("PEP, retrained") for line in page.missing)
    assert not any(line.startswith("smaller dense") for line in page.missing)


def test_runs_of_another_training_or_rate_are_no_seeds_of_these(tmp_path):
    others = [factored("c", emb_rank=2, auc=0.5), factored("d", emb_rank=2, auc=0.5)]
    for other, value in zip(others, ({"latent_dim": 4}, {"lr": 0.5}), strict=True):
        other["identity"]["settings"] = {**other["identity"]["settings"], **value}
    page = build(tmp_path, factored("a", emb_rank=2), factored("b", emb_rank=2, seed=2), *others)
    assert cells(page, "AFM", "emb-rank 2", "1", "200")[-1] == "2"
    assert page.left_out[-1].startswith("Left out: 2 fine-tunings")


def test_a_page_of_what_was_only_measured_is_drawn(tmp_path):
    page = build(tmp_path, factored("a", emb_rank=2, epochs=0))
    assert {path.suffix for path in write(page, tmp_path / "pages")} == {".md", ".csv", ".png"}


def test_seeds_that_only_others_have_are_missing(tmp_path):
    page = build(tmp_path, *(factored(f"a{seed}", emb_rank=2, seed=seed) for seed in (1, 2, 3)),
                 factored("b", "svd", emb_rank=2, seed=2), factored("c", "svd", emb_rank=3, seed=2),
                 control("d"),
                 control("e", seed=2))
    assert [line for line in page.missing if "no such run" not in line] == [
        "seeds 1, 3 of: SVD of the weights, emb-rank 2, epochs 1; SVD of the weights, emb-rank 3, "
        "epochs 1",
        "seed 3 of: dense, -, epochs 1"]


def test_other_models_and_data_are_left_out(tmp_path):
    page = build(tmp_path, factored("a", emb_rank=2),
                 {**factored("b", emb_rank=2, auc=0.9), "settings": {
        **factored("b")["settings"], "model": "deepfm"}}, ticket("t"))
    assert [row["runs"] for row in page.rows] == ["a"]


def test_curves_show_tables_alone_and_the_spectra_what_is_left_out(tmp_path):
    page = build(tmp_path, factored("a", emb_rank=2), factored("b", emb_rank=3, size=300, auc=0.81),
                 factored("c", mlp_rank=3, size=800, layers={"mlp.0": 3}), control("d"))
    left, right, _, by_bytes, fields, _ = page.figure.axes
    drawn = {line.get_label(): line for line in right.lines}
    assert list(drawn["AFM"].get_xdata()) == [200, 300]
    assert list(drawn["AFM"].get_ydata()) == [0.8, 0.81]
    assert list(left.lines[0].get_ydata()) == pytest.approx([0.78, 0.79])
    assert drawn["dense"].get_ydata()[0] == 0.82
    assert list(by_bytes.lines[0].get_xdata()) == [800, 1200]
    assert list(fields.lines[0].get_ydata()) == pytest.approx([1.0, 1 / 3])


def test_what_was_fine_tuned_longer_is_a_curve_of_its_own(tmp_path):
    page = build(tmp_path, factored("a", emb_rank=2), factored("b", emb_rank=2, epochs=5, auc=0.83),
                 factored("a3", emb_rank=3, size=300),
                 factored("b3", emb_rank=3, epochs=5, auc=0.84, size=300),
                 control("c"),
                 control("d", epochs=5, auc=0.84),
                 factored("e", emb_rank=2, auc=0.5, freeze_embedding=True))
    drawn = {line.get_label(): list(line.get_ydata()) for line in page.figure.axes[1].lines}
    assert (drawn["AFM"], drawn["AFM, 5 epochs"]) == ([0.8, 0.8], [0.83, 0.84])
    assert drawn["dense"][0] == 0.82
    assert cells(page, "AFM", "emb-rank 2, freeze-embedding true", "1", "200")[9] == "0.5000"


def test_baselines_stand_beside_at_equal_parameters_and_at_equal_bytes(tmp_path):
    # 200, 800 bytes
    page = build(tmp_path, factored("a", emb_rank=2), factored("b", emb_rank=2, seed=2, auc=0.82),
                 ticket("p", budget=190, auc=0.79, inference_bytes=900),
                 result("s1", "search", embedding="pep"),
                 ticket("q", budget=90, auc=0.78, inference_bytes=700),
                 ticket("r", budget=201, auc=0.7),
                 # not PEP as published
                 ticket("t", budget=199, auc=0.6, own={"rewind": "embedding"}),
                 result("u", params=400, auc=0.81), result("v", embedding="tt", params=20, auc=0.61,
                                                           own={"tt_rank": 3}))
    line = cells(page, "2", "200", "800", "0.8100 ± 0.0141", "PEP, retrained")
    assert line[5:] == ["190", "0.7900", "700", "0.7800"]
    assert cells(page, "2", "200", "800", "0.8100 ± 0.0141", "smaller dense")[5:] == ["-"] * 4
    assert cells(page, "2", "200", "800", "0.8100 ± 0.0141", "tensor train from scratch")[5:] == [
        "20", "0.6100", "80", "0.6100"]


def test_a_baselines_runs_of_another_length_or_of_one_seed_twice_are_no_seeds(tmp_path):
    page = build(tmp_path, factored("a", emb_rank=2, size=900),
                 result("u", auc=0.85, own={"max_epochs": 300}),
                 result("twice", auc=0.85, own={"max_epochs": 150}),
                 result("other", seed=2, auc=0.87),
                 result("short", seed=3, auc=0.79, stop_reason="max_epochs", own={"max_epochs": 2}))
    assert cells(page, "2", "900", "3,600", "0.8000",
                 "smaller dense")[5:7] == ["800", "0.8600 ± 0.0141"]
    assert {run["run_id"] for run in page.behind} == {"a", "u", "other"}
    assert "1 run of other lengths" in text(page)


def test_factored_models_of_a_short_training_or_of_one_trained_twice_are_left_out(tmp_path):
    sources = [result("long"), result("again", own={"max_epochs": 300}),
               result("short", seed=2, stop_reason="max_epochs", own={"max_epochs": 2})]
    runs = [factored("a", emb_rank=2), factored("b", emb_rank=3),
            factored("c", emb_rank=2, auc=0.9),
            factored("d", emb_rank=2, seed=2, auc=0.5)]
    for run, source in zip(runs, ("long", "long", "again", "short"), strict=True):
        run["compression"]["source"] = source
    page = build(tmp_path, *sources, *runs)
    assert {row["runs"] for row in page.rows} == {"a", "b"}
    assert page.left_out[-1].startswith("Left out: 2 fine-tunings")


def test_tickets_with_the_embedding_alone_rewound_are_missing_baselines(tmp_path):
    page = build(tmp_path, factored("a", emb_rank=2),
                 ticket("p", budget=190, own={"rewind": "embedding"}))
    assert cells(page, "2", "200", "800", "0.8000", "PEP, retrained")[5:] == ["-"] * 4
    assert ("PEP, retrained at 190 parameters; tickets with the embedding alone rewound exist "
            "(seed 1) and do not count") in page.missing


def test_intervals_are_averaged_over_seeds(tmp_path):
    ends = {"a": [-0.03, -0.01], "b": [-0.05, -0.02]}
    runs = [{**factored(run_id, emb_rank=2, seed=seed),
             "intervals": {"against": "d", "test_auc_less": ends[run_id]}}
            for seed, run_id in enumerate(ends, 1)]
    assert cells(build(tmp_path, *runs, control("d")), "AFM", "emb-rank 2", "1", "200")[12] == (
        "-0.0200 [-0.0400, -0.0150]")


def test_runs_that_were_fine_tuned_are_in_no_other_page(tmp_path):
    assert set(series_of([result("u"), factored("a", emb_rank=2), control("d")])) == {"uniform"}


def test_fine_tunings_of_a_dense_run_without_a_record_are_left_out(tmp_path):
    page = built(tmp_path, result("dense1"), factored("a", emb_rank=2),
                 factored("b", emb_rank=2, seed=2))
    assert [row["runs"] for row in page.rows] == ["a"]
    assert page.left_out[-1].startswith("Left out: 1 fine-tuning whose dense run has no record")


def test_seeds_of_one_budget_are_one_point_whatever_bytes_their_masks_take():
    runs = [{"num_embedding_params": 50, "inference_bytes": size, "test_auc": auc}
            for size, auc in ((300, 0.5), (320, 0.75))]
    runs.append({"num_embedding_params": 10, "inference_bytes": 60, "test_auc": 0.25})
    assert afm_curves.by_size(runs, afm_curves.parameters_of, afm_curves.table_bytes,
                              afm_curves.auc_at_end) == [(60, 0.25), (310, 0.625)]
