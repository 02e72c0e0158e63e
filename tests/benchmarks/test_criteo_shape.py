"""The drawn model of Criteo's shape, smaller."""

import json

import numpy as np

from benchmarks import bench_serving, criteo_shape
from models.serving import artefact

ROWS = 30_000


def test_its_table_keeps_what_it_says():
    table = criteo_shape.pruned(500, 8, 321)
    assert np.count_nonzero(table) == 321
    assert sum(criteo_shape.field_sizes(ROWS)) == ROWS
    assert sum(criteo_shape.field_sizes()) == criteo_shape.ROWS


def test_every_raw_row_gets_a_score_and_nearly_all_values_are_known(tmp_path):
    artefact.write(criteo_shape.artefact("float16", ROWS), tmp_path / "model")
    criteo_shape.write_rows(tmp_path / "rows.tsv", 50, ROWS)
    scorer = bench_serving.load(tmp_path / "model")
    done = scorer.score_file(tmp_path / "rows.tsv", tmp_path / "out.csv")
    assert (done.rows, done.bad) == (50, 0)
    rows = [line.split("\t") for line in (tmp_path / "rows.tsv").read_text().splitlines()]
    lookups = [field.lookup([row[place] for row in rows]) == field.unknown
               for place, field in enumerate(scorer.vocabulary.fields)]
    assert np.mean(lookups[criteo_shape.NUMBERS:]) < 0.02


def test_times_of_lookups(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_serving, "SHAPES", {"tiny": (200, 8, 300)})
    monkeypatch.setattr(bench_serving, "BATCHES", (1, 4))
    bench_serving.main(["--only", "lookups", "--seconds", "0", "--json", str(tmp_path / "t.json")])
    record = json.loads((tmp_path / "t.json").read_text())
    times = record["tiny"]["lookups"]["microseconds"]["4"]
    assert {"dense", "compact float32", "kept rows int8", "csr scipy"} <= times.keys()
    assert "compact float16" in capsys.readouterr().out
