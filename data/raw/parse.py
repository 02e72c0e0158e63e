"""Bytes of whole lines to keys, dense features and labels.

A key stands for one value of a field: the bucket of a BUCKET column, the number of a DECIMAL one,
the 32 bits of a HEX one, or MISSING for an empty cell. `data/raw/plain.py` is the definition, line
by line in plain Python; this is the same over bytes.
"""

import math
from dataclasses import dataclass

import numpy as np

from data.raw.layout import BUCKET, DECIMAL, HEX, ID, LABEL, MAX_DIGITS, Layout
from models.kernels.jit import njit

MISSING = -(1 << 40)  # below every other key, so it comes first among values of equal count
COLUMNS = -1  # in `bad`: the line has another number of columns

_NEWLINE, _RETURN, _MINUS, _ZERO = 10, 13, 45, 48
_SMALL = 1 << 12
_NIBBLES = np.full(256, 16, np.uint8)  # value of each hexadecimal digit, 16 for every other byte
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_MAX_ID, _MAX_BUCKET, _MAX_DECIMAL = MAX_DIGITS[ID], MAX_DIGITS[BUCKET], MAX_DIGITS[DECIMAL]


@dataclass
class Parsed:
    """Rows of some lines, F fields and M dense features.

    Args:
        keys: (F, rows) int64.
        dense: (M, rows) float32, log(max(v, 0) + 1), 0 where the cell is empty.
        labels: (rows,) int8.
        bad: (lines that could not be used, 3) int64: the line's index among these lines, the
            offending column (or COLUMNS) and the byte where the line starts.
        lines: rows and bad lines together.
    """

    keys: np.ndarray
    dense: np.ndarray
    labels: np.ndarray
    bad: np.ndarray
    lines: int


def parse(text: np.ndarray, layout: Layout) -> Parsed:
    """Parse lines; the last must end with a line end.

    Args:
        text: (bytes,) uint8.

    >>> from data.raw.layout import Column
    >>> columns = (Column("y", LABEL), Column("n", BUCKET), Column("c", HEX))
    >>> toy = Layout("toy", ",", columns, False, (), "")
    >>> parsed = parse(np.frombuffer(b"1,3,000000ff\\n0,,\\n2,1,00000000\\n", np.uint8), toy)
    >>> parsed.keys.tolist()
    [[1, -1099511627776], [255, -1099511627776]]
    >>> parsed.bad.tolist()
    [[2, 0, 17]]
    """
    lines = int(np.count_nonzero(text == _NEWLINE))
    kinds = np.array([column.kind for column in layout.columns], np.int64)
    keys = np.empty((len(layout.fields), lines), np.int64)
    dense = np.zeros((len(layout.dense), lines), np.float32)
    labels = np.empty(lines, np.int8)
    bad = np.empty((lines, 3), np.int64)
    rows = _parse_lines(text, ord(layout.separator), kinds, _NIBBLES, keys, dense, labels, bad)
    return Parsed(keys[:, :rows], dense[:, :rows], labels[:rows], bad[:lines - rows].copy(),
                  lines)


@njit(nogil=True)
def _parse_lines(text, separator, kinds, nibbles, keys, dense, labels, bad):
    buckets, logs = _small_numbers(_SMALL)
    row, wrong, at, line = 0, 0, 0, 0
    while at < len(text):
        start = at
        column = _parse_line(text, start, separator, kinds, nibbles, buckets, logs, keys, dense,
                             labels, row)
        if column >= 0:  # the offending one; a wrong number of columns is the better thing to say
            at, count = _skip_line(text, start, separator, len(kinds))
            bad[wrong, 0] = line
            bad[wrong, 1] = column if count == len(kinds) else COLUMNS
            bad[wrong, 2] = start
            wrong += 1
        else:
            at = -column
            row += 1
        line += 1
    return row


@njit(nogil=True)
def _skip_line(text, at, separator, expected):
    """The start of the next line, and the columns of this one; a trailing separator begins none."""
    columns = 1
    while text[at] != _NEWLINE:
        columns += text[at] == separator
        at += 1
    if columns == expected + 1:
        end = at - 1 if text[at - 1] == _RETURN else at
        columns -= text[end - 1] == separator
    return at + 1, columns


@njit(nogil=True)
def _parse_line(text, at, separator, kinds, nibbles, buckets, logs, keys, dense, labels, row):
    """Minus the start of the next line, or the number of the first column that is wrong."""
    field, number, last = 0, 0, len(kinds) - 1
    for column in range(len(kinds)):
        kind = kinds[column]
        if kind == HEX:
            key, at, good = _hex(text, at, separator, nibbles)
            keys[field, row] = key
            field += 1
        elif kind == BUCKET:
            empty, value, at, good = _whole(text, at, _MAX_BUCKET)
            if empty:
                keys[field, row] = MISSING
                dense[number, row] = 0.0
            else:
                keys[field, row] = buckets[value] if 0 <= value < len(buckets) else _bucket(value)
                dense[number, row] = (
                    logs[value] if 0 <= value < len(logs) else math.log(max(value, 0) + 1.0)
                )
            field += 1
            number += 1
        elif kind == DECIMAL:
            empty, value, at, good = _whole(text, at, _MAX_DECIMAL)
            keys[field, row] = MISSING if empty else value
            field += 1
        elif kind == LABEL:
            digit = text[at] - _ZERO
            good = digit == 0 or digit == 1
            labels[row] = digit
            at += 1 if good else 0
        else:
            first = at
            while _ZERO <= text[at] <= _ZERO + 9:
                at += 1
            good = 0 < at - first <= _MAX_ID
        if not good:
            return column
        if column < last:
            if text[at] != separator:
                return column
            at += 1
        else:
            if text[at] == separator:
                at += 1
            if text[at] == _RETURN:
                at += 1
            if text[at] != _NEWLINE:
                return column
            at += 1
    return -at


@njit(nogil=True, inline="always")
def _hex(text, at, separator, nibbles):
    """(key, the byte behind the cell, whether it is good). Every cell is followed by at least one
    byte."""
    here = text[at]
    if here in (separator, _NEWLINE, _RETURN):
        return MISSING, at, True
    if at + 8 >= len(text):
        return 0, at, False
    key, seen = np.int64(0), np.uint8(0)
    for i in range(8):  # no branch: 1.6 times as fast as stopping at the first wrong digit
        nibble = nibbles[text[at + i]]
        key = key << 4 | np.int64(nibble & 15)
        seen |= nibble
    return key, at + 8, seen < 16


@njit(nogil=True, inline="always")
def _whole(text, at, most):
    """(whether the cell is empty, value, the byte behind the number, whether it is good)."""
    minus = text[at] == _MINUS
    if minus:
        at += 1
    value, first = np.int64(0), at
    digit = np.int64(text[at]) - _ZERO
    while 0 <= digit <= 9:
        if at - first < most:
            value = value * 10 + digit
        at += 1
        digit = np.int64(text[at]) - _ZERO
    digits = at - first
    return digits == 0, -value if minus else value, at, digits <= most and not (minus and digits
                                                                                == 0)


@njit(nogil=True)
def _bucket(value):
    if value > 2:
        log = math.log(float(value))
        return np.int64(math.floor(log * log))
    return np.int64(value - 2)


@njit(nogil=True)
def _small_numbers(most):
    """Buckets and logarithms of 0 .. most-1: two logarithms a cell were a third of the time."""
    buckets, logs = np.empty(most, np.int64), np.empty(most, np.float32)
    for value in range(most):
        buckets[value] = _bucket(value)
        logs[value] = math.log(value + 1.0)
    return buckets, logs
