"""Kept widths with raw values."""

import csv

import numpy as np
import pandas as pd
import pytest
import tiny

from data import store
from data.table.encode import open_table
from data.table.options import OwnTable, TableOptions
from models.vocabulary import FieldInfo
from studies import sizes
from studies.kept_widths import kept_of


@pytest.fixture
def toy():
    towns = ["Oslo", "Rome", "Rome", None] * 25
    return store.build("toy", {"town": towns, "age": np.arange(100) % 2}, np.arange(100) % 2, 7)


def test_every_feature_has_its_value_count_and_width(toy, tmp_path):
    kept = np.array([4, 0, 1, 2, 2])
    found = sizes.sizes_of(toy, kept)
    sizes.write(found, tmp_path / "s.csv")
    sizes.write(found, tmp_path / "s.parquet")
    with (tmp_path / "s.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [tuple(line.values()) for line in lines] == [
        ("town", "Rome", "value", "50", "0.5", "4", "0.8"),
        ("town", "", "gap", "25", "0.25", "0", "0.0"),
        ("town", "Oslo", "value", "25", "0.25", "1", "0.2"),
        ("age", "0", "value", "50", "0.5", "2", "0.5"),
        ("age", "1", "value", "50", "0.5", "2", "0.5")]
    read = pd.read_parquet(tmp_path / "s.parquet")
    assert read["kept_width"].tolist() == kept.tolist()
    assert read["value"].isna().tolist() == [False, True, False, False, False]


def test_edges_of_buckets_can_be_told_apart():
    info = FieldInfo("t", "bucket", rule="quantiles", edges=(1700012345.25, 1700012345.5, 2e9))
    assert [sizes._raw(info, str(place)) for place in range(4)] == [
        "[-inf, 1700012345.25)", "[1700012345.25, 1700012345.5)", "[1700012345.5, 2000000000)",
        "[2000000000, inf)"]


def test_widths_are_those_of_the_run(tmp_path, monkeypatch, capsys):
    tiny.install(monkeypatch, tiny.dataset())
    ticketless = tiny.train(tmp_path, embedding="uniform")
    name, dataset, kept = kept_of(ticketless["run_id"][:6], None, tiny.context(tmp_path))
    assert name == ticketless["run_id"]
    assert kept.tolist() == [4] * dataset.schema.num_rows
    search = tiny.train(tmp_path, embedding="pep", candidate_p=[500, 200])
    name, _, kept = kept_of(search["run_id"], None, tiny.context(tmp_path))
    assert kept.sum() == 200
    assert name.endswith("_200")
    sizes.main([search["run_id"], "--budget", "500", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert said.splitlines()[1].startswith("user ")
    frame = pd.read_csv(tmp_path / "sizes" / f"sizes_{search['run_id']}_500.csv")
    assert frame["kept_width"].sum() == 500
    assert (tmp_path / "sizes" / f"sizes_{search['run_id']}_500.png").stat().st_size > 5000


def test_what_has_no_widths_is_refused(tmp_path, monkeypatch):
    tiny.install(monkeypatch, tiny.dataset())
    linear = tiny.train(tmp_path, model="linear")
    with pytest.raises(ValueError, match="a model without vectors"):
        kept_of(linear["run_id"], None, tiny.context(tmp_path))
    uniform = tiny.train(tmp_path, embedding="uniform")
    with pytest.raises(ValueError, match="--budget is of a search"):
        kept_of(uniform["run_id"], "200", tiny.context(tmp_path))
    search = tiny.train(tmp_path, embedding="pep", candidate_p=[200])
    with pytest.raises(FileNotFoundError, match="has no snapshot '7'; it has 200"):
        kept_of(search["run_id"], "7", tiny.context(tmp_path))
    none = tiny.train(tmp_path, embedding="pep", candidate_p=[20], budget="as_reached",
                      places={"alias": "none"})
    with pytest.raises(FileNotFoundError, match="met none of its budgets and has no snapshot"):
        kept_of(none["run_id"], None, tiny.context(tmp_path))


def test_of_an_mde_table_it_is_what_is_stored_and_shared_tables_are_refused(tmp_path, monkeypatch):
    tiny.install(monkeypatch, tiny.dataset())
    mde = tiny.train(tmp_path, embedding="mde", mde_blocks=2, mde_alpha=0.5)
    _, dataset, kept = kept_of(mde["run_id"], None, tiny.context(tmp_path))
    assert set(kept.tolist()) < {1, 2, 3, 4}
    assert len(set(kept.tolist())) > 1
    assert kept.sum() < mde["num_embedding_params"] < 4 * dataset.schema.num_rows
    shared = tiny.train(tmp_path, embedding="hash", hash_rows=9)
    with pytest.raises(ValueError, match="has hash vectors, which share what is stored"):
        kept_of(shared["run_id"], None, tiny.context(tmp_path))


def test_of_cells_with_several_values_it_is_the_share_of_rows(tmp_path):
    frame = pd.DataFrame({"click": [0, 1] * 20, "tags": ["a|b", "a", "", "b|c"] * 10})
    options = TableOptions.of({"label": "click", "min_count": 1, "multi": {"tags": "|"}})
    dataset = open_table(frame, tmp_path, OwnTable("toy", options))
    [tags] = sizes.sizes_of(dataset, np.ones(dataset.schema.num_rows, int))
    shares = {line[1]: line[4] for line in tags.lines() if line[2] == "value"}
    assert shares == {"a": 0.5, "b": 0.5, "c": 0.25}
    assert [line[4] for line in tags.lines() if line[2] == "empty slot"] == [None]
