"""Splits that were made elsewhere, and what tells one split from another."""

import re
from pathlib import Path

import numpy as np
import pytest

from data import criteo, movielens, store
from data.raw import ingest
from data.raw.layout import DECIMAL, LABEL, Column, Layout
from data.split import SPLITS, check_name, identity, split_indices, split_rows

GOOD = {"train": [4, 0, 1, 2, 7, 9], "validation": [8, 3], "test": [5, 6]}


def save(folder, name="split.npz", dtype=np.int64, **arrays):
    """The name of a split whose arrays are GOOD but for those given."""
    content = {key: np.asarray(value) if isinstance(value, np.ndarray) else np.array(value, dtype)
               for key, value in {**GOOD, **arrays}.items() if value is not None}
    np.savez(folder / name, **content)
    return f"ids:{folder / name}"


def parts(split, rows=10, kept=None):
    return [part.tolist() for part in split_indices(split, rows, seed=1, kept=kept)]


def refuse(split, message, rows=10, kept=None):
    """An error that names the file and then says exactly this."""
    with pytest.raises(ValueError, match="split") as caught:
        split_indices(split, rows, seed=1, kept=kept)
    assert str(caught.value) == split.removeprefix("ids:") + message


# a random split


def test_random_is_the_pinned_split_of_the_seed():
    assert parts("random", 20) == [part.tolist() for part in split_rows(20, seed=1)]
    found = split_indices("random", 1000, criteo.LAYOUT.split_seed)
    assert [part[:4].tolist() for part in found] == [
        [0, 2, 3, 5], [1, 4, 47, 51], [6, 25, 32, 34]]


def test_random_looks_at_the_rows_alone_whatever_was_left_out():
    kept = np.ones(25, bool)
    kept[[0, 3, 7, 20, 24]] = False
    assert parts("random", 20, kept) == parts("random", 20)


# a split from a file


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64,
                                   ">i4"])
def test_the_three_lists_are_read_whatever_the_integers(tmp_path, dtype):
    assert parts(save(tmp_path, dtype=dtype)) == [[0, 1, 2, 4, 7, 9], [3, 8], [5, 6]]


def test_a_packed_file_with_further_arrays_is_read_too(tmp_path):
    np.savez_compressed(tmp_path / "split.npz", **GOOD, seed=np.array(7))
    assert parts(f"ids:{tmp_path / 'split.npz'}") == [[0, 1, 2, 4, 7, 9], [3, 8], [5, 6]]


def test_the_parts_are_disjoint_ascending_and_cover_all_rows(tmp_path):
    order = np.random.default_rng(0).permutation(3000)
    split = save(tmp_path, train=order[:2000], validation=order[2000:2100], test=order[2100:])
    found = split_indices(split, 3000, seed=1)
    assert [part.tolist() for part in found] == [sorted(part.tolist())
                                                 for part in np.split(order, [2000, 2100])]


def test_rows_in_two_parts_are_an_error(tmp_path):
    refuse(save(tmp_path, validation=[8, 3, 1]), ": row 1 is in validation and in train")
    refuse(save(tmp_path, test=[5, 6, 8]), ": row 8 is in test and in validation")


def test_a_row_twice_in_one_part_is_an_error(tmp_path):
    refuse(save(tmp_path, test=[5, 6, 5]), ": test names a row twice")


@pytest.mark.parametrize(("ids", "dtype", "shown"), [
    ([5, 6, 10], np.int64, 10), ([5, 6, -1], np.int64, -1), ([5, 6, 2**63], np.uint64, 2**63),
    ([5, 6, 200], np.uint8, 200), ([5, 6, -10], np.int8, -10)])
def test_rows_that_the_file_does_not_have_are_an_error_that_says_which_it_has(tmp_path, ids, dtype,
                                                                              shown):
    refuse(save(tmp_path, dtype=dtype, test=ids),
           f": test names row {shown}, but the data have the rows 0 to 9")


def test_rows_in_no_part_are_an_error_that_counts_them_and_names_the_first(tmp_path):
    refuse(save(tmp_path, train=[4, 0, 2, 9]),
           ": 2 of 10 rows are in no split (the first is row 1); every row must be in one")
    refuse(save(tmp_path), ": 1 of 11 rows are in no split (the first is row 10); every row must "
                           "be in one", rows=11)


@pytest.mark.parametrize("name", SPLITS)
def test_a_part_without_rows_is_an_error(tmp_path, name):
    other = "test" if name == "train" else "train"
    refuse(save(tmp_path, **{name: [], other: GOOD[name] + GOOD[other]}), f": {name} has no row")


@pytest.mark.parametrize(("ids", "got"), [
    (np.array([5.0, 6.0]), "float64 of shape (2,)"),
    (np.array([True, False]), "bool of shape (2,)"),
    (np.array(["5", "6"]), "<U1 of shape (2,)"), (np.array([[5, 6]]), "int64 of shape (1, 2)"),
    (np.array(5), "int64 of shape ()")], ids=["floats", "a mask", "words", "2-d", "one number"])
def test_anything_but_a_list_of_whole_numbers_is_an_error_that_says_what_came(tmp_path, ids, got):
    refuse(save(tmp_path, test=ids), f": test must be a list of row numbers, got {got}")


NO_NPZ = {"text": b"0 1 2\n", "nothing": b"", "a cut-off npz": None, "npy": None, "pickled": None,
          "lacking": None}


@pytest.mark.parametrize("kind", NO_NPZ)
def test_a_file_that_is_no_such_npz_is_an_error_that_says_what_it_must_be(tmp_path, kind):
    split = save(tmp_path)
    path = Path(split.removeprefix("ids:"))
    if kind == "a cut-off npz":
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.arange(10))
    elif kind == "pickled":
        save(tmp_path, test=np.array([5, "x", None], object))
    elif kind == "lacking":
        save(tmp_path, validation=None)
    else:
        path.write_bytes(NO_NPZ[kind])
    with pytest.raises(ValueError, match="must be") as caught:
        parts(split)
    assert str(caught.value).startswith(f"{path} must be an .npz with the arrays train, "
                                        f"validation, test (")


def test_a_packed_file_with_a_wrong_byte_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "split.npz"
    np.savez_compressed(path, **GOOD)
    content = bytearray(path.read_bytes())
    at = content.index(b"train.npy") + len(b"train.npy")
    content[at:at + 40] = b"\xff" * 40
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError,
                       match=rf"^{re.escape(str(path))} must be an \.npz .*decompressing"):
        parts(f"ids:{path}")


# rows whose lines were left out


def without(*lines, of=12):
    kept = np.ones(of, bool)
    kept[list(lines)] = False
    return kept


def test_numbers_are_those_of_the_raw_file_also_when_lines_were_left_out(tmp_path):
    """Lines 1 and 8 of twelve are bad; row 7 of the ten that are left was line 9."""
    split = save(tmp_path, train=[0, 1, 2, 3, 4, 5], validation=[6, 7, 8], test=[9, 10, 11])
    assert parts(split, 10, without(1, 8)) == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]


def test_lines_that_were_left_out_need_not_be_in_the_split(tmp_path):
    split = save(tmp_path, train=[0, 2, 3, 4, 5], validation=[6, 7], test=[9, 10, 11])
    assert parts(split, 10, without(1, 8)) == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]


def test_errors_name_rows_of_the_raw_file(tmp_path):
    whole = {"train": [0, 2, 3, 4, 5], "validation": [6, 7], "test": [9, 10, 11]}
    refuse(save(tmp_path, **{**whole, "test": [9, 10]}),
           ": 1 of 10 rows are in no split (the first is row 11); every row must be in one",
           kept=without(1, 8))
    refuse(save(tmp_path, **{**whole, "test": [9, 10, 11, 12]}),
           ": test names row 12, but the raw file has the rows 0 to 11", kept=without(1, 8))
    refuse(save(tmp_path, train=[0, 2, 3, 4, 5, 6, 7], validation=[1, 8], test=[9, 10, 11]),
           ": validation has no row", kept=without(1, 8))


# names


@pytest.mark.parametrize("split", ["Random", "", "ids", "temporal", "split.npz"])
def test_an_unknown_word_is_an_error_that_says_what_there_is(split):
    for use in (check_name, identity, parts):
        with pytest.raises(ValueError,
                           match=rf"^split must be 'random' or 'ids:FILE', got '{split}'$"):
            use(split)


@pytest.mark.parametrize("name", ["absent.npz", "", "."])
def test_a_missing_file_is_an_error_that_names_it_and_its_arrays(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for use in (check_name, identity, parts):
        with pytest.raises(ValueError, match="no file") as caught:
            use(f"ids:{name}")
        assert str(caught.value) == (f"split: there is no file '{name}'; it must be an .npz with "
                                     "the arrays train, validation, test")


def test_identity_follows_the_content_and_not_the_path(tmp_path):
    (tmp_path / "other").mkdir()
    first = identity(save(tmp_path))
    assert identity(save(tmp_path / "other", name="renamed.npz")) == first
    assert identity(save(tmp_path, test=[6, 5])) != first
    assert identity(save(tmp_path)) == first
    assert re.fullmatch("ids:[0-9a-f]{64}", first)
    assert identity("random") == "random"


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("position", range(3))
def test_a_split_of_one_class_is_an_error_that_names_it(tmp_path, position, label):
    """Whether the set comes as columns in memory or as a raw file."""
    name, rows = SPLITS[position], 300
    labels = np.arange(rows) % 2
    parts = split_rows(rows, 7)
    labels[parts[position]] = label
    rows_of = len(parts[position])
    words = rf"all {rows_of} rows of the {name} split have the label {label}, .*ids:FILE"
    with pytest.raises(ValueError, match=f"toy: {words}"):
        store.build("toy", {"f": np.arange(rows) % 5}, labels, 7)
    layout = Layout("toy", ",", (Column("y", LABEL), Column("c", DECIMAL)), False, ("raw.txt",), "",
                    split_seed=7)
    text = "".join(f"{one},{row % 5}\n" for row, one in enumerate(labels))
    (tmp_path / "raw.txt").write_text(text)
    with pytest.raises(ValueError, match=f"toy: {words}"):
        ingest.open_raw(layout, str(tmp_path), tmp_path / "cache", False, "all", "random")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("position", range(3))
def test_a_split_of_movielens_of_one_class_is_an_error_also_out_of_the_cache(
        tmp_path, made_data, monkeypatch, position):
    _, labels = movielens.read_columns(made_data)
    alone = np.flatnonzero(labels)[:50]
    others = np.setdiff1d(np.arange(len(labels)), alone)
    parts = [others[:-60], others[-60:]]
    parts.insert(position, alone)
    np.savez(tmp_path / "split.npz", **dict(zip(SPLITS, parts, strict=True)))
    words = f"movielens: all 50 rows of the {SPLITS[position]} split have the label 1"
    split = f"ids:{tmp_path / 'split.npz'}"
    with pytest.raises(ValueError, match=words):
        movielens.open_dataset(str(made_data), tmp_path / "cache", split=split)
    with monkeypatch.context() as patch:
        patch.setattr(store, "require_both_classes", lambda *arguments: None)  # as it once was
        with pytest.raises(ValueError, match=words):
            movielens.open_dataset(str(made_data), tmp_path / "cache", split=split)
    assert any((tmp_path / "cache").iterdir())
    with pytest.raises(ValueError, match=words):
        movielens.open_dataset(str(made_data), tmp_path / "cache", split=split)
