"""A raw file that several processes read by byte ranges gives the very set of one process."""

import gzip
import multiprocessing
import os
import re
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from data import avazu, criteo
from data.raw import bad_lines, ingest, ranges, value_index
from data.raw.bad_lines import BadLines
from data.raw.source import RawFile

LAYOUTS = {"criteo": replace(criteo.LAYOUT, min_count=2),
           "avazu": replace(avazu.LAYOUT, min_count=2)}
PLAIN = {
    "criteo": b"1\t5\t\t-2" + b"\t7" * 10 + b"\t%s" * 26,
    "avazu": b"10000169349117863715,0,14102100,1005,0,%s,%s,%s,%s,%s,%s,%s,%s,%s,1,2,15706,320,50"
             b",1722,0,35,-1,79",
}


def lines_of(name, rows):
    """Rows whose values come back now and then, so that ranges share some and not all."""
    rng = np.random.default_rng(rows)
    count = PLAIN[name].count(b"%s")
    values = (rng.random((rows, count)) ** 3 * rng.integers(2, 300, count)).astype(int)
    cells = [[b"%08x" % (value * 7919 + 1) for value in row] for row in values]
    lines = [PLAIN[name] % tuple(row) for row in cells]
    label = {"criteo": (b"1", b"0"), "avazu": (b",0,", b",1,")}[name]
    return [line.replace(*label, 1) if row % 3 else line for row, line in enumerate(lines)]


def written(folder, name, lines, end=b"\n", last=b"\n"):
    header = [LAYOUTS[name].header.encode()] if LAYOUTS[name].has_header else []
    path = folder / f"{name}.txt"
    path.write_bytes(end.join([*header, *lines]) + last)
    return path


class Loop:
    """Takes what a process would send."""

    def __init__(self):
        self.messages = []

    def send(self, message):
        self.messages.append(message)


def in_this_process(raw, parts, targets):
    found = []
    for part, target in zip(parts, targets, strict=True):
        loop = Loop()
        ranges._work(loop, RawFile(raw.path, raw.layout, 1000, part), target)
        found.append(loop.messages[-1])
        if isinstance(found[-1], Exception):
            raise found[-1]
    return None if None in found else found


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Files of a few kilobytes are cut, and 10 % of their lines may be bad."""
    monkeypatch.setattr(ranges, "SMALLEST", 1)
    monkeypatch.setattr(bad_lines, "MAX_BAD_SHARE", 0.1)


@pytest.fixture
def counted(monkeypatch):
    """How many ranges each file was cut into, all of them read in this process."""
    made = []
    monkeypatch.setattr(ranges, "_read_all", lambda raw, parts, targets: made.append(len(parts))
                        or in_this_process(raw, parts, targets))
    return made


def encoded(path, name, folder, processes, vocabulary="all", split="random"):
    """The bytes of all files of the set."""
    folder.mkdir(parents=True)
    ingest.encode_file(LAYOUTS[name], path, folder, {"vocabulary": vocabulary}, split, processes)
    return {found.relative_to(folder).as_posix(): found.read_bytes()
            for found in folder.rglob("*") if found.is_file()}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(("end", "last", "bad", "vocabulary"), [
    (b"\n", b"\n", (), "all"), (b"\n", b"", (3, 50, 51, 299), "all"),
    (b"\r\n", b"\r\n", (1, 299), "train"), (b"\r\n", b"", (150,), "all")])
def test_any_number_of_ranges_gives_the_same_bytes(tmp_path, counted, caplog, name, end, last, bad,
                                                   vocabulary):
    lines = lines_of(name, 300)
    for place in bad:
        lines[place] = b"bad %d" % place
    path = written(tmp_path, name, lines, end, last)
    expected = encoded(path, name, tmp_path / "1", 1, vocabulary)
    said = caplog.messages[:]
    assert any(f"{len(bad)} of 300 lines" in text for text in said) == bool(bad)
    for processes in (2, 3, 5):
        caplog.clear()
        assert encoded(path, name, tmp_path / str(processes), processes, vocabulary) == expected
        assert caplog.messages == said
    assert counted == [2, 3, 5]


@pytest.mark.parametrize("name", LAYOUTS)
def test_fewer_lines_than_processes_and_lines_of_very_unequal_length(tmp_path, counted, name):
    lines = lines_of(name, 40)
    lines[1:1] = [b"x" * 20_000]
    lines[-1:-1] = [b"y" * 3000]
    path = written(tmp_path, name, lines)
    expected = encoded(path, name, tmp_path / "1", 1)
    for processes in (5, 50, 200):
        assert encoded(path, name, tmp_path / str(processes), processes) == expected
    assert max(counted) <= len(lines)


def test_a_byte_order_mark_and_a_missing_header_are_passed_over_and_said_once(tmp_path, counted,
                                                                             caplog):
    path = tmp_path / "raw"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([*lines_of("avazu", 50), b"bad"]))
    caplog.set_level("INFO")
    expected = encoded(path, "avazu", tmp_path / "1", 1)
    said = caplog.messages[:]
    caplog.clear()
    assert encoded(path, "avazu", tmp_path / "3", 3) == expected
    assert caplog.messages == said
    for word in ("byte-order", "no header", "line 51:"):
        assert sum(word in text for text in said) == 1


def test_of_many_bad_lines_all_ranges_together_show_the_first_and_are_judged(tmp_path, counted,
                                                                            monkeypatch):
    monkeypatch.setattr(bad_lines, "NOTED", 12)
    lines = lines_of("criteo", 300)
    for place in range(0, 300, 10):
        lines[place] += b"\tx"
    for place, cell in ((95, b"5.0"), (105, b"5.0"), (205, b"5e+0")):  # two of other forms
        lines[place] = lines[place].replace(b"\t5\t", b"\t%s\t" % cell)
    path = written(tmp_path, "criteo", lines)
    errors = []
    for processes in (1, 3):
        with pytest.raises(ValueError, match="33 of 300 lines cannot be used") as caught:
            encoded(path, "criteo", tmp_path / str(processes), processes)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert "(first in line 96: '5.0')" in errors[0]
    assert "5e+0" not in errors[0]  # behind the lines whose forms are looked at


def test_a_range_with_more_bad_lines_than_the_file_may_have_is_left_to_one_process(
    tmp_path, counted, monkeypatch
):
    read = []
    number = value_index.number_part
    monkeypatch.setattr(ranges, "number_part", lambda raw, *others: read.append(raw)
                        or number(raw, *others))
    path = written(tmp_path, "criteo", [*lines_of("criteo", 900), *[b"?"] * 900])
    errors = []
    for processes in (1, 2):
        with pytest.raises(ValueError, match="line 901: expected 40 columns") as caught:
            encoded(path, "criteo", tmp_path / str(processes), processes)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert read[1].position < read[1].size  # not to its end


def test_rows_of_a_given_split_are_counted_over_the_bad_lines_of_all_ranges(tmp_path, counted):
    lines = lines_of("avazu", 300)
    for place in (3, 50, 51, 280, 299):
        lines[place] = b"bad"
    path = written(tmp_path, "avazu", lines)
    part = np.random.default_rng(1).integers(3, size=300)
    rows = {name: np.flatnonzero(part == place)
            for place, name in enumerate(("train", "validation", "test"))}
    np.savez(tmp_path / "split.npz", **rows)
    split = f"ids:{tmp_path / 'split.npz'}"
    assert (encoded(path, "avazu", tmp_path / "3", 3, split=split)
            == encoded(path, "avazu", tmp_path / "1", 1, split=split))


@pytest.mark.parametrize("change", [
    lambda path: path.write_bytes(gzip.compress(path.read_bytes())),
    lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b" ")),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[0]),
], ids=["gzip", "no line ends", "empty", "a header alone"])
def test_other_files_are_left_to_one_process(tmp_path, counted, monkeypatch, change):
    path = written(tmp_path, "avazu", lines_of("avazu", 50))
    change(path)
    raw = RawFile(path, LAYOUTS["avazu"], 1000)
    assert ranges.number_ranges(raw, BadLines(path, ""), tmp_path, 3) is None
    assert counted == []


def test_a_small_file_is_left_to_one_process(tmp_path, counted, monkeypatch):
    path = written(tmp_path, "criteo", lines_of("criteo", 50))
    monkeypatch.setattr(ranges, "SMALLEST", path.stat().st_size // 2 + 1)
    raw = RawFile(path, LAYOUTS["criteo"])
    assert ranges.number_ranges(raw, BadLines(path, ""), tmp_path, 3) is None
    assert counted == []


# real processes


def test_two_processes_give_the_same_bytes(tmp_path):
    path = written(tmp_path, "criteo", [*lines_of("criteo", 300), b"bad"])
    assert (encoded(path, "criteo", tmp_path / "2", 2)
            == encoded(path, "criteo", tmp_path / "1", 1))


def is_over(tmp_path):
    assert multiprocessing.active_children() == []
    assert list((tmp_path / "set").iterdir()) == []


def test_an_error_of_one_process_is_that_of_all(tmp_path):
    path = written(tmp_path, "criteo", [*lines_of("criteo", 300), b"\0" * 200_000], last=b"")
    with pytest.raises(ValueError, match="has NUL bytes"):
        encoded(path, "criteo", tmp_path / "set", 2)
    is_over(tmp_path)


def die_or_wait(theirs, raw, target):
    """Stands in for the work of a process."""
    target.write_bytes(b"half")
    if raw.part[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def test_a_process_that_dies_ends_all_with_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "_work", die_or_wait)
    path = written(tmp_path, "criteo", lines_of("criteo", 300))
    words = re.escape(f"{path} died (exit code -9; -9 is often too little memory: take fewer "
                      f"--jobs)")
    with pytest.raises(ChildProcessError, match=rf"read the bytes [\d,]+ to [\d,]+ of {words}"):
        encoded(path, "criteo", tmp_path / "set", 2)
    is_over(tmp_path)


def sleep(theirs, raw, target):
    """Stands in for the work of a process."""
    target.write_bytes(b"half")
    time.sleep(60)


def test_a_ctrl_c_ends_all_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "_work", sleep)
    path = written(tmp_path, "criteo", lines_of("criteo", 300))

    def interrupt():
        while not list(tmp_path.glob("set/*/range*")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        encoded(path, "criteo", tmp_path / "set", 2)
    is_over(tmp_path)
