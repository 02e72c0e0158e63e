"""Distinct values of one field, numbered in the order in which they come and counted."""

import numpy as np

from data.raw.parse import MISSING
from models.kernels.jit import njit

# keys fit in 32 bits, signed or not, and a field is all one or all the other
_KEY_BITS = 0xFFFFFFFF
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class ValueCounter:
    """A hash table from key to number. Number 0 is MISSING, whether or not it comes.

    A slot is one 64-bit word, key and number together, so that a look-up of a rare value costs one
    cache miss. Tens of millions of values take about 40 bytes each.

    >>> counter = ValueCounter()
    >>> counter.add(np.array([7, 5, 7, MISSING])).tolist()
    [1, 2, 1, 0]
    >>> counter.values.tolist()[1:], counter.counts.tolist()
    ([7, 5], [1, 2, 1])
    """

    def __init__(self) -> None:
        self._slots = np.zeros(1 << 10, np.uint64)
        self._shift = np.uint64(64 - 10)  # the home slot is the top bits of key times golden ratio
        self._values = np.empty(len(self._slots) // 2, np.int64)
        self._counts = np.zeros(len(self._slots) // 2, np.int64)
        self._values[0] = MISSING
        self._used = 1

    @property
    def values(self) -> np.ndarray:
        """(numbers,) int64 keys."""
        return self._values[:self._used]

    @property
    def counts(self) -> np.ndarray:
        """(numbers,) int64."""
        return self._counts[:self._used]

    def add(self, keys: np.ndarray) -> np.ndarray:
        """Count keys (rows,) int64; their numbers (rows,) int32."""
        numbers = np.empty(len(keys), np.int32)
        done = 0
        while True:
            done, self._used = _add(keys, done, self._slots, self._shift, self._values,
                                    self._counts, self._used,
                                    numbers)
            if done == len(keys):
                return numbers
            self._grow()

    def extend(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Count distinct keys (n,), each so many times; their numbers (n,) int32.

        >>> counter, other = ValueCounter(), ValueCounter()
        >>> ids = counter.add(np.array([7, 5])), other.add(np.array([9, 5, 5]))
        >>> counter.extend(other.values, other.counts)[ids[1]].tolist(), counter.counts.tolist()
        ([3, 2, 2], [0, 1, 3, 1])
        """
        numbers = self.add(values)
        self._counts[numbers] += counts - 1
        return numbers

    def _grow(self) -> None:
        slots = np.zeros(2 * len(self._slots), np.uint64)
        self._shift -= np.uint64(1)
        _move(self._slots, slots, self._shift)
        self._slots = slots
        self._values = np.concatenate([self._values, np.empty_like(self._values)])
        self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])

    def codes(self, counts: np.ndarray, min_count: int) -> tuple[np.ndarray, int]:
        """The code of each number, and how many values are known.

        Known are those that `counts` (numbers,) gives at least `min_count`, by falling count and
        then by value; the others share the code behind them.
        """
        known = np.flatnonzero(counts >= max(min_count, 1))
        known = known[np.lexsort((self.values[known], -counts[known]))]
        codes = np.full(self._used, len(known), np.int32)
        codes[known] = np.arange(len(known), dtype=np.int32)
        return codes, len(known)


@njit(nogil=True)
def _add(keys, start, slots, shift, values, counts, used, numbers):
    """(keys done, values used); stops before a new value when the table is half full."""
    last = len(slots) - 1
    for i in range(start, len(keys)):
        if keys[i] == MISSING:
            numbers[i] = 0
            counts[0] += 1
            continue
        key = np.uint64(keys[i] & _KEY_BITS)
        at = np.int64((key * _GOLDEN) >> shift)
        while slots[at] != 0 and slots[at] >> np.uint64(32) != key:
            at = (at + 1) & last
        if slots[at] == 0:
            if used == len(values):
                return i, used
            slots[at] = key << np.uint64(32) | np.uint64(used)
            values[used] = keys[i]
            used += 1
        number = np.int64(slots[at] & np.uint64(_KEY_BITS))
        numbers[i] = number
        counts[number] += 1
    return len(keys), used


@njit(nogil=True)
def _move(old, new, shift):
    last = len(new) - 1
    for slot in old:
        if slot != 0:
            at = np.int64(((slot >> np.uint64(32)) * _GOLDEN) >> shift)
            while new[at] != 0:
                at = (at + 1) & last
            new[at] = slot
