"""AutoInt (Song et al. 2019): self-attention between the fields."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .base import ClickModel, ModelEntry
from .deepfm import MlpSettings
from .embedding.base import Embedding
from .kernels.attention import attention
from .kernels.batch_rows import distinct
from .kernels.dropout import Dropout
from .kernels.eager import runs_on_numba, widened
from .kernels.lookup import lookup
from .linear import FirstOrder
from .mlp import Mlp
from .options import Sizes, Values, option


@dataclass(frozen=True)
class Attention:
    """Shape of the attention part: `layers` layers of `heads` heads over vectors of `width`;
    a residual around all of them, or around each."""

    width: int = 64
    heads: int = 2
    layers: int = 3
    dropout: float = 0.4
    residual: bool = True
    residual_each: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"atten_embed_dim {self.width} must be a multiple of num_heads "
                             f"{self.heads}")
        if self.residual_each and not self.residual:
            raise ValueError("residual_each says where the residual is, and with has_residual "
                             "False there is none: leave one of the two away")


class SelfAttention(nn.Module):
    """One layer of torch's MultiheadAttention (its parameters, its result), written out so that the
    dropout of the attention weights is ours.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(attention.width, attention.heads, batch_first=True)
        self.dropout = Dropout(attention.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, width) -> (B, F, width)."""
        return self.read(self.mixed(x))

    def mixed(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side: (..., width) -> (..., 3 * width)."""
        return nn.functional.linear(x, self.layer.in_proj_weight, self.layer.in_proj_bias)

    def read(self, mixed: Tensor) -> Tensor:
        """What the fields read from each other: (B, F, 3 * width) -> (B, F, width)."""
        dropped = self.dropout.dropped if self.training else 0
        read = attention(mixed, self.layer.num_heads, dropped, self.dropout.generator)
        return self.layer.out_proj(read)


class AutoInt(ClickModel):
    """Linear map D -> width, self-attention layers, residual from D, ReLU, linear map to one logit.

    That is torchfm's. With `residual_each` every layer is ReLU(attention(x) + x), as Song et al.
    2019 have it (eq. 8); their W_Res is the linear map before the first layer, and the identity in
    the others.

    Args:
        embedding: the injected one.
        num_fields: F.
        attention: its shape.
        mlp_dims: hidden widths of the deep branch, or None for none (`full_part=False`).
        dropout: of the deep branch.
        with_linear: add the first-order part (Table 4's "AutoInt+LR").
    """

    def __init__(self, embedding: Embedding, num_fields: int, attention: Attention,
                 mlp_dims: tuple[int, ...] | None,
                 dropout: float, with_linear: bool) -> None:
        super().__init__()
        width = attention.width
        self.embedding = embedding
        self.project = nn.Linear(embedding.width, width)
        self.attention = nn.ModuleList(SelfAttention(attention) for _ in range(attention.layers))
        around_all = attention.residual and not attention.residual_each
        self.residual = nn.Linear(embedding.width, width) if around_all else None
        self.residual_each = attention.residual_each
        self.output = nn.Linear(num_fields * width, 1)
        self.mlp = None
        if mlp_dims is not None:
            self.mlp = Mlp(embedding.deep_width, mlp_dims, dropout)
        self.linear = FirstOrder(embedding.num_rows) if with_linear else None

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> logits (B,)."""
        table, rows = self.embedding.rows(ids)
        if not runs_on_numba(table) or self._watched():
            crossed = self._crossed(lookup(table, rows))
        else:
            # the batch's own rows: a table may hold more, of the other lanes of a process
            own, places = distinct(rows, len(table))
            crossed = self._crossed_by_row(lookup(table, own), places)
        logits = self.output(torch.relu(crossed).flatten(1))  # (B, 1)
        if self.mlp is not None:
            logits = logits + self.mlp.of_embedding(self.embedding, ids, table, rows)
        if self.linear is not None:
            logits = logits + self.linear(ids)[:, None]
        return logits.squeeze(1)

    def _crossed(self, vectors: Tensor) -> Tensor:
        """Vectors (B, F, D) -> what attention makes of them, (B, F, width)."""
        crossed = self.project(vectors)
        for layer in self.attention:
            crossed = self._passed_on(layer(crossed), crossed)
        return crossed if self.residual is None else crossed + self.residual(vectors)

    def _crossed_by_row(self, table: Tensor, rows: Tensor) -> Tensor:
        """`_crossed` of `table[rows]`. All before the first attention is of one row alone, so it is
        computed for each row of the table, and looked up: a fifth of the products."""
        layers: list[Any] = list(self.attention)
        first, *others = layers
        projected = self.project(table)
        crossed = first.read(lookup(widened(first.mixed(projected)), rows))
        if self.residual_each:
            crossed = self._passed_on(crossed, lookup(widened(projected), rows))
        for layer in others:
            crossed = self._passed_on(layer(crossed), crossed)
        if self.residual is None:
            return crossed
        return crossed + lookup(widened(self.residual(table)), rows)

    def _passed_on(self, crossed: Tensor, given: Tensor) -> Tensor:
        """What a layer passes on, of what its attention made of what it was given."""
        return torch.relu(crossed + given) if self.residual_each else crossed

    def _watched(self) -> bool:
        """Whether somebody looks at what goes through the layers before the first attention."""
        inside = list(self.project.modules())
        if self.residual is not None:
            inside += self.residual.modules()
        return any(module._forward_hooks or module._forward_pre_hooks for module in inside)


_PAPER = "Song et al. 2019"


@dataclass(frozen=True)
class AutoIntSettings(MlpSettings):
    """The settings of the attention part, and of the MLP beside it."""

    num_heads: int = option(2, "heads of an attention layer", low=1, source=_PAPER)
    num_layers: int = option(3, "attention layers", low=1, source=_PAPER)
    att_dropout: float = option(0.4, "dropout of the attention weights", low=0, below=1)
    atten_embed_dim: int = option(64, "width of the attention layers", low=1)
    has_residual: bool = option(True, "whether the vectors are added to what attention makes",
                                source=_PAPER)
    residual_each: bool = option(False, "the residual is around each attention layer, with a ReLU, "
                                        "as in the paper; else once around all, as in torchfm",
                                 source=f"{_PAPER}, eq. 8")
    full_part: bool = option(True, "whether there is an MLP beside the attention")
    with_linear: bool = option(False, "whether there is a first-order part (Table 4's AutoInt+LR)")

    def attention(self) -> Attention:
        """The attention part's shape; raises ValueError where the heads do not divide its width."""
        return Attention(self.atten_embed_dim, self.num_heads, self.num_layers, self.att_dropout,
                         self.has_residual, self.residual_each)


def _build(embedding: Embedding, sizes: Sizes, own: AutoIntSettings, num_dense: int) -> AutoInt:
    return AutoInt(embedding, len(sizes), own.attention(),
                   own.mlp_dims if own.full_part else None, own.dropout, own.with_linear)


def _check(own: AutoIntSettings, values: Values) -> None:
    own.attention()


def _vector_weights(model: AutoInt) -> list[Tensor]:
    readers: list[Tensor] = [model.project.weight]
    if model.residual is not None:
        readers.append(model.residual.weight)
    if model.mlp is not None:
        readers.append(model.mlp.get_parameter("mlp.0.weight"))
    return readers


ENTRY = ModelEntry(_build, AutoIntSettings, _check, vector_weights=_vector_weights)
