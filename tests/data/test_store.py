import itertools
import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import checksums, store
from data.raw.writer import Writer
from data.schema import Schema
from data.split import split_rows

SOURCE = {"files": {"a.dat": "00ff"}, "rules": 1}


def toy(rows=200, seed=0, vocabulary="all"):
    rng = np.random.default_rng(seed)
    columns = {"age": rng.integers(0, 9, rows),
               "town": np.array([f"town {i}" for i in rng.integers(0, 40, rows)])}
    return store.build("toy", columns, rng.integers(0, 2, rows), split_seed=7,
                       vocabulary=vocabulary)


def same(one, other):
    return (one.schema == other.schema and one.counts == other.counts and one.manifest
            == other.manifest
            and np.array_equal(one.ids, other.ids) and np.array_equal(one.labels, other.labels))


@given(st.integers(10, 3000), st.integers(0, 2**32))
def test_splits_are_disjoint_cover_all_rows_and_are_deterministic(rows, seed):
    parts = split_rows(rows, seed)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(rows))
    assert len(parts[1]) == len(parts[2]) == rows // 10
    again = split_rows(rows, seed)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


def test_the_split_is_pinned_and_follows_its_seed():
    parts = split_rows(20, seed=1)
    assert parts[1].tolist() == [13, 14]
    assert parts[2].tolist() == [6, 19]
    assert split_rows(20, seed=2)[1].tolist() != [13, 14]


def test_too_few_rows_to_split_are_an_error_that_says_how_many_came():
    with pytest.raises(ValueError, match=r"9 usable rows.*at least 10"):
        split_rows(9, seed=1)


@pytest.mark.parametrize("vocabulary", ["all", "train"])
def test_ids_of_each_field_stay_in_the_rows_of_that_field(vocabulary):
    dataset = toy(vocabulary=vocabulary)
    for position, (start, size) in enumerate(zip(dataset.schema.offsets, dataset.schema.sizes,
                                                 strict=True)):
        column = dataset.ids[:, position]
        assert start <= column.min()
        assert column.max() < start + size
    assert dataset.ids.dtype == np.int32


def test_build_keeps_rows_together_in_split_order():
    rows = 200
    labels = np.arange(rows) % 2
    dataset = store.build("toy", {"row": np.arange(rows)}, labels, split_seed=7)
    order = np.concatenate(split_rows(rows, 7))
    # every value comes once, so codes follow the values
    assert dataset.ids[:, 0].tolist() == order.tolist()
    assert dataset.labels.tolist() == labels[order].tolist()
    ids, split_labels = dataset.split("test")
    assert ids[:, 0].tolist() == split_rows(rows, 7)[2].tolist()
    assert len(split_labels) == 20


def test_train_vocabulary_gives_held_out_values_the_unknown_code():
    rows = 100
    train = split_rows(rows, 7)[0]
    column = np.full(rows, 5)
    column[np.setdiff1d(np.arange(rows), train)] = 99
    strict = store.build("toy", {"f": column}, np.arange(rows) % 2, 7, vocabulary="train")
    assert strict.schema.sizes == (2,)
    assert strict.split("train")[0].max() == 0
    assert strict.split("validation")[0].min() == strict.split("test")[0].min() == 1
    loose = store.build("toy", {"f": column}, np.arange(rows) % 2, 7, vocabulary="all")
    assert loose.schema.sizes == (2,)
    assert loose.ids[:, 0].tolist() == (column[np.concatenate(split_rows(rows, 7))] == 99).tolist()


def test_hash_follows_ids_labels_and_sizes():
    rows = 50
    column, labels = np.arange(rows) % 4, np.arange(rows) % 2
    first = store.build("toy", {"f": column}, labels, 7)
    assert store.build("toy", {"f": column}, labels, 7).hash == first.hash
    assert store.build("toy", {"f": column}, 1 - labels, 7).hash != first.hash
    assert store.build("toy", {"f": np.arange(rows) % 5}, labels, 7).hash != first.hash
    assert store.build("toy", {"f": column}, labels, 8).hash != first.hash


def test_schema_refuses_an_empty_field_and_a_wrong_number_of_sizes():
    with pytest.raises(ValueError, match="at least one value"):
        Schema("toy", ("a", "b"), (0, 3))
    with pytest.raises(ValueError, match="2 field names but 1 sizes"):
        Schema("toy", ("a", "b"), (3,))


def test_save_and_load_round_trip(tmp_path):
    dataset = toy()
    store.save(dataset, tmp_path / "toy", SOURCE)
    loaded = store.load(tmp_path / "toy", SOURCE)
    assert same(loaded, dataset)
    assert isinstance(loaded.ids, np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_save_replaces_an_older_set(tmp_path):
    store.save(toy(seed=0), tmp_path / "toy", SOURCE)
    store.save(toy(seed=1), tmp_path / "toy", {**SOURCE, "rules": 2})
    assert same(store.load(tmp_path / "toy", {**SOURCE, "rules": 2}), toy(seed=1))


def test_load_gives_none_for_an_absent_set_another_source_and_another_format(tmp_path):
    assert store.load(tmp_path / "toy", SOURCE) is None
    store.save(toy(), tmp_path / "toy", SOURCE)
    assert store.load(tmp_path / "toy", {**SOURCE, "rules": 2}) is None
    manifest = json.loads((tmp_path / "toy" / "manifest.json").read_text())
    (tmp_path / "toy"
     / "manifest.json").write_text(json.dumps({**manifest, "format": store.FORMAT_VERSION + 1}))
    assert store.load(tmp_path / "toy", SOURCE) is None


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def fewer_rows(path):
    np.save(path, np.load(path)[:-1])


DAMAGES = {"cut in half": cut_in_half, "emptied": lambda path: path.write_bytes(b""),
           "gone": lambda path: path.unlink(),
           "noise": lambda path: path.write_bytes(b"\x93\xff\x00 not it"),
           "another array": fewer_rows, "another json": lambda path: path.write_text("[]")}


@pytest.mark.parametrize(("name", "damage"), [
    case for case in itertools.product(("ids.npy", "labels.npy", "manifest.json"), DAMAGES)
    if case not in (("ids.npy", "another json"), ("labels.npy", "another json"),
                    ("manifest.json", "another array"))])
def test_load_gives_none_for_a_damaged_set(tmp_path, name, damage):
    store.save(toy(), tmp_path / "toy", SOURCE)
    DAMAGES[damage](tmp_path / "toy" / name)
    assert store.load(tmp_path / "toy", SOURCE) is None


def fail_at_call(monkeypatch, number, error):
    calls, original = [], np.save

    def save(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise error
        original(*arguments)

    monkeypatch.setattr(store.np, "save", save)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_nothing(tmp_path, monkeypatch, error):
    fail_at_call(monkeypatch, 2, error)
    with pytest.raises(type(error)):
        store.save(toy(), tmp_path / "toy", SOURCE)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_save_leaves_the_older_set_whole(tmp_path, monkeypatch):
    store.save(toy(seed=0), tmp_path / "toy", SOURCE)
    fail_at_call(monkeypatch, 2, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        store.save(toy(seed=1), tmp_path / "toy", SOURCE)
    assert same(store.load(tmp_path / "toy", SOURCE), toy(seed=0))
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_process_that_saves_the_same_set_at_the_same_moment_does_no_harm(tmp_path, monkeypatch):
    target, original, came = tmp_path / "toy", os.rename, []

    def other_process_comes_first(source, destination):
        if Path(destination) == target and not came:
            came.append(True)
            store.save(toy(), target, SOURCE)
        original(source, destination)

    monkeypatch.setattr(os, "rename", other_process_comes_first)
    store.save(toy(), target, SOURCE)
    assert came
    assert same(store.load(target, SOURCE), toy())
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize("part", ["ids", "labels"])
def test_a_loaded_set_may_be_written_to_without_changing_the_file(tmp_path, part):
    store.save(toy(), tmp_path / "toy", SOURCE)
    getattr(store.load(tmp_path / "toy", SOURCE), part)[:] = 1
    assert same(store.load(tmp_path / "toy", SOURCE), toy())


@pytest.mark.parametrize("key", ["source", "format", "rows", "fields", "sizes", "counts",
                                 "dataset"])
def test_load_gives_none_for_a_manifest_that_lacks_something(tmp_path, key):
    store.save(toy(), tmp_path / "toy", SOURCE)
    manifest = json.loads((tmp_path / "toy" / "manifest.json").read_text())
    del manifest[key]
    (tmp_path / "toy" / "manifest.json").write_text(json.dumps(manifest))
    assert store.load(tmp_path / "toy", SOURCE) is None


def test_build_follows_a_split_that_was_made_elsewhere(tmp_path):
    parts = [np.arange(50, 200), np.arange(20), np.arange(20, 50)]
    np.savez(tmp_path / "split.npz", train=parts[0], validation=parts[1], test=parts[2])
    rows, labels = np.arange(200), np.arange(200) % 2
    made = store.build("toy", {"row": rows}, labels, 7, "all", f"ids:{tmp_path / 'split.npz'}")
    assert made.counts == (150, 20, 30)
    assert made.ids[:, 0].tolist() == np.concatenate(parts).tolist()
    assert made.labels.tolist() == labels[np.concatenate(parts)].tolist()
    assert made.hash != store.build("toy", {"row": rows}, labels, 7).hash


# rows that are written as they come


def write_rows(folder, made, dense=None, pieces=7, drop=0):
    """Write a set through a Writer in pieces: of each piece its train rows come first, then
    validation, then test."""
    folder.mkdir()
    rows = sum(made.counts)
    starts = np.cumsum([0, *made.counts])
    part = np.repeat(np.arange(3), made.counts)
    numbers = np.empty((rows, 0)) if dense is None else dense
    with ThreadPoolExecutor(2) as pool:
        writer = Writer(folder, made.schema, made.counts, numbers.shape[1], pool)
        come = np.random.default_rng(0).permutation(rows)[:rows - drop]
        done = [0, 0, 0]
        for piece in np.array_split(come, pieces):
            sizes = np.bincount(part[piece], minlength=3)
            order = np.concatenate([starts[i] + done[i] + np.arange(size) for i,
                                    size in enumerate(sizes)])
            done = [before + size for before, size in zip(done, sizes, strict=True)]
            writer.add(sizes, made.ids[order].astype(np.int64), made.labels[order].astype(np.int8),
                       numbers[order])
        writer.finish({"vocabulary": "all"}, SOURCE, made.vocabulary)
    checksums.write(folder)


@pytest.mark.parametrize("pieces", [1, 7, 150])
@pytest.mark.parametrize("with_numbers", [False, True])
def test_a_writer_puts_every_split_in_its_place(tmp_path, pieces, with_numbers):
    made = toy()
    dense = (np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32) if with_numbers
             else None)
    write_rows(tmp_path / "toy", made, dense, pieces)
    found = store.load(tmp_path / "toy", SOURCE)
    assert (found.schema, found.counts, found.manifest["positives"]) == (made.schema, made.counts,
                                                                         made.labels.sum())
    assert np.array_equal(found.ids, made.ids)
    assert np.array_equal(found.labels, made.labels)
    assert (found.ids.dtype, found.labels.dtype) == (np.int32, np.float32)
    if with_numbers:
        assert np.array_equal(found.dense, dense)
        assert isinstance(found.dense, np.memmap)
    else:
        assert found.dense is None
    assert found.manifest["vocabulary"] == "all"


def test_the_hash_of_a_written_set_follows_its_rows_and_not_how_they_came(tmp_path):
    made, dense = toy(), np.ones((200, 2), np.float32)
    other, changed = replace(made, ids=made.ids[::-1]), dense.copy()
    changed[77, 1] = 2
    sets = {"one": (made, dense, 3), "other pieces": (made, dense, 11), "rows": (other, dense, 3),
            "numbers": (made, changed, 3),
            "labels": (replace(made, labels=1 - made.labels), dense, 3)}
    hashes = {}
    for name, arguments in sets.items():
        write_rows(tmp_path / name, *arguments)
        hashes[name] = store.load(tmp_path / name, SOURCE).hash
    assert hashes["one"] == hashes["other pieces"]
    assert len(set(hashes.values())) == 4


def test_a_writer_that_got_fewer_rows_than_announced_writes_no_manifest(tmp_path):
    with pytest.raises(AssertionError, match="another number of rows than announced"):
        write_rows(tmp_path / "toy", toy(), drop=1)
    assert store.load(tmp_path / "toy", SOURCE) is None


def test_a_full_disk_comes_up_from_a_writer(tmp_path, monkeypatch):
    def full(self, sizes, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data.raw.writer._Array.add", full)
    with pytest.raises(OSError, match="No space left"):
        write_rows(tmp_path / "toy", toy())


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage != "another json"])
def test_load_gives_none_for_damaged_numbers(tmp_path, damage):
    write_rows(tmp_path / "toy", toy(), np.ones((200, 2), np.float32))
    assert store.load(tmp_path / "toy", SOURCE).dense.shape == (200, 2)
    DAMAGES[damage](tmp_path / "toy" / "dense.npy")
    assert store.load(tmp_path / "toy", SOURCE) is None


# rows for unknown values that nothing fell into


@pytest.mark.parametrize(("held_out", "unused"), [("seen", 2), ("unseen", 1)])
def test_rows_for_unknown_values_that_nothing_fell_into_are_counted(tmp_path, held_out, unused):
    rows = 200
    column = np.zeros(rows, int)
    if held_out == "unseen":
        column[split_rows(rows, 7)[2][3]] = 5
    columns, labels = {"one": column, "other": np.arange(rows) % 3}, np.arange(rows) % 2
    strict = store.build("toy", columns, labels, 7, "train")
    store.save(strict, tmp_path / "toy", SOURCE)
    for dataset in (strict, store.load(tmp_path / "toy", SOURCE)):
        assert dataset.schema.num_rows == 6
        assert dataset.unused_unknown_rows == unused
        assert (f"6 features ({6 - unused} without the rows for unknown values that nothing fell "
                "into)" in dataset.describe())
    every = store.build("toy", columns, labels, 7)
    assert every.unused_unknown_rows == 0  # it has no row for unknown values
    assert every.describe().splitlines()[0].endswith(f"{every.schema.num_rows} features")


def test_a_set_with_one_changed_bit_is_not_read_and_said_to_be_damaged(tmp_path, caplog):
    """Ids out of range would be read beside the table."""
    store.save(toy(), tmp_path / "toy", SOURCE)
    path = tmp_path / "toy" / "ids.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    assert store.load(tmp_path / "toy", SOURCE) is None
    assert "is damaged: ids.npy changed after it was written" in caplog.text


def test_what_a_killed_process_left_of_a_set_is_removed(tmp_path, dead_process):
    left = tmp_path / f".toy.{platform.node()}-{dead_process}.x"
    left.mkdir()
    (left / "ids.npy").touch()
    store.save(toy(), tmp_path / "toy", SOURCE)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_two_columns_of_one_name_are_refused():
    frame = pd.DataFrame([[1, 2]] * 40, columns=["a", "a"])
    with pytest.raises(ValueError, match="two columns are called 'a'"):
        store.build("toy", frame, [0, 1] * 20, 1)
