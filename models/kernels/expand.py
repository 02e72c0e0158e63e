"""Rows of a compact table: only kept entries are stored, and a mask says in which columns they
stand.

Rows are sorted by how many entries they keep, so where a row's entries start is arithmetic: the
width of row r is the number of set bits of its mask, and

    start = offsets[width] + r * width.

The definition gathers in plain torch. On a processor with AVX-512 a numba loop spreads 16 values
at a time (`models.kernels.avx512`); `benchmarks/bench_serving.py` times it beside a lookup in a
dense table.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .eager import has_numba, runs_on_numba

log = logging.getLogger("pep")

PADDING = 16  # values behind the last that the loop may read
MOST_WORDS = 128  # of a row's mask (2,048 columns), for the loop
STORED = (torch.float32, torch.float16, torch.int8)  # types of values that the loop takes


@dataclass(frozen=True)
class Kept:
    """The kept entries of a table of R rows of width D, as the lookup reads them.

    Args:
        values: (E + PADDING,) float32, float16 or int8, row after row.
        masks: (R + 1, ceil(D / 16)) int16; bit j of a row's words: column j is kept. The last row
            keeps nothing.
        offsets: (D + 1,) int64, see above.
        scales: (R + 1,) float32 of int8 values; of none for the other types.
        width: D.
        places: (N,) whole numbers, the row of each id; of none where ids are rows, and an id of R
            or more is a row of zeros.
    """

    values: Tensor
    masks: Tensor
    offsets: Tensor
    scales: Tensor
    width: int
    places: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.uint8,
                                                               device="cpu"))

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Values, masks, offsets, scales and places as the loop takes them."""
        values = self.values.numpy()
        if values.dtype == np.float16:
            values = values.view(np.uint16)
        return (values, self.masks.numpy().view(np.uint16).reshape(-1), self.offsets.numpy(),
                self.scales.numpy(), self.places.numpy())

    @functools.cached_property
    def loop(self) -> Callable[..., int]:
        """The loop for its width."""
        from .avx512 import expand_of

        return expand_of(self.masks.shape[1])

    @functools.cached_property
    def has_loop(self) -> bool:
        """Whether the loop takes its values, on a CPU, and its rows are not too wide: compiling
        takes 4 s for 5,000 columns, and more than a minute for 60,000."""
        return (self.values.dtype in STORED and self.values.device.type == "cpu"
                and self.masks.shape[1] <= MOST_WORDS and has_avx512())


def offsets_of(counts: Tensor) -> Tensor:
    """The `offsets` of a table of which counts[k] rows keep k entries, (D + 1,) int64.

    >>> offsets_of(torch.tensor([0, 2, 1])).tolist()  # rows of 2, 1 and 1 entries
    [4, 1, 0]
    """
    rows = counts.long()
    widths = torch.arange(len(rows), device=rows.device)
    behind = rows.flip(0).cumsum(0).flip(0) - rows  # rows that are wider
    entries = (rows * widths).flip(0).cumsum(0).flip(0) - rows * widths
    return entries - behind * widths


@functools.cache
def has_avx512() -> bool:
    """Whether the processor spreads 16 values at once, and numba is there; the choice is logged."""
    flags = Path("/proc/cpuinfo")
    found = flags.exists() and " avx512f " in flags.read_text()
    found = found and has_numba()
    log.info("compact tables are looked up %s", "by mask (AVX-512)" if found
             else "as dense kept rows (no AVX-512, or no numba)")
    return found


def expand_rows(kept: Kept, ids: Tensor) -> Tensor:
    """Rows of a compact table, float32 (of other types than STORED: in their own).

    Args:
        kept: the table.
        ids: of any shape, int32 or int64.

    Returns:
        (*ids.shape, D).

    Raises:
        IndexError: an id is negative; or N or more, of a table with places.
        TypeError: ids are not whole numbers of 4 or 8 bytes.
    """
    if not (kept.has_loop and runs_on_numba(ids=ids)):
        found = expand_rows_plain(kept, ids)
        return found.float() if kept.values.dtype in STORED else found
    ids = _by_address(ids)
    out = torch.empty((*ids.shape, kept.width), dtype=torch.float32, device="cpu")
    wrong = kept.loop(*kept.arrays, ids.data_ptr(), ids.dtype == torch.int64, ids.numel(),
                      out.data_ptr(), kept.width)
    if wrong < 0:
        allowed = f"in 0 .. {len(kept.places) - 1}" if len(kept.places) else "0 or more"
        raise IndexError(f"ids must be {allowed}, got {int(ids.min())} .. {int(ids.max())}")
    return out


def _by_address(ids: Tensor) -> Tensor:
    """As loops read them from memory: one behind the other."""
    if ids.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"ids must be int32 or int64, got {ids.dtype}; convert them with .long()")
    return ids.contiguous()


def fm_rows(kept: Kept, weights: Tensor, bias: float, ids: Tensor) -> Tensor:
    """A factorisation machine over a compact table without places: what `models.kernels.fm.fm`
    gives of the rows that `expand_rows` finds, and the bias, by one loop that writes no vectors.
    For tables with `kept.has_loop`.

    Args:
        kept: the table.
        weights: (N,) float32, one for each id.
        bias: is added.
        ids: (B, F) int32 or int64.

    Returns:
        logits (B,).

    Raises:
        IndexError: an id is not in 0 .. N - 1.
        TypeError: ids are not whole numbers of 4 or 8 bytes.
    """
    from .avx512 import fm_of

    ids = _by_address(ids)
    logits = torch.empty(len(ids), dtype=torch.float32, device="cpu")
    loop = fm_of(kept.masks.shape[1])
    wrong = loop(*kept.arrays[:4], weights.numpy(), np.float32(bias), ids.reshape(-1).numpy(),
                 ids.shape[1], logits.numpy())
    if wrong < 0:
        raise IndexError(f"ids must be in 0 .. {len(weights) - 1}, got {int(ids.min())} .. "
                         f"{int(ids.max())}")
    return logits


def expand_rows_plain(kept: Kept, ids: Tensor) -> Tensor:
    """The definition of `expand_rows`; every size follows from that of `ids`, so that it can be
    traced and exported."""
    flat = ids.reshape(-1)
    # index_select refuses an id of -1
    row = kept.places.index_select(0, flat) if kept.places.shape[0] else flat
    row = row.long().clamp(max=kept.masks.shape[0] - 1)
    words = kept.masks.index_select(0, row).long()
    columns = torch.arange(16, device=ids.device)
    bits = (words[..., None] >> columns).bitwise_and(1).flatten(1)[:, :kept.width]
    width = bits.sum(dim=1)
    start = kept.offsets.index_select(0, width) + row * width
    # at a column that is not kept, of the next entry, or of the padding behind the last
    at = start[:, None] + bits.cumsum(1) - bits
    at = at * bits
    found = kept.values.index_select(0, at.flatten()).view(at.shape)
    found = torch.where(bits > 0, found, torch.zeros((), dtype=found.dtype, device=found.device))
    if kept.scales.shape[0]:
        found = found.float() * kept.scales.index_select(0, row)[:, None]
    return found.view(*ids.shape, kept.width)
