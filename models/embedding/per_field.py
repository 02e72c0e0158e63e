"""A width for each field, without projections: what is left when fields or their dimensions have
been taken out."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from .base import TableEmbedding


class PerField(TableEmbedding):
    """Row i of field f is its own (d_f); a field of width 0 has no table. A deep branch reads the
    widths side by side.

    Only for models that read the deep input alone: vectors of several widths have no products.
    Fields of one width share a table, in the order of the fields.

    Args:
        initial: (N, D) values to start from; of field f the columns `kept[f]` are taken.
        sizes: (F,) rows of each field, N in all.
        kept: (F,) columns of each field that stay, rising; none for a field that is gone.

    Raises:
        ValueError: sizes and columns do not fit the table, or nothing is kept.

    >>> made = PerField(torch.arange(10.0).view(5, 2), (2, 3), ((0, 1), (1,)))
    >>> made.deep_input(torch.tensor([[1, 4]])).tolist(), made.num_params()
    ([[2.0, 3.0, 9.0]], 7)
    """

    row_indexed = None
    position: Tensor  # (N,) row in the table of the field's width; 0 for fields without one
    # (W,) where each column of the deep input stands when tables are read one after the other
    order: Tensor

    def __init__(self, initial: Tensor, sizes: Sequence[int],
                 kept: Sequence[Sequence[int]]) -> None:
        if sum(sizes) != len(initial) or len(kept) != len(sizes):
            raise ValueError(f"{len(kept)} lists of columns and fields of {list(sizes)} rows do "
                             f"not fit a table of {len(initial)} rows")
        every = list(chain.from_iterable(kept))
        if not every or min(every) < 0 or max(every) >= initial.shape[1]:
            raise ValueError(f"columns must lie in 0 .. {initial.shape[1] - 1}, and one must be "
                             f"kept; got {list(kept)}")
        super().__init__(initial.shape[0], initial.shape[1], len(sizes))
        self.sizes, self.kept = tuple(sizes), tuple(tuple(columns) for columns in kept)
        self.deep_width = sum(map(len, self.kept))
        widths = sorted({len(columns) for columns in self.kept} - {0})
        self.fields = [[f for f, columns in enumerate(self.kept) if len(columns) == width]
                       for width in widths]
        parts = torch.split(initial, list(sizes))
        self.tables = nn.ParameterList(torch.cat([parts[f][:, list(self.kept[f])] for f in fields])
                                       for fields in self.fields)
        position = [torch.zeros(size, dtype=torch.int32) for size in sizes]
        for fields in self.fields:
            for first, f in zip(self._starts(fields), fields, strict=True):
                position[f] = torch.arange(first, first + sizes[f], dtype=torch.int32)
        self.register_buffer("position", torch.cat(position), persistent=False)
        self.register_buffer("order", self._order(), persistent=False)

    def _starts(self, fields: Sequence[int]) -> list[int]:
        return [sum(self.sizes[f] for f in fields[:number]) for number in range(len(fields))]

    def _order(self) -> Tensor:
        """The columns of the tables' vectors side by side, as the deep input wants them."""
        owner: list[int] = []
        for f in chain.from_iterable(self.fields):
            owner += [f] * len(self.kept[f])
        return torch.tensor(owner).argsort(stable=True)

    def deep_input(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """(B, W), W the sum of the widths; `vectors` is not looked at."""
        at = self.position.index_select(0, ids.reshape(-1)).view(ids.shape)
        read = [lookup(table, at[:, fields]).flatten(1)
                for table, fields in zip(self.tables, self.fields, strict=True)]
        return read[0] if len(read) == 1 else torch.cat(read, 1).index_select(1, self.order)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D), each value in its column and zeros in the others."""
        full = torch.zeros((*ids.shape, self.width), device=ids.device)
        fields: list[int] = []
        for f, columns in enumerate(self.kept):
            fields += [f] * len(columns)
        full[:, fields, list(chain.from_iterable(self.kept))] = self.deep_input(ids)
        return full

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        full = self.position.new_zeros((self.num_rows, self.width), dtype=torch.float32)
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        for table, fields in zip(self.tables, self.fields, strict=True):
            for first, f in zip(self._starts(fields), fields, strict=True):
                full[ends[f] - self.sizes[f]:ends[f],
                     list(self.kept[f])] = table[first:first + self.sizes[f]]
        return full

    @torch.no_grad()
    def num_params(self) -> int:
        """The values of the tables."""
        return sum(table.numel() for table in self.tables)

    def inference_bytes(self) -> int:
        """Values at 4 bytes."""
        return 4 * self.num_params()
