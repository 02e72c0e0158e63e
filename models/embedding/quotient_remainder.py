"""Quotient-remainder embeddings: a feature is the product of two rows of two small tables."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..options import option
from .base import DECAYS, EmbeddingEntry, TableEmbedding


class Qr(TableEmbedding):
    """Feature i of a field of V features is R[i mod m] * Q[i div m], element by element (Shi et al.
    2020).

    With c features to a remainder row, R has m = ceil(V / c) rows and Q ceil(V / m), c at most. No
    two features share both rows. A field in which that is no fewer rows than V keeps a plain table.

    All start from the rows of V0 of their own field. Those of R and Q are divided by the root of
    V0's root mean square,
    r: a product of two independent entries of size sqrt(r) is of size r. (The published code draws
    every table by its own size, which makes products of small fields large and of large ones tiny.)

    Args:
        initial: V0 (N, D).
        field_sizes: rows of each field, in order; they sum to N.
        collisions: c, at least 2.

    Raises:
        ValueError: the field sizes do not sum to N, or no field gets smaller.

    >>> Qr(torch.ones(11, 2), (9, 2), 3).num_params()  # (3 + 3 + 2) x 2
    16
    """

    row_indexed = None
    # (N, 2) rows of each feature in `remainders` and in `_factors`; worked out when the module is
    # made
    places: Tensor

    def __init__(self, initial: Tensor, field_sizes: tuple[int, ...], collisions: int) -> None:
        super().__init__(initial.shape[0], initial.shape[1], len(field_sizes))
        if sum(field_sizes) != self.num_rows:
            raise ValueError(f"the field sizes {field_sizes} sum to {sum(field_sizes)}, the table "
                             f"has {self.num_rows} rows")
        if not 2 <= collisions <= max(field_sizes):
            raise ValueError(f"qr_collisions must lie in 2 .. {max(field_sizes)}, the size of the "
                             f"largest field; got {collisions}")
        factor = initial.square().mean().sqrt().rsqrt()  # 1 / sqrt(r)
        remainders, quotients = [], []
        places = places_of(field_sizes, collisions)
        sizes = [size for size in field_sizes if size]  # slots share the rows of another field
        for rows, own in zip(initial.split(sizes), places, strict=True):
            if int(own[0, 1]) == 0:
                remainders.append(rows)
                continue
            m, many = _shared(len(rows), collisions)
            remainders.append(rows[:m] * factor)
            quotients.append(rows[m:m + many] * factor)
        if not quotients:
            raise ValueError(f"no field gets smaller with qr_collisions {collisions}: the fields "
                             f"have {', '.join(map(str, field_sizes))} features; choose another, "
                             f"or a uniform embedding")
        self.remainders, self.quotients = (
            nn.Parameter(torch.cat(remainders)),
            nn.Parameter(torch.cat(quotients)),
        )
        self.collisions, self.field_sizes = collisions, field_sizes
        self.register_buffer("places", torch.cat(places), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        places = self.places.index_select(0, ids.reshape(-1)).view(*ids.shape, 2)
        return lookup(self.remainders, places[..., 0]) * lookup(self._factors(), places[..., 1])

    def _factors(self) -> Tensor:
        """The quotients' rows after a row of 1."""
        return torch.cat([self.quotients.new_ones((1, self.width)), self.quotients])

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        return self.remainders[self.places[:, 0]] * self._factors()[self.places[:, 1]]

    @torch.no_grad()
    def num_params(self) -> int:
        """The non-zero entries of both tables."""
        return int(torch.count_nonzero(self.remainders) + torch.count_nonzero(self.quotients))

    def inference_bytes(self) -> int:
        """Both tables at 4 bytes a value."""
        return 4 * (self.remainders.numel() + self.quotients.numel())


def places_of(field_sizes: tuple[int, ...], collisions: int) -> list[Tensor]:
    """Rows of each feature in the remainders and in the quotients, (V, 2) int32 for each field; 0
    stands for no quotient, and the first has number 1.

    >>> [places.tolist() for places in places_of((6, 1), 3)]
    [[[0, 1], [1, 1], [0, 2], [1, 2], [0, 3], [1, 3]], [[2, 0]]]
    """
    places, below, behind = [], 0, 1
    for size in filter(None, field_sizes):
        own = torch.arange(size, dtype=torch.int32)
        m, many = _shared(size, collisions)
        if m + many < size:
            places.append(torch.stack([below + own % m, behind + own // m], dim=1))
            behind += many
            below += m
        else:
            places.append(torch.stack([below + own, torch.zeros_like(own)], dim=1))
            below += size
    return places


def _shared(size: int, collisions: int) -> tuple[int, int]:
    """Remainder and quotient rows of a field."""
    m = -(-size // collisions)
    return m, -(-size // m)


@dataclass(frozen=True)
class QrSettings:
    """The setting of the two tables."""

    qr_collisions: int = option(4, "features of a field that share a remainder row", low=2,
                                source="Shi et al. 2020")


ENTRY = EmbeddingEntry(
    lambda plan: Qr(plan.table(), plan.field_sizes, plan.own.qr_collisions), QrSettings,
    grid={"qr_collisions": [16, 8, 4, 2], "l2_regularization": list(DECAYS)})
