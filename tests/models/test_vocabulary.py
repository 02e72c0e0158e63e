import json
import sys
from datetime import time, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.table.read import texts_of
from models import text_loops
from models.vocabulary import (
    BUCKET,
    NOT_FOUND,
    UNKNOWN,
    WHOLE,
    FieldInfo,
    Vocabulary,
    as_text,
    date_part,
    field_of,
    pack,
    seconds_of,
)


def field(values, **about):
    """A field of these values with ids 10, 11, ... and counts 1, 2, ..."""
    places = np.arange(len(values))
    return field_of(FieldInfo("f", **about), values, 10 + places, 1 + places)


@given(st.sets(st.text(max_size=9)), st.lists(st.text(max_size=9)))
def test_a_lookup_is_a_dictionary(known, asked):
    known = sorted(known)
    made = field(known, unknown=7)
    ids = {value: 10 + place for place, value in enumerate(known)}
    queries = [*asked, *known]
    assert made.lookup(queries).tolist() == [ids.get(value, 7) for value in queries]
    assert [made.value(row) for row in ids.values()] == list(ids)
    assert made.size == len(known) + 1


def test_thousands_of_values_fill_many_buckets_and_each_is_found():
    values = [f"value {number * 7919}" for number in range(20_000)]
    made = field(values)
    assert len(made.buckets) > 4000
    assert np.array_equal(made.lookup(values), 10 + np.arange(20_000))
    assert made.lookup(["value 1", "", None]).tolist() == [NOT_FOUND] * 3


def test_equal_hashes_are_told_apart_by_their_bytes(monkeypatch):
    """With one hash for all values, every look-up is a collision."""
    monkeypatch.setattr(text_loops, "hash_all", lambda text, starts, ends, hashes: hashes.fill(3))
    made = field(["a", "b", "c"])
    found = np.empty(4, np.int64)
    asked = pack(["c", "a", "b", "d"])
    constant = text_loops.find.py_func.__globals__["hash_all"]
    assert constant.__name__ == "<lambda>"
    text_loops.find.py_func(asked.text, *asked.spans, made.packed.text, made.packed.starts,
                            made.tags, made.buckets, np.uint64(64), found)
    assert [made.packed.get(place) if place >= 0 else None for place in found] == [
        "c", "a", "b", None]


def test_without_numba_the_answers_are_the_same(monkeypatch):
    made = field(["a", "é", ""], unknown=5)
    asked = ["é", "", "x", "a"]
    expected = made.lookup(asked).tolist()
    monkeypatch.setitem(sys.modules, "models.text_loops", None)
    assert made.lookup(asked).tolist() == expected == [11, 12, 5, 10]


def test_numbers_and_their_texts_are_one_value():
    made = field(["7", "0.25", "true", "é"], unknown=3, missing=4)
    assert made.lookup(np.array([7, 8])).tolist() == [10, 3]
    assert made.lookup(np.array([7.0, 0.25, np.nan])).tolist() == [10, 11, 4]
    assert made.lookup([True, "é", None, "", 7.0]).tolist() == [12, 13, 4, 4, 10]


def test_an_empty_text_is_a_gap_only_where_it_is_no_value_itself():
    assert field(["", "a"], missing=4).lookup(["", None]).tolist() == [10, 4]
    assert field(["a"], missing=4).lookup(["", None]).tolist() == [4, 4]
    assert field(["", "a"], unknown=5).lookup(["", None]).tolist() == [10, 10]


def test_whole_numbers_are_read_however_they_are_written():
    made = field(["7", "-3", "0"], kind=WHOLE, unknown=5)
    assert made.lookup(["007", "-03", "-0", "0", "+7", "7x", "0x"]).tolist() == [
        10, 11, 12, 12, 10, 5, 5]


def test_buckets_by_the_logarithm_squared():
    made = field(["-3", "0", "47"], kind=BUCKET, rule="log2", unknown=5, missing=4)
    assert made.lookup(["1000", "-1", "2", "1e3", "9", "", None]).tolist() == [
        12, 10, 11, 12, 5, 4, 4]
    assert made.lookup(np.array([1000, 3])).tolist() == [12, 5]


def test_buckets_by_quantiles_and_a_text_that_is_no_number():
    made = field(["0", "1", "2"], kind=BUCKET, rule="quantiles", edges=(1.5, 10.0))
    assert made.lookup(["1.49", "1.5", "10", "-7", "99"]).tolist() == [10, 11, 12, 10, 12]
    with pytest.raises(ValueError, match="field 'f' is of numbers, got 'red'"):
        made.lookup(["1", "red"])


@pytest.mark.parametrize("text", ["123456789012345", "-0.5", "3.", ".5", "0.1", "179.769",
                                  "1234567890.12345", "12345678901234567890", "1e-3"])
def test_a_number_is_read_to_the_last_bit(text):
    made = field(["0"], kind=BUCKET, rule="quantiles", edges=())
    from models.vocabulary import numbers_of

    assert numbers_of([text], made.name)[0] == float(text)


def vocabulary():
    town = field_of(FieldInfo("town", unknown=3, unknown_count=9, missing=2, missing_count=4),
                    ["Oslo", "Zürich\n,\"x\""], [1, 0], [5, 6])
    empty = field_of(FieldInfo("empty", unknown=4, unknown_count=24), [], [], [])
    price = field_of(FieldInfo("price", kind=BUCKET, rule="quantiles", edges=(0.1, 2.0)),
                     ["0", "1", "2"], [5, 6, 7], [8, 8, 8])
    return Vocabulary((town, empty, price))


def test_a_written_vocabulary_is_read_back(tmp_path):
    vocabulary().write(tmp_path / "v")
    read = Vocabulary.open(tmp_path / "v")
    for before, after in zip(vocabulary().fields, read.fields, strict=True):
        assert after.info == before.info
        assert list(after.entries()) == list(before.entries())
    assert read.field("town").lookup(["Zürich\n,\"x\"", "Bonn", ""]).tolist() == [0, 3, 2]
    assert read.field("empty").lookup(["a"]).tolist() == [4]
    assert read.field("price").lookup([0.1]).tolist() == [6]
    assert read.counts().tolist() == [6, 5, 4, 9, 24, 8, 8, 8]
    assert read.size == 8


def test_what_an_id_means():
    town = vocabulary().field("town")
    assert [town.value(row) for row in range(4)] == ["Zürich\n,\"x\"", "Oslo", None, UNKNOWN]
    with pytest.raises(KeyError, match="field 'town' has no id 4"):
        town.value(4)
    with pytest.raises(KeyError, match="the fields are town, empty, price"):
        vocabulary().field("city")


def test_renumbered_ids_may_fall_together():
    moved = vocabulary().renumbered(np.array([2, 0, 5, 5, 5, 1, 5, 5]))
    assert moved.field("town").lookup(["Oslo", "Zürich\n,\"x\"", "", "Bonn"]).tolist() == [
        0, 2, 5, 5]
    assert moved.field("price").lookup([0.0, 1.0, 3.0]).tolist() == [1, 5, 5]


@pytest.mark.parametrize("damage", ["cut", "gone", "format", "json", "nested"])
def test_a_damaged_vocabulary_is_named(tmp_path, damage):
    folder = tmp_path / "v"
    vocabulary().write(folder)
    if damage == "cut":
        np.save(folder / "ids.npy", np.load(folder / "ids.npy")[:-1])
    elif damage == "gone":
        (folder / "text.npy").unlink()
    elif damage in ("json", "nested"):
        (folder / "fields.json").write_text("{" if damage == "json" else "[" * 99_999)
    else:
        described = json.loads((folder / "fields.json").read_text())
        (folder / "fields.json").write_text(json.dumps({**described, "format": 99}))
    with pytest.raises(ValueError, match=r"the vocabulary in .* cannot be read"):
        Vocabulary.open(folder)
    with pytest.raises(FileNotFoundError, match=r"no fields\.json"):
        Vocabulary.open(tmp_path / "absent")


def test_two_values_of_one_text_are_refused():
    with pytest.raises(ValueError, match="two of its values are written '7'"):
        field([7, "7"])


def test_a_kind_needs_its_rule():
    with pytest.raises(ValueError, match="a bucket needs a rule"):
        FieldInfo("f", kind=BUCKET)
    with pytest.raises(ValueError, match="kind must be one of text, whole, bucket"):
        FieldInfo("f", kind="bin")


@pytest.mark.parametrize("texts", [
    ["99999", "100000"], ["5", "2026-01-31", "0.976"], ["2026-01-31 10:00:00", "1700000508"],
    ["2023-11-14T22:15:08Z", "1700000108", "2023-11-15T00:15:08+02:00"]])
def test_a_time_is_read_by_itself(texts):
    alone = [float(seconds_of([text], "t")[0]) for text in texts]
    for order in (texts, texts[::-1]):
        assert seconds_of(order, "t").tolist() == (alone if order is texts else alone[::-1])
    for text, seconds in zip(texts, alone, strict=True):
        if text.replace(".", "").isdecimal():
            assert seconds == float(text)
    if "Z" in texts[0]:
        assert len(set(alone)) == 1


@pytest.mark.parametrize("value", ["20231114", "1700002489000", "2023", "0"])
def test_numbers_that_are_no_time_of_this_age_have_no_parts(value):
    for values in ([value], np.array([int(value)]), ["2026-01-31", value]):
        with pytest.raises(ValueError, match=f"'t' is of times, got {value}, .* milliseconds"):
            date_part(values, "hour", "t")
    assert date_part(["1960-05-01", "1700000508"], "year", "t").get(0) == "1960"


def test_durations_and_times_of_day_have_one_text_everywhere():
    moments = [time(8, 30, 1, 5), time(23, 0)]
    spans = [timedelta(seconds=61.5), timedelta(seconds=-0.5)]
    for values, kinds in ((moments, (pa.time32("s"), pa.time64("us"))),
                          (spans, (pa.duration("us"), pa.duration("ns")))):
        for kind in kinds:
            packed = texts_of(pa.array(values).cast(kind, safe=False))
            assert [packed.get(place) for place in range(2)] == [as_text(each) for each in values]
    assert as_text(np.timedelta64(61_500, "ms")) == as_text(pd.Timedelta("61.5s")) == "61"
