"""DeepFM (Guo et al. 2017)."""

from dataclasses import dataclass

from torch import Tensor

from .base import ClickModel, ModelEntry
from .embedding.base import Embedding
from .kernels.fm import fm
from .linear import FirstOrder
from .mlp import Mlp
from .options import option


class DeepFM(ClickModel):
    """FM plus a multilayer perceptron (batch norm, ReLU, dropout) on the same vectors.

    >>> import torch
    >>> from .embedding.uniform import Uniform
    >>> model = DeepFM(Uniform(torch.ones(9, 4), num_fields=2), (8,), 0.2)
    >>> model(torch.tensor([[0, 3], [1, 4]])).shape
    torch.Size([2])
    """

    def __init__(self, embedding: Embedding, mlp_dims: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.embedding = embedding
        self.linear = FirstOrder(embedding.num_rows)
        self.mlp = Mlp(embedding.deep_width, mlp_dims, dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> logits (B,)."""
        table, rows = self.embedding.rows(ids)
        deep = self.mlp.of_embedding(self.embedding, ids, table, rows)
        return fm(table, rows, self.linear.weight, ids) + self.linear.layer.bias + deep.squeeze(1)


@dataclass(frozen=True)
class MlpSettings:
    """The settings of the multilayer perceptron, which AutoInt has too."""

    mlp_dims: tuple[int, ...] = option((100, 100), "hidden layers of the MLP", low=1)
    dropout: float = option(0.2, "dropout of the MLP", low=0, below=1)
    precision: str = option("float32", "of the matrix products of a training step; evaluation is "
                            "in float32", choices=("float32", "bfloat16"))


ENTRY = ModelEntry(
    lambda embedding, sizes, own, num_dense: DeepFM(embedding, own.mlp_dims, own.dropout),
    MlpSettings, vector_weights=lambda model: [model.mlp.get_parameter("mlp.0.weight")])
