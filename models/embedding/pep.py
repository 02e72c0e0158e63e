"""PEP: a table that is pruned by learnable soft thresholds while it is trained."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..kernels.threshold import GATES, soft_threshold
from .base import TableEmbedding

THRESHOLD_TYPES = ("global", "dimension", "feature", "field", "feature_dim", "field_dim")


@dataclass(frozen=True)
class Thresholds:
    """What the thresholds are.

    Args:
        type: granularity, one of THRESHOLD_TYPES.
        init: the value that every s starts from.
        gate: name of g, one of GATES.
        scale: g is multiplied by it (the published `gk`).
    """

    type: str = "feature_dim"
    init: float = -15.0
    gate: str = "sigmoid"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.type not in THRESHOLD_TYPES:
            raise ValueError(f"unknown threshold_type {self.type!r}; known: {', '.join(THRESHOLD_TYPES)}")
        if self.gate not in GATES:
            raise ValueError(f"unknown g_type {self.gate!r}; known: {', '.join(GATES)}")

    def shape(self, num_rows: int, width: int, num_fields: int) -> tuple[int, ...]:
        """Shape of s. How it is broadcast follows the name, never the shape."""
        return {"global": (1,), "dimension": (width,), "feature": (num_rows, 1), "field": (num_fields, 1),
                "feature_dim": (num_rows, width), "field_dim": (num_fields, width)}[self.type]


class Pep(TableEmbedding):
    """S(V, s) = sign(V) relu(|V| - g(s)), V and s trained together (Liu et al., ICLR 2021, eq. 8 to 11).

    Differs from the published code: a granularity is broadcast by its name (theirs mixes up `dimension` and `field`
    when D = F), `field` and `field_dim` are added by the rows' fields, and counts are taken when asked for instead of
    one step late.

    Args:
        initial: V0 (N, D).
        field_sizes: rows of each field, in order; they sum to N.
        thresholds: granularity, start value and gate.

    >>> Pep(torch.ones(3, 2), (1, 2), Thresholds("field", init=-150.0)).num_params()
    6
    """

    field_of_row: Tensor

    def __init__(self, initial: Tensor, field_sizes: tuple[int, ...], thresholds: Thresholds) -> None:
        super().__init__(initial.shape[0], initial.shape[1], len(field_sizes))
        if sum(field_sizes) != self.num_rows:
            raise ValueError(f"the field sizes {field_sizes} sum to {sum(field_sizes)}, the table has "
                             f"{self.num_rows} rows")
        self.weight = nn.Parameter(initial.clone())
        shape = thresholds.shape(self.num_rows, self.width, len(field_sizes))
        self.thresholds = nn.Parameter(torch.full(shape, float(thresholds.init)))
        self.granularity = thresholds.type
        self.scale = thresholds.scale
        self.gate = GATES[thresholds.gate]
        field_of_row = torch.repeat_interleave(torch.arange(len(field_sizes)), torch.tensor(field_sizes))
        self.register_buffer("field_of_row", field_of_row, persistent=False)

    def gates(self, thresholds: Tensor) -> Tensor:
        """g(s) for the whole table, broadcastable against (N, D)."""
        gates = self.scale * self.gate(thresholds)
        return gates[self.field_of_row] if self.granularity in ("field", "field_dim") else gates

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D).

        Thresholding the gathered rows and gathering the thresholded table are the same function with the same
        gradients; the one that touches fewer elements is used.
        """
        if self.num_rows <= ids.numel():
            return self.table_first(ids)
        return self.gather_first(ids)

    def table_first(self, ids: Tensor) -> Tensor:
        """The definition: threshold the table, then look up."""
        return lookup(soft_threshold(self.weight, self.gates(self.thresholds)), ids)

    def gather_first(self, ids: Tensor) -> Tensor:
        """Threshold only the rows that the batch holds."""
        values = lookup(self.weight, ids)
        thresholds: Tensor = self.thresholds  # `global` and `dimension` broadcast as they are
        if self.granularity in ("feature", "feature_dim"):
            thresholds = lookup(thresholds, ids)
        elif self.granularity in ("field", "field_dim"):
            thresholds = thresholds[None]  # (1, F, 1 or D): column f of a batch holds ids of field f
        return soft_threshold(values, self.scale * self.gate(thresholds))

    @torch.no_grad()
    def table(self) -> Tensor:
        """The pruned table (N, D)."""
        return soft_threshold(self.weight, self.gates(self.thresholds))

    def margins_of(self, weight: Tensor, thresholds: Tensor) -> Tensor:
        """|V| - g(s), (N, D), of given V and s: positive where an entry is kept. Exact budgets keep the largest."""
        return weight.abs() - self.gates(thresholds)
