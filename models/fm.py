"""Factorisation machine (Rendle 2010)."""

from torch import Tensor

from .base import ClickModel, ModelEntry
from .embedding.base import Embedding
from .kernels.fm import fm
from .linear import FirstOrder


class FM(ClickModel):
    """First-order part plus the summed pairwise products of the field vectors.

    >>> import torch
    >>> from .embedding.uniform import Uniform
    >>> FM(Uniform(torch.ones(9, 4), num_fields=2))(torch.tensor([[0, 3]])).shape
    torch.Size([1])
    """

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.linear = FirstOrder(embedding.num_rows)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> logits (B,)."""
        table, rows = self.embedding.rows(ids)
        return fm(table, rows, self.linear.weight, ids) + self.linear.layer.bias


ENTRY = ModelEntry(lambda embedding, sizes, own, num_dense: FM(embedding),
                   vector_weights=lambda model: [])
