"""Rows of a compact table: only kept entries are stored, and a mask says in which columns they
stand.

Rows are sorted by how many entries they keep, so where a row's entries start is arithmetic: the
width of row r is the number of set bits of its mask, and

    start = starts[width] + (r - firsts[width]) * width.

The definition gathers in plain torch. On a processor with AVX-512 a numba loop spreads 16 values
at a time (`models.kernels.avx512`); 1,024 x 7 rows of 64, one core of an AMD EPYC: 0.054 ms float32
and 0.050 ms float16, where a lookup in a dense float32 table takes 0.067 ms.
"""

import functools
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .eager import runs_on_numba

log = logging.getLogger("pep")

PADDING = 16  # values behind the last that the loop may read


@dataclass(frozen=True)
class Kept:
    """The kept entries of a table of R rows of width D, as the lookup reads them.

    Args:
        values: (E + PADDING,) float32, float16 or int8, row after row.
        masks: (R, ceil(D / 64)) int64; bit j of a row's words: column j is kept.
        firsts, starts: (D + 1,) int64, for each width the first row that has it and where that
            row's values start.
        scales: (R,) float32 of int8 values; of none for the other types.
        width: D.
    """

    values: Tensor
    masks: Tensor
    firsts: Tensor
    starts: Tensor
    scales: Tensor
    width: int


@functools.cache
def has_avx512() -> bool:
    """Whether the processor spreads 16 values at once, and numba is there; the choice is logged."""
    flags = Path("/proc/cpuinfo")
    found = flags.exists() and " avx512f " in flags.read_text()
    found = found and importlib.util.find_spec("numba") is not None
    log.info("compact tables are looked up %s", "by mask (AVX-512)" if found
             else "as dense kept rows (no AVX-512, or no numba)")
    return found


@functools.cache
def _loop() -> Callable[..., Any]:
    from .avx512 import popcount, spread
    from .jit import njit

    @njit(nogil=True, error_model="numpy")
    def expand(values, masks, firsts, starts, scales, ids, out, width):
        rows, words = masks.shape
        for i in range(ids.size):
            row = ids[i]
            place = i * width
            if row < 0:
                return i
            if row >= rows:
                out[place:place + width] = np.float32(0)
                continue
            kept = 0
            for word in range(words):
                kept += popcount(masks[row, word])
            at = starts[kept] + (row - firsts[kept]) * kept
            scale = scales[row] if scales.size else np.float32(1)
            end = place + width
            for word in range(words):
                mask = masks[row, word]
                for _ in range(4):
                    if place >= end:
                        break
                    spread(values, at, mask, scale, out, place, min(end - place, 16))
                    at += popcount(mask & np.uint64(0xffff))
                    mask >>= np.uint64(16)
                    place += 16
        return -1

    return expand


def expand_rows(kept: Kept, ids: Tensor) -> Tensor:
    """Rows of a compact table, float32; an id of R or more is a row of zeros.

    Args:
        kept: the table.
        ids: of any shape, int32 or int64.

    Returns:
        (*ids.shape, D).

    Raises:
        IndexError: an id is negative.
    """
    if not runs_on_numba() or ids.device.type != "cpu" or not has_avx512():
        return expand_rows_plain(kept, ids)
    flat = ids.reshape(-1)
    out = torch.empty(flat.shape[0] * kept.width)
    values = kept.values.numpy()
    if values.dtype == np.float16:
        values = values.view(np.uint16)
    wrong = _loop()(values, kept.masks.numpy().view(np.uint64), kept.firsts.numpy(),
                    kept.starts.numpy(), kept.scales.numpy(), flat.numpy(), out.numpy(), kept.width)
    if wrong >= 0:
        raise IndexError(f"ids must not be negative, got {int(flat[wrong])}")
    return out.view(*ids.shape, kept.width)


def expand_rows_plain(kept: Kept, ids: Tensor) -> Tensor:
    """The definition of `expand_rows`."""
    rows = len(kept.masks)
    if ids.numel() and int(ids.min()) < 0:
        raise IndexError(f"ids must not be negative, got {int(ids.min())}")
    flat = ids.reshape(-1).long()
    there = flat < rows
    flat = flat[there]
    bits = (kept.masks[flat][..., None] >> torch.arange(64)) & 1  # (n, words, 64)
    bits = bits.flatten(1)[:, :kept.width]
    width = bits.sum(dim=1)
    start = kept.starts[width] + (flat - kept.firsts[width]) * width
    at = start[:, None] + bits.cumsum(1) - 1
    found = kept.values[torch.where(bits > 0, at, 0)].float() * bits
    if len(kept.scales):
        found = found * kept.scales[flat][:, None]
    out = torch.zeros(there.shape[0], kept.width)
    out[there] = found
    return out.view(*ids.shape, kept.width)
