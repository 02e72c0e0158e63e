"""Narrow tables, each with the linear map that lifts its field to the common width."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .base import TableEmbedding


class LowRank(TableEmbedding):
    """Feature i of field f is c_i B_f + m_f: its code c_i (k_f), its field's basis B_f (k_f, D) and
    mean m_f (D).

    This is AFM's compressed embedding (Yu et al. 2024): there B_f and m_f start from a field's
    principal directions. The codes of all fields of one rank are one embedding of their own, of any
    kind (pruned by PEP, say). A field of rank 0 is its mean.

    Args:
        codes: for each rank but 0, rising, the embedding (N', k) of its fields' rows, in the order
            of fields.
        bases: B_f of each field.
        means: (F, D).
        field_sizes: rows of each field, in order.
        fused: give a deep branch the codes (its first layer has swallowed bases and means), and not
            the vectors.

    Raises:
        ValueError: the codes do not fit the bases and fields.

    >>> from .uniform import Uniform
    >>> low = LowRank([Uniform(torch.ones(5, 1), 2)], [torch.ones(1, 3)] * 2, torch.zeros(2, 3),
    ...               (2, 3), fused=True)
    >>> ids = torch.tensor([[0, 2]])
    >>> low(ids).shape, low.deep_input(ids, low(ids)).shape, low.num_params()
    (torch.Size([1, 2, 3]), torch.Size([1, 2]), 11)
    """

    row_indexed: tuple[str, ...] | None = None
    codes: Any  # an nn.ModuleList of embeddings, which its own typing cannot say
    ranks: tuple[int, ...]
    # (F,) where a field stands when the fields are ordered by rank; rank 0 is behind all
    places: Tensor

    def __init__(self, codes: Sequence[TableEmbedding], bases: Sequence[Tensor], means: Tensor,
                 field_sizes: Sequence[int], fused: bool) -> None:
        super().__init__(sum(field_sizes), means.shape[1], len(field_sizes))
        self.field_sizes, self.fused, self.reconstructs = tuple(field_sizes), fused, True
        self.ranks = tuple(len(basis) for basis in bases)
        groups = fields_by_rank(self.ranks)
        _check(codes, groups, bases, means, self.field_sizes)
        self.codes = nn.ModuleList(codes)
        self.bases = nn.ParameterList(torch.stack([bases[f] for f in fields]).clone()
                                      for fields in groups.values())
        self.means = nn.Parameter(means.clone())
        self.fields = tuple(groups.values())
        self.whole = len(groups) == 1 and len(self.fields[0]) == self.num_fields
        order = list(chain.from_iterable(self.fields))
        places = [order.index(field) if field in order else len(order)
                  for field in range(self.num_fields)]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.columns, self.shifts = nn.Module(), nn.Module()  # one buffer for each rank
        for number, fields in enumerate(self.fields):
            self.columns.register_buffer(str(number), torch.tensor(fields), persistent=False)
            self.shifts.register_buffer(str(number),
                                        torch.tensor(_shifts(fields, self.field_sizes)),
                                        persistent=False)
        if fused:
            self.deep_width = sum(self.ranks)
        # else ids that count through a batch's rows would not tell which table they belong to
        if self.whole and codes[0].row_indexed is not None:
            self.row_indexed = tuple(f"codes.0.{name}" for name in codes[0].row_indexed)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        means = self.means[:, None]  # (F, 1, D)
        if self.whole:
            # (F, B, D)
            vectors = torch.baddbmm(means, self.codes[0](ids).transpose(0, 1), self.bases[0])
        else:
            lifted = [torch.bmm(codes.transpose(0, 1), basis)
                      for codes, basis in zip(self._codes(ids), self.bases, strict=True)]
            zero = self.means.new_zeros((1, len(ids), self.width))  # of fields of rank 0
            vectors = torch.cat([*lifted, zero]).index_select(0, self.places) + means
        vectors = vectors.transpose(0, 1)
        # whoever flattens them needs them row by row
        return vectors if self.fused else vectors.contiguous()

    def deep_input(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """(B, sum of ranks): the codes, fields of smaller rank first; (B, F * D) where nothing is
        fused.

        The codes are looked up a second time: they are narrow, and a forward that kept them would
        have a side effect.
        """
        if not self.fused:
            return super().deep_input(ids, vectors)
        codes = [part.flatten(1) for part in self._codes(ids)]
        return torch.cat(codes, 1) if codes else self.means.new_zeros((len(ids), 0))

    def deep_order(self) -> list[int]:
        """The fields in the order in which their codes stand in the fused deep input."""
        return list(chain.from_iterable(self.fields))

    def _codes(self, ids: Tensor) -> list[Tensor]:
        """(B, F', k) of each rank."""
        if self.whole:
            return [self.codes[0](ids)]
        return [codes(ids.index_select(1, columns) - shifts)
                for codes, columns,
                shifts in zip(self.codes, self.columns.buffers(), self.shifts.buffers(),
                                                  strict=True)]

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        rows: dict[int, Tensor] = {}
        for codes, fields, bases in zip(self.codes, self.fields, self.bases, strict=True):
            parts = codes.table().split([self.field_sizes[field] for field in fields])
            rows |= {field: part @ basis for field, part,
                     basis in zip(fields, parts, bases, strict=True)}
        return torch.cat([rows[field] + mean if field in rows else mean.expand(size, -1)
                          for field,
                          (size, mean) in enumerate(zip(self.field_sizes, self.means,
                                                        strict=True))])

    def stop_reconstructing(self) -> None:
        """Fix bases and means, which are in no forward pass when all that reads the codes has
        swallowed them."""
        self.reconstructs = False
        for part in (*self.bases, self.means):
            part.requires_grad_(False)

    def _maps(self) -> list[Tensor]:
        """Bases and means, if a model needs them."""
        return [*self.bases, self.means] if self.reconstructs else []

    @torch.no_grad()
    def num_params(self) -> int:
        """Those of the codes, and the non-zero entries of bases and means."""
        maps = self._maps()
        return sum(codes.num_params() for codes in self.codes) + sum(int(torch.count_nonzero(part))
                                                                     for part in maps)

    def inference_bytes(self) -> int:
        """Codes as they are stored, bases and means at 4 bytes a value."""
        maps = sum(part.numel() for part in self._maps())
        return sum(codes.inference_bytes() for codes in self.codes) + 4 * maps

    def all_bases(self) -> list[Tensor]:
        """B_f (k_f, D) of each field, without gradient."""
        bases: dict[int, Tensor] = {}
        for fields, stacked in zip(self.fields, self.bases, strict=True):
            bases |= dict(zip(fields, stacked.detach(), strict=True))
        none = self.means.detach().new_zeros((0, self.width))
        return [bases.get(field, none) for field in range(self.num_fields)]


def fields_by_rank(ranks: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The fields of each rank but 0, ranks rising.

    >>> fields_by_rank((2, 0, 1, 2))
    {1: (2,), 2: (0, 3)}
    """
    return {rank: tuple(field for field, each in enumerate(ranks) if each == rank)
            for rank in sorted(set(ranks)) if rank}


def _shifts(fields: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """What to take from a feature's number to have its row among those of `fields`."""
    starts = [sum(sizes[:field]) for field in fields]
    own = [sum(sizes[field] for field in fields[:place]) for place in range(len(fields))]
    return tuple(start - place for start, place in zip(starts, own, strict=True))


def _check(codes: Sequence[TableEmbedding], groups: dict[int, tuple[int, ...]],
           bases: Sequence[Tensor],
           means: Tensor, sizes: Sequence[int]) -> None:
    shapes = [(each.num_rows, each.width) for each in codes]
    wanted = [(sum(sizes[field] for field in fields), rank) for rank, fields in groups.items()]
    if shapes != wanted:
        raise ValueError(f"the codes of fields of {list(sizes)} rows and ranks "
                         f"{[len(basis) for basis in bases]} must be of shapes {wanted}, got "
                         f"{shapes}")
    if len(bases) != len(sizes) or len(means) != len(sizes) or any(basis.shape[1] != means.shape[1]
                                                                   for basis in bases):
        raise ValueError(f"there must be a basis (k, D) and a mean (D) for each of {len(sizes)} "
                         f"fields, got bases {[tuple(basis.shape) for basis in bases]} and means "
                         f"{tuple(means.shape)}")
