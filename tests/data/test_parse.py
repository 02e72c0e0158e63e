"""The parser over bytes says of every line what the plain definition says."""

import itertools
import math
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data import avazu, criteo
from data.raw import bad_lines, plain
from data.raw.bad_lines import BadLines
from data.raw.layout import BUCKET, DECIMAL, HEX, ID, LABEL, Column, Layout
from data.raw.parse import COLUMNS, MISSING, parse
from data.raw.source import RawFile
from data.raw.value_index import number_lines

LAYOUTS = {"criteo": criteo.LAYOUT, "avazu": avazu.LAYOUT}
TOY = Layout("toy", ",", (Column("y", LABEL), Column("n", BUCKET), Column("d", DECIMAL),
                          Column("c", HEX)), False, ("toy.txt",), "https://example.org")
NASTY = [
    "+5", "-", "--1", "-0", "-7", "007", "1e3", "1.5", " 1", "1 ", "2", "01", "10", "-1", "",
    "NULL", "999999999",
    "-999999999", "1234567890", "000000000", "0000000000", "0000abcd", "ffffffff", "00000000",
    "FFFFFFFF", "abcdef0",
    "abcdef012", "abcdefg0", "0x123456", "\u0663".encode().decode("latin-1"), "\xb2", "1\xa0", "\r",
    "1\r", "\0", "1\0",
    "\x85", "99999999999999999999", "100000000000000000000", "18446744073709551616"]
SMUDGES = [b"", b"\t", b",", b"\t\t", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r\n", b"\0", b"-", b"0",
           b"A", b"g", b"\xd9", b"\xff\xfe"]


class Lenient(BadLines):
    """Refuses no file."""

    def too_many(self, lines):
        return False


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("parse")


def good_cell(column, rng):
    if column.kind == ID:
        return str(rng.randrange(10**rng.randint(1, 20)))
    if column.kind == LABEL:
        return rng.choice("01")
    if rng.random() < 0.2:
        return ""
    if column.kind == HEX:
        return f"{rng.getrandbits(32):08x}"
    return f"{rng.choice(['', '-', ''])}{rng.randrange(10**rng.randint(1, 9))}"


def good_lines(layout, rows, seed):
    rng = random.Random(seed)
    return [[good_cell(column, rng) for column in layout.columns] for _ in range(rows)]


@st.composite
def files(draw, layout):
    """A file that begins well, and whose other lines may be spoilt cell by cell and byte by
    byte."""
    cells = good_lines(layout, draw(st.integers(1, 8)), draw(st.integers(0, 2**32)))
    places = st.tuples(st.integers(0, len(cells) - 1), st.integers(0, len(layout.columns) - 1),
                       st.sampled_from(NASTY))
    for row, column, cell in draw(st.lists(places, max_size=5)):
        cells[row][column] = cell
    text = bytearray(draw(st.sampled_from([b"\n", b"\r\n", b"\r\r\n"])).join(
        layout.separator.join(line).encode("latin-1") for line in cells))
    text += draw(st.sampled_from([b"", b"\n", b"\r", b"\r\n", b"\n\n"]))
    spots = st.tuples(st.integers(0, len(text)), st.integers(0, 2),
                      st.sampled_from(SMUDGES) | st.binary(max_size=2))
    for at, dropped, put in draw(st.lists(spots, max_size=4)):
        text[at:at + dropped] = put
    first = layout.header if layout.has_header else layout.separator.join(good_lines(layout, 1,
                                                                                     0)[0])
    return first.encode() + draw(st.sampled_from([b"\n", b"\r\n"])) + bytes(text)


def read_fast(content, layout, folder, block_bytes=1 << 25, cores=2):
    """What `read_plain` gives, by way of the blocks, the parser and the counters."""
    (folder / "raw").write_bytes(content)
    bad = Lenient(folder / "raw", "")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(bad_lines, "SHOWN", 10**9)
        patch.setattr(os, "cpu_count", lambda: cores)
        numbered = number_lines(RawFile(folder / "raw", layout, block_bytes), bad,
                                folder / "numbered", pool)
        shown = bad.shown
    keys, numbers, labels = [], [], []
    for ids, block_numbers, block_labels in numbered.blocks():
        columns = [counter.values[column].tolist() for counter,
                   column in zip(numbered.counters, ids, strict=True)]
        keys += [list(row) for row in zip(*columns, strict=True)]
        numbers += block_numbers.T.tolist()
        labels += block_labels.tolist()
    return keys, numbers, labels, shown, numbered.kept


def keys_of(values, layout):
    """Rows of plain values as the parser's keys."""
    hexadecimal = [column.kind == HEX for column in layout.columns
                   if column.kind in (BUCKET, DECIMAL, HEX)]

    def key_of(value, is_hex):
        if value is None:
            return MISSING
        return int(value, 16) if is_hex else value

    return [[key_of(value, is_hex) for value, is_hex in zip(row, hexadecimal, strict=True)]
            for row in values]


def agree(content, layout, folder, **cut):
    expected = plain.read_plain(content, layout)
    keys, numbers, labels, shown, kept = read_fast(content, layout, folder, **cut)
    assert keys == keys_of(expected.values, layout)
    assert numbers == np.array(expected.dense, np.float32).tolist()
    assert labels == expected.labels
    lines = content.split(b"\n")
    assert shown == [f"line {number}: {why}: {lines[number - 1][:60]!r}" for number,
                     why in expected.bad.items()]
    if expected.bad:
        first = 1 + layout.has_header
        assert (np.flatnonzero(~kept) + first).tolist() == list(expected.bad)
        assert len(kept) == len(labels) + len(shown)
    else:
        assert kept is None


toy_cells = st.sampled_from([*"01", "5", "", "0000abcd", *NASTY]) | st.text("0123456789abcdefA-+",
                                                                            max_size=10)
toy_lines = st.lists(toy_cells, min_size=3, max_size=5).map(",".join) | st.text("01,a-\r\0",
                                                                                max_size=6)
cuts = st.fixed_dictionaries({"block_bytes": st.integers(1, 700) | st.just(1 << 25),
                              "cores": st.integers(1, 5)})


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=60)
@given(data=st.data(), cut=cuts)
def test_every_file_is_read_as_by_the_plain_definition_wherever_it_is_cut(scratch, name, data, cut):
    agree(data.draw(files(LAYOUTS[name])), LAYOUTS[name], scratch, **cut)


@settings(max_examples=80)
@given(st.lists(toy_lines, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans(), cuts)
@example(["0,,,", "1,,,", "\r", ",,,", "0,,,\r", "0,,\r,", "\r\r"], "\n", False,
         {"block_bytes": 3, "cores": 2})
def test_short_lines_of_any_cells_are_read_as_by_the_plain_definition(scratch, lines, ending, ended,
                                                                      cut):
    text = ending.join(["0,1,1,00000001", *lines]) + ending * ended
    agree(text.encode("latin-1"), TOY, scratch, **cut)


@pytest.mark.parametrize("cell", NASTY)
@pytest.mark.parametrize("name", LAYOUTS)
def test_an_odd_cell_is_judged_alike_in_every_column(scratch, name, cell):
    layout = LAYOUTS[name]
    lines = good_lines(layout, len(layout.columns) + 1, seed=5)
    for column in range(len(layout.columns)):
        lines[column + 1][column] = cell
    text = "\n".join(layout.separator.join(line) for line in lines)
    agree(((layout.header + "\n") * layout.has_header + text).encode("latin-1"), layout, scratch)


@pytest.mark.parametrize("block_bytes", [1, 7, 50, 200, 5000])
@pytest.mark.parametrize("name", LAYOUTS)
def test_lines_longer_than_a_block_are_put_together(scratch, name, block_bytes):
    layout = LAYOUTS[name]
    text = "\n".join([layout.header] * layout.has_header + [layout.separator.join(line)
                                                           for line in good_lines(layout, 9,
                                                                                  seed=2)])
    assert len(text) > 9 * 100
    agree(text.encode(), layout, scratch, block_bytes=block_bytes)
    assert len(read_fast(text.encode(), layout, scratch, block_bytes)[2]) == 9


# by hand, so that parser and definition are not wrong together


def test_a_criteo_line_by_hand(scratch):
    line = "\t".join(["1", "3", "-2", "", "0", "1", "2", "1000", "999999999", *[""] * 5, "ffffffff",
                      "", "0000000a", *[""] * 23])
    keys, numbers, labels, shown, _ = read_fast(line.encode(), criteo.LAYOUT, scratch)
    assert keys == [[1, -4, MISSING, -2, -1, 0, 47, 429, *[MISSING] * 5, 2**32 - 1, MISSING, 10,
                     *[MISSING] * 23]]
    assert numbers[0] == pytest.approx([math.log(4), 0, 0, 0, math.log(2), math.log(3),
                                        math.log(1001), math.log(1e9), *[0] * 5], rel=1e-7)
    assert (labels, shown) == ([1], [])


def test_an_avazu_line_by_hand(scratch):
    line = ("10000169349117863715,0,14102100,1005,0,1fbe01fe,,0000000f" + ",a99f214a" * 6
            + ",1,0,15704,,50,1722,0,35,-1,79")
    keys, numbers, labels, shown, _ = read_fast(f"{avazu.LAYOUT.header}\n{line}\n".encode(),
                                                avazu.LAYOUT, scratch)
    assert keys == [[14102100, 1005, 0, 0x1FBE01FE, MISSING, 15, *[0xA99F214A] * 6,
                     1, 0, 15704, MISSING, 50, 1722, 0, 35, -1, 79]]
    assert (numbers, labels, shown) == ([[]], [0], [])


WRONG = {
    "0,1,2": (COLUMNS, "expected 4 columns, got 3"),
    "0,1,2,0000000a,,": (COLUMNS, "expected 4 columns, got 6"),
    "0,1,2,0000000a,b": (COLUMNS, "expected 4 columns, got 5"),
    "0,1,2,0000000A,": (3, "column c: expected 8 hexadecimal digits (0-9, a-f) or nothing, got "
                        "'0000000A'"),
    "": (COLUMNS, "expected 4 columns, got 1"), "x,y": (COLUMNS, "expected 4 columns, got 2"),
    "2,1,2,0000000a": (0, "column y: expected a label of 0 or 1, got '2'"),
    ",1,2,0000000a": (0, "column y: expected a label of 0 or 1, got ''"),
    "0,1234567890,2,": (1, "column n: expected a whole number of at most 9 digits or nothing, got "
                           "'1234567890'"),
    "0,x,y,z": (1, "column n: expected a whole number of at most 9 digits or nothing, got 'x'"),
    "0,1,+2,": (2, "column d: expected a whole number of at most 9 digits or nothing, got '+2'"),
    "0,1,2,000000A0": (3, "column c: expected 8 hexadecimal digits (0-9, a-f) or nothing, got "
                          "'000000A0'"),
    "0,1,2,00a": (3, "column c: expected 8 hexadecimal digits (0-9, a-f) or nothing, got '00a'"),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_with_a_line_by_hand(scratch, line):
    column, why = WRONG[line]
    text = f"0,1,2,0000000a\n{line}\n1,1,2,0000000b\n".encode()
    parsed = parse(np.frombuffer(text, np.uint8), TOY)
    assert parsed.bad.tolist() == [[1, column, 15]]
    assert (parsed.labels.tolist(), parsed.lines) == ([0, 1], 3)
    assert read_fast(text, TOY, scratch)[3] == [f"line 2: {why}: {line.encode()!r}"]
    assert plain.read_plain(text, TOY).bad == {2: why}


def test_no_bytes_are_no_rows():
    parsed = parse(np.frombuffer(b"", np.uint8), TOY)
    assert (parsed.keys.shape, parsed.dense.shape, parsed.labels.shape,
            parsed.lines) == ((3, 0), (1, 0), (0,), 0)


# buckets


def buckets(values):
    text = "".join(f"0,{value},,\n" for value in values).encode()
    parsed = parse(np.frombuffer(text, np.uint8), TOY)
    assert len(parsed.bad) == 0
    return parsed.keys[0].tolist(), parsed.dense[0]


def test_small_numbers_get_the_bucket_of_the_definition():
    values = range(-1000, 70_001)
    found, logs = buckets(values)
    assert found == [plain.bucket(value) for value in values]
    assert np.array_equal(logs, np.array([math.log(max(value, 0) + 1) for value in values],
                                         np.float32))


def test_large_numbers_get_the_bucket_of_the_definition_most_of_all_where_it_changes():
    rng = random.Random(1)
    edges = [math.ceil(math.exp(math.sqrt(number))) for number in range(1, 430)]
    near = itertools.chain.from_iterable(range(edge - 3, edge + 4) for edge in edges)
    values = [value for value in near if value <= 999_999_999]
    values += [rng.randrange(10**rng.randint(5, 9)) for _ in range(40_000)] + [999_999_999,
                                                                               -999_999_999]
    found, logs = buckets(values)
    assert found == [plain.bucket(value) for value in values]
    assert np.array_equal(logs, np.array([math.log(max(value, 0) + 1) for value in values],
                                         np.float32))
    assert len(set(found)) > 420


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_separator_behind_the_last_cell_changes_nothing(scratch, end):
    plain_lines = ["0,1,2,0000000a", "1,,,", "0,,3,"]
    with_one = [line + "," * (number != 1) for number, line in enumerate(plain_lines)]
    expected = read_fast(end.join([*plain_lines, ""]).encode(), TOY, scratch)
    found = read_fast(end.join([*with_one, ""]).encode(), TOY, scratch)
    assert found == expected
    assert len(found[0]) == 3
    agree(end.join(with_one).encode(), TOY, scratch)
