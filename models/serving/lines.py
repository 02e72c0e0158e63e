"""Lines of delimited text straight to ids, in one pass over their bytes. Importing this file
imports numba.

The definition is `models.serving.rows.Lines.columns`, which finds the cells, and `Field.lookup` of
each column. The pass leaves to them every line that it does not read itself: of a wrong number of
cells, or with a number that Python's `float` must look at.

A cell of up to eight bytes, as of Criteo's, is one word of the processor: its end, its digits and
whether two are the same are found without a loop over its bytes. Its id stands beside it in a hash
table, so that a look-up waits for memory once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..kernels.jit import njit
from ..kernels.words import WIDE, count_ones, either_of, prefetch, trailing_zeros, word_at
from ..text_loops import OTHER, hash_text, known_bucket, log_squared_of, read_number, same_text
from ..vocabulary import BUCKET, NOT_FOUND, QUANTILES, WHOLE, Field, Vocabulary

SEGMENT = 1 << 13  # bytes in which the ends of cells are found at a time
CHUNK = 64  # lines whose values are looked up together, while their words are in the cache
SMALL = 4096  # whole numbers below it have their ids in a table
LOAD = 0.6  # values of a hash table for each of its slots
_SLOTS, _GROUP = 4, 8  # of a group, which is one cache line: its slots, and its numbers
_UNROLLED = 8  # ends of cells that are written down without a branch between them
_UNWANTED, _TEXT, _WHOLE, _NUMBER = 0, 1, 2, 3  # kinds of columns
_NEWLINE, _RETURN, _ZERO, _MINUS, _PLUS = np.uint8(10), 13, 48, 45, 43
_WORD = 8  # bytes


def _in_each_byte(byte: int) -> np.uint64:
    return np.uint64(byte * 0x0101010101010101)


_ZEROS, _HIGH_HALVES, _SIXES = _in_each_byte(_ZERO), _in_each_byte(0xF0), _in_each_byte(6)
_PAIR, _TENS = np.uint64(0x000000FF000000FF), np.uint64(10)
_MILLIONS, _THOUSANDS = np.uint64(100 + (1_000_000 << 32)), np.uint64(1 + (10_000 << 32))
_MIX, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
_8, _16 = np.uint64(8), np.uint64(16)
_ONE, _LOW_HALF = np.uint64(1), np.uint64(0xFFFFFFFF)
_FIRST_BYTES = np.array([(1 << 8 * length) - 1 for length in range(_WORD + 1)], np.uint64)


class Texts(NamedTuple):
    """The T fields of texts and whole numbers, all in one hash table.

    Args:
        slots: (8 G,) uint64, groups of four slots: their four words (see `_word`), and for each, in
            two halves, an id and what `_mark` gives; 0 in a free one.
        begins: (T,) the first group of each field.
        sizes: (T,) uint64, groups of each field.
        text, starts: of the values of all fields of the vocabulary.
        firsts: (T, 2) where a field's begin.
        empty: (T,) the id of an empty cell that is no value itself.
        absent: (T,) the id of other values that are not known.
        places: (T,) the field's column of the ids.
    """

    slots: np.ndarray
    begins: np.ndarray
    sizes: np.ndarray
    text: np.ndarray
    starts: np.ndarray
    firsts: np.ndarray
    empty: np.ndarray
    absent: np.ndarray
    places: np.ndarray


class Numbers(NamedTuple):
    """The K fields of numbers in buckets.

    Args:
        small: (K, SMALL) the ids of 0, 1, ...
        quantiles: (K,) bool, whether the rule is that of edges.
        origins: (K,) of the other rule.
        edges: of all fields.
        edge_ends: (K + 1,) where each field's begin.
        known, ids: buckets and their ids, of all fields.
        known_ends: (K + 1,) where each field's begin.
        empty, absent, places: see `Texts`.
    """

    small: np.ndarray
    quantiles: np.ndarray
    origins: np.ndarray
    edges: np.ndarray
    edge_ends: np.ndarray
    known: np.ndarray
    ids: np.ndarray
    known_ends: np.ndarray
    empty: np.ndarray
    absent: np.ndarray
    places: np.ndarray


class LineEncoder:
    """Reads lines for a vocabulary.

    Args:
        vocabulary: its fields have columns of their own, and neither parts of dates nor several
            values a cell.
        nothing: the id of a value that is not known, in a field without an id for those.
    """

    def __init__(self, vocabulary: Vocabulary, nothing: int) -> None:
        self.fields = vocabulary.fields
        self.nothing = nothing
        self.texts = self._texts(vocabulary)
        self.numbers = self._numbers()

    def _of_kind(self, bucket: bool) -> list[int]:
        return [place for place, field in enumerate(self.fields)
                if (field.info.kind == BUCKET) == bucket]

    def _ids(self, field: Field, values: Any) -> np.ndarray:
        found = field.lookup(values)
        return np.where(found == NOT_FOUND, self.nothing, found).astype(np.int32)

    def _rest(self, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`empty`, `absent` and `places`."""
        fields = [self.fields[place] for place in places]
        empty = [int(self._ids(field, [""])[0]) for field in fields]
        absent = [self.nothing if field.unknown is None else field.unknown for field in fields]
        return np.array(empty, np.int32), np.array(absent, np.int32), np.array(places, np.int64)

    def _texts(self, vocabulary: Vocabulary) -> Texts:
        own = self._of_kind(bucket=False)
        fields, arrays = [self.fields[place] for place in own], vocabulary.arrays
        firsts = np.cumsum([(0, 0), *((len(field.packed.text), len(field.packed.starts))
                                      for field in self.fields)], axis=0)[own]
        sizes = np.array([int(len(field.ids) / LOAD / _SLOTS) + 1 for field in fields], np.int64)
        ends = _ends(sizes)
        slots = np.zeros(_GROUP * (ends[-1] + 1), np.uint64)
        slots = slots[-slots.ctypes.data % 64 // 8:]  # where a cache line begins
        for field, begin, size in zip(fields, ends, sizes, strict=False):
            fill_slots(field.packed.text, field.packed.starts, field.ids,
                       slots[_GROUP * begin:_GROUP * (begin + size)])
        return Texts(slots, ends[:-1], sizes.astype(np.uint64), arrays["text"], arrays["starts"],
                     firsts, *self._rest(own))

    def _numbers(self) -> Numbers:
        own = self._of_kind(bucket=True)
        fields = [self.fields[place] for place in own]
        small = np.zeros((len(own), SMALL), np.int32)
        for number, field in enumerate(fields):
            small[number] = self._ids(field, np.arange(float(SMALL)))
        edges = [np.array(field.info.edges, np.float64) for field in fields]
        known = [field.known_buckets for field in fields]
        return Numbers(
            small, np.array([field.info.rule == QUANTILES for field in fields], bool),
            np.array([field.info.origin for field in fields], np.float64),
            np.concatenate([*edges, np.zeros(0)]), _ends([len(each) for each in edges]),
            np.concatenate([*(one for one, _ in known), np.zeros(0, np.int64)]),
            np.concatenate([*(ids for _, ids in known), np.zeros(0, np.int32)]),
            _ends([len(one) for one, _ in known]), *self._rest(own))

    def encode(self, text: bytes, separator: str,
               names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read lines.

        Args:
            text: whole lines, each with a newline behind it.
            separator: one character.
            names: of the columns.

        Returns:
            Ids (lines, F) int32; where each line ends; and which lines were not read, whose ids
            mean nothing.
        """
        kinds, own = np.zeros(len(names) + 2, np.uint8), np.zeros(len(names) + 2, np.int64)
        for fields, bucket in ((self.texts.places, False), (self.numbers.places, True)):
            for number, place in enumerate(fields.tolist()):
                info = self.fields[place].info
                column = list(names).index(info.column or info.name)
                own[column] = number
                kinds[column] = _NUMBER if bucket else _TEXT
                if info.kind == WHOLE:
                    kinds[column] = _WHOLE
        lines = text.count(b"\n")
        ids = np.empty((lines, len(self.fields)), np.int32)
        ends, unread = np.empty(lines, np.int64), np.zeros(lines, np.bool_)
        encode_lines(np.frombuffer(text, np.uint8), np.uint8(ord(separator)), kinds, own,
                     self.texts, self.numbers, ids, ends, unread)
        return ids, ends, unread


def _ends(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each of some parts begins, and the last one ends."""
    return np.cumsum([0, *sizes]).astype(np.int64)


@njit(nogil=True)
def _short_word(text, begin, length):
    """Up to eight bytes as one number."""
    word = np.uint64(0)
    for i in range(length):
        word |= np.uint64(text[begin + i]) << np.uint64(8 * i)
    return word


@njit(nogil=True)
def _mark(length, position):
    """What tells a value beside its word: the length of a short one, and of a long one where it
    stands among the values of its field. Not 0."""
    return np.uint64(length + 1) if length <= _WORD else np.uint64(position + _WORD + 2)


@njit(nogil=True, forceinline=True)
def _group_of(word, length, size):
    """The group of slots from which on a word is looked for."""
    value = (word ^ np.uint64(min(length, _WORD + 1))) * _MIX
    value = (value ^ (value >> _HALF)) * _MIX
    return np.int64(((value >> _HALF) * size) >> _HALF)


@njit(nogil=True)
def fill_slots(text, starts, ids, slots):
    """Put the values of a field into its slots; see `Texts`."""
    size = len(slots) // _GROUP
    for position in range(len(ids)):
        begin, end = np.int64(starts[position]), np.int64(starts[position + 1])
        length = end - begin
        short = length <= _WORD
        word = _short_word(text, begin, length) if short else hash_text(text, begin, end)
        group = _group_of(word, length, np.uint64(size))
        slot = 0
        while slots[_GROUP * group + _SLOTS + slot]:
            slot += 1
            if slot == _SLOTS:
                slot, group = 0, group + 1 if group + 1 < size else 0
        slots[_GROUP * group + slot] = word
        slots[_GROUP * group + _SLOTS + slot] = (
            (np.uint64(ids[position]) << _HALF) | _mark(length, position))


@njit(nogil=True)
def encode_lines(text, separator, kinds, own, texts, numbers, ids, ends, unread):
    """See `LineEncoder.encode`.

    Args:
        kinds: (columns + 2,) of each, one of the kinds above; the last two are of cells too many.
        own: (columns + 2,) which of the fields of `texts` or `numbers` it is.
    """
    fields, columns = len(texts.places), len(kinds) - 2
    words, begins = np.zeros((CHUNK, fields), np.uint64), np.zeros((CHUNK, fields), np.int64)
    lengths, groups = np.zeros((CHUNK, fields), np.int64), np.zeros(CHUNK, np.int64)
    stops = np.empty(SEGMENT + _UNROLLED, np.int64)
    # not by their names in the loop, where each would count a reference
    number_ids, empty, places = numbers.small, numbers.empty, numbers.places
    begin, column, line, first, other = 0, 0, 0, 0, False
    for segment in range(0, len(text), SEGMENT):
        count = _find_stops(text, segment, min(segment + SEGMENT, len(text)), separator, stops)
        for number in range(count):
            at = stops[number]
            ended = text[at] == _NEWLINE
            length = at - begin
            if ended and length and text[at - 1] == _RETURN:
                length -= 1
            kind, field, place = kinds[column], own[column], line - first
            if kind == _NUMBER:
                small = np.int64(-1)
                if length <= _WORD:
                    small = _digits(_word(text, begin, length), length)
                if 0 <= small < SMALL:
                    found = number_ids[field, small] if length else empty[field]
                else:
                    found, read = _large_number(text, begin, length, small, numbers, field)
                    other |= not read
                ids[line, places[field]] = found
            elif kind != _UNWANTED:
                words[place, field] = _word(text, begin, length)
                begins[place, field], lengths[place, field] = begin, length
                # 007 and 7 are one whole number
                other |= kind == _WHOLE and length > 1 and (
                    text[begin] == _ZERO or text[begin] == _MINUS or text[begin] == _PLUS)
            column = min(column + 1, columns + 1)
            begin = at + 1
            if ended:
                ends[line], unread[line] = begin, other or column != columns
                column, other = 0, False
                line += 1
                if line - first == CHUNK or line == len(ends):
                    _look_up(texts, text, words, begins, lengths, groups, ids[first:line])
                    first = line


@njit(nogil=True)
def _find_stops(text, start, end, separator, stops):
    """Where separators and newlines stand in text[start:end], in `stops`; returns how many."""
    count, at = 0, start
    while at + WIDE <= end:
        bits = either_of(text, at, separator, _NEWLINE)
        found = count_ones(bits)
        for group in range(0, found, _UNROLLED):  # a branch for each would be predicted wrong
            for i in range(_UNROLLED):
                stops[count + group + i] = at + trailing_zeros(bits)
                bits &= bits - _ONE
        count += found
        at += WIDE
    while at < end:
        if text[at] == separator or text[at] == _NEWLINE:
            stops[count] = at
            count += 1
        at += 1
    return count


@njit(nogil=True, forceinline=True)
def _word(text, begin, length):
    """A cell's bytes if they are eight or fewer, else its hash."""
    if length > _WORD:
        return hash_text(text, begin, begin + length)
    if begin + _WORD > len(text):
        return _short_word(text, begin, length)
    return word_at(text, begin) & _FIRST_BYTES[length]


@njit(nogil=True)
def _large_number(text, begin, length, whole, numbers, field):
    """The id of a number that is none of `small`, and whether it was read; `whole` is the number if
    that is 0 or more."""
    if whole >= 0:
        return _id_of(numbers, field, np.float64(whole)), True
    number, how = read_number(text, begin, begin + length)
    return _id_of(numbers, field, number), how != OTHER


@njit(nogil=True, forceinline=True)
def _digits(word, length):
    """A word of so many digits as a number; -1 if other bytes are among them, 0 if it is empty."""
    empty = np.uint64(_WORD - length)
    digits = (word << (np.uint64(4) * empty)) << (np.uint64(4) * empty)  # a shift by 64 is none
    half = np.uint64(4 * length)
    digits |= (_ZEROS >> half) >> half
    if (digits & _HIGH_HALVES) != _ZEROS or ((digits + _SIXES) & _HIGH_HALVES) != _ZEROS:
        return np.int64(-1)
    digits -= _ZEROS
    digits = digits * _TENS + (digits >> _8)  # pairs
    fours = (digits & _PAIR) * _MILLIONS + ((digits >> _16) & _PAIR) * _THOUSANDS
    return np.int64(fours >> _HALF)


@njit(nogil=True)
def _id_of(numbers, field, number):
    """The id of a number that is none of `small`; what a NaN gives means nothing."""
    if numbers.quantiles[field]:
        low, high = numbers.edge_ends[field], numbers.edge_ends[field + 1]
        bucket = np.int64(np.searchsorted(numbers.edges[low:high], number, side="right"))
    else:
        bucket = log_squared_of(number - numbers.origins[field])
    place = known_bucket(bucket, numbers.known, numbers.known_ends[field],
                         numbers.known_ends[field + 1])
    return numbers.ids[place] if place >= 0 else numbers.absent[field]


@njit(nogil=True)
def _look_up(texts, text, words, begins, lengths, groups, ids):
    """The ids of some lines' texts by their words; `groups` is written over."""
    slots, absent, empty = texts.slots, texts.absent, texts.empty
    for field in range(len(texts.places)):
        size, place, begin = texts.sizes[field], texts.places[field], texts.begins[field]
        for i in range(len(ids)):
            groups[i] = begin + _group_of(words[i, field], lengths[i, field], size)
            prefetch(slots, _GROUP * groups[i])
        for i in range(len(ids)):
            word, length, group = words[i, field], lengths[i, field], groups[i]
            found = absent[field] if length else empty[field]
            while True:
                at = np.uint64(_GROUP * group)
                hit = np.uint64(0)
                if length <= _WORD:
                    mark = np.uint64(length + 1)
                    for slot in range(_SLOTS):
                        value = slots[at + np.uint64(_SLOTS + slot)]
                        same = slots[at + np.uint64(slot)] == word
                        hit = value if same & ((value & _LOW_HALF) == mark) else hit
                else:
                    hit = _long_value(texts, field, text, begins[i, field], length, word, at)
                if hit:
                    found = np.int32(hit >> _HALF)
                    break
                if not slots[at + np.uint64(_GROUP - 1)]:  # with a free slot a search ends
                    break
                group = group + 1 if group + 1 < begin + np.int64(size) else begin
            ids[i, place] = found


@njit(nogil=True)
def _long_value(texts, field, text, begin, length, word, at):
    """What stands beside the word of a long cell in the group of slots at `at`, or 0."""
    first_text, first = texts.firsts[field]
    for slot in range(_SLOTS):
        value = texts.slots[at + np.uint64(_SLOTS + slot)]
        position = np.int64(value & _LOW_HALF) - _WORD - 2
        if texts.slots[at + np.uint64(slot)] != word or position < 0:
            continue
        # equal hashes may be of other text: the bytes decide
        if same_text(text, begin, begin + length, texts.text,
                     first_text + np.int64(texts.starts[first + position]),
                     first_text + np.int64(texts.starts[first + position + 1])):
            return value
    return np.uint64(0)
