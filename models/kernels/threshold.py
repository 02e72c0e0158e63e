"""The soft threshold S(V, s) = sign(V) relu(|V| - g(s)) (PEP, eq. 8) and the gate functions g."""

from collections.abc import Callable

import torch
from torch import Tensor

# A.1 asks of g: positive, -> 0 at -inf, -> inf at +inf, bounded positive derivative, g'(s_init) <
# 1. The paper's own sigmoid stops at 1 and so breaks the third; softplus satisfies all.
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
}


class _SoftThreshold(torch.autograd.Function):
    """The backward pass compares again instead of keeping a bool mask, which the compiler reads one
    entry at a time."""

    @staticmethod
    def forward(ctx, values: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(values, gates)
        return values - torch.clamp(values, -gates, gates)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        values, gates = ctx.saved_tensors
        kept = torch.where(values.abs() > gates, grad, 0.0)
        return kept, (-kept * torch.sign(values)).sum_to_size(gates.shape)


def soft_threshold(values: Tensor, gates: Tensor) -> Tensor:
    """sign(V) relu(|V| - g), element by element; `gates` must broadcast to the shape of `values`.

    An entry with |V| <= g is zero and passes no gradient, neither to V nor to g (eq. 11). The
    derivative of sign is taken as zero, that of |V| as sign(V).

    Args:
        values: V, any shape.
        gates: g(s), not negative.

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), torch.tensor(1.0)).tolist()
    [-2.0, 0.0, 1.0]
    """
    return _SoftThreshold.apply(values, gates)


def soft_threshold_plain(values: Tensor, gates: Tensor) -> Tensor:
    """The definition of `soft_threshold`; torch's own gradient of it is the one of eq. 11."""
    return torch.sign(values) * torch.relu(values.abs() - gates)
