import json
import struct
from itertools import product

import pytest
import torch

from benchmarks import bench_scale
from benchmarks.bench_scale import VARIANTS, field_sizes, measure, measure_rank
from engine.optim.step import Step
from studies.figures import scale_curve

ROWS = 1500
SCHEMA = {"model": str, "variant": str, "num_rows": int, "ms_per_step": float,
          "processor_ms_per_step": float,
          "samples_per_second": float, "peak_memory_bytes": int, "distinct_rows": int,
          "device": str, "threads": int, "torch": str, "commit": str,
          "copy_bytes_per_second": float, "ms_per_step_of_rounds": list}
OURS = {"interval": int, "element_steps": int, "bytes_moved": int}


@pytest.fixture
def quick(monkeypatch):
    """In this process, eager, a few steps."""
    monkeypatch.setattr(bench_scale, "BATCHES", 2)
    monkeypatch.setitem(bench_scale.PRESETS["criteo"], "batch_size", 32)
    monkeypatch.setitem(bench_scale.PRESETS["criteo"], "latent_dim", 3)
    monkeypatch.setattr(bench_scale, "bandwidth", lambda device: 1e9)
    monkeypatch.setattr(bench_scale, "in_a_process_of_its_own",
                        lambda given, *which: json.loads(json.dumps(measure(*which, given.steps,
                                                                            torch.device("cpu")))))
    yield
    torch.set_flush_denormal(True)


@pytest.mark.usefixtures("quick")
def test_a_step_of_several_processes(tmp_path, monkeypatch, capsys):
    def here(given, count, rows):
        if count:
            return measure_rank("fm", rows, given.steps)
        return {"bytes_per_step": 0.0, **measure("fm", "lazy", rows, given.steps,
                                                 torch.device("cpu"))}

    monkeypatch.setattr(bench_scale, "_one_world", here)
    path = tmp_path / "processes.json"
    bench_scale.main(["--processes", "1", "--rows", str(ROWS), "--rounds", "1", "--steps", "5",
                      "--device", "cpu", "--json", str(path)])
    rows = json.loads(path.read_text())
    assert [(row["processes"], row["lanes"], row["num_rows"]) for row in rows] == [
        (0, 0, ROWS), (1, 4, ROWS)]
    assert all(row["processor_ms_per_step"] > 0 and row["bytes_per_step"] == 0 for row in rows)
    assert "1,500 rows, 1 processes: " in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_rows_table_and_figure(tmp_path, capsys):
    path = tmp_path / "scale.json"
    bench_scale.main(["--rows", str(ROWS), "--rows", "3000", "--rounds", "2", "--steps", "50",
                      "--device", "cpu", "--json", str(path)])
    rows = json.loads(path.read_text())
    assert [(row["num_rows"], row["variant"]) for row in rows] == list(
        product((ROWS, 3000), VARIANTS))
    for row in rows:
        ours = row["variant"] != "naive"
        schema = {**SCHEMA, **(OURS if ours else {})}
        assert {name: type(row[name]) for name in schema} == schema
        assert set(row) == set(schema)
        assert len(row["ms_per_step_of_rounds"]) == 2
        assert (min(row["ms_per_step_of_rounds"]) <= row["ms_per_step"]
                <= max(row["ms_per_step_of_rounds"]))
        assert row["samples_per_second"] == pytest.approx(32 * 1000 / row["ms_per_step"])
        assert 39 < row["distinct_rows"] < 32 * 39
        if ours:
            tables = 1 if row["variant"] == "uniform" else 2
            assert row["element_steps"] == row["num_rows"] * (3 * tables + 1)
            assert row["bytes_moved"] >= 24 * row["element_steps"] / row["interval"]
    intervals = {row["variant"]: row["interval"] for row in rows if row["variant"] != "naive"}
    assert (intervals["streamed"], intervals["lazy"]) == (1, 32)
    times = {row["variant"]: row["ms_per_step"] for row in rows[:len(VARIANTS)]}
    shown = capsys.readouterr().out.splitlines()[2 + VARIANTS.index("lazy")]
    assert shown.startswith("fm ")
    assert f"{times['naive'] / times['lazy']:.1f}x" in shown
    assert f"{times['lazy'] / times['uniform']:.2f}x" in shown
    scale_curve.main([str(path), str(tmp_path / "scale.png")])
    picture = (tmp_path / "scale.png").read_bytes()
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 2 * height > 400
    with pytest.raises(ValueError, match=r"no row of model 'deepfm'; there are: \['fm'\]"):
        scale_curve.draw(rows, "deepfm", tmp_path / "other.png")


@pytest.mark.usefixtures("quick")
def test_the_form_for_a_gpu_is_measured_too(monkeypatch):
    monkeypatch.setattr(Step, "as_on_device", True)
    found = measure("fm", "lazy", ROWS, 20, torch.device("cpu"))
    visited = found["element_steps"] / 32 + 2 * found["distinct_rows"] * (2 * 3 + 1)
    # the last batch's rows are not quite the mean
    assert found["bytes_moved"] == pytest.approx(24 * visited, rel=0.05)


def test_field_sizes_sum_to_the_rows_and_keep_criteos_shape():
    for rows in (1000, 100_000, 1_086_810):
        sizes = field_sizes(rows)
        assert len(sizes) == 39
        assert sum(sizes) == rows
        assert min(sizes) >= 3
        assert max(sizes) > rows / 10


def test_a_table_too_small_for_the_fields_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench_scale.main(["--rows", "999"])
    assert "--rows at least 1000" in capsys.readouterr().err
