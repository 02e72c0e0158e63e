"""What a DLRM costs, whole or with units taken out: operations, parameters or bytes, as a fraction
of the whole.

A unit is one input of a layer of the top MLP: of the first layer a field (all columns of its
vector; the branch of the dense features counts as one more field, the first) or one column of
it; of each further layer one neuron of the layer before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from compression.umec.task import GROUPS, KINDS
from models.dlrm import DLRM


@dataclass(frozen=True)
class Layout:
    """The sizes that resources are computed from.

    Args:
        dense: columns of the branch of the dense features; 0 without one.
        width: D, columns of each field.
        rows: (F,) rows of each field's table.
        bottom: sizes of the bottom MLP, inputs first, its output (`dense`) last; () without one.
        top: outputs of the top MLP's layers, 1 last.
        groups: "field", or "field_dim": every column a unit of its own.

    Raises:
        ValueError: an unknown grouping.
    """

    dense: int
    width: int
    rows: tuple[int, ...]
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    groups: str = "field"
    counts: tuple[int, ...] = field(init=False)  # (L,) units of each layer

    def __post_init__(self) -> None:
        if self.groups not in GROUPS:
            raise ValueError(f"groups must be one of {', '.join(GROUPS)}, got {self.groups!r}")
        first = self.columns // self.size
        object.__setattr__(self, "counts", (first, *self.top[:-1]))

    @property
    def columns(self) -> int:
        """Inputs of the first layer."""
        return self.dense + self.width * len(self.rows)

    @property
    def size(self) -> int:
        """Columns of a unit of the first layer."""
        return self.width if self.groups == "field" else 1

    @property
    def dense_units(self) -> int:
        """Units of the branch of the dense features; they come first."""
        return self.dense // self.size


def layout_of(model: nn.Module, rows: Sequence[int], groups: str = "field") -> Layout:
    """The layout of a whole model.

    Args:
        rows: (F,) of each field's table.

    Raises:
        ValueError: the model is no DLRM, its first layer reads dot products, or fields differ in
            width.
    """
    if not isinstance(model, DLRM):
        raise ValueError(f"only a DLRM has the layers that are taken apart here; this is a "
                         f"{type(model).__name__}. Train one with --model dlrm")
    if model.interaction != "cat":
        raise ValueError(f"with arch_interaction_op={model.interaction} the first layer reads "
                         "products of two fields, and no group of its columns belongs to one; "
                         "train with arch_interaction_op=cat")
    embedding = model.embedding
    if embedding.deep_width != embedding.num_fields * embedding.width:
        raise ValueError(f"the fields must all be {embedding.width} wide; this model's fields have "
                         f"widths of their own")
    bottom = (model.num_dense,
              *(layer.out_features for layer in model.bottom)) if len(model.bottom) else ()
    return Layout(model.dense_width, embedding.width, tuple(rows), bottom,
                  tuple(layer.out_features for layer in model.top), groups)


class Resource:
    """R of sets of units, computed where the units are, without waiting for the device.

    flops_top: 2 in out + out of each layer of the top MLP (published); flops_all: of the bottom MLP
    too; params_all: weights and biases of both and the tables; bytes: 4 a parameter, as
    an exported model stores them. A removed unit takes with it its columns, the neuron that
    makes it, and its part of the tables; the bottom MLP goes with the last of its outputs.

    Units stand in matrices (L, G), a layer a row, G the units of the longest; `valid` says which
    places are units.

    Args:
        layout: of the whole model.
        kind: one of KINDS.
        device: of the units.

    Raises:
        ValueError: an unknown kind.

    >>> criteo = Layout(16, 16, (1000,) * 26, (13, 512, 256, 64, 16), (512, 256, 1))
    >>> resource = Resource(criteo, "flops_top")
    >>> resource.whole, resource.counts
    (705793.0, (27, 512, 256))
    """

    def __init__(self, layout: Layout, kind: str, device: torch.device | str = "cpu") -> None:
        if kind not in KINDS:
            raise ValueError(f"resource must be one of {', '.join(KINDS)}, got {kind!r}")
        self.layout = layout
        self.kind = kind
        self.counts = layout.counts
        self.device = torch.device(device)
        self.by_weight = self.by_bias = 4.0 if kind == "bytes" else 1.0
        if kind.startswith("flops"):
            self.by_weight = 2.0
        of_bottom = layout.bottom if kind != "flops_top" else ()
        *hidden, last = pairwise(of_bottom) if of_bottom else [(0, 0)]
        self.bottom = sum(self._layer(inputs, outputs) for inputs, outputs in hidden)
        each = layout.width // layout.size  # units of a field
        tables = kind in ("params_all", "bytes")
        of_units = [layout.size * self._layer(last[0], 1) if of_bottom
                    else 0.0] * layout.dense_units
        for rows in layout.rows:
            of_units += [layout.size * self.by_weight * rows * tables] * each
        # (G_1,) what belongs to a unit of the first layer alone
        self.of_unit = self._tensor(of_units)
        self.uniform = not any(of_units)  # how many units are left says all
        self.sizes = self._tensor([layout.size, *(1 for _ in self.counts[1:])])
        self.none, self.last = self._tensor([0.0]), self._tensor([layout.top[-1]])
        places = torch.arange(max(self.counts), device=self.device)
        self.valid = places < torch.tensor(self.counts, device=self.device)[:, None]  # (L, G)
        self.whole = float(self.amount(self.valid))
        # 1 where a layer before makes the unit
        has_inputs = self._tensor([0.0, *(1.0 for _ in self.counts[1:])])
        self.rates = (self.by_weight / self.whole * self.sizes,
                      self.by_weight / self.whole * has_inputs,
                      self.by_bias / self.whole * has_inputs)

    def _tensor(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def _layer(self, inputs: float, outputs: float) -> float:
        return self.by_weight * inputs * outputs + self.by_bias * outputs

    def amount(self, kept: Tensor) -> Tensor:
        """What is spent, (): operations, parameters or bytes. `kept` is a mask (L, G)."""
        layout, first = self.layout, kept[0, :self.counts[0]]
        total = self._of_counts(kept.sum(1, dtype=torch.float64)) + (first * self.of_unit).sum()
        if self.bottom:
            total = total + self.bottom * first[:layout.dense_units].any()
        return total

    def fraction(self, kept: Tensor) -> Tensor:
        """R, (): `amount` over that of the whole model."""
        return self.amount(kept) / self.whole

    def fraction_of_counts(self, left: Tensor) -> Tensor:
        """R, (), where it depends on nothing but how many units each layer has left, (L,)."""
        assert self.uniform
        return self._of_counts(left) / self.whole

    def _of_counts(self, left: Tensor) -> Tensor:
        sizes = self._sizes(left)
        return (sizes[2:] * (self.by_weight * sizes[1:-1] + self.by_bias)).sum()

    def _sizes(self, left: Tensor) -> Tensor:
        """Inputs of each layer of the top MLP and outputs of the last, behind a nought, (L +
        2,)."""
        return torch.cat([self.none, left * self.sizes, self.last])

    def slopes(self, left: Tensor) -> Tensor:
        """-dR/ds: what one unit fewer of a layer saves of the top MLP, (L,), with `left` (L,) units
        in each."""
        sizes, (of_output, of_input, of_bias) = self._sizes(left), self.rates
        return torch.addcmul(torch.addcmul(of_bias, of_input, sizes[:-2]), of_output, sizes[2:])

    def savings(self, kept: Tensor) -> Tensor:
        """What one unit fewer saves, (L, G): `slopes` and what belongs to the unit alone."""
        saved = self.slopes(kept.sum(1, dtype=torch.float64))[:, None].repeat(1, kept.shape[1])
        saved[0, :self.counts[0]] += self.own() / self.whole
        return saved

    def own(self) -> Tensor:
        """What belongs to each unit of the first layer alone, (G_1,); whole fields with all that
        goes with them."""
        own = self.of_unit
        if self.layout.groups == "field" and self.bottom:
            own = own.clone()
            own[:self.layout.dense_units] += self.bottom
        return own


def of_model(model: DLRM, kind: str) -> float:
    """What a model spends, counted from the shapes of its real layers and tables.

    >>> from models.dlrm import Shape
    >>> from models.embedding.uniform import Uniform
    >>> of_model(DLRM(Uniform(torch.ones(30, 2), 3), 0, Shape((), (5, 4))), "params_all")
    124.0
    """
    flops = kind.startswith("flops")
    stacks = [model.top] if kind == "flops_top" else [model.top, model.bottom]
    layers = list(chain.from_iterable(stacks))
    weights = sum(layer.weight.numel() for layer in layers)
    biases = sum(layer.bias.numel() for layer in layers)
    if flops:
        return 2.0 * weights + biases
    if kind == "bytes":
        return 4.0 * (weights + biases) + model.embedding.inference_bytes()
    return float(weights + biases + sum(values.numel() for values in model.embedding.parameters()))
