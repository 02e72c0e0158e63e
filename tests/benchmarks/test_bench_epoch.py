"""Epoch times of Table 2, from a tiny set to the page."""

import json

import pytest
import tiny

from benchmarks import bench_epoch
from studies.figures import table2

SCRIPT = {**tiny.SETTINGS, "dataset": "movielens", "embedding": "pep", "candidate_p": [300],
          "latent_dim": 4}


def test_all_models_and_variants_are_timed_and_the_page_reads_the_record(tmp_path, monkeypatch):
    tiny.install(monkeypatch, tiny.dataset())
    bench_epoch.bench(SCRIPT, tiny.context(tmp_path), 2, 3)
    record = json.loads((tmp_path / "benchmarks" / "epoch_movielens.json").read_text())
    assert (record["batches"], record["rounds"], record["manifest"]) == (19, 3, tiny.dataset().hash)
    times = record["ms_per_step_of_rounds"]
    assert {model: set(by_variant) for model, by_variant in times.items()} == {
        model: set(bench_epoch.VARIANTS) for model in bench_epoch.MODELS}
    for by_variant in times.values():
        assert all(len(each) == 3 and min(each) > 0 for each in by_variant.values())
    page = table2.build([], tmp_path, "movielens", "fm")
    assert page.missing == []
    shown = page.numbers[0].values[0]
    assert shown == pytest.approx(sorted(times["fm"]["base"])[1] * 19 / 1e3)
    assert page.behind[0]["commit"] == record["commit"]
