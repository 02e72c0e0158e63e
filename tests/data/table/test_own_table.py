"""A user's table to an encoded set: cell by cell an obvious version in pandas, and bad input in
words."""

import gzip
import io
import logging
import lzma
import os
import re
import tarfile
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from data import store
from data.raw import source
from data.split import SPLITS, split_rows
from data.table import count, encode, read
from data.table.encode import describe, open_table
from data.table.options import SPLIT_SEED, OwnTable, TableOptions, check_split
from data.table.spool import spool
from models.serving.rows import FileForm, columns_of, read_file
from models.vocabulary import as_text

NASTY = ["a", "b", "", "Zürich", 'say "hi"', "x,y", "two\nlines", "日本", "NaN", "null", "007", "7",
         "7.0", " spaced ", "true", "0"]


def frame_of(rows=600, seed=0):
    """Gaps, unicode, quotes, separators and line ends in cells, mixed types, one value, unique
    values."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "id": [f"u{row}" for row in range(rows)], "click": rng.integers(0, 2, rows).astype(str),
        "odd, name": rng.choice(NASTY, rows), "one": "same",
        "mixed": rng.choice(["1", "2.5", "text", "", "2026-01-31", "true"], rows),
        "gaps": rng.choice(["", "", "x"], rows), "skewed": (rng.random(rows) ** 3 * 60).astype(
            int).astype(str),
        "price": [f"{price:.2f}" if price > 5 else "" for price in rng.gamma(2, 20, rows)]})


def codes(column, min_count):
    """(ids from 0, size) of a column of texts, in pandas."""
    counts = column.value_counts()
    known = sorted(counts.index[counts >= min_count], key=lambda value: (-counts[value], value))
    return column.map({value: code for code, value in enumerate(known)}).fillna(
        len(known)).astype(int).to_numpy(), len(known) + 1


def defined(frame, min_count, order, left_out=("click",)):
    """(ids (rows, F), sizes) in split order."""
    columns, offset, sizes = [], 0, []
    for name in frame.columns.difference(left_out, sort=False):
        column = frame[name]
        if name == "price":
            numbers = pd.to_numeric(column)
            edges = np.unique(np.quantile(numbers.dropna(), np.arange(1, 20) / 20))
            found = pd.cut(numbers, [-np.inf, *edges, np.inf], right=False, labels=False)
            # zeros in front, so that texts sort as numbers do
            column = found.map(lambda bucket: "" if np.isnan(bucket) else f"{int(bucket):09}")
        ids, size = codes(column, min_count)
        columns.append(ids + offset)
        offset += size
        sizes.append(size)
    return np.stack(columns, axis=1)[order], sizes


def order_of(rows, seed=SPLIT_SEED):
    return np.concatenate(split_rows(rows, seed))


def put(folder, frame, name="table.csv", **how):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False, **how)
    return path


def open_own(data, folder, split="auto", vocabulary="all", wanted=None, **options):
    own = OwnTable("toy", TableOptions(**{"label": "click", "min_count": 3, **options}), split,
                   vocabulary)
    return open_table(data, folder / "cache", own, wanted)


def is_as_defined(dataset, frame, min_count=3, order=None, left_out=("click", "id")):
    order = order_of(len(frame)) if order is None else order
    ids, sizes = defined(frame, min_count, order, left_out)
    assert list(dataset.schema.sizes) == sizes
    assert np.array_equal(dataset.ids, ids)
    assert dataset.labels.tolist() == frame["click"].astype(float).to_numpy()[order].tolist()


def test_every_cell_of_a_nasty_table_is_as_pandas_says(tmp_path):
    frame = frame_of()
    dataset = open_own(put(tmp_path, frame), tmp_path)
    is_as_defined(dataset, frame)
    assert dataset.manifest["table"]["ignored"] == {
        "id": "no value comes 3 times or more (min_count)"}
    unique = open_own(put(tmp_path, frame), tmp_path, min_count=1)
    is_as_defined(unique, frame, 1, left_out=("click",))


def test_raw_cells_look_up_to_the_encoded_ids_and_counts_are_right(tmp_path):
    frame = frame_of()
    dataset = open_own(put(tmp_path, frame), tmp_path)
    order = order_of(len(frame))
    for position, name in enumerate(dataset.schema.fields):
        field = dataset.vocabulary.field(name)
        assert np.array_equal(field.lookup(frame[name].to_numpy()[order].tolist()),
                              dataset.ids[:, position])
    assert dataset.vocabulary.counts().tolist() == np.bincount(
        dataset.ids.ravel(), minlength=dataset.schema.num_rows).tolist()


def make_gzip(path):
    packed = path.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def make_zip(path):
    packed = path.with_suffix(".zip")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(path, "inside.csv")
    return packed


def make_zstd(path):
    packed = path.with_suffix(".csv.zst")
    with pa.CompressedOutputStream(str(packed), "zstd") as stream:
        stream.write(path.read_bytes())
    return packed


def make_parquet(path):
    packed = path.with_suffix(".parquet")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), packed)
    return packed


def make_parts(path):
    folder = path.parent / "parts"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for part, rows in enumerate(np.array_split(np.arange(len(frame)), 3)):
        # the columns of a part may stand in another order
        put(folder, frame.iloc[rows, ::1 if part else -1], f"part-{part:05}.csv")
    (folder / "_SUCCESS").touch()
    return folder


def make_tsv(path):
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return put(path.parent, frame, "table.tsv", sep="\t")


def make_frame(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def make_arrow(path):
    strings = pa_csv.ConvertOptions(column_types={name: pa.string() for name in frame_of(1)})
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    return pa_csv.read_csv(path, convert_options=strings, parse_options=parse)


@pytest.mark.parametrize("make", [make_gzip, make_zip, make_zstd, make_parquet, make_parts,
                                  make_tsv, make_frame, make_arrow])
def test_a_table_is_the_same_in_every_form(tmp_path, make):
    frame = frame_of()
    path = put(tmp_path, frame)
    found = open_own(make(path), tmp_path)
    if make is make_parts:  # its first part has the columns the other way round
        found_fields = found.schema.fields
        assert set(found_fields) == set(frame.columns) - {"click", "id"}
        assert np.array_equal(found.labels, open_own(path, tmp_path).labels)
        frame = frame.iloc[:, ::-1]
    else:
        assert found.values_hash == open_own(path, tmp_path).values_hash
    is_as_defined(found, frame)


def test_typed_columns_are_read_as_they_are_written(tmp_path):
    rows = 60
    typed = pd.DataFrame({
        "click": np.arange(rows) % 2 == 0, "age": pd.array([None, 7, 8] * 20, dtype="Int64"),
        "share": [0.5, 1.0, np.nan] * 20, "flag": [True, False, None] * 20,
        "kind": pd.Categorical(["x", "y", "x"] * 20), "mixed": [1, "a", None] * 20,
        "day": pd.to_datetime(["2026-01-31 00:00:00", "2026-02-01 03:04:05", None] * 20)})
    texts = pd.DataFrame({
        "click": np.where(typed["click"], "true", "false"), "age": ["", "7", "8"] * 20,
        "share": ["0.5", "1", ""] * 20, "flag": ["true", "false", ""] * 20,
        "kind": ["x", "y", "x"] * 20, "mixed": ["1", "a", ""] * 20,
        "day": ["2026-01-31 00:00:00", "2026-02-01 03:04:05", ""] * 20})
    found = open_own(typed, tmp_path, bucket="none")
    plain = open_own(put(tmp_path, texts), tmp_path, bucket="none")
    assert np.array_equal(found.ids, plain.ids)
    assert np.array_equal(found.labels, plain.labels)
    assert found.values_hash == plain.values_hash
    lookup = found.vocabulary.field("share").lookup(typed["share"].to_numpy())
    assert np.array_equal(lookup[order_of(rows)], found.ids[:, 1])


# how numbers and dates are read


def test_what_a_column_is_does_not_depend_on_where_parts_end(tmp_path):
    table = pa.table({"click": ["0", "1"] * 100, "price": ["5.0"] + ["1.25", "", "2.5", "7"] * 49
                      + ["9.5"] * 3})
    whole = open_own(table, tmp_path)
    assert whole.vocabulary.field("price").info.rule == "quantiles"
    for row in (1, 2, 199):
        parts = pa.concat_tables([table.slice(0, row), table.slice(row)])
        assert open_own(parts, tmp_path).hash == whole.hash


def test_dense_columns_are_numbers_for_one_model_and_buckets_for_others(tmp_path):
    frame = frame_of()
    path = put(tmp_path, frame)
    options = TableOptions("click", dense=("skewed", "price"), min_count=3)
    numbers = open_table(path, tmp_path / "cache", OwnTable("toy", options, with_dense=True))
    buckets = open_table(path, tmp_path / "cache", OwnTable("toy", options))
    assert {"skewed", "price"} & set(numbers.schema.fields) == set()
    assert {"skewed", "price"} <= set(buckets.schema.fields)
    order = order_of(len(frame))
    values = frame[["skewed", "price"]].apply(pd.to_numeric).to_numpy()[order]
    assert np.allclose(numbers.dense, np.nan_to_num(np.log1p(values)))
    field = buckets.vocabulary.field("skewed")
    assert field.info.rule == "log2"
    expected = [str(int(np.log(v) ** 2)) if v > 2 else str(int(v) - 2) for v in values[:, 0]]
    ids = buckets.ids[:, buckets.schema.fields.index("skewed")]
    meanings = [field.value(row) for row in ids]
    assert [one for one, other in zip(meanings, expected, strict=True)
            if one not in (other, "(any other value)")] == []


def test_dates_become_their_parts(tmp_path):
    times = pd.date_range("2026-01-30", periods=200, freq="7h")
    frame = pd.DataFrame({"click": np.arange(200) % 2, "at": times.astype(str)})
    dataset = open_own(put(tmp_path, frame), tmp_path, min_count=1,
                       dates={"at": ("hour", "weekday", "day", "month", "year")})
    assert dataset.schema.fields == ("at.hour", "at.weekday", "at.day", "at.month", "at.year")
    order = order_of(200)
    for position, part in enumerate(("hour", "weekday", "day", "month", "year")):
        field = dataset.vocabulary.field(f"at.{part}")
        expected = getattr(times, part).astype(str)[order].tolist()
        assert [field.value(row) for row in dataset.ids[:, position]] == expected
        assert field.lookup(frame["at"][order].tolist()).tolist() == dataset.ids[
            :, position].tolist()


def test_a_date_that_makes_the_split_has_its_parts_too(tmp_path):
    times = pd.date_range("2026-01-30", periods=200, freq="7h")
    frame = pd.DataFrame({"click": np.arange(200) % 2, "at": times.astype(str)})
    dataset = open_own(put(tmp_path, frame), tmp_path, "time:at", min_count=1,
                       dates={"at": ("hour",)})
    assert dataset.schema.fields == ("at.hour",)


def test_the_manifest_names_dense_columns_in_the_order_of_the_table(tmp_path):
    options = TableOptions("click", dense=("price", "skewed"), min_count=3)
    made = open_table(put(tmp_path, frame_of()), tmp_path / "cache",
                      OwnTable("toy", options, with_dense=True))
    assert made.manifest["table"]["dense"] == ["skewed", "price"]


@pytest.mark.parametrize(("frame", "why"), [
    (pd.DataFrame({"click": [0, 1] * 30, "n": [1.5, np.inf] * 30, "u": ["a"] * 60}),
     "the dense column 'n' has an infinite value in row 2;"),
    (pd.DataFrame({"click": [0, 1] * 30, "n": [1.5, 2.5] * 30}), "every column is dense")])
def test_dense_columns_that_cannot_be_used_are_named(tmp_path, frame, why):
    request = OwnTable("toy", TableOptions("click", dense=("n",)), with_dense=True)
    with pytest.raises(ValueError, match=why):
        open_table(put(tmp_path, frame), tmp_path / "cache", request)


def test_quantiles_of_a_long_column_are_of_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "SAMPLE", 500)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"click": rng.integers(0, 2, 3000), "x": rng.random(3000)})
    dataset = open_own(put(tmp_path, frame), tmp_path, bucket="quantiles:4")
    edges = dataset.vocabulary.field("x").info.edges
    assert np.allclose(edges, [0.25, 0.5, 0.75], atol=0.08)
    again = open_own(put(tmp_path / "again", frame), tmp_path, bucket="quantiles:4")
    assert again.vocabulary.field("x").info.edges == edges


# splits


def split_sizes(dataset):
    return dict(zip(SPLITS, dataset.counts, strict=True))


def test_a_split_by_time_puts_the_latest_rows_last(tmp_path):
    rng = np.random.default_rng(0)
    frame = frame_of(300).assign(at=rng.permutation(300) + 1_700_000_000)
    dataset = open_own(put(tmp_path, frame), tmp_path, "time:at")
    latest = frame["at"].argsort(kind="stable").to_numpy()
    order = np.concatenate([np.sort(latest[:240]), np.sort(latest[240:270]),
                            np.sort(latest[270:])])
    is_as_defined(dataset, frame, order=order, left_out=("click", "id", "at"))
    assert "at" in dataset.manifest["table"]["ignored"]


def test_a_split_by_a_column_that_names_the_part(tmp_path):
    rng = np.random.default_rng(9)
    frame = frame_of(300).assign(part=rng.choice(["train", "valid", "Test"], 300))
    order = np.concatenate([np.flatnonzero(frame["part"] == name)
                            for name in ("train", "valid", "Test")])
    is_as_defined(open_own(put(tmp_path, frame), tmp_path, "column:part"), frame, order=order,
                  left_out=("click", "id", "part"))


def test_three_files_are_the_split(tmp_path):
    frame = frame_of(300)
    cuts = {"train": slice(0, 200), "valid": slice(200, 260), "test": slice(260, 300)}
    for name, rows in cuts.items():
        put(tmp_path / "three", frame.iloc[rows], f"{name}.csv")
    dataset = open_own(tmp_path / "three", tmp_path)
    assert split_sizes(dataset) == {"train": 200, "validation": 60, "test": 40}
    is_as_defined(dataset, frame, order=np.arange(300))
    random = open_own(tmp_path / "three", tmp_path, "random:5")
    is_as_defined(random, frame, order=order_of(300, seed=5))


@pytest.mark.parametrize("more", ["train.1.csv", "test.tsv"])
def test_two_files_of_a_part_are_refused_by_name(tmp_path, more):
    for name in ("train.csv", "valid.csv", "test.csv", more):
        put(tmp_path / "raw", frame_of(300), name)
    with pytest.raises(ValueError, match=rf"several files of a part .*{re.escape(more)}.*--split"):
        open_own(tmp_path / "raw", tmp_path)
    named = open_own(tmp_path / "raw", tmp_path, "files:train.csv,valid.csv,test.csv")
    assert split_sizes(named) == {"train": 300, "validation": 300, "test": 300}


def test_a_file_beside_those_of_a_split_is_passed_over_with_a_word(tmp_path, caplog):
    for name in ("train.csv", "valid.csv", "test.csv"):
        put(tmp_path / "raw", frame_of(300), name)
    (tmp_path / "raw" / "README.txt").write_text("how it was made")
    dataset = open_own(tmp_path / "raw", tmp_path)
    assert split_sizes(dataset) == {"train": 300, "validation": 300, "test": 300}
    assert "README.txt is passed over" in caplog.text


def test_three_files_of_any_name_and_folder_are_the_split(tmp_path):
    frame = frame_of(300)
    cuts = {"a.csv": slice(0, 200), "b.csv": slice(200, 260), "c.csv": slice(260, 300)}
    paths = {name: put(tmp_path / f"of {name[0]}", frame.iloc[rows], name)
             for name, rows in cuts.items()}
    put(tmp_path / "of a", frame, "another.csv")
    split = f"files:a.csv,{paths['b.csv']},{paths['c.csv']}"
    dataset = open_own(tmp_path / "of a", tmp_path, split)
    assert split_sizes(dataset) == {"train": 200, "validation": 60, "test": 40}
    is_as_defined(dataset, frame, order=np.arange(300))
    with pytest.raises(FileNotFoundError, match=r"split: there is no file .*no\.csv"):
        open_own(tmp_path / "of a", tmp_path, "files:a.csv,no.csv,another.csv")
    with pytest.raises(ValueError, match="are the same file"):
        open_own(tmp_path / "of a", tmp_path, "files:a.csv,a.csv,another.csv")
    with pytest.raises(ValueError, match="this table is in memory"):
        open_own(frame, tmp_path, split)


def test_a_vocabulary_of_the_training_rows(tmp_path):
    frame = frame_of()
    dataset = open_own(put(tmp_path, frame), tmp_path, vocabulary="train")
    train = frame.iloc[split_rows(len(frame), SPLIT_SEED)[0]]
    field = dataset.vocabulary.field("mixed")
    counts = train["mixed"].value_counts()
    assert {value or "": number for _, value, number in field.entries()} == {
        **counts.to_dict(), "(any other value)": 0}


def test_rows_for_unknown_values_that_nothing_has_are_counted_in_columns_of_numbers(tmp_path):
    age = [20.0, 30.0, 40.0, 50.0] * 20
    frame = pd.DataFrame({"click": [0, 1] * 40, "age": age, "size": [1.0, 2.0] * 40,
                          "part": ["train"] * 60 + ["valid"] * 10 + ["test"] * 10})
    frame.loc[frame["part"] != "train", "age"] = 90.0  # a bucket that no training row has
    dataset = open_own(frame, tmp_path, "column:part", vocabulary="train", min_count=1,
                       bucket={"age": "log2", "size": "log2"})
    used = {int(row) for row in np.unique(dataset.ids)}
    unknown = [field.unknown for field in dataset.vocabulary.fields]
    assert dataset.unused_unknown_rows == sum(row not in used for row in unknown) == 1


def test_labels_in_words_and_those_that_are_named(tmp_path):
    frame = frame_of(200)
    words = frame.assign(click=np.where(frame["click"] == "1", "Yes", "no"))
    stars = frame.assign(click=np.where(frame["click"] == "1", "5", "3"))
    plain = open_own(put(tmp_path, frame), tmp_path).labels
    assert np.array_equal(open_own(put(tmp_path, words, "words.csv"), tmp_path).labels, plain)
    named = open_own(put(tmp_path, stars, "stars.csv"), tmp_path, positive=("5",))
    assert np.array_equal(named.labels, plain)


def test_periods_are_read_as_they_are_looked_up(tmp_path):
    frame = pd.DataFrame({"click": [0, 1] * 20, "month": pd.period_range("2026-01", periods=40,
                                                                         freq="M")})
    dataset = open_own(frame, tmp_path, min_count=1)
    assert (dataset.vocabulary.field("month").lookup(list(frame["month"])) >= 0).all()
    assert dataset.vocabulary.field("month").lookup(["2026-02"]).tolist() == (
        dataset.vocabulary.field("month").lookup([frame["month"][1]]).tolist())


def test_decimals_and_intervals_are_read_as_they_are_looked_up(tmp_path):
    frame = pd.DataFrame({"click": [0, 1] * 20, "cut": pd.cut(range(40), 4),
                          "paid": [Decimal("2.25"), Decimal("1.0")] * 20})
    dataset = open_own(frame, tmp_path, min_count=1)
    for place, name in enumerate(("cut", "paid")):
        found = dataset.vocabulary.field(name).lookup(list(frame[name]))
        assert found[order_of(40)].tolist() == dataset.ids[:, place].tolist()


def test_columns_with_types_are_scored_as_they_were_encoded(tmp_path):
    """From a DataFrame, a Parquet file and text, whatever a column's gaps make of its type."""
    rng, rows = np.random.default_rng(0), 400
    cents = rng.integers(0, 999, rows)
    moments = np.datetime64("1969-12-31T12:00:00.5") + rng.integers(0, 9, rows) * np.timedelta64(
        3, "h")
    table = pa.table({
        "click": rng.integers(0, 2, rows),
        "paid": pa.array([Decimal(int(each)).scaleb(-2) for each in cents], pa.decimal128(10, 2)),
        "weight": pa.array(cents / 10, pa.float32()), "size": pa.array(cents / 10, pa.float32()),
        "user": pa.array([10**18 + int(each) if each % 3 else None for each in cents]),
        "when": pa.array(moments), "seen": pa.array(moments), "who": pa.array(
            [uuid.uuid5(uuid.NAMESPACE_DNS, str(each % 9)) for each in cents], pa.uuid()),
        "tags": pa.array(cents % 5 + 0.1, pa.float32())})
    pq.write_table(table, tmp_path / "clicks.parquet")
    dataset = open_own(table, tmp_path, min_count=1, bucket={"weight": "none", "size": "quantiles"},
                       dates={"when": ("day", "hour")}, multi={"tags": ("|", 2)})
    pandas = table.to_pandas()
    texts = pandas.assign(weight=cents / 10, size=cents / 10, tags=cents % 5 + 0.1,
                          user=pd.Series(table["user"].to_pylist(), dtype=object),
                          when=pandas["when"].astype(str))
    frames = [table, table.to_pandas(types_mapper=pd.ArrowDtype), texts,
              texts.assign(user=pd.array(table["user"].to_pylist(), "Int64")),
              texts.assign(user=texts["user"].astype("category")),
              pandas.assign(user=texts["user"], weight=pandas["weight"].astype("Float32")),
              table.set_column(2, "weight", table["weight"].dictionary_encode())]
    own = [each.info.column or each.name for each in dataset.vocabulary.fields]
    read = [columns_of(frame, own).values for frame in frames]
    read += [block.values for block in read_file(tmp_path / "clicks.parquet",
                                                 FileForm(",", True, None, "click"), own)]
    for values in read:
        for place, each in enumerate(dataset.vocabulary.fields):
            assert each.lookup(values[own[place]])[order_of(rows)].tolist() == (
                dataset.ids[:, place].tolist()), each.name


def test_columns_of_types_that_are_no_text_are_named(tmp_path):
    frame = pd.DataFrame({"click": [0, 1] * 20, "raw": [b"\xff", b"\xfe"] * 20})
    with pytest.raises(ValueError, match="column 'raw' is of bytes that are no text"):
        open_own(frame, tmp_path, min_count=1)
    with pytest.raises(ValueError, match="column 'raw' is of bytes that are no text"):
        open_own(frame.rename(columns={"click": "c"}), tmp_path, label="raw", min_count=1)
    huge = pd.DataFrame({"click": [0, 1] * 20, "id": [2**70, 1] * 20})
    assert open_own(huge, tmp_path, min_count=1).vocabulary.field("id").lookup(
        [2**70]).tolist() != [-1]


def test_a_table_with_types_of_older_rules_is_encoded_again(tmp_path, monkeypatch):
    frame = pd.DataFrame({"click": [0, 1] * 20, "a": range(40)})
    monkeypatch.setattr("data.table.encode.TYPES_VERSION", 1)
    before = open_own(frame, tmp_path, min_count=1)
    monkeypatch.undo()
    assert open_own(frame, tmp_path, min_count=1).hash == before.hash
    sources = [made["source"]["types"] for made in store.manifests(tmp_path / "cache").values()]
    assert sources == [2]


def test_daily_files_are_no_numbered_parts(tmp_path):
    days = [f"clicks_2023-{day}" for day in ("11-29", "11-30", "12-01")]
    for names in (days, [day.replace("-", "") for day in days]):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name in names:
            (folder / f"{name}.csv").write_text(ROWS)
        assert sum(open_own(folder, tmp_path / names[0], min_count=1).counts) == 240
    parts = tmp_path / "spark"
    parts.mkdir()
    for part in (0, 2):
        (parts / f"part-0000{part}-3f2a-c000.csv").write_text(ROWS)
    with pytest.raises(ValueError, match="part 1 is missing"):
        open_own(parts, tmp_path)


@pytest.mark.parametrize("closing", [True, False], ids=["closed", "never"])
def test_a_quote_that_stays_open_over_many_lines_is_refused(tmp_path, closing):
    lines = [f"{row % 2},u{row % 7},{row % 5}" for row in range(2000)]
    lines[300] = '1,"5 inch,3'
    if closing:
        lines[1200] = '1,7 inch",3'
    path = tmp_path / "table.csv"
    path.write_text("click,user,item\n" + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"table\.csv has a cell of (900|1,[67]\d\d) lines, in "
                                         r".*5 inch.*: a quote is opened there"):
        open_own(path, tmp_path)


def test_a_split_by_time_goes_by_numbers_of_any_length(tmp_path):
    rows = 4000  # of several blocks
    frame = pd.DataFrame({"click": np.arange(rows) % 2, "step": np.arange(rows) * 50})
    frame["name"] = frame["step"].map("s{}".format)
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "BLOCK_BYTES", 1 << 12)
        dataset = open_own(path, tmp_path, split="time:step", min_count=1)
    names = dataset.vocabulary.field("name")
    steps = {int(names.value(int(row[0]))[1:]) for row in dataset.split("test")[0]}
    assert steps == {50 * row for row in range(3600, 4000)}


# the cache


def test_a_set_is_read_back_and_a_changed_file_is_encoded_again(tmp_path, monkeypatch):
    path = put(tmp_path, frame_of())
    first = open_own(path, tmp_path)
    os.utime(path, ns=(1, 1))  # touched, and nothing else
    again = open_own(path, tmp_path)
    assert (again.hash, again.values_hash) == (first.hash, first.values_hash)
    assert len(list((tmp_path / "cache").glob("*/"))) == 1
    put(tmp_path, frame_of(seed=1))
    assert open_own(path, tmp_path).hash != first.hash


def test_another_table_of_the_same_size_and_ends_is_a_set_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ENDS", 64)
    path = put(tmp_path, frame_of())
    first = open_own(path, tmp_path)
    text = path.read_text()
    for row in range(200, 220):
        text = re.sub(f"^u{row},(.)", lambda found: f"{found[0][:-1]}{1 - int(found[1])}", text,
                      flags=re.MULTILINE)
    path.write_text(text)
    os.utime(path, ns=(1, 1))
    second = open_own(path, tmp_path)
    assert second.hash != first.hash
    assert open_own(path, tmp_path).hash == second.hash  # and is read back
    folders = [folder for folder in (tmp_path / "cache").iterdir() if folder.is_dir()]
    assert len(folders) == 2
    for dataset in (first, second):  # a run's own rows are found, whichever they are
        wanted = {"run_id": "a", "manifest": dataset.hash}
        assert open_own(None, tmp_path, wanted=wanted).hash == dataset.hash
    with pytest.raises(FileNotFoundError, match="2 encoded sets"):
        open_own(None, tmp_path)


def test_sets_that_differ_in_their_raw_values_alone_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ENDS", 64)
    frame = pd.DataFrame({"click": ["0", "1"] * 200, "town": "Bonn"})
    frame.loc[150:250, "town"] = "Rome"
    first = open_own(put(tmp_path, frame), tmp_path)
    path = put(tmp_path, frame.replace("Rome", "Oslo"))
    os.utime(path, ns=(1, 1))
    second = open_own(path, tmp_path)
    assert first.hash == second.hash
    for dataset, town in ((first, "Rome"), (second, "Oslo")):
        wanted = {"run_id": "a", "manifest": dataset.hash, "values_hash": dataset.values_hash}
        found = open_own(None, tmp_path, wanted=wanted).vocabulary.field("town")
        assert found.lookup([town]) != found.unknown
    assert "other raw values" in second.other_than(wanted | {"values_hash": first.values_hash})
    with pytest.raises(ValueError, match="does not say which of 2 encoded sets"):
        open_own(None, tmp_path, wanted=wanted | {"values_hash": None})


def test_without_a_file_the_set_is_found_in_the_cache_unless_its_file_changed(tmp_path):
    path = put(tmp_path, frame_of())
    first = open_own(path, tmp_path)
    assert open_own(None, tmp_path).hash == first.hash
    with pytest.raises(FileNotFoundError, match=r"no encoded sets in .* are called 'toy'"):
        open_own(None, tmp_path, min_count=4)
    put(tmp_path, frame_of(seed=1))
    with pytest.raises(ValueError, match=r"table\.csv has changed since it was encoded"):
        open_own(None, tmp_path)
    path.unlink()
    assert open_own(None, tmp_path).hash == first.hash


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = put(tmp_path, frame_of())
    spool = encode.spool

    def slowly(*arguments):
        found = spool(*arguments)
        path.write_text(path.read_text() + "x")
        return found

    monkeypatch.setattr(encode, "spool", slowly)
    with pytest.raises(ValueError, match="changed while it was read"):
        open_own(path, tmp_path)
    assert [left.name for left in (tmp_path / "cache").iterdir() if left.is_dir()] == []


def test_the_summary_says_what_was_read_and_left_out(tmp_path):
    words = describe(open_own(put(tmp_path, frame_of()), tmp_path, ignore=("one",)))
    assert "toy: 600 rows (train 480" in words
    assert "left out: id (no value comes 3 times or more (min_count))" in words
    assert "left out: one (asked for)" in words
    assert [line.split()[:3] for line in words.splitlines() if line.startswith("gaps")] == [
        ["gaps", "text", "2"]]


# bad input


@pytest.mark.parametrize(("options", "why"), [
    ({"label": "clik"}, "did you mean 'click'"),
    ({"label": ""}, "which column is the label.*id, click"),
    ({"fields": ("skewd",)}, "fields: the table has no such column.*did you mean 'skewed'"),
    ({"fields": ("click",)}, "fields names the label"),
    ({"label": "mixed"}, r"\d+ rows have no label \('mixed' is empty\)"),
    ({"label": "skewed"}, r"has \d+ values: .*must be 0 or 1.*positive"),
    ({"positive": ("9",)}, "the label 'click' has no value '9'"),
    ({"fields": ("id", "one")}, "min_count=3 leaves the field 'id' empty"),
    ({"min_count": 5000}, "leaves every field empty"),
    ({"bucket": "deciles"}, "a rule must be 'quantiles'"),
    ({"bucket": {"mixed": "log2"}}, "'mixed' is of numbers, got '.*bucket={'mixed': 'none'}"),
    ({"dates": {"mixed": ("hour",)}}, "'mixed' is of times, got"),
    ({"dates": {"mixed": ("hours",)}}, "unknown part 'hours'; did you mean 'hour'"),
    ({"ignore": ("one",), "fields": ("one",)}, "'one' is in ignore and also in fields"),
    ({"dense": ("price",), "bucket": {"price": "log2"}}, "'price' is in dense and also in bucket"),
    ({"dense": ("one",), "dates": {"one": ("hour",)}}, "'one' is in dense and also in dates"),
    ({"bucket": {"price": "log2"}, "fields": ("one",)}, "bucket: 'price' is no field"),
    ({"bucket": {"click": "log2"}}, "bucket names the label"),
    ({"dates": {"one": ("hour", "hour")}}, "dates: one: 'hour' is named twice"),
])
def test_options_that_do_not_fit_are_refused(tmp_path, options, why):
    with pytest.raises(ValueError, match=f"(?s){why}"):
        open_own(put(tmp_path, frame_of()), tmp_path, **options)


@pytest.mark.parametrize(("split", "why"), [
    ("time:mixed", "'mixed' is of times, got 'text'"),
    ("time:gaps", "'gaps' is of times, got 'x'"),
    ("column:mixed", "its values must be train, validation"),
    ("column:prt", "^split: the table has no such column.*did you mean 'price'"),
    ("by day", "split must be auto"),
])
def test_splits_that_cannot_be_made_are_refused(tmp_path, split, why):
    with pytest.raises(ValueError, match=why):
        open_own(put(tmp_path, frame_of()), tmp_path, split)


def test_a_copy_of_the_label_is_named(tmp_path, caplog):
    frame = frame_of()
    frame["copy"] = np.where(frame["click"] == "1", "bought", "left")
    with caplog.at_level(logging.WARNING):
        open_own(put(tmp_path, frame), tmp_path)
    [said] = [record.getMessage() for record in caplog.records if "copy" in record.getMessage()]
    assert "field 'copy' tells the label 'click' in every row" in said


def files(folder, **content):
    for name, text in content.items():
        path = folder / name.replace("_", ".")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


ROWS = "click,town\n" + "1,Rome\n0,Oslo\n" * 40


def zipped(**changes):
    """A zip of one table; `flags` sets a bit of its member's, `method` its packing."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        if not changes.get("empty"):
            archive.writestr("a.csv", ROWS)
    content = bytearray(packed.getvalue())
    member = content.find(b"PK\x01\x02")  # its line in the archive's list
    if "flags" in changes:
        content[member + 8] |= changes["flags"]
    if "method" in changes:
        content[member + 10] = changes["method"]
    return bytes(content)


def tarred():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"))
    return packed.getvalue()


@pytest.mark.parametrize(("content", "why"), [
    ({"a_zip": zipped(flags=1)}, "cannot be unpacked here.*is encrypted.*; unpack it"),
    ({"a_zip": zipped(method=9)}, "cannot be unpacked here.*not supported.*; unpack it"),
    ({"a_zip": zipped(empty=True)}, "holds 0 files"),
    ({"a_csv": lzma.compress(ROWS.encode())}, "is packed by xz; unpack it"),
    ({"a_csv": tarred()}, "is a tar archive"),
    ({"a_csv": "click,town"}, "no row behind its header"),
    ({"a_csv": ""}, "is empty"),
    ({"a_csv": "click,town\n"}, "no row behind its header"),
    ({"a_csv": "click\n1\n0\n"}, "has one column"),
    ({"a_csv": ROWS.replace("Rome", "Köln").encode("latin-1")}, "is not UTF-8.*iconv"),
    ({"a_csv": ROWS.encode("utf-16")}, "is UTF-16 text"),
    ({"a_csv": "click,town,town\n" + "1,a,b\n" * 20}, "two columns are called 'town'"),
    ({"a_csv": ",".join(f"c{i}" for i in range(70_000)) + "\n1\n"}, "70,000 columns, more than"),
    ({"a_csv": gzip.compress(ROWS.encode())[:-12]}, "cannot be read.*damaged"),
    ({"a_csv": ROWS.replace("1,Rome", "1,Rome,x")}, "40 of 80 lines cannot be used"),
    ({"part-0_csv": ROWS, "part-2_csv": ROWS}, "part 1 is missing"),
    ({"a_csv": ROWS, "b_csv": ROWS.replace("town", "city")}, "the columns differ.*has 'city'"),
    ({"a_csv": ROWS.replace("0,Oslo", ",Oslo")}, "40 rows have no label"),
    ({"a_csv": "<!DOCTYPE html><html>,</html>\n1,2\n"}, "web page"),
    ({"a_csv": b"PAR1" + b"x" * 50}, "cannot be read"),
    ({"a_csv": b"PAR1"}, "cannot be read"),
])
def test_files_that_cannot_be_read_are_named(tmp_path, content, why):
    folder = files(tmp_path / "raw", **content)
    with pytest.raises(ValueError, match=f"(?s){why}"):
        open_own(folder, tmp_path)
    cache = tmp_path / "cache"
    assert not cache.exists() or not any(path.is_dir() for path in cache.iterdir())


def test_a_cut_off_parquet_file_is_named(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pandas(frame_of()), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read"):
        open_own(path, tmp_path)


def test_a_part_of_a_header_alone_has_no_rows(tmp_path):
    whole = open_own(files(tmp_path / "one", a_csv=ROWS), tmp_path)
    parts = files(tmp_path / "two", a_csv="click,town", b_csv=ROWS, c_csv="click,town\n")
    assert open_own(parts, tmp_path).hash == whole.hash


def test_two_columns_of_one_name_in_memory_are_named(tmp_path):
    table = pa.table([["0", "1"] * 20, ["a"] * 40, ["b"] * 40], names=["click", "town", "town"])
    with pytest.raises(ValueError, match="two columns are called 'town'"):
        open_own(table, tmp_path)


def test_an_index_and_files_that_are_no_split_are_said(tmp_path, caplog):
    frame = pd.DataFrame({"click": [0, 1] * 40, "town": ["a", "b"] * 40})
    open_own(frame.rename_axis("user"), tmp_path)
    assert "the DataFrame's index (user) is no column and is left out" in caplog.text
    open_own(files(tmp_path / "raw", train_csv=ROWS, test_csv=ROWS), tmp_path)
    assert "has train and test, and no file called valid" in caplog.text


@pytest.mark.parametrize("word", ["now", "today", "NaT"])
def test_a_word_is_no_time(tmp_path, word):
    frame = pd.DataFrame({"click": [0, 1] * 40, "at": ["2026-01-31 08:00+02"] * 79 + [word]})
    with pytest.raises(ValueError, match=f"'at' is of times, got '{word}'"):
        open_own(frame, tmp_path, dates={"at": ("hour",)})
    found = open_own(frame[:78], tmp_path, dates={"at": ("hour",)})
    assert found.vocabulary.field("at.hour").value(0) == "6"


def test_nested_columns_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"click": [1, 0], "tags": [["a"], []]}), path)
    with pytest.raises(ValueError, match=r"column 'tags' is nested \(list<"):
        open_own(path, tmp_path)


def test_a_few_bad_lines_are_shown_and_left_out(tmp_path, caplog):
    frame = frame_of(3000)
    path = put(tmp_path, frame.drop(columns=["odd, name"]))
    path.write_text(path.read_text() + "too,few\n")
    dataset = open_own(path, tmp_path)
    assert sum(dataset.counts) == 3000
    assert dataset.manifest["bad_lines"] == 1
    assert "line 3002: expected 7 columns, got 2: b'too,few'" in caplog.text


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_that_ends_in_the_middle_of_a_line_was_cut_short(tmp_path, packed):
    text = "user,click,item\n" + "".join(f"u{row % 9},{row % 2},x\n" for row in range(5000))
    path = tmp_path / ("cut.csv.gz" if packed else "cut.csv")
    content = text[:-3].encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    if packed:  # whole as it is, with a line that cannot be used
        assert open_own(path, tmp_path).manifest["bad_lines"] == 1
        return
    with pytest.raises(ValueError, match="ends in the middle of a line, the 5,001th: it was cut"):
        open_own(path, tmp_path)
    path.write_bytes(content + b"\n")
    assert open_own(path, tmp_path).manifest["bad_lines"] == 1


def test_more_values_than_can_be_numbered_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(count, "MOST", 5)
    monkeypatch.setattr(count.TextCounter.__init__, "__defaults__", (200,))
    with pytest.raises(ValueError, match="column 'id' has more than 200 distinct values"):
        open_own(put(tmp_path, frame_of(2000)), tmp_path)


def test_a_column_without_a_name_is_left_out(tmp_path):
    frame = frame_of()
    path = tmp_path / "t.csv"
    frame.to_csv(path)  # with pandas' index
    dataset = open_own(path, tmp_path)
    is_as_defined(dataset, frame)
    assert "(a column without a name)" in dataset.manifest["table"]["ignored"]


def test_no_such_file_and_no_table_in_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        open_own(tmp_path / "nosuch.csv", tmp_path)
    with pytest.raises(FileNotFoundError, match="has no table"):
        open_own(files(tmp_path / "raw", notes_md="x"), tmp_path)


def test_split_names():
    for split in ("auto", "random", "random:3", "time:at", "column:part", "files:a,b,c"):
        check_split(split)
    for split in ("time:", "random:x", "ids:nosuch.npz", "files:a,b", "files:"):
        with pytest.raises(ValueError, match="split"):
            check_split(split)


@pytest.mark.real
def test_frappe_is_as_pandas_says(tmp_path):
    folder = Path(os.environ["PEP_DATA"]) / "frappe"
    names = ("train", "valid", "test")
    frames = [pd.read_csv(folder / f"{name}.csv", dtype=str) for name in names]
    frame = pd.concat(frames, ignore_index=True)
    dataset = open_own(folder, tmp_path, label="label", min_count=1)
    assert dataset.counts == (202_027, 57_722, 28_860)
    ids, sizes = defined(frame, 1, np.arange(len(frame)), ("label",))
    assert list(dataset.schema.sizes) == sizes
    assert sum(sizes) - len(sizes) == 5_382
    assert np.array_equal(dataset.ids, ids)
    assert np.array_equal(dataset.labels, frame["label"].astype(float))


def test_the_reader_keeps_to_batches(tmp_path, monkeypatch):
    """A large file comes in many batches, so that memory does not grow with it."""
    monkeypatch.setattr(read, "BLOCK_BYTES", 2_000)
    frame = frame_of()
    table = read.Table.of(put(tmp_path, frame))
    batches = [batch for _, batch in table.batches(["click"])]
    assert len(batches) > 5
    is_as_defined(open_own(put(tmp_path, frame), tmp_path), frame)


def test_times_with_fractions_and_zones_are_the_same_text_in_a_file_and_as_python_values(tmp_path):
    times = pa.array([1_199_999_999_607, 1_200_000_000_000, None],
                     pa.timestamp("ms", "Europe/Berlin"))
    path = tmp_path / "times.parquet"
    pq.write_table(pa.table({"time": times, "click": [0, 1, 0]}), path)
    [(_, batch)] = read.Table.of(path).batches(["time"])
    texts = read.texts_of(batch.column("time"))
    wanted = [as_text(value) or "" for value in times.to_pylist()]
    assert [texts.get(row) for row in range(3)] == wanted
    assert wanted == ["2008-01-10 21:19:59", "2008-01-10 21:20:00", ""]


def test_a_disk_that_is_full_at_the_last_byte_is_an_error(tmp_path):
    table = read.Table.of(put(tmp_path, frame_of(20)))
    options = TableOptions("click", min_count=1)
    with ThreadPoolExecutor(1) as pool, pytest.raises(OSError, match="No space left"):
        spool(table, options, ("random", "1"), Path("/dev/full"), pool)
