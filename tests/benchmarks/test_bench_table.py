import json
from types import SimpleNamespace

from benchmarks import bench_table


def test_every_reader_reads_all_rows(tmp_path, monkeypatch, capsys):
    in_this_process = SimpleNamespace(run=lambda command, check: bench_table.main(command[2:]))
    monkeypatch.setattr(bench_table, "subprocess", in_this_process)
    monkeypatch.setattr(bench_table, "CHUNK", 700)
    path = tmp_path / "results" / "table.json"
    bench_table.main(["--rows", "2000", "--scratch", str(tmp_path), "--json", str(path)])
    rows = json.loads(path.read_text())
    assert {row["variant"] for row in rows} >= {"csv", "parquet", "pyarrow", "pandas"}
    assert {row["rows"] for row in rows} == {2000}
    assert all(row["peak_memory_bytes"] > 0 for row in rows)
    assert "rows/s" in capsys.readouterr().out
