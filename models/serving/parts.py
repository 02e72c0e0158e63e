"""What an exported model adds up to its logit: first-order weights, products of pairs, an MLP,
attention, DLRM's interaction.

A model of the registry is a table and one or several of these (`serving.parts` says which). Each
says what its file holds and in plain numbers what it is, as tables do. Linear layers are written
`{"linear": name}`; batch norms are folded into the layer before them at export.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..kernels.eager import runs_on_numba
from ..kernels.fm import fm
from .tables import ServedTable, Tensors
from .values import Rows

RELU = "relu"
Steps = Sequence[str | tuple[Tensor, Tensor]]  # "relu", or weight (out, in) and bias (out)


class Part(nn.Module):
    """What all parts share."""

    kind: ClassVar[str]
    needs_vectors = False

    def forward(self, table: ServedTable, ids: Tensor, vectors: Tensor | None,
                numbers: Tensor | None) -> Tensor:
        """What it adds to the logits, (B,).

        Args:
            table: of the model.
            ids: (B, F).
            vectors: (B, F, D) of the ids, where a part of the model needs them.
            numbers: (B, M) dense features, if any.
        """
        raise NotImplementedError

    def tensors(self, name: str) -> Tensors:
        """What the file holds of it."""
        return {}

    def shape(self) -> dict[str, Any]:
        """What it is."""
        return {"kind": self.kind}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "Part":
        """Out of `shape` and `tensors`."""
        return cls()


class FirstOrder(Part):
    """One weight a row, and a bias; 0 for a value that is not known."""

    kind = "first_order"
    weight: Tensor
    bias: Tensor

    def __init__(self, rows: Rows, bias: Tensor) -> None:
        super().__init__()
        self.stored = rows.data
        self.register_buffer("weight", torch.cat([rows.data[:, 0].float(), torch.zeros(1)]))
        self.register_buffer("bias", bias)

    def forward(self, table: ServedTable, ids: Tensor, vectors: Tensor | None,
                numbers: Tensor | None) -> Tensor:
        """(B,)."""
        # not by nn.functional.embedding, which takes seven times as long for rows of one number
        found = self.weight.index_select(0, ids.reshape(-1)).view(ids.shape)
        return found.sum(dim=1) + self.bias

    def tensors(self, name: str) -> Tensors:
        """Weights and bias."""
        return {f"{name}.weight": self.stored.numpy(), f"{name}.bias": self.bias.numpy()}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "FirstOrder":
        """From the file's weights."""
        return cls(Rows.read(tensors, f"{name}.weight"), torch.from_numpy(tensors[f"{name}.bias"]))


class Pairs(Part):
    """The summed products of every two vectors of a row (a factorisation machine)."""

    kind = "pairs"
    needs_vectors = True

    def forward(self, table: ServedTable, ids: Tensor, vectors: Tensor | None,
                numbers: Tensor | None) -> Tensor:
        """(B,)."""
        assert vectors is not None
        if runs_on_numba(vectors):  # the bits of the training's own
            batch, fields = ids.shape
            places = torch.arange(batch * fields, dtype=torch.int32,
                                  device=vectors.device).view(batch, fields)
            return fm(vectors.flatten(0, 1), places, vectors.new_zeros(1, 1), places[:, :0])
        return (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=1) / 2


class Stack(nn.Module):
    """Linear layers and ReLUs, one after the other."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ReLU() if isinstance(step, str) else linear(*step)
                                    for step in steps)

    def forward(self, values: Tensor) -> Tensor:
        """(B, .., in) -> (B, .., out)."""
        for layer in self.layers:
            values = layer(values)
        return values

    def shape(self) -> list[str]:
        """The steps by name."""
        return ["linear" if isinstance(layer, nn.Linear) else RELU for layer in self.layers]

    def tensors(self, name: str) -> Tensors:
        """Weights and biases, by number."""
        found: Tensors = {}
        for number, layer in enumerate(self.layers):
            if isinstance(layer, nn.Linear):
                found[f"{name}.{number}.weight"] = layer.weight.numpy()
                found[f"{name}.{number}.bias"] = layer.bias.numpy()
        return found

    @classmethod
    def make(cls, shape: Sequence[str], tensors: Tensors, name: str) -> "Stack":
        """From the file's weights and biases."""
        return cls([step if step == RELU else (
            torch.from_numpy(tensors[f"{name}.{number}.weight"]),
            torch.from_numpy(tensors[f"{name}.{number}.bias"]))
            for number, step in enumerate(shape)])


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer of these values, which is not trained."""
    made = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = nn.Parameter(bias, requires_grad=False)
    return made


class Deep(Part):
    """An MLP on the table's deep input."""

    kind = "deep"

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, table: ServedTable, ids: Tensor, vectors: Tensor | None,
                numbers: Tensor | None) -> Tensor:
        """(B,)."""
        return self.stack(table.deep_input(ids, vectors)).squeeze(1)

    def tensors(self, name: str) -> Tensors:
        """Of the layers."""
        return self.stack.tensors(name)

    def shape(self) -> dict[str, Any]:
        """The steps."""
        return {"kind": self.kind, "steps": self.stack.shape()}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "Deep":
        """From the file's layers."""
        return cls(Stack.make(shape["steps"], tensors, name))


class Attention(Part):
    """AutoInt's part: a linear map, self-attention between fields, a residual, a linear map to one
    logit.

    Args:
        layers: in their order: "project" (D -> width), for each attention layer "in.k" (width -> 3
            width) and "out.k", perhaps "residual", and "output".
        heads: of an attention layer.
    """

    kind = "attention"
    needs_vectors = True
    stacks: Any

    def __init__(self, layers: dict[str, Stack], heads: int) -> None:
        super().__init__()
        self.names = list(layers)
        self.stacks = nn.ModuleList(layers.values())
        self.heads = heads
        self.depth = sum(name.startswith("in.") for name in layers)

    def _layer(self, name: str) -> Any:
        return self.stacks[self.names.index(name)]

    def forward(self, table: ServedTable, ids: Tensor, vectors: Tensor | None,
                numbers: Tensor | None) -> Tensor:
        """(B,)."""
        crossed = self._layer("project")(vectors)  # (B, F, width)
        for depth in range(self.depth):
            crossed = self._layer(f"out.{depth}")(self._read(depth, crossed))
        if "residual" in self.names:
            crossed = crossed + self._layer("residual")(vectors)
        return self._layer("output")(torch.relu(crossed).flatten(1)).squeeze(1)

    def _read(self, depth: int, given: Tensor) -> Tensor:
        """What the fields read from each other, (B, F, width)."""
        mixed = self._layer(f"in.{depth}")(given)  # (B, F, 3 width)
        each = mixed.shape[2] // 3 // self.heads
        mixed = mixed.unflatten(2, (3, self.heads, each))
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, F, .)
        scores = query @ key.transpose(2, 3) / math.sqrt(each)
        return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2)

    def tensors(self, name: str) -> Tensors:
        """Of all layers."""
        found: Tensors = {}
        for own, stack in zip(self.names, self.stacks, strict=True):
            found |= stack.tensors(f"{name}.{own}")
        return found

    def shape(self) -> dict[str, Any]:
        """The steps of each layer."""
        layers = {own: stack.shape()
                  for own, stack in zip(self.names, self.stacks, strict=True)}
        return {"kind": self.kind, "heads": self.heads, "layers": layers}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "Attention":
        """From the file's layers."""
        return cls({own: Stack.make(steps, tensors, f"{name}.{own}")
                    for own, steps in shape["layers"].items()}, shape["heads"])


class InteractingAttention(Attention):
    """The same with the layers of AutoInt's paper: for each "in.k" and perhaps "residual.k", and
    "output"."""

    kind = "interacting_attention"

    def forward(self, table: ServedTable, ids: Tensor, vectors: Tensor | None,
                numbers: Tensor | None) -> Tensor:
        """(B,)."""
        assert vectors is not None
        crossed = vectors
        for depth in range(self.depth):
            read = self._read(depth, crossed)
            if (own := f"residual.{depth}") in self.names:
                read = read + self._layer(own)(crossed)
            crossed = torch.relu(read)
        return self._layer("output")(crossed.flatten(1)).squeeze(1)


class Interaction(Part):
    """DLRM's part: an MLP on dense features beside the vectors, all of them or their products into
    another MLP.

    Args:
        bottom: of the dense features; without layers where there are none.
        top: of everything.
        dot: read products of vectors; otherwise the table's deep input.
    """

    kind = "interaction"

    def __init__(self, bottom: Stack, top: Stack, dot: bool) -> None:
        super().__init__()
        self.bottom, self.top, self.dot = bottom, top, dot

    @property
    def needs_vectors(self) -> bool:  # type: ignore[override]
        """With products."""
        return self.dot

    def forward(self, table: ServedTable, ids: Tensor, vectors: Tensor | None,
                numbers: Tensor | None) -> Tensor:
        """(B,)."""
        dense = []
        if len(self.bottom.layers):
            if numbers is None:
                raise ValueError("this model reads dense features beside its ids, and got none")
            dense = [self.bottom(numbers).relu()]
        if self.dot:
            assert vectors is not None
            both = torch.cat([each[:, None] for each in dense] + [vectors], 1)
            pairs = torch.tril_indices(both.shape[1], both.shape[1], -1)
            read = (both @ both.mT).flatten(1)[:, pairs[0] * both.shape[1] + pairs[1]]
        else:
            read = table.deep_input(ids, vectors)
        return self.top(torch.cat([*dense, read], 1)).squeeze(1)

    def tensors(self, name: str) -> Tensors:
        """Of both MLPs."""
        return self.bottom.tensors(f"{name}.bottom") | self.top.tensors(f"{name}.top")

    def shape(self) -> dict[str, Any]:
        """The steps of both."""
        return {"kind": self.kind, "bottom": self.bottom.shape(), "top": self.top.shape(),
                "dot": self.dot}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "Interaction":
        """From the file's layers."""
        return cls(Stack.make(shape["bottom"], tensors, f"{name}.bottom"),
                   Stack.make(shape["top"], tensors, f"{name}.top"), shape["dot"])


KINDS: dict[str, type[Part]] = {each.kind: each for each in (FirstOrder, Pairs, Deep, Attention,
                                                             InteractingAttention, Interaction)}


def read_part(shape: dict[str, Any], tensors: Tensors, name: str) -> Part:
    """A part out of its shape and the tensors of a file.

    Raises:
        ValueError: the kind is unknown.
    """
    if shape["kind"] not in KINDS:
        raise ValueError(f"the model has a part of kind {shape['kind']!r}, this version reads "
                         f"{', '.join(KINDS)}; install a newer one")
    return KINDS[shape["kind"]].make(shape, tensors, name)
