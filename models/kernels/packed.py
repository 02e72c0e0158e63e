"""Rows of a packed table: codes of 1 to 8 bits, unpacked where they are asked for.

A row's codes stand side by side in a stream of bits, lowest bits first; all rows of one slot (a
class of a field) have the same number of bits in each column, so where a row starts is arithmetic.
The definition takes a window of two bytes around each code; the numba loop walks through a row, and
copies a row that the batch has had before. `benchmarks/bench_packed.py` times both.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .deferred import njit
from .eager import runs_on_numba


@dataclass(frozen=True)
class Slots:
    """Where rows lie in the stream and what their bits mean; S slots in the order of rows.

    Args:
        first: (S + 1,) int64, the first row of each slot, and the number of rows.
        start: (S,) int64, the bit at which its first row starts.
        width: (S,) int64, bits of a row.
        bits: (S, D) uint8.
        steps: (S, D) float32.
    """

    first: np.ndarray
    start: np.ndarray
    width: np.ndarray
    bits: np.ndarray
    steps: np.ndarray

    @cached_property
    def kept(self) -> tuple[np.ndarray, ...]:
        """Of the columns that have bits, slot by slot: where each slot ends (S + 1,), and column,
        bits and step of each."""
        slots, columns = np.nonzero(self.bits)
        ends = np.concatenate([[0], np.cumsum((self.bits > 0).sum(axis=1))]).astype(np.int64)
        return (ends, columns.astype(np.int32), self.bits[slots, columns].astype(np.int32),
                self.steps[slots, columns])

    @cached_property
    def before(self) -> np.ndarray:
        """(S, D) int64, the bit of a row at which each column starts."""
        return np.cumsum(self.bits, axis=1, dtype=np.int64) - self.bits


    @cached_property
    def of_row(self) -> np.ndarray:
        """(N,) the slot of each row, in the fewest bytes."""
        count = len(self.first) - 1
        return np.repeat(np.arange(count, dtype=np.min_scalar_type(count)), np.diff(self.first))

    @cached_property
    def at(self) -> np.ndarray:
        """(N,) int32, where a row stood in the last batch; what stands there is checked, so it may
        be anything."""
        return np.zeros(int(self.first[-1]), np.int32)


@njit(nogil=True, error_model="numpy")
def _unpack(words, first, start, width, of_row, ends, columns, bits, steps, at, ids, out):
    for i in range(ids.size):
        row = ids[i]
        if row < 0 or row >= of_row.size:
            return i
        vector, before = out[i], at[row]
        if before < i and ids[before] == row:  # unpacked already
            for d in range(vector.size):
                vector[d] = out[before, d]
            continue
        at[row] = i
        slot = of_row[row]
        for d in range(vector.size):
            vector[d] = 0
        begin = start[slot] + (row - first[slot]) * width[slot]
        word = begin >> 5
        shift = np.uint64(begin & 31)
        left = np.uint64(words[word]) >> shift
        have = 32 - np.int64(shift)
        word += 1
        for place in range(ends[slot], ends[slot + 1]):
            own = np.int64(bits[place])
            if have < own:
                left |= np.uint64(words[word]) << np.uint64(have)
                have += 32
                word += 1
            code = np.int64(left & np.uint64((1 << own) - 1))
            left >>= np.uint64(own)
            have -= own
            level = np.float32(code - (1 << (own - 1))) + np.float32(0.5)
            vector[columns[place]] = level * steps[place]
    return -1


def unpack_rows(stream: np.ndarray, slots: Slots, ids: Tensor) -> Tensor:
    """Rows of a packed table, float32.

    Args:
        stream: uint8, codes; at least 8 bytes longer than what is read of it, and of a length that
            4 divides.
        slots: of the table.
        ids: (B, F), or of any shape; rows in the order of the packed table.

    Returns:
        (B, F, D).

    Raises:
        IndexError: an id that is not in 0 .. N-1.
    """
    if not runs_on_numba():
        return unpack_rows_plain(stream, slots, ids)
    flat = ids.detach().cpu().reshape(-1)
    out = torch.empty(flat.numel(), slots.bits.shape[1])
    wrong = _unpack(stream.view(np.uint32), slots.first, slots.start, slots.width, slots.of_row,
                    *slots.kept, slots.at, flat.numpy(), out.numpy())
    if wrong >= 0:
        _refuse(int(flat[wrong]), slots)
    return out.view(*ids.shape, -1)


def unpack_rows_plain(stream: np.ndarray, slots: Slots, ids: Tensor) -> Tensor:
    """The definition of `unpack_rows`."""
    first = torch.from_numpy(slots.first)
    flat = ids.detach().cpu().reshape(-1).long()
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < int(first[-1]):
        _refuse(int(flat.min() if flat.min() < 0 else flat.max()), slots)
    rows, again = torch.unique(flat, return_inverse=True)
    slot = torch.searchsorted(first, rows, right=True) - 1
    begin = (torch.from_numpy(slots.start)[slot]
             + (rows - first[slot]) * torch.from_numpy(slots.width)[slot])
    place = begin[:, None] + torch.from_numpy(slots.before)[slot]
    bits = torch.from_numpy(slots.bits)[slot].long()
    codes = torch.from_numpy(stream).long()
    window = codes[place >> 3] | codes[(place >> 3) + 1] << 8
    code = window >> (place & 7) & (1 << bits) - 1
    level = (code - (1 << bits >> 1)).float() + 0.5
    values = torch.where(bits > 0, level * torch.from_numpy(slots.steps)[slot], 0.0)
    return values[again].view(*ids.shape, -1)


def _refuse(row: int, slots: Slots) -> None:
    raise IndexError(f"the packed table has {int(slots.first[-1])} rows, ids are 0 .. "
                     f"{int(slots.first[-1]) - 1}; got {row}")
