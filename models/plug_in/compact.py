"""A pruned table stored by its entries that are not zero, for inference."""

from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.eager import recorded
from ..kernels.expand import PADDING, Kept, expand_rows, offsets_of
from .table import Plain, PluggedTable

WORD = 16  # columns to a word of a mask


def smallest_integer(limit: int) -> torch.dtype:
    """The narrowest type that holds 0 .. limit.

    >>> smallest_integer(255), smallest_integer(256)
    (torch.uint8, torch.int16)
    """
    fitting = [kind for kind in (torch.uint8, torch.int16, torch.int32)
               if limit <= torch.iinfo(kind).max]
    return fitting[0] if fitting else torch.int64


def places_of(rows: Tensor, total: int) -> Tensor:
    """Where each of so many rows stands among `rows` (R,), (total,); R for those that do not.

    >>> places_of(torch.tensor([2, 0]), 4).tolist()
    [1, 2, 0, 2]
    """
    count = len(rows)
    places = torch.full((total,), count, dtype=smallest_integer(count), device=rows.device)
    places[rows] = torch.arange(count, device=rows.device).to(places.dtype)
    return places


class CompactTable(PluggedTable):
    """A pruned table by its kept entries: the form that exported models have (see
    `models.serving.compact`), with a place for each row, as the ids are the user's.

    It gives the same vectors and is not trained. An entry takes its own bytes, a row with entries a
    bit for each column (in words of 16), and every row 1, 2 or 4 bytes for its place.

    Args:
        plain: the module that was there; kept is a copy of it without its weight.
        table: (N, D).

    >>> table = torch.tensor([[0.0, 5.0], [0.0, 0.0], [6.0, 7.0]])
    >>> compact = CompactTable(nn.Embedding(3, 2), table)
    >>> compact(torch.tensor([2, 0])).tolist(), compact.num_params()
    ([[6.0, 7.0], [0.0, 5.0]], 3)
    """

    entries: Tensor  # (E + PADDING,) row after row, the widest rows first
    masks: Tensor  # (R + 1, words) int16; the last row keeps nothing
    places: Tensor  # (N,) which of these each row is
    _made: tuple[tuple[int, ...], Kept] | None = None
    offsets: Tensor  # (D + 1,) int64, by width; see `models.kernels.expand`

    def __init__(self, plain: Plain, table: Tensor) -> None:
        super().__init__(plain)
        self.plain = (self.shell(),)  # or the dense table would stay in memory
        mask = table != 0
        widths = mask.sum(dim=1)
        order = torch.argsort(widths, descending=True, stable=True)
        order = order[:int(torch.count_nonzero(widths))]
        self._hold(table[order][mask[order]], _words(mask[order]), places_of(order, len(table)),
                   torch.bincount(widths[order], minlength=table.shape[1] + 1))

    def _hold(self, entries: Tensor, masks: Tensor, places: Tensor, counts: Tensor) -> None:
        """Register the buffers.

        Args:
            counts: (D + 1,) rows of each width.
        """
        self.register_buffer("entries", torch.cat([entries, entries.new_zeros(PADDING)]))
        self.register_buffer("masks", torch.cat([masks, masks.new_zeros((1, masks.shape[1]))]))
        self.register_buffer("places", places)
        self.register_buffer("offsets", offsets_of(counts))

    def table(self) -> Tensor:
        """(N, D), made from the entries."""
        return self.vectors(torch.arange(self.num_embeddings, device=self.entries.device))

    def vectors(self, ids: Tensor) -> Tensor:
        """ids of any shape -> (*ids.shape, D).

        Raises:
            TypeError: ids that torch's lookup would not take either.
            IndexError: an id outside 0 .. N-1, on a CPU.
        """
        if ids.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"ids must be int32 or int64, got {ids.dtype}; convert them with "
                            f".long()")
        seen = recorded()
        kept = self._as_kept() if seen else self._kept_once()
        if ids.device.type == "cpu" and not seen and ids.numel() and not kept.has_loop:
            low, high = int(ids.min()), int(ids.max())
            if not 0 <= low <= high < self.num_embeddings:
                raise IndexError(f"ids must be in 0 .. {self.num_embeddings - 1}, got {low} .. "
                                 f"{high}")
        # of half precision the kernel gives float32, where the plain module does not
        return expand_rows(kept, ids).to(self.entries.dtype)

    def _as_kept(self) -> Kept:
        no_scales = torch.zeros(0, device=self.entries.device)
        return Kept(self.entries, self.masks, self.offsets, no_scales, self.embedding_dim,
                    self.places)

    def _kept_once(self) -> Kept:
        """The same, made again when a buffer has moved: making it takes longer than a row."""
        where = (self.entries.data_ptr(), self.masks.data_ptr(), self.offsets.data_ptr(),
                 self.places.data_ptr())
        if self._made is None or self._made[0] != where:
            self._made = where, self._as_kept()
        return self._made[1]

    def __getstate__(self) -> dict[str, Any]:
        """Copied and saved without addresses."""
        return {name: value for name, value in self.__dict__.items() if name != "_made"}

    def num_params(self) -> int:
        """Its entries, those of a padding row aside."""
        count = self.entries.shape[0] - PADDING
        if self.padding_idx is not None:
            padding = torch.tensor([self.padding_idx], device=self.entries.device)
            count -= int(torch.count_nonzero(self.vectors(padding)))
        return count

    def num_bytes(self) -> int:
        """Bytes of all that it stores."""
        return sum(stored.numel() * stored.element_size() for stored in self.buffers())

    def restore(self) -> Plain:
        """The module that was there, with a new Parameter that holds the table."""
        (plain,) = self.plain
        plain.weight = nn.Parameter(self.table())
        return plain


def _words(mask: Tensor) -> Tensor:
    """Masks (R, D) of bool as words (R, ceil(D / 16)) int16, the first column the lowest bit.

    >>> _words(torch.tensor([[True, False, True]])).tolist()
    [[5]]
    """
    words = -(-mask.shape[1] // WORD)
    padded = nn.functional.pad(mask, (0, words * WORD - mask.shape[1])).view(-1, words, WORD)
    found = torch.zeros(padded.shape[:2], dtype=torch.int32, device=mask.device)
    for bit in range(WORD):  # one at a time: no array of a word for each entry
        found |= padded[:, :, bit].int() << bit
    return found.to(torch.int16)
