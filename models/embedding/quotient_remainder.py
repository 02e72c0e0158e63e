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

    by_row = None
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
        remainders, quotients, places = [], [], []
        # rows of either so far; row 0 of the quotients is the 1 that plain rows are multiplied by
        below, behind = 0, 1
        for rows in initial.split(field_sizes):
            own, m = torch.arange(len(rows)), -(-len(rows) // collisions)
            many = -(-len(rows) // m)
            if m + many < len(rows):
                remainders.append(rows[:m] * factor)
                quotients.append(rows[m:m + many] * factor)
                places.append(torch.stack([below + own % m, behind + own // m]))
                behind += many
            else:
                remainders.append(rows)
                places.append(torch.stack([below + own, torch.zeros_like(own)]))
            below += len(remainders[-1])
        if not quotients:
            raise ValueError(f"no field gets smaller with qr_collisions {collisions}: the fields "
                             f"have {', '.join(map(str, field_sizes))} features; choose another, "
                             f"or a uniform embedding")
        self.remainders, self.quotients = (
            nn.Parameter(torch.cat(remainders)),
            nn.Parameter(torch.cat(quotients)),
        )
        self.register_buffer("places", torch.cat(places, 1).T.int().contiguous(), persistent=False)

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


@dataclass(frozen=True)
class QrSettings:
    """The setting of the two tables."""

    qr_collisions: int = option(4, "features of a field that share a remainder row", low=2,
                                source="Shi et al. 2020")


ENTRY = EmbeddingEntry(
    lambda plan: Qr(plan.table(), plan.field_sizes, plan.own.qr_collisions), QrSettings,
    grid={"qr_collisions": [16, 8, 4, 2], "l2_regularization": list(DECAYS)})
