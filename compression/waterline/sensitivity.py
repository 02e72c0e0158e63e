"""How much the loss feels each column of each field."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from models.base import ClickModel, as_inputs
from models.embedding.base import TableEmbedding
from models.kernels.lookup import lookup

ROWS = 100_000  # training rows that are looked at


class _Watched(TableEmbedding):
    """A fixed table that keeps the vectors of its last call, to ask for their gradient."""

    row_indexed = None

    def __init__(self, table: Tensor, num_fields: int) -> None:
        super().__init__(table.shape[0], table.shape[1], num_fields)
        self.fixed = table
        self.vectors = table

    def forward(self, ids: Tensor) -> Tensor:
        self.vectors = lookup(self.fixed, ids).requires_grad_()
        return self.vectors


def sensitivities(model: ClickModel, batches: Iterable[Any]) -> Tensor:
    """h (F, D): the mean over rows of p (1 - p) (dz / dx_fj)^2, z the logit, x_f the vector of
    field f, p = sigmoid(z).

    That is the diagonal of the Gauss-Newton matrix of the mean cross entropy at the vectors: to
    second order, noise of variance s in column j of field f costs s h_fj / 2. One forward and one
    backward pass; labels are not needed. The model is in evaluation mode, in which no row's logit
    depends on another row, so the gradient of the sum has each row's own.

    Args:
        batches: ids (B, F) of training rows, or these and numbers.

    Raises:
        ValueError: there is no row.
    """
    own, was_training = model.embedding, model.training
    watched = _Watched(own.table(), own.num_fields)
    total = torch.zeros(own.num_fields, own.width, dtype=torch.float64)
    rows = 0
    model.embedding = watched
    model.eval()
    try:
        for inputs in batches:
            logits = model(*as_inputs(inputs))
            [gradient] = torch.autograd.grad(logits.sum(), [watched.vectors])
            chance = torch.sigmoid(logits.detach())
            felt = (chance * (1 - chance))[:, None, None] * gradient.square()
            total += felt.sum(dim=0).double().cpu()
            rows += len(logits)
    finally:
        model.embedding = own
        model.train(was_training)
    if not rows:
        raise ValueError("there is no training row to find sensitivities from")
    return total / rows
