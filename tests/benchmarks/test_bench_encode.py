import json
from types import SimpleNamespace

import pytest

from benchmarks import bench_encode
from data.raw import ingest

ROWS = 3000
SCHEMA = {"dataset": str, "variant": str, "rows": int, "seconds": float, "processor_seconds": float,
          "rows_per_second": float, "peak_memory_bytes": int, "raw_bytes": int, "stored_bytes": int,
          "jobs": int, "peak_memory_of_others_bytes": int, "cores": int, "device": str}


def test_both_ways_encode_all_rows_of_the_file(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lmdb")
    in_this_process = SimpleNamespace(run=lambda command, check: bench_encode.main(command[2:]))
    monkeypatch.setattr(bench_encode, "subprocess", in_this_process)
    path = tmp_path / "results" / "encode.json"
    bench_encode.main(["--dataset", "criteo", "--rows", str(ROWS), "--scratch", str(tmp_path),
                       "--json", str(path)])
    rows = json.loads(path.read_text())
    assert [row["variant"] for row in rows] == ["lmdb", "ours"]
    for row in rows:
        assert {name: type(row[name]) for name in SCHEMA} == SCHEMA
        assert set(row) == {*SCHEMA, "commit"}
        assert row["rows"] == ROWS
        assert row["rows_per_second"] == pytest.approx(ROWS / row["seconds"])
    assert rows[1]["stored_bytes"] > ROWS * 4 * (39 + 13)
    assert rows[0]["stored_bytes"] > ROWS * 4 * 40
    fastest = max(row["rows_per_second"] for row in rows) / min(row["rows_per_second"]
                                                                for row in rows)
    assert f"{fastest:.1f}x" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["results"], "the made file is deleted"


def test_ours_is_measured_for_each_number_of_processes(tmp_path, monkeypatch):
    in_this_process = SimpleNamespace(run=lambda command, check: bench_encode.main(command[2:]))
    monkeypatch.setattr(bench_encode, "subprocess", in_this_process)
    asked = []
    encode = ingest.encode_file
    monkeypatch.setattr(ingest, "encode_file", lambda *arguments, processes: asked.append(processes)
                        or encode(*arguments))
    path = tmp_path / "encode.json"
    bench_encode.main(["--only", "ours", "--jobs", "1", "2", "--rows", str(ROWS), "--scratch",
                       str(tmp_path), "--json", str(path)])
    assert asked == [row["jobs"] for row in json.loads(path.read_text())] == [1, 2]


def test_the_plain_way_gives_unknown_values_one_code(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    path = tmp_path / "train"
    layout = bench_encode.LAYOUTS["avazu"]
    row = "1,{y},14102100,1005,0," + ",".join(["0000000a"] * 8) + ",{model},1,2,1,1,1,1,1,1,-1,1\n"
    lines = [row.format(y=i % 2, model="0000000b" if i < 10 else f"0000010{i - 10}")
             for i in range(12)]
    path.write_text(layout.header + "\n" + "".join(lines))
    (tmp_path / "out").mkdir()
    assert bench_encode.row_by_row(layout, path, tmp_path / "out") == 12
    with lmdb.open(str(tmp_path / "out" / "rows")) as database, database.begin() as transaction:
        stored = [memoryview(value).cast("I").tolist() for _, value in transaction.cursor()]
    model = 1 + layout.fields.index("device_model")
    assert [values[model] for values in stored] == [0] * 10 + [1, 1]
    assert [values[0] for values in stored] == [0, 1] * 6
