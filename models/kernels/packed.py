"""Rows of a packed table: codes of 1 to 8 bits, unpacked where they are asked for.

A row's codes stand side by side in a stream of bits, lowest bits first; all rows of one slot (a
class of a field) have the same number of bits in each column, so where a row starts is arithmetic.
The definition takes a window of two bytes around each code; the loop unpacks each row of a batch
once, four columns at a time. `benchmarks/bench_packed.py` times both.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

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

    @cached_property
    def by_four(self) -> tuple[np.ndarray, ...]:
        """What `kernels.unpack` reads of the columns, of which it wants a multiple of four: those
        that are added have no bits."""
        own = np.pad(self.bits.astype(np.int64), ((0, 0), (0, -self.bits.shape[1] % 4)))
        before = np.cumsum(own, axis=1) - own
        groups = np.ascontiguousarray(before[:, ::4])
        halves = np.where(own > 0, 2.0 ** (own - 1) - 0.5, 0)
        steps = np.zeros(own.shape)
        steps[:, :self.steps.shape[1]] = self.steps
        return (groups, (before - np.repeat(groups, 4, axis=1)).astype(np.uint8).reshape(-1),
                ((1 << own) - 1).astype(np.uint8).reshape(-1),
                halves.astype(np.float32).reshape(-1), steps.astype(np.float32).reshape(-1))


def unpack_rows(stream: np.ndarray, slots: Slots, ids: Tensor) -> Tensor:
    """Rows of a packed table, float32.

    Args:
        stream: uint8, codes; at least 8 bytes longer than what is read of it.
        slots: of the table.
        ids: (B, F), or of any shape; rows in the order of the packed table.

    Returns:
        (B, F, D).

    Raises:
        IndexError: an id that is not in 0 .. N-1.
    """
    if not runs_on_numba(ids=ids):
        return unpack_rows_plain(stream, slots, ids)
    from .unpack import unpack  # numba takes long to import

    flat, width = ids.detach().cpu().reshape(-1), slots.bits.shape[1]
    groups, *columns = slots.by_four
    out = torch.empty(flat.numel(), 4 * groups.shape[1])
    wrong = unpack(stream, slots.first, slots.start, slots.width, slots.of_row, groups, *columns,
                   slots.at, flat.numpy(), out.numpy())
    if wrong >= 0:
        _refuse(int(flat[wrong]), slots)
    return out[:, :width].reshape(*ids.shape, width)


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
