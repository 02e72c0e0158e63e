"""PEP: a table that is pruned by learnable soft thresholds while it is trained."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..kernels.threshold import (
    GATES,
    count_kept,
    prune_rows,
    prune_rows_gradients,
    soft_threshold,
)
from ..options import Values, option
from .base import Arrays, Blueprint, ByHand, EmbeddingEntry, TableEmbedding

THRESHOLD_TYPES = ("global", "dimension", "feature", "field", "feature_dim", "field_dim")
THRESHOLD_DECAYS = ("coupled", "decoupled", "none")
AUTO = "auto"  # a start that is read off a training without thresholds
CHUNK = 1 << 16  # entries that are counted at a time, so that they stay in the cache


@dataclass(frozen=True)
class Thresholds:
    """What the thresholds are.

    Args:
        type: granularity, one of THRESHOLD_TYPES.
        init: the value that every s starts from.
        gate: name of g, one of GATES.
        scale: factor of g (the published `gk`).
        decay: how the optimiser decays s, one of THRESHOLD_DECAYS; "coupled" as published.
        learned: whether the loss has a gradient to s; without one, decay alone moves s.

    Raises:
        ValueError: an unknown type, gate or decay.
    """

    type: str = "feature_dim"
    init: float = -15.0
    gate: str = "sigmoid"
    scale: float = 1.0
    decay: str = "coupled"
    learned: bool = True

    def __post_init__(self) -> None:
        if self.type not in THRESHOLD_TYPES:
            raise ValueError(f"unknown threshold_type {self.type!r}; known: "
                             f"{', '.join(THRESHOLD_TYPES)}")
        if self.gate not in GATES:
            raise ValueError(f"unknown g_type {self.gate!r}; known: {', '.join(GATES)}")
        if self.decay not in THRESHOLD_DECAYS:
            raise ValueError(f"unknown threshold_decay {self.decay!r}; known: "
                             f"{', '.join(THRESHOLD_DECAYS)}")

    def shape(self, num_rows: int, width: int, num_fields: int) -> tuple[int, ...]:
        """Shape of s. How s is broadcast follows the type, never the shape."""
        shapes = {
            "global": (1,),
            "dimension": (width,),
            "feature": (num_rows, 1),
            "field": (num_fields, 1),
            "feature_dim": (num_rows, width),
            "field_dim": (num_fields, width),
        }
        return shapes[self.type]


class _ZeroGradient(torch.autograd.Function):
    """The identity with a gradient of zero, so that the optimiser still takes its steps."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)


class Pep(TableEmbedding):
    """S(V, s) = sign(V) relu(|V| - g(s)), V and s trained together (Liu et al., ICLR 2021, eq. 8 to
    11).

    Three things differ from the published code: a granularity is broadcast by its name (theirs
    confuses `dimension` and `field` when D = F), `field` and `field_dim` are added, and parameters
    are counted when asked for instead of one step late.

    Args:
        initial: V0 (N, D).
        field_sizes: rows of each field, in order; they sum to N. A field of size 0 holds ids of the
            last one before it that has rows, whose thresholds it has.
        thresholds: granularity, start value and gate.
        copied: whether the table is a copy of `initial`, or `initial` itself. In the latter case
            thresholds of rows are one value that is seen in every place of s: both are to be cut
            before they are trained.

    Raises:
        ValueError: the field sizes do not sum to N.

    >>> Pep(torch.ones(3, 2), (1, 2), Thresholds("field", init=-150.0)).num_params()
    6
    """

    field_of_row: Tensor
    field_of_column: Tensor
    computes_rows = True

    def __init__(self, initial: Tensor, field_sizes: tuple[int, ...],
                 thresholds: Thresholds, copied: bool = True) -> None:
        super().__init__(initial.shape[0], initial.shape[1], len(field_sizes))
        if sum(field_sizes) != self.num_rows:
            raise ValueError(f"the field sizes {field_sizes} sum to {sum(field_sizes)}, the table "
                             f"has {self.num_rows} rows")
        shape = thresholds.shape(self.num_rows, self.width, len(field_sizes))
        self.granularity = thresholds.type
        self.weight = nn.Parameter(initial.clone() if copied else initial)
        start = torch.tensor(float(thresholds.init)).expand(shape)
        alone = copied or not self._by_feature
        self.thresholds = nn.Parameter(start.clone(memory_format=torch.contiguous_format)
                                       if alone else start)
        self.scale = thresholds.scale
        self.learned = thresholds.learned
        self.decays = {} if thresholds.decay == "coupled" else {"thresholds": thresholds.decay}
        self.gate = GATES[thresholds.gate]
        self.row_indexed = ("weight", "thresholds") if self._by_feature else ("weight",)
        # a threshold of several entries has a gradient that is a sum
        self.sharded = "vectors" if thresholds.type == "feature_dim" else "rows"
        field_of_row = torch.repeat_interleave(torch.arange(len(field_sizes)),
                                               torch.tensor(field_sizes))
        self.register_buffer("field_of_row", field_of_row, persistent=False)
        numbers = torch.arange(len(field_sizes)) * (torch.tensor(field_sizes) > 0)
        self.register_buffer("field_of_column", numbers.cummax(0).values, persistent=False)
        self.shares_fields = 0 in field_sizes

    @property
    def _by_feature(self) -> bool:
        return self.granularity in ("feature", "feature_dim")

    @property
    def _by_field(self) -> bool:
        return self.granularity in ("field", "field_dim")

    @property
    def _s(self) -> Tensor:
        """The thresholds as the forward pass uses them."""
        return self.thresholds if self.learned else _ZeroGradient.apply(self.thresholds)

    def gates(self, thresholds: Tensor) -> Tensor:
        """g(s) of given thresholds, broadcastable against the table (N, D)."""
        gates = self.scale * self.gate(thresholds)
        return gates[self.field_of_row] if self._by_field else gates

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D).

        Thresholding the whole table before the lookup and thresholding the gathered rows are the
        same function with the same gradients up to rounding. The one that touches fewer entries is
        used: the first where the table has no more rows than the batch has ids.

        An optimiser that is row-indexed replaces the table by one of the batch's rows alone. It is
        always thresholded before the lookup, as its number of rows may include padding; but not by
        field, because its rows do not know their field.
        """
        return self.table_first(ids) if self._few_rows(ids) else self.gather_first(ids)

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The thresholded table and the ids, or a row for each place; see `forward`."""
        if self._few_rows(ids):
            return soft_threshold(self.weight, self.gates(self._s)), ids
        return super().rows(ids)

    def by_hand(self, rows: Arrays) -> ByHand | None:
        """Of thresholds for every entry with a sigmoid as their gate, and learned."""
        if self.granularity != "feature_dim" or self.gate is not torch.sigmoid or not self.learned:
            return None
        table, gates, scale = rows["weight"], rows["thresholds"], np.float32(self.scale)
        thresholds = torch.from_numpy(gates)
        torch.sigmoid(thresholds, out=thresholds)
        prune_rows(table.reshape(-1), gates.reshape(-1), scale)

        def gradients(grad: np.ndarray) -> Arrays:
            prune_rows_gradients(table.reshape(-1), gates.reshape(-1), scale, grad.reshape(-1))
            return {"weight": grad, "thresholds": gates}

        return table, gradients

    def _few_rows(self, ids: Tensor) -> bool:
        if len(self.weight) == self.num_rows:
            return self.num_rows <= ids.numel()
        return not self._by_field

    def table_first(self, ids: Tensor) -> Tensor:
        """The definition: threshold the table, then look up."""
        return lookup(soft_threshold(self.weight, self.gates(self._s)), ids)

    def gather_first(self, ids: Tensor) -> Tensor:
        """Threshold only the rows that the batch holds."""
        values = lookup(self.weight, ids)
        thresholds = self._s  # `global` and `dimension` broadcast as they are
        if self._by_feature:
            thresholds = lookup(thresholds, ids)
        elif self._by_field:
            # (1, F, 1 or D): column f of a batch holds ids of field f, or of one before it
            thresholds = (lookup(thresholds, self.field_of_column[None]) if self.shares_fields
                          else thresholds[None])
        return soft_threshold(values, self.scale * self.gate(thresholds))

    @torch.no_grad()
    def table(self) -> Tensor:
        """The pruned table (N, D)."""
        return soft_threshold(self.weight, self.gates(self.thresholds))

    @torch.no_grad()
    def num_params(self) -> int:
        """Entries that are not pruned, counted when asked."""
        return int(sum(count_kept(self.weight[rows], gates) for rows, gates in self._gates()))

    @torch.no_grad()
    def kept_per_row(self) -> Tensor:
        """(N,) entries of each row that are not pruned."""
        return torch.cat([torch.count_nonzero(kept, dim=1) for _, kept in self.kept_by_chunk()])

    @torch.no_grad()
    def kept_by_chunk(self) -> Iterator[tuple[slice, Tensor]]:
        """Which entries are kept, a few rows at a time, so that no second table is made.

        Yields:
            the rows as a slice, and whether |V| > g(s) in each of their entries, (rows, D).
        """
        for rows, gates in self._gates():
            yield rows, ~(self.weight[rows].abs() <= gates)  # a NaN is kept, and seen

    def _gates(self) -> Iterator[tuple[slice, Tensor]]:
        """A few rows at a time, and g(s) of them."""
        size = max(CHUNK // self.width, 1)
        for start in range(0, self.num_rows, size):
            rows = slice(start, start + size)
            thresholds: Tensor = self.thresholds
            if self._by_feature:
                thresholds = thresholds[rows]
            elif self._by_field:
                thresholds = thresholds[self.field_of_row[rows]]
            yield rows, self.gate(thresholds).mul_(self.scale)

    def margins_of(self, weight: Tensor, thresholds: Tensor) -> Tensor:
        """|V| - g(s), (N, D), of given V and s. It is positive where an entry is kept."""
        return weight.abs() - self.gates(thresholds)


_PAPER = "Liu et al. 2021"


@dataclass(frozen=True)
class PepSettings:
    """The settings of the thresholds, by their published names; `Thresholds` says what they do."""

    threshold_type: str = option("feature_dim", "granularity: which entries share a threshold",
                                 choices=THRESHOLD_TYPES, source=_PAPER)
    threshold_init: float | str = option(
        -15.0, "start value of every s; auto: by rule, from a uniform table that is trained first",
        source=_PAPER)
    g_type: str = option("sigmoid", "the gate g", choices=GATES, source=_PAPER)
    gk: float = option(1.0, "factor of the gate", low=1e-9, source=_PAPER)
    threshold_decay: str = option("coupled", "weight decay of s; coupled as published",
                                  choices=THRESHOLD_DECAYS)
    threshold_gradient: bool = option(True, "whether the loss moves s, or decay alone")


def _build(plan: Blueprint) -> Pep:
    own: PepSettings = plan.own
    if isinstance(own.threshold_init, str):
        raise ValueError(f"threshold_init={own.threshold_init} is for the training scripts, which "
                         "replace it by a number; give the number here")
    thresholds = Thresholds(own.threshold_type, own.threshold_init, own.g_type, own.gk,
                            own.threshold_decay, own.threshold_gradient)
    return Pep(plan.table(), plan.field_sizes, thresholds, not plan.cut)


def _check(own: PepSettings, values: Values) -> None:
    if isinstance(own.threshold_init, str):
        if own.threshold_init != AUTO:
            raise ValueError(f"threshold_init must be a number or {AUTO!r}, got "
                             f"{own.threshold_init!r}")
        if values["optimizer"] != "adam" or own.threshold_decay != "coupled":
            raise ValueError(f"threshold_init={AUTO} counts on the pace of coupled decay in Adam, "
                             f"and this run has optimizer={values['optimizer']} and "
                             f"threshold_decay={own.threshold_decay}; give a number")
    if values["optimizer"] == "sgd" and own.threshold_decay == "decoupled":
        raise ValueError("threshold_decay=decoupled is a form of Adam's decay; with optimizer=sgd "
                         "the two are one. Leave one of them away")


ENTRY = EmbeddingEntry(_build, PepSettings, _check, grid={"threshold_init": [-15.0, -8.0, -5.0]})
