"""The multilayer perceptron of DeepFM and AutoInt."""

from typing import Any

from torch import Tensor, nn
from torchfm.layer import MultiLayerPerceptron

from .embedding.base import Embedding, TableEmbedding
from .kernels.dropout import replace_dropout
from .kernels.field_linear import field_linear
from .kernels.lookup import lookup
from .kernels.norm_relu_dropout import fits, norm_relu_dropout


class Mlp(MultiLayerPerceptron):
    """torchfm's (linear map, batch norm, ReLU, dropout; a linear map to one number at the end) with
    its parameters, and a faster step of a hidden layer in training.

    >>> import torch
    >>> Mlp(3, (4,), 0.2)(torch.ones(2, 3)).shape
    torch.Size([2, 1])
    """

    def __init__(self, width: int, mlp_dims: tuple[int, ...], dropout: float) -> None:
        super().__init__(width, mlp_dims, dropout)
        replace_dropout(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, 1)."""
        return self._rest(x, list(self.mlp))

    def of_rows(self, table: Tensor, rows: Tensor) -> Tensor:
        """`forward` of the vectors `table[rows]` side by side: table (U, D), rows (B, F) ->
        (B, 1)."""
        first, *others = self.mlp
        if type(first) is not nn.Linear or first._forward_hooks or first._forward_pre_hooks:
            return self(lookup(table, rows).flatten(1))  # somebody's own layer, or watched
        return self._rest(field_linear(table, rows, first), others)

    def of_embedding(self, embedding: Embedding, ids: Tensor, table: Tensor,
                     rows: Tensor) -> Tensor:
        """`forward` of an embedding's deep input, (B, 1), where `table, rows` are its `rows`."""
        if type(embedding).deep_input is TableEmbedding.deep_input:  # vectors side by side
            return self.of_rows(table, rows)
        return self(embedding.deep_input(ids, lookup(table, rows)))

    def _rest(self, x: Tensor, layers: list[Any]) -> Tensor:
        """The given layers one after the other."""
        while layers:
            if len(layers) >= 3 and fits(layers[0], layers[1], layers[2], x):
                x, layers = norm_relu_dropout(x, layers[0], layers[2]), layers[3:]
            else:
                x, layers = layers[0](x), layers[1:]
        return x
