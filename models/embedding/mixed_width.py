"""Rows of several widths, each lifted to the common width by its group's own linear map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from .base import Draw, TableEmbedding


class Mixed(TableEmbedding):
    """Row i of group k, of width d_k, is x_i P_k: x_i is its own (d_k), P_k its group's (d_k, D),
    without a bias.

    A group of width D has no P_k (Ginart et al. 2019), one of width 0 is rows that are all zero. A
    group without rows holds nothing. Any partition of the rows will do: by popularity (`mde`), or
    by what a search chose.

    Differs from the published code, which draws each group's rows by the group's own size: here a
    row starts from the first d_k entries of its row of V0, so that popular rows, of which there are
    few, do not start several times as large as in the other schemes, and a row of width D starts
    where a uniform one does.

    Args:
        group: (N,) whole numbers, the group of each row.
        widths: d_k of each group, 0 .. D.
        width: D.
        draw: gives V0, drawn first, and then the P_k.
        num_fields: F.

    Raises:
        ValueError: a group without a width, a width that is not in 0 .. D, or no row with a width
            above 0.

    >>> from .base import initial_table
    >>> generator = torch.Generator().manual_seed(1)
    >>> mixed = Mixed(torch.tensor([0, 1, 1, 2]), (4, 1, 0), 4,
    ...               lambda *size: initial_table(*size, generator), 1)
    >>> mixed.num_params(), mixed.table().shape  # 1 x 4, 2 x 1, and the map 1 x 4
    (10, torch.Size([4, 4]))
    """

    row_indexed = None
    # (N,) where a row lies when the groups stand one below the other; all zero rows are the last
    position: Tensor

    def __init__(self, group: Tensor, widths: Sequence[int], width: int, draw: Draw,
                 num_fields: int) -> None:
        _check(group, widths, width)
        super().__init__(len(group), width, num_fields)
        own = torch.tensor(widths)[group.long()]  # (N,) width of each row
        narrow = [number for number, each in enumerate(widths) if 0 < each < width
                  and (group == number).any()]
        groups = [(group == number).nonzero()[:, 0] for number in narrow]
        if (own == width).any():
            groups.append((own == width).nonzero()[:, 0])
        initial = draw(self.num_rows, width)
        self.tables = nn.ParameterList(initial[rows, :int(own[rows[0]])].clone() for rows in groups)
        self.projections = nn.ParameterList(draw(widths[number], width) for number in narrow)
        order = torch.cat(groups)
        position = torch.full((self.num_rows,), len(order), dtype=torch.int32)
        position[order] = torch.arange(len(order), dtype=torch.int32)
        self.register_buffer("position", position)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D).

        The whole table may be made first, or each group be asked for every id; the one that touches
        fewer entries is.
        """
        at = self.position.index_select(0, ids.reshape(-1)).view(ids.shape)
        gathered = ids.numel() * sum(table.shape[1] for table in self.tables)
        return (
            self.table_first(at)
            if self.num_rows * self.width <= gathered
            else self.gather_first(at)
        )

    def table_first(self, at: Tensor) -> Tensor:
        """The definition: positions (B, F) -> rows of all groups at full width, (B, F, D)."""
        return lookup(self._stacked(), at)

    def gather_first(self, at: Tensor) -> Tensor:
        """The same with one product for all: the values of a row stand in its group's columns,
        zeros in the others."""
        start, columns = 0, []
        for table in self.tables:
            inside = (at >= start) & (at < start + len(table))  # (B, F)
            columns.append(lookup(table, torch.where(inside, at - start, 0)) * inside[..., None])
            start += len(table)
        full = columns[len(self.projections):]  # one at most
        if not self.projections:
            return full[0]
        vectors = torch.cat(columns[:len(self.projections)], 2) @ torch.cat(list(self.projections))
        return vectors + full[0] if full else vectors

    def _stacked(self) -> Tensor:
        """All groups at full width, one below the other, and a zero row."""
        lifted = [table @ lift for table, lift in zip(self.tables, self.projections, strict=False)]
        full = list(self.tables)[len(lifted):]
        return torch.cat([*lifted, *full, self.tables[0].new_zeros((1, self.width))])

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        return self._stacked().index_select(0, self.position)

    def stored_widths(self) -> Tensor:
        """(N,) int64, the entries that each row has of its own, those of its group's map aside."""
        each = [torch.full((len(table),), table.shape[1]) for table in self.tables]
        return torch.cat([*each, torch.zeros(1, dtype=torch.int64)])[self.position.long()]

    @torch.no_grad()
    def num_params(self) -> int:
        """The non-zero entries of rows and maps."""
        return sum(int(torch.count_nonzero(parameter)) for parameter in self.parameters())

    def inference_bytes(self) -> int:
        """Rows and maps at 4 bytes a value. Ids are given out in the order of the groups at export,
        so that nothing has to say where a row lies."""
        return 4 * sum(parameter.numel() for parameter in self.parameters())


def _check(group: Tensor, widths: Sequence[int], width: int) -> None:
    if group.dim() != 1 or group.is_floating_point() or not len(group):
        raise ValueError(f"the groups must be whole numbers of shape (N,), got {group.dtype} of "
                         f"shape {tuple(group.shape)}")
    if not 0 <= int(group.min()) <= int(group.max()) < len(widths):
        raise ValueError(f"there are {len(widths)} widths, so groups are 0 .. {len(widths) - 1}; "
                         f"got {int(group.min())} .. {int(group.max())}")
    if not all(0 <= each <= width for each in widths):
        raise ValueError(f"the widths of groups must lie in 0 .. {width}, the common width; got "
                         f"{list(widths)}")
    if not any(widths[number] for number in group.unique().tolist()):
        raise ValueError(f"no row has a width above 0: the widths are {list(widths)}")
