"""The exports of a run are measured in every type of values."""

import json

import tiny

from benchmarks import bench_export
from models.serving import TYPES


def test_every_type_has_its_bytes_and_its_parity(tmp_path, monkeypatch, capsys):
    tiny.install(monkeypatch, tiny.dataset(rows=600))
    run_id = tiny.train(tmp_path, embedding="uniform", max_epochs=1)["run_id"]
    record_file = tmp_path / "record.json"
    bench_export.main(["--run", run_id, "--runs", str(tmp_path), "--json", str(record_file)])
    record = json.loads(record_file.read_text())
    tables = [record["values"][values]["bytes"]["table"] for values in TYPES]
    assert tables == sorted(tables, reverse=True)
    assert record["values"]["float32"]["parity"]["largest_difference"] < 1e-6
    assert len(capsys.readouterr().out.splitlines()) == len(TYPES)
