"""Logistic regression, and the first-order part of the other models."""

import numpy as np
from torch import Tensor
from torchfm.layer import FeaturesLinear

from .base import ClickModel, ModelEntry
from .embedding import none
from .embedding.base import Embedding, RowIndexed
from .kernels.lookup import lookup


class FirstOrder(RowIndexed):
    """One weight a feature and a bias: torchfm's FeaturesLinear over global ids, ids (B, F) ->
    (B,).

    The layer's own forward adds field offsets again and scatters its gradient in no fixed order;
    its parameters are looked up here instead.
    """

    row_indexed = ("layer.fc.weight",)

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        if not hasattr(np, "long"):  # torchfm 0.7.0 asks for it; numpy 1.24 to 1.26 have none
            raise ImportError(f"torchfm's FeaturesLinear, and so Linear, FM and DeepFM, need numpy "
                              f"2 or newer, this is {np.__version__}: pip install 'numpy>=2'")
        self.layer = FeaturesLinear([num_rows])  # weights start standard normal, as in torchfm

    @property
    def weight(self) -> Tensor:
        """(N, 1)."""
        return self.layer.fc.weight

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B,)."""
        return lookup(self.weight, ids).sum(dim=(1, 2)) + self.layer.bias


class Linear(ClickModel):
    """Logistic regression (LR): the first-order part alone, with an embedding of width 0.

    >>> import torch
    >>> from .embedding.none import NoEmbedding
    >>> Linear(NoEmbedding((5, 4)))(torch.tensor([[0, 3]])).shape
    torch.Size([1])
    """

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.linear = FirstOrder(embedding.num_rows)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> logits (B,)."""
        return self.linear(ids)


ENTRY = ModelEntry(lambda embedding, sizes, own, num_dense: Linear(embedding), embedding=none.ENTRY)
