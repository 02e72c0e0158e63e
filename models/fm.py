"""Factorisation machine (Rendle 2010)."""

import numpy as np
from torch import Tensor

from .base import ClickModel, ModelEntry
from .embedding.base import Arrays, Embedding
from .kernels.fm import fm, fm_gradients
from .linear import FirstOrder


class FM(ClickModel):
    """First-order part plus the summed pairwise products of the field vectors.

    >>> import torch
    >>> from .embedding.uniform import Uniform
    >>> FM(Uniform(torch.ones(9, 4), num_fields=2))(torch.tensor([[0, 3]])).shape
    torch.Size([1])
    """

    rows_in_cache = 16_384  # nothing of size (B, F, D) is made

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.linear = FirstOrder(embedding.num_rows)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> logits (B,)."""
        table, rows = self.embedding.rows(ids)
        return fm(table, rows, self.linear.weight, ids) + self.linear.layer.bias

    def by_hand(self, rows: Arrays, ids: np.ndarray,
                labels: np.ndarray) -> tuple[float, Arrays] | None:
        """Where the embedding's gradient is written down too."""
        if type(self).forward is not FM.forward:  # another function of a subclass
            return None
        inside = {name.removeprefix("embedding."): array for name, array in rows.items()}
        made = self.embedding.by_hand(inside)
        if made is None:
            return None
        table, gradients = made
        weights = rows["linear.layer.fc.weight"]
        table_grad, weights_grad = np.empty_like(table), np.empty_like(weights)
        bias = self.linear.layer.bias.detach().numpy()
        loss, bias_grad = fm_gradients(table, weights, bias, ids, labels, table_grad, weights_grad)
        found = {f"embedding.{name}": grad for name, grad in gradients(table_grad).items()}
        return loss, {**found, "linear.layer.fc.weight": weights_grad,
                      "linear.layer.bias": np.array([bias_grad])}


ENTRY = ModelEntry(lambda embedding, sizes, own, num_dense: FM(embedding),
                   vector_weights=lambda model: [])
