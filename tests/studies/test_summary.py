"""The table of everything: runs that are no equals have no mean in common."""

import json

import pytest
from synthetic_results import result, ticket

from studies import summary
from studies.summary import summarise


def lines(*results):
    return [(scheme, auc, seeds) for _, scheme, _, auc, _, _, _, seeds in summarise(results)]


def test_runs_of_other_lengths_have_a_row_of_their_own_and_a_seed_counts_once():
    short = [result(f"s{seed}", seed=seed, auc=0.7, stop_reason="max_epochs", own={"max_epochs": 1})
             for seed in (1, 2)]
    whole = [result("a", own={"max_epochs": 150}), result("b", own={"max_epochs": 300}),
             result("c", seed=2, auc=0.82)]
    assert lines(*short, *whole) == [("uniform, d 8", "0.8100 ± 0.0141", "2"),
                                     ("uniform, cut at 1 epoch, d 8", "0.7000 ± 0.0000", "2")]


def test_samples_and_tickets_with_the_embedding_alone_rewound_are_called_so():
    sample = {**result("a", manifest="x"), "data": {"rows": 500}}
    assert ("uniform, data x, 500 rows, d 8", "0.8000", "1") in lines(sample, result("b", seed=2))
    assert lines(ticket("p", own={"rewind": "embedding"}), ticket("q", 2)) == [
        ("PEP", "0.8000", "1"), ("PEP, embedding alone rewound", "0.8000", "1")]


def test_hashes_are_numbered_and_epochs_and_names_are_shown():
    made = [{**result("a", manifest="0123456789ab", model="deepfm"), "epochs": 12},
            {**result("b", manifest="cba987654321", model="deepfm"), "epochs": 20},
            {**result("c", seed=2, manifest="cba987654321", model="deepfm"), "epochs": 24}]
    rows = [(model, scheme, epochs, seeds)
            for model, scheme, _, _, _, _, epochs, seeds in summarise(made)]
    assert sorted(rows) == [("DeepFM", "uniform, data 1, d 8", "12", "1"),
                            ("DeepFM", "uniform, data 2, d 8", "20-24", "2")]


def test_data_sets_come_one_after_the_other(tmp_path):
    for run_id, dataset in (("a", "movielens"), ("b", "criteo")):
        made = result(run_id, dataset=dataset)
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(made))
    text = summary.of_folder(tmp_path)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "## Criteo", "## MovieLens-1M"]
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| FM")] == [
        "uniform, d 24", "uniform, d 8"]


def test_tables_of_few_bits_are_counted_and_not_passed_over(tmp_path):
    for run_id, stage in (("a", "train"), ("b", "quantise"), ("c", "quantise")):
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({**result(run_id), "stage": stage}))
    text = summary.of_folder(tmp_path)
    assert "Runs of other stages are not among these: 2 quantise." in text
    assert text.count("| FM") == 1


def test_a_size_that_is_learned_is_one_row_over_seeds():
    runs = [result(f"a{seed}", seed=seed, embedding="darts", params=400 + seed) for seed in (1, 2)]
    other = result("b", embedding="darts", params=999, own={"latent_dim": 16})
    assert [(scheme, seeds) for scheme, _, seeds in lines(*runs, other)] == [
        ("DartsEmb, d 16", "1"), ("DartsEmb, d 8", "2")]


def test_values_that_training_left_at_zero_part_no_seeds():
    runs = [result(f"a{seed}", seed=seed, params=800 - seed) for seed in (1, 2, 3)]
    assert [(row[2], row[-1]) for row in summarise(runs)] == [("798", "3")]


def test_what_is_no_folder_of_results_is_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match=rf"is no folder of results.* Did you mean {tmp_path}\?"):
        summary.of_folder(tmp_path / "runs")
    with pytest.raises(ValueError, match=r"no run in .* is finished yet"):
        summary.of_folder(tmp_path)
