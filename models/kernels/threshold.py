"""The soft threshold S(V, s) = sign(V) relu(|V| - g(s)) (PEP, eq. 8) and the gate functions g."""

from collections.abc import Callable

import torch
from torch import Tensor

# A.1 asks of g: positive, -> 0 at -inf, -> inf at +inf, bounded positive derivative, g'(s_init) < 1.
# The paper's own sigmoid stops at 1 and so breaks the third; softplus satisfies all.
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
}


def soft_threshold(values: Tensor, gates: Tensor) -> Tensor:
    """sign(V) relu(|V| - g), element by element; `gates` must broadcast against `values`.

    An entry with |V| <= g is zero and passes no gradient, neither to V nor to g (eq. 11): relu's derivative at zero is
    zero in torch. The derivative of sign is taken as zero, that of |V| as sign(V).

    Args:
        values: V, any shape.
        gates: g(s), not negative.

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), torch.tensor(1.0)).tolist()
    [-2.0, 0.0, 1.0]
    """
    return torch.sign(values) * torch.relu(values.abs() - gates)
