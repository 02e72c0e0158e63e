"""Where thresholds may start: a start above a table's values prunes them before they are learned.

At the start every threshold is the same number s, and an entry is pruned if |V| <= scale * g(s). A
table whose values have a standard deviation of 1e-4 is therefore gone at s = -6, where sigmoid(s)
is 0.0025, and a pruned entry gets no gradient: it does not come back.
"""

import bisect

import torch
from torch import Tensor

from .kernels.threshold import GATES

CHUNK = 1 << 20  # entries that are looked at together, so that no second table is made
LOWEST = -8000  # tenths: there g(s) is 0 in every precision


@torch.no_grad()
def share_below(values: Tensor, gate: str, scale: float, init: float) -> float:
    """The share of a table that thresholds of one value prune: entries with |V| <= scale * g(init).

    Entries that are exactly 0 do not count, as no start could keep them: padding rows, and rows
    without a vector.

    Args:
        values: V, any shape, on any device.
        gate: name of g, one of GATES.
        scale: factor of the gate.
        init: s.

    Returns:
        0 to 1; 0 for a table that is all zero.

    Raises:
        ValueError: the gate is unknown.

    >>> share_below(torch.tensor([[0.0, 0.0], [0.1, -2.0], [0.3, 0.9]]), "sigmoid", 1.0, init=0.0)
    0.5
    """
    _check_gate(gate)
    there = int(torch.count_nonzero(values))
    return (there - _above(values, gate, scale, init)) / there if there else 0.0


@torch.no_grad()
def fitting_start(values: Tensor, gate: str, scale: float, share: float = 0.01) -> float:
    """The highest s, in tenths and up to 0, whose threshold prunes at most `share` of a table.

    Entries that are exactly 0 do not count.

    Args:
        values: V, any shape, on any device.
        gate: name of g, one of GATES.
        scale: factor of the gate.
        share: of the table, from 0 to below 1.

    Raises:
        ValueError: the gate is unknown, the share is not in that range, or the table is all zero.

    >>> fitting_start(torch.full((4, 2), 0.01), "sigmoid", scale=1.0)  # sigmoid(-4.6) = 0.00995
    -4.6
    """
    _check_gate(gate)
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share}")
    if not (there := int(torch.count_nonzero(values))):
        raise ValueError("the table is all zero, so no start fits it; initialise it first")

    def too_many(tenths: int) -> bool:
        return (there - _above(values, gate, scale, tenths / 10)) / there > share

    return (bisect.bisect_left(range(LOWEST, 1), True, key=too_many) - 1 + LOWEST) / 10


def _above(values: Tensor, gate: str, scale: float, init: float) -> int:
    """How many entries are above thresholds of one value."""
    level = scale * GATES[gate](values.new_full((1,), init))  # in the table's precision, as trained
    return sum(int((part.abs() > level).sum()) for part in values.reshape(-1).split(CHUNK))


def _check_gate(gate: str) -> None:
    if gate not in GATES:
        raise ValueError(f"unknown gate {gate!r}; known: {', '.join(GATES)}")
