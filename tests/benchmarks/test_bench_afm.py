import json
from itertools import product

import pytest

from benchmarks import bench_afm


def test_every_variant_is_timed_and_costs_what_it_should(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_afm, "TURNS", 2)
    path = tmp_path / "afm.json"
    bench_afm.main(["--shape", "movielens", "--batch", "1", "--batch", "32", "--seconds", "0",
                    "--device", "cpu", "--json", str(path)])
    lines = json.loads(path.read_text())
    variants = ("dense", "table, not fused", "table, fused", "table, fused, and layers")
    assert [(line["batch"], line["variant"]) for line in lines] == list(product((1, 32), variants))
    dense, low, fused, both = lines[:4]
    rows = sum(bench_afm.FIELD_SIZES)
    assert dense["multiply_adds"] == 7 * 64 * 100 + 100 * 100 + 100
    assert low["multiply_adds"] == dense["multiply_adds"] + 7 * 8 * 64
    assert fused["multiply_adds"] == 7 * 8 * 64 + 7 * 8 * 100 + 100 * 100 + 100
    assert both["multiply_adds"] == 7 * 8 * 64 + 7 * 8 * 100 + 16 * 200 + 100
    assert low["parameters"] - dense["parameters"] == 8 * rows + 7 * 8 * 64 + 7 * 64 - 64 * rows
    for line in lines:
        assert line["slowest_turn"] <= line["samples_per_second"] <= line["fastest_turn"]
    assert dense["times_dense"] == pytest.approx(1)
    assert "table, fused, and layers" in capsys.readouterr().out
