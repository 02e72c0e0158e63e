"""The statistics' benchmark on a short planted file."""

import json

from benchmarks import bench_afm_statistics
from benchmarks.bench_afm_statistics import full_sizes, made_rows, starts_of
from data.synthetic import raw_planted

SCHEMA = {"part": str, "rows": int, "seconds": float, "processor_seconds": float,
          "rows_per_processor_second": float, "extra_memory_bytes": int, "ids": int,
          "ids_seen": int, "threads": int, "device": str, "commit": str}


def test_every_part_leaves_a_line(tmp_path, monkeypatch, capsys):
    sizes = []

    def smaller(dataset):  # 33.8 million rows take seconds to draw
        sizes.append([size + 5 for size in dataset.schema.sizes])
        return tuple(sizes[0])

    monkeypatch.setattr(bench_afm_statistics, "full_sizes", smaller)
    path = tmp_path / "statistics.json"
    bench_afm_statistics.main(["--rows", "3000", "--layer-rows", "2000", "--json", str(path)])
    lines = {line["part"]: line for line in json.loads(path.read_text())}
    assert list(lines) == ["data", "frequencies", "table", "smoothed", "forward", "layers"]
    for line in lines.values():
        assert {name: type(value) for name, value in line.items()} == SCHEMA
        assert line["ids"] == line["ids_seen"] + 5 * 39 == sum(sizes[0])
        assert line["rows"] / line["processor_seconds"] == line["rows_per_processor_second"]
    assert [line["rows"] for line in lines.values()] == [
        2400, 2400, sum(sizes[0]), sum(sizes[0]), 2400, 2400]  # one batch at least
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_full_sizes_are_those_of_the_whole_file(tmp_path):
    dataset = made_rows(500, tmp_path)
    found = full_sizes(dataset)
    assert all(full >= size for full, size in zip(found, dataset.schema.sizes, strict=True))
    assert sum(found) >= sum(field.size
                             for field in raw_planted.LAYOUTS["criteo"].fields) > 33_000_000
    assert list(starts_of((3, 2, 4))) == [0, 3, 5]
