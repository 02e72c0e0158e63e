"""PEP: a table that is pruned by learnable soft thresholds while it is trained.

Far below zero the thresholds do nothing yet: under s = -104 both g(s) and its slope are exactly 0
in float32, so no entry is pruned, the data have no say in s, and coupled decay moves all thresholds
alike. They are then one number, and a *folded* `Pep` keeps them as one, its clock. That changes no
bit of a search; from the published -150 it spares the threshold and the Adam pass over a second
table for the first 40,000 steps, for FM half of their time.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..kernels.threshold import GATES, soft_threshold
from .base import TableEmbedding

THRESHOLD_TYPES = ("global", "dimension", "feature", "field", "feature_dim", "field_dim")
THRESHOLD_DECAYS = ("coupled", "decoupled", "none")
FOLDED_BELOW = -110.0  # exp(s) rounds to 0 under -103.98, half the smallest denormal; 6 to spare
COUNTED = 1 << 18  # entries counted at a time: they stay in the cache
LANES = 64  # entries: at least a vector of any CPU, and a whole number of them


@dataclass(frozen=True)
class Thresholds:
    """What the thresholds are.

    Args:
        type: granularity, one of THRESHOLD_TYPES.
        init: the value that every s starts from.
        gate: name of g, one of GATES.
        scale: g is multiplied by it (the published `gk`).
        decay: how the optimiser decays s, one of THRESHOLD_DECAYS; the published code's is coupled.
        learned: False cuts the loss's gradient to s, which decay alone moves then.
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
        """Shape of s. How it is broadcast follows the name, never the shape."""
        return {"global": (1,), "dimension": (width,), "feature": (num_rows, 1),
                "field": (num_fields, 1),
                "feature_dim": (num_rows, width), "field_dim": (num_fields, width)}[self.type]


class _AsItIs(torch.autograd.Function):
    """S(V, s) = V where g(s) is 0: an entry that is exactly 0 passes no gradient (eq. 11), s gets
    none."""

    @staticmethod
    def forward(ctx, values: Tensor, clock: Tensor) -> Tensor:
        ctx.save_for_backward(values, clock)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        values, clock = ctx.saved_tensors
        return torch.where(values.abs() > 0, grad, 0.0), torch.zeros_like(clock)


class _Unmoved(torch.autograd.Function):
    """The identity with a gradient of zero: the loss has no say, while the optimiser still takes
    its steps."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)


class Pep(TableEmbedding):
    """S(V, s) = sign(V) relu(|V| - g(s)), V and s trained together (Liu et al., ICLR 2021, eq. 8 to
    11).

    Differs from the published code: a granularity is broadcast by its name (theirs mixes up
    `dimension` and `field` when D = F), `field` and `field_dim` are added by the rows' fields, and
    counts are taken when asked for instead of one step late.

    Folded, it has a parameter `clock` in the place of the parameter `thresholds`, which is None. A
    loaded state is folded or not as it was when it was saved.

    Args:
        initial: V0 (N, D).
        field_sizes: rows of each field, in order; they sum to N.
        thresholds: granularity, start value and gate.

    Raises:
        ValueError: the field sizes do not sum to N.

    >>> Pep(torch.ones(3, 2), (1, 2), Thresholds("field", init=-150.0)).num_params()
    6
    """

    field_of_row: Tensor
    thresholds: nn.Parameter  # s in its own shape; None while folded
    # (LANES + rest,) while folded: the first and the last entries of s, laid flat
    clock: nn.Parameter | None

    def __init__(self, initial: Tensor, field_sizes: tuple[int, ...],
                 thresholds: Thresholds) -> None:
        super().__init__(initial.shape[0], initial.shape[1], len(field_sizes))
        if sum(field_sizes) != self.num_rows:
            raise ValueError(f"the field sizes {field_sizes} sum to {sum(field_sizes)}, the table "
                             f"has {self.num_rows} rows")
        self.weight = nn.Parameter(initial.clone())
        self.shape = thresholds.shape(self.num_rows, self.width, len(field_sizes))  # of s
        self.foldable = thresholds.init < FOLDED_BELOW
        self.thresholds = nn.Parameter(torch.full(self.shape, float(thresholds.init)))
        self.register_parameter("clock", None)
        self.register_load_state_dict_pre_hook(_fold_as_saved)
        self.granularity = thresholds.type
        self.scale = thresholds.scale
        self.learned = thresholds.learned
        self.decays = {} if thresholds.decay == "coupled" else dict.fromkeys(("thresholds",
                                                                              "clock"),
                                                                             thresholds.decay)
        self.gate = GATES[thresholds.gate]
        self._see_rows()
        field_of_row = torch.repeat_interleave(torch.arange(len(field_sizes)),
                                               torch.tensor(field_sizes))
        self.register_buffer("field_of_row", field_of_row, persistent=False)

    def _see_rows(self) -> None:
        """The thresholds go by row too where each row has its own."""
        own = self.thresholds is not None and self._by_feature
        self.by_row = ("weight", "thresholds") if own else ("weight",)

    def fold(self) -> None:
        """Before the first step: put a clock in the place of thresholds that start under
        FOLDED_BELOW, and of no other.

        Whoever folds must call `unfold` before a step is taken with s above FOLDED_BELOW; the hook
        `engine.pep.clock.Unfold` does.
        """
        if self.foldable and self.clock is None:
            self._use_clock(float(self.thresholds.detach().max()))

    def _use_clock(self, value: float) -> None:
        """Adam on a CPU treats whole vectors of a tensor and the rest after them by two codes whose
        last bits differ.

        Entries of s are therefore equal but for that rest; a clock that ends in as long a rest gets
        the bits of both.
        """
        size = math.prod(self.shape)
        self.clock = nn.Parameter(self.weight.new_full((min(size, LANES + size % LANES),), value))
        self.register_parameter("thresholds", None)
        self._see_rows()

    def unfold(self) -> None:
        """Turn the clock into the thresholds that it stands for; nothing when they are there
        already.

        The parameter is another one afterwards: an optimiser must be told, or made later.
        """
        if self.clock is not None:
            self.thresholds = nn.Parameter(self.spread(self.clock.detach()))
            self.clock = None
            self._see_rows()

    def spread(self, clock: Tensor) -> Tensor:
        """What the clock (or a moment of it, of the same shape) stands for, in the shape of s."""
        size = math.prod(self.shape)
        rest = size % LANES
        whole = clock[:1].repeat(size)
        whole[size - rest:] = clock[len(clock) - rest:]
        return whole.view(self.shape)

    def parts(self) -> dict[str, Tensor]:
        """V (N, D) and s, not copied, as `margins_of` takes them; folded, s is one number, (1,)."""
        thresholds = self.thresholds if self.clock is None else self.clock[:1]
        return {"weight": self.weight.detach(), "thresholds": thresholds.detach()}

    def gates(self, thresholds: Tensor) -> Tensor:
        """g(s) for the whole table, broadcastable against (N, D); s has its own shape or is one
        number, (1,)."""
        gates = self.scale * self.gate(thresholds)
        return gates.expand(self.shape)[self.field_of_row] if self._by_field else gates

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D).

        Thresholding the gathered rows and gathering the thresholded table are the same function
        with the same gradients up to rounding; the one that touches fewer elements is used. A table
        of the batch's rows in the place of the whole one is always thresholded first, so that its
        size, which may hold spare rows, decides nothing; but not by field, as its rows have lost
        theirs.
        """
        if self.clock is not None:
            return _AsItIs.apply(lookup(self.weight, ids), self.clock)
        return self.table_first(ids) if self._few_rows(ids) else self.gather_first(ids)

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The thresholded table and the ids, or a row for each place; see `forward`."""
        if self.clock is None and self._few_rows(ids):
            return soft_threshold(self.weight, self.gates(self._s)), ids
        return super().rows(ids)

    def _few_rows(self, ids: Tensor) -> bool:
        if len(self.weight) != self.num_rows:
            return not self._by_field
        return self.num_rows <= ids.numel()

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
            # (1, F, 1 or D): column f of a batch holds ids of field f
            thresholds = thresholds[None]
        return soft_threshold(values, self.scale * self.gate(thresholds))

    @property
    def _s(self) -> Tensor:
        """The thresholds as a pass uses them."""
        return self.thresholds if self.learned else _Unmoved.apply(self.thresholds)

    @property
    def _by_feature(self) -> bool:
        return self.granularity in ("feature", "feature_dim")

    @property
    def _by_field(self) -> bool:
        return self.granularity in ("field", "field_dim")

    @torch.no_grad()
    def table(self) -> Tensor:
        """The pruned table (N, D)."""
        return soft_threshold(self.weight, self.gates(self.parts()["thresholds"]))

    @torch.no_grad()
    def num_params(self) -> int:
        """Counted when asked."""
        if self.clock is not None:
            return int(torch.count_nonzero(self.weight))
        return int(torch.stack([torch.count_nonzero(kept) for _,
                                kept in self.kept_by_parts()]).sum())

    @torch.no_grad()
    def kept_by_parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Some rows at a time, so that no second table is made: which rows, and where |V| > g(s) in
        them, (rows, D)."""
        weight, every = self.parts().values()
        size = max(COUNTED // self.width, 1)
        for start in range(0, self.num_rows, size):
            rows, thresholds = slice(start, start + size), every
            if self.clock is None and self._by_feature:
                thresholds = every[rows]
            elif self.clock is None and self._by_field:
                thresholds = every[self.field_of_row[rows]]
            yield rows, soft_threshold(weight[rows], self.scale * self.gate(thresholds)) != 0

    def margins_of(self, weight: Tensor, thresholds: Tensor) -> Tensor:
        """|V| - g(s), (N, D), of given V and s: positive where an entry is kept. Exact budgets keep
        the largest."""
        return weight.abs() - self.gates(thresholds)


def _fold_as_saved(embedding: Pep, state: Mapping[str, Tensor], prefix: str,
                   *others: object) -> None:
    """Before a state is read, be folded or not as it is."""
    if prefix + "thresholds" in state:
        embedding.unfold()
    elif prefix + "clock" in state and embedding.clock is None:
        embedding._use_clock(math.nan)  # the value is about to be read
