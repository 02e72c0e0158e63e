"""Raw files to encoded sets: cell by cell the plain definition, one set a file and its rules, bad
input in words."""

import gzip
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from data import avazu, criteo
from data.raw import forms, ingest, source, value_index
from data.raw.layout import BUCKET, DECIMAL, HEX, ID, LABEL, Column, Layout
from data.raw.parse import parse
from data.raw.plain import encode_plain, read_plain
from data.raw.source import RawFile
from data.registry import DATASETS
from data.split import split_rows
from data.synthetic import raw_planted

ROOT = Path(ingest.__file__).parents[2]
LAYOUTS = {"criteo": criteo.LAYOUT, "avazu": avazu.LAYOUT}
TOY = Layout("toy", ",", (Column("y", LABEL), Column("n", BUCKET), Column("d", DECIMAL),
                          Column("c", HEX)), False,
             ("toy.txt",), "https://example.org", min_count=4)
HEADED = replace(TOY, has_header=True)
PINNED = {"criteo": "4bdb0a406355c19e", "avazu": "db1515ff05c02632"}  # hashes of `contents`


def skewed(column, rows, rng):
    """Cells of one column: few values are common, many rare, some cells empty."""
    if column.kind == ID:
        return [str(10_000_000_000_000_000_000 + 7919 * row) for row in range(rows)]
    if column.kind == LABEL:
        return [str(int(label)) for label in rng.random(rows) < 0.2]
    values = (rng.integers(2, 2000) * rng.random(rows) ** 4).astype(int)
    if column.kind == HEX:
        cells = [f"{(1 + value) * 2_654_435_761 % 2**32:08x}" for value in values]
    else:
        cells = [str(7 * value - 3) for value in values]
    filled = rng.random(rows) < rng.choice([1, 0.9, 0.3])
    return [cell if kept else "" for cell, kept in zip(cells, filled, strict=True)]


def content_of(layout, rows, seed=0):
    rng = np.random.default_rng(seed)
    columns = [skewed(column, rows, rng) for column in layout.columns]
    lines = [layout.header] * layout.has_header + [layout.separator.join(cells)
                                                   for cells in zip(*columns, strict=True)]
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture(scope="module")
def contents():
    return {name: content_of(layout, 2500) for name, layout in LAYOUTS.items()}


def put(folder, content, name="raw.txt"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return str(folder / name)


def open_set(path, cache, layout=TOY, vocabulary="all", split="random"):
    return ingest.open_raw(layout, path, cache, False, vocabulary, split)


def open_toy(folder, content, layout=TOY, **options):
    return open_set(put(folder, content), folder / "cache", layout, **options)


plain_rows = lru_cache(read_plain)


def defined(content, layout, vocabulary="all", parts=None):
    """(ids, labels, numbers, sizes, counts) in split order by the plain definition."""
    rows = plain_rows(content, layout)
    parts = split_rows(len(rows.labels), layout.split_seed) if parts is None else parts
    if vocabulary == "all":
        ids, sizes = encode_plain(rows.values, layout.min_count)
    else:
        train = [rows.values[row] for row in parts[0]]
        train_ids, sizes = encode_plain(train, layout.min_count)
        ids = np.empty((len(rows.values), len(sizes)), np.int32)
        for field, end in enumerate(np.cumsum(sizes)):
            codes = {row[field]: code for row, code in zip(train, train_ids[:, field], strict=True)}
            ids[:, field] = [codes.get(row[field], end - 1) for row in rows.values]
    order = np.concatenate(parts)
    numbers = np.array(rows.dense, np.float32).reshape(len(order), len(layout.dense))
    return ids[order], np.array(rows.labels)[order], numbers[order], sizes, [len(part)
                                                                             for part in parts]


def is_as_defined(dataset, content, layout, vocabulary="all", parts=None):
    ids, labels, numbers, sizes, counts = defined(content, layout, vocabulary, parts)
    assert dataset.schema.name == layout.name
    assert dataset.schema.fields == layout.fields
    assert list(dataset.schema.sizes) == sizes
    assert list(dataset.counts) == counts
    assert np.array_equal(dataset.ids, ids)
    assert np.array_equal(dataset.labels, labels)
    if layout.dense:
        assert np.array_equal(dataset.dense, numbers)
        assert dataset.dense.dtype == np.float32
    else:
        assert dataset.dense is None
    assert (dataset.ids.dtype, dataset.labels.dtype) == (np.int32, np.float32)
    manifest = dataset.manifest
    assert manifest["positives"] == labels.sum()
    assert (manifest["rows"], manifest["numbers"]) == (len(labels), len(layout.dense))
    assert (manifest["min_count"], manifest["vocabulary"]) == (layout.min_count, vocabulary)


# cell by cell


@pytest.mark.parametrize("vocabulary", ["all", "train"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_cell_is_as_the_plain_definition_says(tmp_path, contents, name, vocabulary):
    path = put(tmp_path, contents[name])
    dataset = DATASETS[name](path, tmp_path / "cache", vocabulary=vocabulary)
    is_as_defined(dataset, contents[name], LAYOUTS[name], vocabulary)
    assert dataset.manifest["bad_lines"] == 0
    values = plain_rows(contents[name], LAYOUTS[name]).values
    assert dataset.manifest["distinct"] == [len(set(column))
                                            for column in zip(*values, strict=True)]
    known, distinct = np.array(dataset.schema.sizes) - 1, np.array(dataset.manifest["distinct"])
    assert known.min() > 0
    assert (known < distinct / 2).sum() > len(known) / 2  # in most fields most values are too rare


def test_values_that_only_held_out_rows_have_are_unknown_to_vocabulary_train(tmp_path):
    train = split_rows(100, TOY.split_seed)[0]
    cells = ["0000000a" if row in set(train.tolist()) else "0000000b" for row in range(100)]
    text = "".join(f"{row % 2},1,2,{cell}\n" for row, cell in enumerate(cells)).encode()
    strict = open_toy(tmp_path, text, vocabulary="train")
    assert strict.schema.sizes == (2, 2, 2)
    assert set(strict.split("train")[0][:, 2]) == {4}
    assert set(strict.ids[80:, 2]) == {5}
    assert open_toy(tmp_path, text).schema.sizes == (2, 2, 3)


@pytest.mark.parametrize(("cores", "block_bytes"), [
    (1, 40_000), (2, 1 << 25), (3, 9_000), (16, 300_000), (None, 1 << 25)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_cores_and_blocks_make_no_difference(tmp_path, contents, monkeypatch, name, cores,
                                             block_bytes):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(RawFile.__init__, "__defaults__", (block_bytes, None))
    dataset = open_set(put(tmp_path, contents[name]), tmp_path / "cache", LAYOUTS[name])
    is_as_defined(dataset, contents[name], LAYOUTS[name])
    assert dataset.hash == PINNED[name]


def zipped(name, content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, content)
    return file.getvalue()


PACKINGS = {
    "gzip": lambda text, name: gzip.compress(text), "zip": lambda text, name: zipped(name, text),
    "zip of a gzip": lambda text, name: zipped(f"a/{name}.gz", gzip.compress(text)),
    "CRLF": lambda text, name: text.replace(b"\n", b"\r\n"), "no line end": lambda text,
    name: text.removesuffix(b"\n")}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_packed_files_and_other_line_ends_give_the_same_rows(tmp_path, contents, name, packing):
    path = put(tmp_path, PACKINGS[packing](contents[name], LAYOUTS[name].file_names[0]))
    assert open_set(path, tmp_path / "cache", LAYOUTS[name]).hash == PINNED[name]


def test_the_hash_follows_every_cell_label_and_number(tmp_path):
    rows = [f"{row % 2},{row % 3},{row % 4},0000000{row % 5}" for row in range(200)]
    hashes = {open_toy(tmp_path, "\n".join([*rows, last]).encode()).hash
              for last in ("0,1,1,00000001", "1,1,1,00000001", "0,2,1,00000001", "0,1,2,00000001",
                           "0,1,1,00000002")}
    assert len(hashes) == 5
    one, other = (open_toy(tmp_path, "\n".join(rows + [f"0,{value},1,00000001"] * 4).encode())
                  for value in (9, 10))
    assert np.array_equal(one.ids, other.ids)  # 9 and 10 are one value, but not one number


def test_user_and_movie_ids_are_refused(tmp_path):
    for name in LAYOUTS:
        with pytest.raises(ValueError, match=rf"with_ids=True: {name} has no user and movie ids"):
            DATASETS[name](None, tmp_path, with_ids=True)


@pytest.mark.real
@pytest.mark.parametrize(("name", "rows", "positives"),
                         [("criteo", 10_000, 2182), ("avazu", 9_999, 1706)])
def test_every_cell_of_the_real_data_is_as_the_plain_definition_says(
        tmp_path, real_data, caplog, name, rows, positives):
    """Of their first rows, which everybody who has the files has."""
    layout = LAYOUTS[name]
    path = source.find_file(layout, str(real_data / name))
    with path.open("rb") as file:
        content = b"".join(line for line,
                           _ in zip(file, range(rows + layout.has_header), strict=False))
    caplog.set_level(logging.WARNING)
    dataset = open_set(put(tmp_path, content), tmp_path / "cache", layout)
    assert caplog.text == ""  # not one line is bad
    is_as_defined(dataset, content, layout)
    assert (dataset.manifest["rows"], dataset.manifest["positives"]) == (rows, positives)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", ["all", "train"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_cell_of_200_000_planted_rows_is_as_the_plain_definition_says(tmp_path, name,
                                                                            vocabulary):
    path = tmp_path / "raw"
    raw_planted.write(name, 200_000, path)
    dataset = open_set(path, tmp_path / "cache", LAYOUTS[name], vocabulary=vocabulary)
    is_as_defined(dataset, path.read_bytes(), LAYOUTS[name], vocabulary)


# cache


@pytest.fixture
def toy(tmp_path):
    """(path of a small raw file, cache folder)."""
    return put(tmp_path, content_of(TOY, 300)), tmp_path / "cache"


def forbid(monkeypatch):
    def encode_file(*arguments):
        pytest.fail("the raw file is read")

    monkeypatch.setattr(ingest, "encode_file", encode_file)


def same(one, other):
    return (one.schema, one.counts, one.manifest) == (other.schema, other.counts,
                                                      other.manifest) and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("ids", "labels", "dense"))


def folders(cache):
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_a_second_open_does_not_read_the_raw_file(toy, monkeypatch):
    first = open_set(*toy)
    forbid(monkeypatch)
    assert same(open_set(*toy), first)
    assert isinstance(first.ids, np.memmap)


def test_the_same_file_elsewhere_under_another_name_is_not_read_again(toy, tmp_path, monkeypatch):
    first = open_set(*toy)
    forbid(monkeypatch)
    moved = put(tmp_path / "elsewhere", Path(toy[0]).read_bytes(), "moved")
    os.utime(moved, (1, 1))
    assert same(open_set(moved, toy[1]), first)


def with_label_turned(text, at):
    return text[:at] + (b"1" if text[at:at + 1] == b"0" else b"0") + text[at + 1:]


def test_a_file_that_may_have_changed_in_its_middle_is_warned_of(toy, caplog):
    path, cache = toy
    open_set(path, cache)
    open_set(path, cache)
    assert "was written after" not in caplog.text
    os.utime(path, (time.time() + 10, time.time() + 10))
    open_set(path, cache)
    assert f"{path} was written after it was encoded" in caplog.text
    assert f"delete {cache / folders(cache)[0]}" in caplog.text


CHANGES = {
    "another size": lambda text: text + b"0,,,\n",
    "another head of the same size": lambda text: with_label_turned(text, 0),
    "another tail of the same size": lambda text: with_label_turned(text, text.rindex(b"\n", 0, -1)
                                                                    + 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_another_set(toy, monkeypatch, change):
    monkeypatch.setattr(source, "ENDS", 100)
    path, cache = toy
    before = open_set(path, cache)
    original = Path(path).read_bytes()
    changed = CHANGES[change](original)
    Path(path).write_bytes(changed)
    is_as_defined(open_set(path, cache), changed, TOY)
    Path(path).write_bytes(original)
    forbid(monkeypatch)
    assert same(open_set(path, cache), before)
    assert len(folders(cache)) == 2


def test_other_rules_splits_and_vocabularies_are_other_sets_and_never_answer_for_each_other(
    toy, tmp_path, monkeypatch
):
    np.savez(tmp_path / "one.npz", train=np.arange(100, 300), validation=np.arange(50),
             test=np.arange(50, 100))
    np.savez(tmp_path / "two.npz", train=np.arange(100, 300), validation=np.arange(49),
             test=np.arange(49, 100))
    other_rules = replace(TOY, rules_version=TOY.rules_version + 1)
    asked = [{}, {"vocabulary": "train"}, {"layout": other_rules},
             {"layout": replace(TOY, split_seed=1)}, {"layout": replace(TOY, name="game")},
             {"split": f"ids:{tmp_path / 'one.npz'}"}, {"split": f"ids:{tmp_path / 'two.npz'}"}]
    first = [open_set(*toy, **options) for options in asked]
    assert len(folders(toy[1])) == len(asked)
    # name and number of the rules change no row
    assert len({dataset.hash for dataset in first}) == len(asked) - 2
    forbid(monkeypatch)
    assert all(same(open_set(*toy, **options), dataset) for options,
               dataset in zip(asked, first, strict=True))


DAMAGES = {
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2), "gone": Path.unlink,
    "noise": lambda path: path.write_bytes(b"\x93\xff\x00 not it"),
}


@pytest.mark.parametrize(("name", "damage"), [
    ("ids.npy", "cut in half"), ("dense.npy", "gone"), ("manifest.json", "noise")])
def test_a_damaged_set_is_made_again(toy, monkeypatch, name, damage):
    path, cache = toy
    content = Path(path).read_bytes()
    open_set(path, cache)
    folder = cache / folders(cache)[0]
    DAMAGES[damage](folder / name)
    is_as_defined(open_set(path, cache), content, TOY)
    assert sorted(file.name for file in folder.iterdir()) == [
        "checksums.json", "dense.npy", "ids.npy", "labels.npy", "manifest.json", "vocabulary"]
    assert folders(cache) == [folder.name]
    forbid(monkeypatch)
    is_as_defined(open_set(path, cache), content, TOY)


@pytest.mark.parametrize("step", ["number_lines", "_recode_all", "Writer"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_encoding_that_fails_midway_leaves_nothing_and_the_next_one_works(toy, monkeypatch, step,
                                                                             error):
    original = getattr(ingest, step)

    def fail(*arguments):
        original(*arguments)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ingest, step, fail)
        with pytest.raises(type(error)):
            open_set(*toy)
    assert folders(toy[1]) == []
    is_as_defined(open_set(*toy), Path(toy[0]).read_bytes(), TOY)


KILLED = """
import os, pathlib, signal, sys
from data import criteo
from data.raw import ingest
recode_all = ingest._recode_all
def die(*arguments):
    recode_all(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
ingest._recode_all = die
criteo.open_dataset(sys.argv[1], pathlib.Path(sys.argv[2]))
"""


def test_an_encoding_that_is_killed_leaves_no_set_and_what_it_left_is_swept_by_the_next_one(
        tmp_path):
    content, cache = content_of(criteo.LAYOUT, 300), tmp_path / "cache"
    path = put(tmp_path, content)
    killed = subprocess.run([sys.executable, "-c", KILLED, path, str(cache)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    left, = folders(cache)
    assert left.startswith(".criteo-")
    assert (cache / left / "ids.npy").exists()
    other = cache / ".criteo-000000000000.abc"
    other.mkdir()
    is_as_defined(criteo.open_dataset(path, cache), content, criteo.LAYOUT)
    assert folders(cache) == [other.name, left.split(".")[1]]  # another set's may be in use


BOTH = """
import json, os, pathlib, sys, time
from data import criteo
from data.raw import ingest
cache = pathlib.Path(sys.argv[2])
encode_file = ingest.encode_file
def slowly(*arguments):
    (cache / f"{os.getpid()}.encodes").touch()
    until = time.monotonic() + 20
    while len(list(cache.glob("*.comes"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    encode_file(*arguments)
ingest.encode_file = slowly
cache.mkdir(exist_ok=True)
(cache / f"{os.getpid()}.comes").touch()
found = criteo.open_dataset(sys.argv[1], cache)
print(json.dumps([found.hash, found.schema.sizes, found.ids.tolist()]))
"""


def test_of_two_processes_that_open_the_same_set_one_encodes_and_both_get_it(tmp_path):
    """And the same ids and hash as this process, whatever Python's own hashes are."""
    path, cache = put(tmp_path, content_of(criteo.LAYOUT, 300)), tmp_path / "cache"
    both = [subprocess.Popen([sys.executable, "-c", BOTH, path, str(cache)], cwd=ROOT, text=True,
                             stdout=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": seed})
            for seed in "12"]
    try:
        answers = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    finally:
        for process in both:
            process.kill()
    assert len(list(cache.glob("*.comes"))) == 2
    assert len(list(cache.glob("*.encodes"))) == 1
    here = criteo.open_dataset(path, tmp_path / "here")
    assert answers == [[here.hash, list(here.schema.sizes), here.ids.tolist()]] * 2


def test_a_file_that_is_replaced_during_the_wait_is_not_stored_as_the_old_one(toy, monkeypatch):
    path, cache = toy
    old, new = Path(path).read_bytes(), content_of(TOY, 300, seed=1)
    locked = ingest.locked

    @contextmanager
    def wait(*arguments, **named):
        with locked(*arguments, **named):
            Path(path).write_bytes(new)
            yield

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "locked", wait)
        with pytest.raises(ValueError,
                           match=f"{path} is another file than when it was opened; start again"):
            open_set(path, cache)
    assert folders(cache) == []
    Path(path).write_bytes(old)
    is_as_defined(open_set(path, cache), old, TOY)


# bad lines


def lines_of(rows, layout=TOY, seed=0):
    return content_of(layout, rows, seed).decode().splitlines()


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


DIGITS = "expected 8 hexadecimal digits (0-9, a-f) or nothing"
WHOLE = "expected a whole number of at most 9 digits or nothing"
BAD = {
    "wrong number of columns": ("0,1,2", "expected 4 columns, got 3"),
    "blank line": ("", "expected 4 columns, got 1"),
    "another separator": ("0\t1\t2\t0000000a", "expected 4 columns, got 1",
                          (forms.separated("\t"), "0\t1\t2\t0000000a")),
    "not hexadecimal": ("0,1,2,0000000z", f"column c: {DIGITS}, got '0000000z'"),
    "capitals": ("0,1,2,0000000A", f"column c: {DIGITS}, got '0000000A'",
                 (forms.UPPER_CASE, "0000000A")),
    "label": ("2,1,2,0000000a", "column y: expected a label of 0 or 1, got '2'"),
    "no label": (",1,2,0000000a", "column y: expected a label of 0 or 1, got ''"),
    "a fraction": ("0,1.5,2,0000000a", f"column n: {WHOLE}, got '1.5'"),
    "a large number": ("0,1,1234567890,", f"column d: {WHOLE}, got '1234567890'"),
    "NUL bytes": ("0,1,2,0000\x000", f"column c: {DIGITS}, got '0000\\x000'",
                  (forms.NUL, "0,1,2,0000\x000")),
    "a long cell": ("0," + 90 * "x" + ",,", f"column n: {WHOLE}, got '{20 * 'x'}'"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("layout", [TOY, HEADED], ids=["no header", "header"])
def test_a_bad_line_is_shown_with_its_number_counted_and_left_out(tmp_path, caplog, layout, bad):
    line, why, *found = BAD[bad]
    named = "".join(f"The file has {form.name} (first in line 41: {cell!r}): {form.hint}.\n"
                    for form, cell in found)
    lines = lines_of(300, layout)
    lines.insert(40, line)
    content = ("\n".join(lines) + "\n").encode()
    dataset = open_toy(tmp_path, content, layout)
    assert warnings(caplog) == [f"{tmp_path / 'raw.txt'}: 1 of 301 lines cannot be used:\n"
                                f"  line 41: {why}: {line.encode()[:60]!r}\n"
                                f"{named}They are left out."]
    assert dataset.manifest["bad_lines"] == 1
    assert dataset.manifest["rows"] == 300
    is_as_defined(dataset, content, layout)


@pytest.mark.parametrize(("layout", "name"), [(criteo.LAYOUT, "C26"), (avazu.LAYOUT, "C21")])
def test_a_bad_line_of_the_real_formats_is_shown_and_left_out(tmp_path, caplog, layout, name):
    lines = lines_of(300, layout)
    lines[7] = lines[7].rpartition(layout.separator)[0] + layout.separator + "??"
    dataset = open_toy(tmp_path, ("\n".join(lines) + "\n").encode(), layout)
    assert f"line 8: column {name}: expected " in caplog.text
    assert dataset.manifest["bad_lines"] == 1
    is_as_defined(dataset, ("\n".join(lines) + "\n").encode(), layout)


def test_negative_whole_numbers_are_fine(tmp_path, caplog):
    content = "".join(f"{row % 2},{-row},{-999_999_999 + row % 3},\n" for row in range(40)).encode()
    is_as_defined(open_toy(tmp_path, content), content, TOY)
    assert caplog.text == ""


@pytest.mark.parametrize("block_bytes", [1000, 1 << 25])
def test_a_tenth_of_a_percent_of_bad_lines_is_tolerated_and_one_more_is_not(tmp_path, caplog,
                                                                            monkeypatch,
                                                                            block_bytes):
    monkeypatch.setattr(RawFile.__init__, "__defaults__", (block_bytes, None))
    lines = lines_of(4000)
    for number in (1500, 2500, 3500, 4000):
        lines[number - 1] = "bad"
    few = ("\n".join(lines) + "\n").encode()
    dataset = open_toy(tmp_path, few)
    assert dataset.manifest["bad_lines"] == 4
    is_as_defined(dataset, few, TOY)
    assert [f"line {number}: expected 4 columns, got 1: b'bad'" in caplog.text
            for number in (1500, 2500, 3500, 4000)] == [True] * 4
    lines[3998] = "bad"
    with pytest.raises(ValueError, match="cannot be used") as caught:
        open_toy(tmp_path, ("\n".join(lines) + "\n").encode())
    shown = "".join(f"  line {number}: expected 4 columns, got 1: b'bad'\n"
                    for number in (1500, 2500, 3500, 3999, 4000))
    assert str(caught.value) == (f"{tmp_path / 'raw.txt'}: 5 of 4000 lines cannot be used:\n{shown}"
                                 f"More than 0.1% of the file is unusable. {TOY.published}")
    assert len(folders(tmp_path / "cache")) == 1


def test_of_many_bad_lines_the_first_five_are_shown_and_the_rest_counted(tmp_path):
    content = b"?\n" * 9 + content_of(TOY, 300)
    with pytest.raises(ValueError, match="cannot be used") as caught:
        open_toy(tmp_path, content)
    shown = [f"  line {number}: expected 4 columns, got 1: b'?'" for number in range(1, 6)]
    assert str(caught.value).splitlines()[1:-1] == [*shown, "  ... and 4 more"]
    assert folders(tmp_path / "cache") == []


@pytest.mark.parametrize("content", [b"\n", b"\n\n\n", b"\r\n\r\n", b" \n\t\n"])
def test_a_file_of_blank_lines_is_an_error(tmp_path, content):
    with pytest.raises(ValueError, match=r"(?s)raw\.txt: (\d) of \1 lines cannot be used.*"
                                         r"line 1: expected 4 columns, got 1: .*a toy file has 4 "):
        open_toy(tmp_path, content)


def test_an_empty_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"raw\.txt is empty; fetch it again"):
        open_toy(tmp_path, b"")
    assert folders(tmp_path / "cache") == []


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_too_few_rows_are_an_error_that_says_how_many_came(tmp_path, rows):
    with pytest.raises(ValueError, match=rf"{rows} usable rows are too few .* at least 10"):
        open_toy(tmp_path, content_of(HEADED, rows), HEADED)
    assert folders(tmp_path / "cache") == []


# a last line that was cut off


def test_a_last_line_without_a_line_end_is_used_and_said(tmp_path, caplog):
    content = content_of(TOY, 300).removesuffix(b"\n")
    is_as_defined(open_toy(tmp_path, content), content, TOY)
    last = content.splitlines()[-1]
    assert warnings(caplog) == [f"{tmp_path / 'raw.txt'} does not end with a line end; its last "
                                f"line may be cut off: {last!r}"]


def test_a_last_line_that_is_not_whole_is_said_counted_and_left_out(tmp_path, caplog):
    content = content_of(TOY, 300) + b"1,2,3,0000"
    dataset = open_toy(tmp_path, content)
    assert dataset.manifest["bad_lines"] == 1
    is_as_defined(dataset, content, TOY)
    assert "its last line may be cut off: b'1,2,3,0000'" in caplog.text
    assert "line 301: column c: expected 8 hexadecimal digits" in caplog.text


def test_a_file_that_was_cut_off_within_its_last_line_is_never_taken_in_silence(tmp_path, caplog):
    content = content_of(TOY, 400) + b"0,12,345,0000000a\n"
    silent = []
    for lost in range(2, len(content.splitlines()[-1]) + 1):  # 1 would be the line end alone
        caplog.clear()
        open_toy(tmp_path, content[:-lost])
        if "its last line may be cut off" not in caplog.text:
            silent.append(content[:-lost][-40:])
    assert silent == []


# too many bad lines are noticed early


@pytest.fixture
def made(monkeypatch):
    """Every RawFile that is made, with blocks of 1,000 bytes."""
    files = []

    def keep(path, layout):
        files.append(RawFile(path, layout, 1000))
        return files[-1]

    monkeypatch.setattr(ingest, "RawFile", keep)
    return files


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda text: zipped("toy.txt", text)],
                         ids=["plain", "gzip", "zip"])
def test_of_a_long_file_of_another_kind_only_the_first_block_is_read(tmp_path, made, pack):
    content = pack(content_of(criteo.LAYOUT, 12_000))  # Python 3.12 reads 128 KB of a gzip at once
    with pytest.raises(ValueError, match="expected 4 columns, got 1"):
        open_toy(tmp_path, content)
    assert 0 < made[0].position < 0.2 * len(content)


def test_bad_lines_all_over_a_long_file_are_noticed_before_its_end(tmp_path, made):
    lines = lines_of(6000)
    lines[::50] = ["?"] * 120
    with pytest.raises(ValueError, match=r"(?s)line 1: .*line 51: .*More than 0\.1%"):
        open_toy(tmp_path, "\n".join(lines).encode())
    assert made[0].position < 0.1 * made[0].size


def test_some_bad_lines_at_the_beginning_do_not_condemn_a_long_file(tmp_path, made):
    content = "\n".join(["?"] * 7 + lines_of(12_000)).encode() + b"\n"
    dataset = open_toy(tmp_path, content)
    assert dataset.manifest["bad_lines"] == 7
    assert made[0].position == made[0].size


def test_no_second_block_is_parsed_before_the_first_is_judged(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(value_index, "parse", lambda text, layout: read.append(len(text))
                        or parse(text, layout))
    monkeypatch.setattr(RawFile.__init__, "__defaults__", (500, None))
    with pytest.raises(ValueError, match="cannot be used"):
        open_toy(tmp_path, b"?????\n" * 5000)
    assert sum(read) <= 500


# a split that was made elsewhere


def test_rows_of_a_given_split_keep_their_part_also_when_lines_are_left_out(tmp_path):
    """Row numbers count all lines but the header; bad ones may be named."""
    lines = lines_of(3000, HEADED)
    for number in (5, 2999):
        lines[number] = "bad"
    content = ("\n".join(lines) + "\n").encode()
    part = np.random.default_rng(1).choice(3, 3000, p=[0.5, 0.2, 0.3])
    np.savez(tmp_path / "split.npz", **{name: np.flatnonzero(part == position)
                                        for position,
                                        name in enumerate(("train", "validation", "test"))})
    kept = np.delete(part, [4, 2998])
    parts = [np.flatnonzero(kept == position) for position in range(3)]
    for vocabulary in ("all", "train"):
        dataset = open_toy(tmp_path, content, HEADED, vocabulary=vocabulary,
                           split=f"ids:{tmp_path / 'split.npz'}")
        is_as_defined(dataset, content, HEADED, vocabulary, parts)
        assert dataset.manifest["bad_lines"] == 2


def test_a_split_of_another_number_of_rows_is_an_error_and_leaves_nothing(tmp_path):
    np.savez(tmp_path / "split.npz", train=np.arange(280), validation=np.arange(280, 290),
             test=np.arange(290, 299))
    with pytest.raises(ValueError,
                       match=r"split\.npz: 1 of 300 rows are in no split \(the first is row 299\)"):
        open_toy(tmp_path, content_of(TOY, 300), split=f"ids:{tmp_path / 'split.npz'}")
    assert folders(tmp_path / "cache") == []


def test_another_vocabulary_is_an_error_and_not_taken_for_all(tmp_path):
    with pytest.raises(ValueError, match="vocabulary must be 'all' or 'train', got 'Train'"):
        open_toy(tmp_path, content_of(TOY, 300), vocabulary="Train")


# rows for unknown values that nothing fell into


def never_unknown(dataset):
    """How many fields have a last row that no row of the data set has."""
    last = np.cumsum(dataset.schema.sizes) - 1
    return int((~(np.asarray(dataset.ids) == last).any(axis=0)).sum())


@pytest.mark.parametrize("vocabulary", ["all", "train"])
@pytest.mark.parametrize("name", [*LAYOUTS, "toy"])
def test_rows_for_unknown_values_that_nothing_fell_into_are_counted(tmp_path, name, vocabulary):
    layout = {**LAYOUTS, "toy": TOY}[name]
    content = content_of(layout, 1500)
    if name == "toy":
        content = re.sub(rb"[^,\n]*\n", b"0000000a\n", content)
    dataset = open_set(put(tmp_path, content), tmp_path / "cache", layout, vocabulary)
    unused = never_unknown(dataset)
    assert dataset.unused_unknown_rows == unused
    assert (unused > 0) == (name == "toy")
    assert (f"({dataset.schema.num_rows - unused:,} without the rows for unknown values that "
            "nothing fell into)" in dataset.describe()) == (unused > 0)


@pytest.mark.real
@pytest.mark.parametrize(("name", "rows", "features", "published"), [
    ("criteo", 10_000, 2528, 2525), ("avazu", 9_999, 676, 673)])
def test_features_of_the_real_data_are_as_many_as_published_without_unused_rows(
        tmp_path, real_data, name, rows, features, published):
    layout = LAYOUTS[name]
    with source.find_file(layout, str(real_data / name)).open("rb") as file:
        first = range(rows + layout.has_header)
        content = b"".join(line for line, _ in zip(file, first, strict=False))
    dataset = open_set(put(tmp_path, content), tmp_path / "cache", layout)
    assert dataset.schema.num_rows == features
    assert features - dataset.unused_unknown_rows == published
    assert never_unknown(dataset) == features - published
    assert f"{features:,} features ({published:,} without the rows" in dataset.describe()
