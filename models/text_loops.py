"""Loops over packed text: values lie one behind the other in `text`, value i from starts[i] to
starts[i + 1]. Importing this file imports numba."""

import math
from typing import Any

import numpy as np

from .kernels.jit import njit
from .kernels.words import SPAN, first_equal, word_at

_PRIME, SEED = np.uint64(0x100000001B3), np.uint64(0xCBF29CE484222325)
_MIX, _HALF, _REST = np.uint64(0x9E3779B97F4A7C15), np.uint64(32), np.uint64(29)
_ZERO, _MINUS, _PLUS, _POINT = 48, 45, 43, 46
EXACT_DIGITS = 15  # of a whole number that a float64 holds exactly
POWERS = 10.0 ** np.arange(EXACT_DIGITS + 1)  # exact, so that one division rounds correctly
PLAIN, OTHER, EMPTY = 0, 1, 2  # how a text reads as a number


@njit(nogil=True)
def next_hash(value, byte):
    """The hash of a text and a byte behind it, by that of the text (SEED of none), before it is
    mixed: FNV-1a."""
    return (value ^ np.uint64(byte)) * _PRIME


@njit(nogil=True)
def mixed(value):
    """A hash whose top bits are good too."""
    value = (value ^ (value >> _HALF)) * _MIX
    return value ^ (value >> _REST)


@njit(nogil=True)
def hash_text(text, start, end):
    """64-bit hash of text[start:end]."""
    value = SEED
    for at in range(start, end):
        value = next_hash(value, text[at])
    return mixed(value)


@njit(nogil=True)
def same_text(text, start, end, other, other_start, other_end):
    """Whether text[start:end] == other[other_start:other_end]."""
    length = end - start
    if length != other_end - other_start:
        return False
    i = 0
    while i + 8 <= length and word_at(text, start + i) == word_at(other, other_start + i):
        i += 8
    while i < length and text[start + i] == other[other_start + i]:
        i += 1
    return i == length


@njit(nogil=True)
def hash_all(text, starts, ends, hashes):
    """hashes[i] = the hash of text[starts[i]:ends[i]]."""
    for i in range(len(hashes)):
        hashes[i] = hash_text(text, np.int64(starts[i]), np.int64(ends[i]))


@njit(nogil=True)
def first_repeated(text, starts, order, hashes):
    """A value that comes twice, by its place in `order` (sorted by hash); -1: all differ."""
    for i in range(len(order)):
        j = i + 1
        while j < len(order) and hashes[order[j]] == hashes[order[i]]:
            one, two = order[i], order[j]
            if same_text(text, starts[one], starts[one + 1], text, starts[two], starts[two + 1]):
                return i
            j += 1
    return -1


@njit(nogil=True)
def take(text, starts, order, taken, taken_starts):
    """Pack the values `order` into `taken`; taken_starts[i + 1] is filled from taken_starts[0]
    on."""
    at = np.int64(taken_starts[0])
    for i in range(len(order)):
        for source in range(starts[order[i]], starts[order[i] + 1]):
            taken[at] = text[source]
            at += 1
        taken_starts[i + 1] = at


@njit(nogil=True)
def find(query, query_starts, query_ends, text, starts, tags, buckets, shift, found):
    """found[i] = the position of query[query_starts[i]:query_ends[i]] among the values, -1 where it
    is none of them.

    Args:
        tags: (values,) the low byte of each hash.
        buckets: values whose hash begins with b stand from buckets[b] to buckets[b + 1].
        shift: 64 minus the bits of b.
    """
    hashes = np.empty(len(found), np.uint64)
    hash_all(query, query_starts, query_ends, hashes)
    for i in range(len(found)):  # a loop of its own: the processor waits for many values at once
        bucket = np.int64(hashes[i] >> shift) if len(buckets) > 2 else 0
        found[i] = next_tag(tags, hashes[i], buckets[bucket], buckets[bucket + 1])
    for i in range(len(found)):
        place = found[i]
        start, end = np.int64(query_starts[i]), np.int64(query_ends[i])
        # equal hashes may be of other text: the bytes decide
        while place >= 0 and not same_text(query, start, end, text, np.int64(starts[place]),
                                           np.int64(starts[place + 1])):
            bucket = np.int64(hashes[i] >> shift) if len(buckets) > 2 else 0
            place = next_tag(tags, hashes[i], place + 1, buckets[bucket + 1])
        found[i] = place


@njit(nogil=True)
def next_tag(tags, value, start, end):
    """The first place from `start` on whose tag is the hash's; -1: none before `end`."""
    tag = np.uint8(value & np.uint64(255))
    place, last = np.int64(start), len(tags) - SPAN
    while place < end and last >= 0:
        begin: Any = min(place, last)
        found = place + first_equal(tags, begin, tag, place - begin)
        if found < begin + SPAN:
            return found if found < end else -1
        place = begin + SPAN
    while place < end:
        if tags[place] == tag:
            return place
        place += 1
    return -1


@njit(nogil=True)
def read_number(text, at, end):
    """text[at:end] as a decimal number, and how it reads: PLAIN where the number is exact, EMPTY,
    or OTHER where Python's `float` must look (exponents, many digits, no number)."""
    if at == end:
        return math.nan, EMPTY
    negative = text[at] == _MINUS
    if negative or text[at] == _PLUS:
        at += 1
    whole, digits, behind, point = np.int64(0), 0, 0, False
    while at < end:
        digit = np.int64(text[at]) - _ZERO
        if 0 <= digit <= 9:
            if digits <= EXACT_DIGITS:
                whole = whole * 10 + digit
            digits += 1
            behind += point
        elif text[at] == _POINT and not point:
            point = True
        else:
            break
        at += 1
    if at < end or not 0 < digits <= EXACT_DIGITS:
        return math.nan, OTHER
    number = whole / POWERS[behind]
    return -number if negative else number, PLAIN


@njit(nogil=True)
def read_numbers(text, starts, ends, numbers, kinds):
    """`read_number` of each text[starts[i]:ends[i]]."""
    for i in range(len(numbers)):
        numbers[i], kinds[i] = read_number(text, np.int64(starts[i]), np.int64(ends[i]))


@njit(nogil=True)
def log_squared_of(value):
    """floor(ln(v)^2) for v > 2, else floor(v) - 2."""
    if value > 2:
        log = math.log(value)
        return np.int64(math.floor(log * log))
    if value > -9.0e18:
        return np.int64(math.floor(value)) - 2
    return np.iinfo(np.int64).min


@njit(nogil=True)
def log_squared(numbers, origin, buckets):
    """buckets[i] = `log_squared_of` of numbers[i] - origin."""
    for i in range(len(numbers)):
        buckets[i] = log_squared_of(numbers[i] - origin)


@njit(nogil=True)
def known_bucket(bucket, known, low, high):
    """The place of a bucket in known[low:high], which rise; -1: it is not there."""
    end = high
    while low < high:
        middle = (low + high) // 2
        if known[middle] < bucket:
            low = middle + 1
        else:
            high = middle
    return low if low < end and known[low] == bucket else -1


@njit(nogil=True)
def known_buckets(buckets, numbers, known, ids, gap, absent, found):
    """found[i] = the id of bucket i among `known`, which rise; `gap` where the number is NaN, and
    `absent` where the bucket is not known."""
    for i in range(len(found)):
        place = known_bucket(buckets[i], known, 0, len(known))
        if math.isnan(numbers[i]):
            found[i] = gap
        else:
            found[i] = ids[place] if place >= 0 else absent
