"""The kernels of `data.synthetic.raw_planted`: draw a row's cells, score them by the teacher, write
them as text.

Random numbers are splitmix64's, of which number n of the sequence `key` is `_mix(key + n *
_GAMMA)`: any of them can be had without those before it. Everything is uint64 there; numba would
turn uint64 and int64 together into float64.
"""

import math

import numpy as np

from models.kernels.jit import njit

NUMBER, HEX, DECIMAL, HOUR = range(4)
EMPTY = -(1 << 40)  # in place of a number or of a value's index: the cell is empty
WIDEST = 8  # coordinates of the teacher's vectors
HOURS = 240  # ten days from 2014-10-21
LABELS, IDS = 0, 1  # places in `keys`
FIELD = np.dtype([
    ("kind", "i8"), ("width", "i8"), ("head", "i8"), ("tail", "i8"), ("flat", "f8"),
    ("lowest", "i8"), ("step", "i8"),
    ("mean", "f8"), ("deviation", "f8"),
    ("missing", "f8"),  # share of empty cells among the rows that hold no tail value
    ("reach", "f8"),  # ln((head + flat) / flat)
    ("factor", "i8"), ("offset", "i8"),  # of the permutation of the rows
    # keys: of draws, of the teacher, of the printed digits
    ("cells", "u8"), ("vectors", "u8"), ("digits", "u8"),
])

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_11, _15, _16, _27, _30, _31, _13 = (np.uint64(bits) for bits in (11, 15, 16, 27, 30, 31, 13))
_LOW_16, _LOW_32 = np.uint64(0xFFFF), np.uint64(0xFFFFFFFF)
_ODD, _OTHER_ODD = np.uint64(0x85EBCA6B), np.uint64(0xC2B2AE35)
_TEN = np.uint64(10)
_ZERO, _MINUS, _NEWLINE = 48, 45, 10
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


@njit(nogil=True)
def _mix(word):
    """uint64 -> uint64, one to one: the last step of splitmix64."""
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)


@njit(nogil=True)
def _number(key, place):
    return _mix(key + np.uint64(place) * _GAMMA)


@njit(nogil=True)
def _uniform(word):
    """In [0, 1)."""
    return (word >> _11) * 2.0**-53


@njit(nogil=True)
def _normal(word):
    """About normal, within 3.47 of 0: the sum of four uniforms, of 16 bits each."""
    total = np.int64(0)
    for _ in range(4):
        total += np.int64(word & _LOW_16)
        word >>= _16
    return (total - 131_070) * (math.sqrt(3.0) / 65_536)


def spreads(factor: int, full_rows: int) -> bool:
    """Whether factor * row mod full_rows is another number for each row, and no run of rows has
    them in clusters.

    That is so if Euclid's algorithm ends at 1 and has no large quotient on its way.

    >>> spreads(610, 1000), spreads(613, 1000), spreads(501, 1000)
    (False, True, False)
    """
    while factor:
        if full_rows // factor > 20:
            return False
        full_rows, factor = factor, full_rows % factor
    return full_rows == 1


@njit(nogil=True)
def cell(field, row, full_rows):
    """(what is printed: a number, the index of a value or EMPTY; what the teacher takes it for)."""
    if field.kind == HOUR:
        hour = row * HOURS // full_rows
        return hour, hour
    if field.tail > 0:
        place = (field.factor * row + field.offset) % full_rows
        if place < field.tail:
            return field.head + place, field.head
    word = _number(field.cells, row)
    share = _uniform(word)
    if share < field.missing:
        return EMPTY, EMPTY
    if field.kind == NUMBER:
        value = np.int64(math.exp(field.mean + field.deviation
                                  * _normal(_mix(word)))) + field.lowest
        return value, _bucket(value)
    share = (share - field.missing) / (1.0 - field.missing)
    index = min(np.int64(field.flat * (math.exp(share * field.reach) - 1.0)), field.head - 1)
    return index, index


@njit(nogil=True)
def _bucket(value):
    if value <= 2:
        return value - 2
    log = math.log(float(value))
    return np.int64(log * log)


@njit(nogil=True)
def _score(fields, row, full_rows, printed, total):
    """(sum over all pairs of fields of their vectors' products, sum of the first-order weights);
    fills `printed`."""
    total[:] = 0.0
    squares, first = 0.0, 0.0
    for f in range(len(fields)):
        field = fields[f]
        printed[f], taken = cell(field, row, full_rows)
        vector = _number(field.vectors, taken)
        first += _normal(vector)
        for k in range(field.width):
            coordinate = _normal(_number(vector, k + 1))
            total[k] += coordinate
            squares += coordinate * coordinate
    return ((total * total).sum() - squares) / 2, first


@njit(nogil=True)
def scores(fields, rows, full_rows):
    """(rows, 2): the pairs' part and the first-order part of each row's logit, before they are
    scaled."""
    parts = np.empty((len(rows), 2))
    printed, total = np.empty(len(fields), np.int64), np.empty(WIDEST)
    for i in range(len(rows)):
        parts[i] = _score(fields, rows[i], full_rows, printed, total)
    return parts


@njit(nogil=True)
def fill(text, fields, weights, keys, start, stop, full_rows, separator, with_ids):
    """Write the rows from start to stop to `text` (bytes,) uint8; return how many bytes they
    take."""
    printed, total = np.empty(len(fields), np.int64), np.empty(WIDEST)
    at = 0
    for row in range(start, stop):
        pairs, first = _score(fields, row, full_rows, printed, total)
        logit = weights[0] + pairs * weights[1] + first * weights[2]
        if with_ids:
            at = _put_whole(text, at, _number(keys[IDS], row))
            text[at] = separator
            at += 1
        text[at] = _ZERO + (_uniform(_number(keys[LABELS], row)) < 1.0 / (1.0 + math.exp(-logit)))
        at += 1
        for f in range(len(fields)):
            text[at] = separator
            at = _put(text, at + 1, fields[f], printed[f])
        text[at] = _NEWLINE
        at += 1
    return at


@njit(nogil=True)
def _put(text, at, field, value):
    """Write one cell; return the byte behind it."""
    if value == EMPTY:
        return at
    if field.kind == HEX:
        return _put_hex(text, at, np.uint64(value), field.digits)
    if field.kind == HOUR:
        value = 14_102_100 + value // 24 * 100 + value % 24
    elif field.kind == DECIMAL:
        value = field.lowest + field.step * value
    if value < 0:
        text[at] = _MINUS
        return _put_whole(text, at + 1, np.uint64(-value))
    return _put_whole(text, at, np.uint64(value))


@njit(nogil=True)
def _put_hex(text, at, index, key):
    """8 digits, other ones for each index: every step is one to one on 32 bits."""
    word = ((index ^ key) * _ODD) & _LOW_32
    word = ((word ^ (word >> _15)) * _OTHER_ODD) & _LOW_32
    word = np.int64(word ^ (word >> _13))
    for i in range(8):
        text[at + i] = _DIGITS[(word >> (28 - 4 * i)) & 15]
    return at + 8


@njit(nogil=True)
def _put_whole(text, at, value):
    rest, end = value // _TEN, at + 1
    while rest > 0:
        rest //= _TEN
        end += 1
    for i in range(end - 1, at - 1, -1):
        text[i] = _ZERO + value % _TEN
        value //= _TEN
    return end
