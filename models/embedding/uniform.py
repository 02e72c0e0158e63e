"""One width for every feature: the base model."""

from torch import Tensor, nn

from ..kernels.lookup import lookup
from .base import DECAYS, Arrays, ByHand, EmbeddingEntry, TableEmbedding


class Uniform(TableEmbedding):
    """A dense table that starts from `initial` (N, D).

    Args:
        initial: (N, D).
        num_fields: F.
        copied: whether the table is a copy of `initial`, or `initial` itself.

    >>> import torch
    >>> Uniform(torch.ones(5, 2), num_fields=1)(torch.tensor([[3]])).shape
    torch.Size([1, 1, 2])
    """

    sharded = "vectors"

    def __init__(self, initial: Tensor, num_fields: int, copied: bool = True) -> None:
        super().__init__(initial.shape[0], initial.shape[1], num_fields)
        self.weight = nn.Parameter(initial.clone() if copied else initial)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        return lookup(*self.rows(ids))

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The table and the ids."""
        return self.weight, ids

    def by_hand(self, rows: Arrays) -> ByHand:
        """The rows, and their gradient as it comes."""
        return rows["weight"], lambda grad: {"weight": grad}

    def table(self) -> Tensor:
        """(N, D)."""
        return self.weight.detach()


ENTRY = EmbeddingEntry(
    lambda plan: Uniform(plan.table(), plan.num_fields, not plan.cut),
    grid={"latent_dim": [2, 4, 8, 16, 32, 64], "l2_regularization": list(DECAYS[::2])})
