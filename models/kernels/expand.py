"""Rows of a compact table: only kept entries are stored, and a mask says in which columns they
stand.

Rows are sorted by how many entries they keep, so where a row's entries start is arithmetic: the
width of row r is the number of set bits of its mask, and

    start = starts[width] + (r - firsts[width]) * width.

The definition gathers in plain torch. On a processor with AVX-512 a numba loop spreads 16 values
at a time (`models.kernels.avx512`); rows of 64, one core of an AMD EPYC, against a lookup in a
dense float32 table: 1,024 x 7 ids 0.072 ms float32 and 0.071 ms float16 against 0.053 ms,
16,384 x 7 ids 2.1 ms each against 1.8 ms (`benchmarks/bench_serving.py`).
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
        masks: (R, ceil(D / 16)) int16; bit j of a row's words: column j is kept.
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

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Values, masks, firsts, starts and scales as the loop takes them."""
        values = self.values.numpy()
        if values.dtype == np.float16:
            values = values.view(np.uint16)
        return (values, self.masks.numpy().view(np.uint16), self.firsts.numpy(),
                self.starts.numpy(), self.scales.numpy())


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
        whole = width // 16
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
                kept += popcount(np.uint64(masks[row, word]))
            at = starts[kept] + (row - firsts[kept]) * kept
            scale = scales[row] if scales.size else np.float32(1)
            for word in range(whole):
                mask = np.uint64(masks[row, word])
                spread(values, at, mask, scale, out, place, 16)
                at += popcount(mask)
                place += 16
            if whole < words:
                mask = np.uint64(masks[row, whole])
                spread(values, at, mask, scale, out, place, width - 16 * whole)
        return -1

    return expand


def expand_rows(kept: Kept, ids: Tensor) -> Tensor:
    """Rows of a compact table, float32 (of other types than Kept's: in their own); an id of R or
    more is a row of zeros.

    Args:
        kept: the table.
        ids: of any shape, int32 or int64.

    Returns:
        (*ids.shape, D).

    Raises:
        IndexError: an id is negative.
    """
    fast = kept.values.dtype in (torch.float32, torch.float16, torch.int8)
    if not (fast and runs_on_numba() and ids.device.type == "cpu" and has_avx512()):
        found = expand_rows_plain(kept, ids)
        return found.float() if fast else found
    flat = ids.reshape(-1)
    out = torch.empty(flat.shape[0] * kept.width)
    wrong = _loop()(*kept.arrays, flat.numpy(), out.numpy(), kept.width)
    if wrong >= 0:
        raise IndexError(f"ids must not be negative, got {int(flat[wrong])}")
    return out.view(*ids.shape, kept.width)


def expand_rows_plain(kept: Kept, ids: Tensor) -> Tensor:
    """The definition of `expand_rows`; every size follows from that of `ids`, so that it can be
    traced and exported."""
    rows = kept.masks.shape[0]
    nothing = kept.masks.new_zeros((1, kept.masks.shape[1]))
    flat = ids.reshape(-1).clamp(max=rows)
    places = torch.arange(16, device=ids.device)
    # index_select refuses an id of -1
    words = torch.cat([kept.masks, nothing]).index_select(0, flat).long()
    bits = (words[..., None] >> places).bitwise_and(1).flatten(1)[:, :kept.width]
    width = bits.sum(dim=1)
    row = flat.to(width.dtype)
    start = kept.starts.index_select(0, width) + (
        row - kept.firsts.index_select(0, width)) * width
    # at a column that is not kept, of the next entry, or of the padding behind the last
    at = start[:, None] + bits.cumsum(1) - bits
    at = at * bits
    found = kept.values.index_select(0, at.flatten()).view(at.shape)
    found = torch.where(bits > 0, found, torch.zeros((), dtype=found.dtype, device=found.device))
    if kept.scales.shape[0]:
        scales = torch.cat([kept.scales, kept.scales.new_zeros(1)])
        found = found.float() * scales.index_select(0, flat)[:, None]
    return found.view(*ids.shape, kept.width)
