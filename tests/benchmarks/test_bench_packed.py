import json
from itertools import product

import numpy as np

from benchmarks import bench_packed
from models.packed_table import pack


def test_every_way_is_timed_at_every_batch(tmp_path, capsys):
    sizes = (70, 5)
    classes, columns = np.zeros(75, np.int8), np.full((2, 4), 2, np.int8)
    codes = np.random.default_rng(0).integers(0, 4, (75, 4))
    pack(codes, np.full(5, 190, np.uint8), classes, columns, sizes).save(tmp_path / "table")
    bench_packed.main([str(tmp_path / "table"), "--batch", "1", "20", "--seconds", "0.001",
                       "--json", str(tmp_path / "packed.json")])
    records = json.loads((tmp_path / "packed.json").read_text())
    assert [(record["batch"], record["way"]) for record in records] == list(
        product((1, 20), ("dense", "packed", "packed, torch alone")))
    assert all(record["microseconds"] > 0 for record in records)
    assert records[0]["table_bytes"] == (tmp_path / "table").stat().st_size
    assert len(capsys.readouterr().out.splitlines()) == 6
