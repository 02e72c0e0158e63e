"""The rows of a batch, each once, and the batch's ids renumbered to them.

With the rows that a batch holds copied into a small table, everything after is done on that table:
thresholds are taken once a row however often it comes, and nothing of the whole table's size is
made. The definition is `torch.unique`, but
for the order: rows stand in the order in which they first come.
"""

import numpy as np
import torch
from torch import Tensor

from .jit import njit


@njit(nogil=True)
def renumber(ids, slots, unique, local):
    """Number the distinct ids of a batch from 0 in the order of their first coming.

    Args:
        ids: (n,) integers.
        slots: (N,) int32, any content; afterwards slots[r] is the number of each id r of the batch.
            Whether a row is in the batch is seen from `unique` (a sparse set, Briggs & Torczon
            1993), so that it need not be cleared.
        unique: (n or more,) int32; the first U are the distinct ids.
        local: (n,) int32, the renumbered ids.

    Returns:
        U; or -1 - i when ids[i] is the first that is not in 0 .. N-1.

    >>> local = np.zeros(3, np.int32)
    >>> slots, unique = np.zeros(9, np.int32), np.zeros(3, np.int32)
    >>> renumber(np.array([7, 2, 7], np.int32), slots, unique, local), local.tolist()
    (2, [0, 1, 0])
    """
    count = 0
    for i in range(ids.size):
        row = ids[i]
        if row < 0 or row >= slots.size:
            return -1 - i
        slot = slots[row]
        if slot >= count or unique[slot] != row:
            slot = count
            slots[row] = slot
            unique[slot] = row
            count += 1
        local[i] = slot
    return count


def distinct(ids: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """The distinct ids of a batch, and which of them stands at each place.

    Args:
        ids: (B, F) integers below num_rows.

    Returns:
        (U,) and (B, F): `distinct[places]` are the ids.

    Raises:
        IndexError: an id that is not in 0 .. num_rows-1, on a CPU.

    >>> distinct(torch.tensor([[7, 2], [7, 3]]), 9)[1].tolist()
    [[0, 1], [0, 2]]
    """
    if ids.device.type != "cpu":
        return torch.unique(ids, return_inverse=True)
    flat = ids.numpy().reshape(-1)
    unique, local = np.empty(flat.size, np.int32), np.empty(ids.shape, np.int32)
    count = renumber(flat, np.zeros(num_rows, np.int32), unique, local.reshape(-1))
    if count < 0:
        raise IndexError(f"the id {flat[-1 - count]} is out of range: the table has {num_rows} "
                         f"rows")
    return torch.from_numpy(unique[:count]), torch.from_numpy(local)


def first_places(ids: Tensor, slots: Tensor) -> Tensor:
    """Renumber the ids of a batch, on any device, in shapes that do not depend on them: to where
    each first stands.

    The number of distinct ids, which a device would have to be waited for, is not asked. The least
    of the places that threads offer for an id does not depend on their order.

    Args:
        ids: (n,) int64.
        slots: (N,) int32, any content; places of this batch's ids are written over.

    Returns:
        (n,) int32, the first i at which ids[i] stands, for each id.

    >>> first_places(torch.tensor([7, 2, 7, 2]), torch.zeros(9, dtype=torch.int32)).tolist()
    [0, 1, 0, 1]
    """
    slots.index_fill_(0, ids, len(ids))
    slots.scatter_reduce_(0, ids, torch.arange(len(ids), dtype=torch.int32, device=ids.device),
                          "amin")
    return slots.index_select(0, ids)


@njit(nogil=True)
def blocks_of(rows, size, listed_in, stamp, blocks):
    """The distinct blocks of `size` rows that hold the given rows; returns how many.

    Args:
        listed_in: (number of blocks,) int64; becomes `stamp` for each block found, and must not
            hold it before.
        blocks: (number of blocks,) int32; the first ones become the blocks found, in order of first
            coming.
    """
    count = 0
    for i in range(rows.size):
        block = rows[i] // size
        if listed_in[block] != stamp:
            listed_in[block] = stamp
            blocks[count] = block
            count += 1
    return count


@njit(nogil=True, fastmath={"reassoc"})
def sum_of_squares(values):
    """Sum of the squares of (rows, D), rows summed up one after the other in double precision."""
    total = np.float64(0.0)
    for row in range(values.shape[0]):
        part = np.float32(0.0)
        for d in range(values.shape[1]):
            part += values[row, d] * values[row, d]
        total += part
    return total


@njit(nogil=True)
def copy_rows(table, rows, out):
    """out[i] = table[rows[i]]."""
    for i in range(rows.size):
        source, target = table[rows[i]], out[i]  # so that the loop below is one of vectors
        for d in range(target.size):
            target[d] = source[d]
