"""Distinct texts of one column, numbered in the order in which they come and counted."""

import numpy as np

from models.kernels.jit import njit
from models.text_loops import hash_text, same_text
from models.vocabulary import Packed

_LOW = np.uint64(0xFFFFFFFF)
MOST = (1 << 31) - 2  # values that int32 can number


class TextCounter:
    """A hash table from text to number. Number 0 is the gap, an empty text, whether or not it
    comes.

    A slot is one 64-bit word: 32 bits of the hash, and the number. A distinct value takes about 40
    bytes and its text.

    >>> from models.vocabulary import pack
    >>> counter = TextCounter("town")
    >>> counter.add(pack(["Oslo", "", "Rome", "Oslo"])).tolist()
    [1, 0, 2, 1]
    >>> counter.counts.tolist(), counter.packed.get(2)
    ([1, 2, 1], 'Rome')
    """

    def __init__(self, name: str, most: int = MOST) -> None:
        self.name = name
        self.most = most
        self._slots = np.zeros(1 << 10, np.uint64)
        self._counts = np.zeros(len(self._slots) // 2, np.int64)
        self._starts = np.zeros(len(self._counts) + 1, np.int64)
        self._text = np.empty(1 << 14, np.uint8)
        self._used = 1

    @property
    def counts(self) -> np.ndarray:
        """(numbers,) int64."""
        return self._counts[:self._used]

    @property
    def packed(self) -> Packed:
        """The text of each number."""
        starts = self._starts[:self._used + 1]
        return Packed(self._text[:starts[-1]], starts)

    def add(self, values: Packed) -> np.ndarray:
        """Count texts; their numbers (rows,) int32.

        Raises:
            ValueError: there are more distinct values than can be numbered.
        """
        numbers = np.empty(len(values), np.int32)
        starts = values.starts.astype(np.int64, copy=False)
        done = 0
        while True:
            done, self._used = _add(values.text, starts, done, self._slots, self._counts,
                                    self._starts, self._text, self._used, numbers)
            if done == len(numbers):
                return numbers
            if self._used > self.most:
                raise ValueError(f"column {self.name!r} has more than {self.most:,} distinct "
                                 "values, more than can be numbered; leave it out (ignore), or "
                                 "make it a column of numbers (bucket)")
            self._make_room(int(starts[done + 1] - starts[done]))

    def _make_room(self, length: int) -> None:
        if self._used == len(self._counts):
            slots = np.zeros(2 * len(self._slots), np.uint64)
            _refill(slots, self._text, self._starts, self._used)
            self._slots = slots
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._starts = np.concatenate([self._starts, np.zeros(len(self._starts) - 1,
                                                                  np.int64)])
        if self._starts[self._used] + length > len(self._text):
            more = np.empty(max(len(self._text), length), np.uint8)
            self._text = np.concatenate([self._text, more])


@njit(nogil=True)
def _add(query, query_starts, done, slots, counts, starts, text, used, numbers):
    """(values done, values used); stops before a new value that has no room."""
    last = np.uint64(len(slots) - 1)
    for i in range(done, len(numbers)):
        start, end = query_starts[i], query_starts[i + 1]
        if start == end:
            numbers[i] = 0
            counts[0] += 1
            continue
        value = hash_text(query, start, end)
        tag = value & ~_LOW
        at = value & last
        number = np.int64(-1)
        while slots[at] != 0:
            slot = slots[at]
            if slot & ~_LOW == tag:
                found = np.int64(slot & _LOW)
                if same_text(query, start, end, text, starts[found], starts[found + 1]):
                    number = found
                    break
            at = (at + np.uint64(1)) & last
        if number < 0:
            if used == len(counts) or starts[used] + end - start > len(text):
                return i, used
            number = np.int64(used)
            slots[at] = tag | np.uint64(number)
            for j in range(end - start):
                text[starts[used] + j] = query[start + j]
            starts[used + 1] = starts[used] + end - start
            used += 1
        numbers[i] = number
        counts[number] += 1
    return len(numbers), used


@njit(nogil=True)
def _refill(slots, text, starts, used):
    last = np.uint64(len(slots) - 1)
    for number in range(1, used):
        value = hash_text(text, starts[number], starts[number + 1])
        at = value & last
        while slots[at] != 0:
            at = (at + np.uint64(1)) & last
        slots[at] = (value & ~_LOW) | np.uint64(number)
