"""No embedding: vectors of width 0, for models that have only a first-order part."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ..options import Sizes, Values
from .base import Arrays, ByHand, EmbeddingEntry, RowIndexed


class NoEmbedding(RowIndexed):
    """ids (B, F) -> (B, F, 0), without parameters.

    >>> NoEmbedding((5, 4))(torch.tensor([[0, 3]])).shape
    torch.Size([1, 2, 0])
    """

    width = 0
    deep_width = 0
    row_indexed = ()
    sharded = "rows"
    decays: Mapping[str, str] = MappingProxyType({})

    def __init__(self, field_sizes: Sizes) -> None:
        super().__init__()
        self.num_rows = sum(field_sizes)
        self.num_fields = len(field_sizes)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, 0)."""
        return torch.zeros((*ids.shape, 0), device=ids.device)

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 0) and the ids."""
        return self.table().to(ids.device), ids

    def by_hand(self, rows: Arrays) -> ByHand | None:
        """Autograd has the gradient."""
        return None

    def deep_input(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """(B, 0)."""
        return self(ids).flatten(1)

    def table(self) -> Tensor:
        """(N, 0)."""
        return torch.zeros((self.num_rows, 0))

    def num_params(self) -> int:
        """0."""
        return 0

    def inference_bytes(self) -> int:
        """0."""
        return 0


def _check(own: object, values: Values) -> None:
    if values["l2_penalty"]:
        raise ValueError(f"l2_penalty={values['l2_penalty']} is a penalty on embedding vectors, "
                         f"and model {values['model']} has none; leave it at 0, or use "
                         "weight_decay")


ENTRY = EmbeddingEntry(lambda plan: NoEmbedding(plan.field_sizes), check=_check,
                       unused=("embedding", "latent_dim", "l2_regularization"))
