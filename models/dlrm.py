"""DLRM (Naumov et al. 2019)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .base import ClickModel, ModelEntry
from .embedding.base import Embedding
from .options import Sizes, option

INTERACTIONS = ("cat", "dot")


@dataclass(frozen=True)
class Shape:
    """The layers of a DLRM.

    Args:
        bottom: hidden sizes of the MLP on the dense features; its last layer is as wide as a
            vector.
        top: hidden sizes of the MLP on everything; its last layer has one output.
        interaction: "cat" or "dot".
    """

    bottom: tuple[int, ...]
    top: tuple[int, ...]
    interaction: str = "cat"


class DLRM(ClickModel):
    """An MLP on the dense features beside a vector for each field; all of these, or their dot
    products, into another MLP.

    `cat`: the top MLP reads [bottom(dense), e_1, .., e_F] as they stand. `dot`: it reads
    bottom(dense) and the products of every two of these vectors. Without dense features the
    bottom MLP is absent. The published initial values: weights N(0, 2 / (in + out)), biases
    N(0, 1 / out); tables are drawn by `models.build`.

    Differs from the published code: logits come out, and the loss takes the sigmoid.

    Args:
        embedding: F vectors of width D. With `cat`, what its `deep_input` gives is read.
        num_dense: M; 0 for data without dense features.
        shape: of the two MLPs.

    Raises:
        ValueError: an unknown interaction, or `dot` with fewer than two vectors.

    >>> from .embedding.uniform import Uniform
    >>> made = DLRM(Uniform(torch.ones(9, 4), num_fields=2), 3, Shape((8,), (6, 5)))
    >>> logits = made(torch.tensor([[0, 3], [1, 4]]), torch.ones(2, 3))
    >>> logits.shape, [layer.in_features for layer in made.top]
    (torch.Size([2]), [12, 6, 5])
    """

    pairs: Tensor  # places of the products in the matrix of all of them

    def __init__(self, embedding: Embedding, num_dense: int, shape: Shape) -> None:
        super().__init__()
        if shape.interaction not in INTERACTIONS:
            raise ValueError(f"interaction must be one of {', '.join(INTERACTIONS)}, got "
                             f"{shape.interaction!r}")
        self.embedding = embedding
        self.num_dense = num_dense
        self.interaction = shape.interaction
        vectors = self.embedding.num_fields + (num_dense > 0)
        if shape.interaction == "dot" and vectors < 2:
            raise ValueError("dot products need two vectors or more; this model has one field and "
                             "no dense features")
        self.bottom = layers((num_dense, *shape.bottom, embedding.width) if num_dense else ())
        dense = embedding.width if num_dense else 0
        read = embedding.deep_width if shape.interaction == "cat" else vectors * (vectors - 1) // 2
        self.top = layers((dense + read, *shape.top, 1))
        pairs = torch.tril_indices(vectors, vectors, -1)
        self.register_buffer("pairs", pairs[0] * vectors + pairs[1], persistent=False)

    @property
    def dense_width(self) -> int:
        """Columns that the bottom MLP gives the top; 0 without one."""
        return self.bottom[-1].out_features if len(self.bottom) else 0

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """ids (B, F), dense features (B, M) if any -> logits (B,)."""
        beside: list[Tensor] = []
        if len(self.bottom):
            if dense is None:
                raise ValueError(f"this DLRM reads {self.num_dense} dense features a row, and "
                                 "got none")
            beside = [through(self.bottom, dense).relu()]  # (B, D)
        if self.interaction == "cat":
            read = self.embedding.deep_input(ids)
        else:
            # (B, 1 + F, D)
            vectors = torch.cat([each[:, None] for each in beside] + [self.embedding(ids)], 1)
            read = (vectors @ vectors.mT).flatten(1).index_select(1, self.pairs)
        return through(self.top, torch.cat([*beside, read], 1)).squeeze(1)


class Layers(nn.ModuleList):
    """Linear layers, one after the other."""

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()

    def __getitem__(self, number: Any) -> Any:
        return super().__getitem__(number)


def layers(sizes: Sequence[int]) -> Layers:
    """Linear layers of these sizes with the published initial values; none for no sizes."""
    made = Layers()
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        nn.init.normal_(layer.weight, 0, math.sqrt(2 / (inputs + outputs)))
        nn.init.normal_(layer.bias, 0, math.sqrt(1 / outputs))
        made.append(layer)
    return made


def through(stack: Layers, values: Tensor) -> Tensor:
    """Linear layers with a ReLU between every two."""
    for number, layer in enumerate(stack):
        values = layer(values.relu() if number else values)
    return values


def initial_tables(sizes: Sequence[int], width: int, generator: torch.Generator,
                   empty: Callable[[int, int], Tensor] = torch.empty) -> Tensor:
    """V0 (N, D) as DLRM starts: U(-V_f ** -1/2, V_f ** -1/2) in a field of V_f rows.

    >>> initial_tables((1, 100), 4, torch.Generator().manual_seed(1))[1:].abs().max() <= 0.1
    tensor(True)
    """
    bounds = torch.tensor(sizes).float().rsqrt().repeat_interleave(torch.tensor(sizes))
    return empty(sum(sizes), width).uniform_(-1, 1, generator=generator).mul_(bounds[:, None])


_PAPER = "Naumov et al. 2019"


@dataclass(frozen=True)
class DlrmSettings:
    """The settings of the two MLPs."""

    arch_mlp_bot: tuple[int, ...] = option((512, 256, 64), "hidden layers of the MLP on dense "
                                           "features; latent_dim comes last", low=1, source=_PAPER)
    arch_mlp_top: tuple[int, ...] = option((512, 256), "hidden layers of the MLP on everything; 1 "
                                           "comes last", low=1, source=_PAPER)
    arch_interaction_op: str = option("cat", "what the top MLP reads", choices=INTERACTIONS,
                                      source=_PAPER)


def _build(embedding: Embedding, sizes: Sizes, own: DlrmSettings, num_dense: int) -> DLRM:
    shape = Shape(own.arch_mlp_bot, own.arch_mlp_top, own.arch_interaction_op)
    return DLRM(embedding, num_dense, shape)


ENTRY = ModelEntry(_build, DlrmSettings, reads_dense=True, initial_table=initial_tables)
