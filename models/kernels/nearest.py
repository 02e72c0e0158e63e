"""The nearest centroid of each part of a row (product quantisation).

The plain definition makes a distance for every id, subspace and centroid: 59 MB for 7,168 ids, 8 x
256. On a CPU a numba loop codes each distinct row of the batch once. A row's distances are summed
in the order of its entries wherever it stands, so that its codes never depend on the batch, and the
bits are those of the definition.
"""

import numpy as np
import torch
from torch import Tensor

from .batch_rows import renumber
from .jit import njit

CHUNK = 1 << 14  # ids coded at a time on a device: 134 MB of distances for 8 x 256


@njit(nogil=True)
def _code_rows(weight, rows, columns, allowed, codes):
    """codes[i, s] of the rows weight[rows[i]]; `columns` (S, D / S, K) are the centroids, K next to
    each other."""
    subspaces, width, _ = columns.shape
    distances = np.empty(columns.shape[2], np.float32)
    for i in range(rows.size):
        row, limit = rows[i], int(allowed[rows[i], 0])
        for s in range(subspaces):
            distances[:limit] = 0.0
            for d in range(width):
                value = weight[row, s * width + d]
                for k in range(limit):
                    difference = value - columns[s, d, k]
                    distances[k] += difference * difference
            best = 0
            for k in range(1, limit):
                if distances[k] < distances[best]:
                    best = k
            codes[i, s] = best


def nearest(weight: Tensor, ids: Tensor, centroids: Tensor, allowed: Tensor) -> Tensor:
    """Number of the centroid with the least Euclidean distance to each part of each row; the lower
    of two equals.

    Args:
        weight: (N, D).
        ids: (B, F) integers below N.
        centroids: (S, K, D / S).
        allowed: (N, 1) floats, how many of the K each row may use, 1 .. K: the first ones.

    Returns:
        (B, F, S) int64 codes.

    Raises:
        IndexError: an id that is not in 0 .. N-1, on a CPU.
    """
    if weight.device.type != "cpu":
        parts = [nearest_plain(weight, part, centroids, allowed)
                 for part in ids.reshape(-1, 1).split(CHUNK)]
        return torch.cat(parts).view(*ids.shape, -1)
    flat = ids.reshape(-1).numpy()
    unique, local = np.empty(flat.size, np.int32), np.empty(flat.size, np.int32)
    count = renumber(flat, np.zeros(len(weight), np.int32), unique, local)
    if count < 0:
        raise IndexError(f"the id {flat[-1 - count]} is out of range: the table has {len(weight)} "
                         f"rows")
    codes = np.empty((count, len(centroids)), np.int64)
    columns = centroids.transpose(1, 2).contiguous()
    _code_rows(weight.contiguous().numpy(), unique[:count], columns.numpy(), allowed.numpy(), codes)
    return torch.from_numpy(codes[local]).view(*ids.shape, len(centroids))


def nearest_plain(weight: Tensor, ids: Tensor, centroids: Tensor, allowed: Tensor) -> Tensor:
    """The definition of `nearest`."""
    rows = weight[ids.long()].unflatten(-1, (centroids.shape[0], -1))  # (B, F, S, D / S)
    distances = rows.new_zeros((*rows.shape[:3], centroids.shape[1]))  # (B, F, S, K)
    for d in range(centroids.shape[2]):
        difference = rows[..., d, None] - centroids[:, :, d]
        distances += difference * difference
    # (B, F, 1, K)
    forbidden = torch.arange(centroids.shape[1],
                             device=ids.device) >= allowed[ids.long()][..., None]
    return distances.masked_fill(forbidden, torch.inf).argmin(-1)
