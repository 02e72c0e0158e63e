"""A pruned table under a fixed mask: the lottery ticket that is retrained."""

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from .base import Arrays, ByHand, TableEmbedding


class Masked(TableEmbedding):
    """Entries outside the mask are zero and stay exactly zero (PEP, section 4.2).

    They start at zero and get no data gradient, so coupled decay and Adam's moments leave them at
    zero too.

    Args:
        initial: (N, D) values to start from; multiplied by the mask.
        mask: (N, D) of bool.
        num_fields: F.

    >>> mask = torch.tensor([[True, False], [True, True]])
    >>> Masked(torch.ones(2, 2), mask, num_fields=1).num_params()
    3
    """

    mask: Tensor
    row_indexed = ("weight", "mask")
    computes_rows = True
    sharded = "vectors"

    def __init__(self, initial: Tensor, mask: Tensor, num_fields: int) -> None:
        if initial.shape != mask.shape or mask.dtype != torch.bool:
            raise ValueError(f"the mask must be bool of shape {tuple(initial.shape)}, "
                             f"got {mask.dtype} of shape {tuple(mask.shape)}")
        super().__init__(initial.shape[0], initial.shape[1], num_fields)
        self.weight = nn.Parameter(initial * mask)
        # of floats, as it is multiplied by
        self.register_buffer("mask", mask.float())

    @classmethod
    def of_table(cls, table: Tensor, num_fields: int) -> "Masked":
        """A pruned table as it is: its non-zero entries are the mask."""
        return cls(table, table != 0, num_fields)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        return lookup(*self.rows(ids))

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The table and the ids."""
        return self.weight * self.mask, ids

    def by_hand(self, rows: Arrays) -> ByHand:
        """The masked rows, and their gradient under the mask."""
        weight, mask = rows["weight"], rows["mask"]

        def gradients(grad: np.ndarray) -> Arrays:
            return {"weight": np.multiply(grad, mask, out=grad)}

        return np.multiply(weight, mask, out=weight), gradients

    def table(self) -> Tensor:
        """(N, D), zero outside the mask."""
        return self.weight.detach() * self.mask
