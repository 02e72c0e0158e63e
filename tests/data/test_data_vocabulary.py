"""The vocabularies that are kept with encoded sets, and the command that looks into them."""

import json

import numpy as np
import pandas as pd
import pytest
from makers import write_movielens
from test_ingest import LAYOUTS, content_of, open_set, put

from data import movielens, store, vocabulary
from data.raw.layout import BUCKET, DECIMAL, HEX
from data.raw.plain import cells_of
from data.registry import DATASETS
from data.split import split_rows
from data.table.encode import open_table
from data.table.options import OwnTable, TableOptions
from utils.files import write_record


def check_counts(dataset):
    """Ids are those of the schema, and counts those of the rows."""
    kept = dataset.vocabulary
    assert [field.name for field in kept.fields] == list(dataset.schema.fields)
    assert [field.size for field in kept.fields] == list(dataset.schema.sizes)
    assert kept.counts().tolist() == np.bincount(dataset.ids.ravel(),
                                                 minlength=dataset.schema.num_rows).tolist()


@pytest.mark.parametrize("name", LAYOUTS)
def test_raw_cells_look_up_to_the_encoded_ids(tmp_path, name):
    layout = LAYOUTS[name]
    content = content_of(layout, 2000)
    dataset = open_set(put(tmp_path, content), tmp_path / "cache", layout)
    lines = content.decode().splitlines()[layout.has_header:]
    rows = [cells_of(line, layout) for line in lines]
    order = np.concatenate(split_rows(len(rows), layout.split_seed))
    kinds = (BUCKET, DECIMAL, HEX)
    columns = [place for place, column in enumerate(layout.columns) if column.kind in kinds]
    for position, place in enumerate(columns):
        cells = [rows[row][place] for row in order]
        found = dataset.vocabulary.fields[position].lookup(cells)
        assert np.array_equal(found, dataset.ids[:, position])
    check_counts(dataset)


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / store.VOCABULARY).mkdir()
    (tmp_path / "manifest.json").write_text("[" * 99_999)
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read \(it is nested too deep"):
        vocabulary.find(str(tmp_path), tmp_path, tmp_path)
    assert store.manifests(tmp_path.parent) == {}


@pytest.mark.parametrize("name", vocabulary.MADE)
def test_synthetic_sets_have_a_vocabulary_too(tmp_path, name):
    check_counts(DATASETS[name](None, tmp_path))


@pytest.mark.parametrize("kept", ["all", "train"])
def test_a_run_on_a_synthetic_set_finds_the_vocabulary_it_had(tmp_path, kept):
    made = DATASETS["planted"](None, tmp_path, False, kept)
    folder = tmp_path / "runs" / "abcdef"
    folder.mkdir(parents=True)
    settings = {"dataset": "planted", "vocabulary": kept}
    write_record(folder / "result.json", {"manifest": made.hash, "settings": settings})
    name, found = vocabulary.find("abc", tmp_path, tmp_path / "cache")
    assert (name, found.size) == ("planted", made.schema.num_rows)


@pytest.mark.parametrize("name", ["", "*", "[a", "/nowhere/x", "../x"])
def test_a_name_of_nothing_is_answered_with_what_is_there(tmp_path, name):
    (tmp_path / "runs" / "abc").mkdir(parents=True)
    (tmp_path / "runs" / "abc" / "result.json").touch()
    with pytest.raises(FileNotFoundError, match=r"no finished run in .* that is called"):
        vocabulary.find(name, tmp_path, tmp_path / "cache")


def test_movielens_looks_up_raw_time_stamps(tmp_path):
    raw = write_movielens(tmp_path / "raw")
    dataset = movielens.open_dataset(str(raw), tmp_path / "cache", with_ids=True)
    again = movielens.open_dataset(str(raw), tmp_path / "cache", with_ids=True)
    check_counts(dataset)
    check_counts(again)
    ratings = [line.split("::") for line in (raw / "ratings.dat").read_text().splitlines()]
    used = [line for line in ratings if line[2] != "3"]
    order = np.concatenate(split_rows(len(used), movielens.SPLIT_SEED))
    for position, column in (("timestamp", 3), ("user", 0), ("movie", 1)):
        cells = [used[row][column] for row in order]
        field = again.vocabulary.field(position)
        ids = again.ids[:, again.schema.fields.index(position)]
        assert np.array_equal(field.lookup(cells), ids)


def test_counts_of_a_train_vocabulary_are_of_the_training_rows():
    column = np.array(["a"] * 50 + ["b"] * 49 + ["c"])
    made = store.build("toy", {"f": column}, np.arange(100) % 2, 7, "train")
    train = column[split_rows(100, 7)[0]]
    field = made.vocabulary.field("f")
    expected = {value: int((train == value).sum()) for value in set(train)}
    assert {value: count for _, value, count in field.entries()
            if value in expected} == expected
    assert field.unknown == made.schema.num_rows - 1


def test_a_set_whose_vocabulary_is_gone_is_made_again(tmp_path):
    made = store.build("toy", {"f": list("abcd") * 25}, np.arange(100) % 2, 7)
    store.save(made, tmp_path / "toy", {})
    (tmp_path / "toy" / "vocabulary" / "text.npy").unlink()
    assert store.load(tmp_path / "toy", {}) is None


@pytest.fixture
def stored(tmp_path):
    towns = [None, "Oslo", "Rome", "Rome"] * 25
    made = store.build("toy", {"town": towns, "age": np.arange(100) % 3}, np.arange(100) % 2, 7)
    store.save(made, tmp_path / "cache" / "toy-1", {})
    run = tmp_path / "runs" / "abc123"
    run.mkdir(parents=True)
    result = {"manifest": made.hash, "settings": {"dataset": "toy"}}
    (run / "result.json").write_text(json.dumps(result))
    return tmp_path


def say(stored, capsys, *arguments):
    vocabulary.main([*arguments, "--out", str(stored), "--cache", str(stored / "cache")])
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", ["abc", "toy", "toy-1", "folder"])
def test_a_value_is_looked_up_in_a_run_or_a_set(stored, capsys, name):
    name = str(stored / "cache" / "toy-1") if name == "folder" else name
    assert say(stored, capsys, name, "--field", "town", "--value", "Rome") == (
        "town: 'Rome' is 'Rome', id 0, in 50 rows")


def test_a_run_has_the_set_of_its_own_values(stored, capsys):
    towns = [None, "Bonn", "Wien", "Wien"] * 25
    other = store.build("toy", {"town": towns, "age": np.arange(100) % 3}, np.arange(100) % 2, 7)
    store.save(other, stored / "cache" / "toy-2", {})
    with pytest.raises(SystemExit):
        say(stored, capsys, "abc", "--field", "town", "--value", "Rome")
    assert "run abc does not say which of these sets it is of" in capsys.readouterr().err
    path = stored / "runs" / "abc123" / "result.json"
    result = json.loads(path.read_text())
    for dataset, town in ((other, "Wien"), (store.load(stored / "cache" / "toy-1", {}), "Rome")):
        path.write_text(json.dumps({**result, "values_hash": dataset.values_hash}))
        assert "id 0, in 50" in say(stored, capsys, "abc", "--field", "town", "--value", town)


def test_gaps_ids_and_fields_are_said(stored, capsys):
    assert say(stored, capsys, "toy", "--field", "town", "--value", "") == (
        "town: '' is a gap, id 1, in 25 rows")
    assert say(stored, capsys, "toy", "--field", "age", "--id", "4") == (
        "age: '1', id 4, in 33 rows")
    assert say(stored, capsys, "toy", "--field", "town", "--value", "Bonn").endswith(
        "no id; the field has none for unknown values")
    assert "town" in say(stored, capsys, "toy")


def test_a_gap_of_a_bucket_is_called_one(tmp_path, capsys):
    frame = pd.DataFrame({"click": [0, 1] * 20, "price": [1.5, None, 2.5, 3.5] * 10})
    open_table(frame, tmp_path / "cache", OwnTable("toy", TableOptions("click", min_count=1)))
    assert "'' is a gap" in say(tmp_path, capsys, "toy", "--field", "price", "--value", "")


def test_a_slot_has_the_values_of_its_column(tmp_path, capsys):
    frame = pd.DataFrame({"click": [0, 1] * 20, "tags": ["a/b", "b"] * 20})
    options = TableOptions("click", min_count=1, multi={"tags": ("/", 2)})
    open_table(frame, tmp_path / "cache", OwnTable("toy", options))
    answers = [say(tmp_path, capsys, "toy", "--field", name, "--value", "b")
               for name in ("tags", "tags.2")]
    assert answers[0] == answers[1]
    assert "no id" not in answers[0]


@pytest.mark.parametrize(("arguments", "why"), [
    (("nosuch",), "sets that are there: toy-1"),
    (("toy", "--field", "city", "--value", "x"), "the fields are town, age"),
    (("toy", "--field", "town", "--id", "77"), "has no id 77"),
    (("toy", "--field", "town"), "give --value or --id too"),
    (("toy", "--field", "town", "--id", "-1"), "has no id -1"),
    (("toy", "--id", "1"), "give --field too"),
])
def test_what_is_not_there_is_named(stored, capsys, arguments, why):
    with pytest.raises(SystemExit) as stop:
        say(stored, capsys, *arguments)
    assert stop.value.code == 2
    assert why in capsys.readouterr().err
