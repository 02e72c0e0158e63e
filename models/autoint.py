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

LAYERS = TORCHFM, PAPER = "torchfm", "paper"


@dataclass(frozen=True)
class Attention:
    """Shape of the attention part: `layers` layers of `heads` heads over vectors of `width`, of one
    of the kinds LAYERS."""

    width: int = 64
    heads: int = 2
    layers: int = 3
    dropout: float = 0.4
    residual: bool = True
    kind: str = TORCHFM

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"atten_embed_dim {self.width} must be a multiple of num_heads "
                             f"{self.heads}")


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
        return self.layer.out_proj(_read(mixed, self.layer.num_heads, self.dropout))


class InteractingLayer(nn.Module):
    """One layer as Song et al. 2019 have it (eqs. 5 to 8): ReLU(what the fields read from each
    other + W_Res x). Ours divides the products by the root of a head's width, a factor that W_Query
    can take up.

    Args:
        attention: its shape.
        width: of the vectors it is given; None in layers behind the first, which have the right one
            and add x itself.
    """

    def __init__(self, attention: Attention, width: int | None = None) -> None:
        super().__init__()
        given = attention.width if width is None else width
        self.heads = attention.heads
        self.mixing = nn.Linear(given, 3 * attention.width, bias=False)  # W_Query, W_Key, W_Value
        self.residual: nn.Module | None = None
        if attention.residual:
            self.residual = nn.Identity() if width is None else nn.Linear(given, attention.width,
                                                                          bias=False)
        self.dropout = Dropout(attention.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, width given) -> (B, F, width)."""
        read = _read(self.mixing(x), self.heads, self.dropout)
        return torch.relu(read if self.residual is None else read + self.residual(x))


def _read(mixed: Tensor, heads: int, dropout: Dropout) -> Tensor:
    """`attention`, with the dropout of its weights in training."""
    return attention(mixed, heads, dropout.dropped if dropout.training else 0, dropout.generator)


class AutoInt(ClickModel):
    """Linear map D -> width, self-attention layers, residual from D, ReLU, linear map to one logit.

    That is torchfm's. With the paper's layers there is neither the first map nor a residual around
    all: each layer has its own.

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
        self.project: nn.Linear | None = None
        self.residual: nn.Linear | None = None
        if attention.kind == PAPER:
            self.attention = nn.ModuleList(
                InteractingLayer(attention, None if depth else embedding.width)
                for depth in range(attention.layers))
        else:
            self.project = nn.Linear(embedding.width, width)
            self.attention = nn.ModuleList(SelfAttention(attention)
                                           for _ in range(attention.layers))
            if attention.residual:
                self.residual = nn.Linear(embedding.width, width)
        self.output = nn.Linear(num_fields * width, 1)
        self.mlp = None
        if mlp_dims is not None:
            self.mlp = Mlp(embedding.deep_width, mlp_dims, dropout)
        self.linear = FirstOrder(embedding.num_rows) if with_linear else None

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> logits (B,)."""
        table, rows = self.embedding.rows(ids)
        if self.project is None or not runs_on_numba(table) or self._watched(self.project):
            crossed = self._crossed(lookup(table, rows))
        else:
            # the batch's own rows: a table may hold more, of the other lanes of a process
            own, places = distinct(rows, len(table))
            crossed = self._crossed_by_row(self.project, lookup(table, own), places)
        logits = self.output(torch.relu(crossed).flatten(1))  # (B, 1)
        if self.mlp is not None:
            logits = logits + self.mlp.of_embedding(self.embedding, ids, table, rows)
        if self.linear is not None:
            logits = logits + self.linear(ids)[:, None]
        return logits.squeeze(1)

    def _crossed(self, vectors: Tensor) -> Tensor:
        """Vectors (B, F, D) -> what attention makes of them, (B, F, width)."""
        crossed = vectors if self.project is None else self.project(vectors)
        for layer in self.attention:
            crossed = layer(crossed)
        return crossed if self.residual is None else crossed + self.residual(vectors)

    def _crossed_by_row(self, project: nn.Linear, table: Tensor, rows: Tensor) -> Tensor:
        """`_crossed` of `table[rows]`. All before the first attention is of one row alone, so it is
        computed for each row of the table, and looked up: a fifth of the products."""
        layers: list[Any] = list(self.attention)
        first, *others = layers
        crossed = first.read(lookup(widened(first.mixed(project(table))), rows))
        for layer in others:
            crossed = layer(crossed)
        if self.residual is None:
            return crossed
        return crossed + lookup(widened(self.residual(table)), rows)

    def _watched(self, project: nn.Linear) -> bool:
        """Whether somebody looks at what goes through the layers before the first attention."""
        inside = list(project.modules())
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
    att_layer: str = option(TORCHFM, "attention layers: torchfm's, between a linear map and one "
                                     "residual, or the paper's, with a residual and a ReLU in each",
                            choices=LAYERS)
    full_part: bool = option(True, "whether there is an MLP beside the attention")
    with_linear: bool = option(False, "whether there is a first-order part (Table 4's AutoInt+LR)")

    def attention(self) -> Attention:
        """The attention part's shape; raises ValueError where the heads do not divide its width."""
        return Attention(self.atten_embed_dim, self.num_heads, self.num_layers, self.att_dropout,
                         self.has_residual, self.att_layer)


def _build(embedding: Embedding, sizes: Sizes, own: AutoIntSettings, num_dense: int) -> AutoInt:
    return AutoInt(embedding, len(sizes), own.attention(),
                   own.mlp_dims if own.full_part else None, own.dropout, own.with_linear)


def _check(own: AutoIntSettings, values: Values) -> None:
    own.attention()


def _vector_weights(model: AutoInt) -> list[Tensor]:
    first: Any = model.attention[0]
    if model.project is None:
        reading = [first.mixing, first.residual]
    else:
        reading = [model.project, model.residual]
    readers: list[Tensor] = [layer.weight for layer in reading if layer is not None]
    if model.mlp is not None:
        readers.append(model.mlp.get_parameter("mlp.0.weight"))
    return readers


ENTRY = ModelEntry(_build, AutoIntSettings, _check, vector_weights=_vector_weights)
