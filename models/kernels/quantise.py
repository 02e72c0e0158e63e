"""A uniform quantiser whose step is given entry by entry, and its renewal.

An entry of b bits has the levels step * (code + 1/2), code = -2^(b-1) .. 2^(b-1) - 1: none of them
is zero, and one bit is a sign. `bound` is 2^(b-1); 0 stands for an entry of no bits, which is zero.
The gradient goes straight through to the value (Bengio et al. 2013), clipped or not. On a CPU the
forward pass is a numba loop, with the bits of the definition.
"""

import numpy as np
import torch
from torch import Tensor

from .deferred import njit
from .eager import runs_on_numba

# rms of a Gaussian times these starts the step of 1 .. 8 bits near its best (Lloyd-Max, uniform)
STARTS = (1.596, 0.996, 0.586, 0.335, 0.188, 0.104, 0.057, 0.031)
PER_OCTAVE = 8  # a step is 2^(k / 8), k one byte
LOWEST = -200  # k of byte 0


@njit(nogil=True, error_model="numpy")
def _quantise(values, steps, bounds, out):
    for i in range(values.size):
        bound = bounds[i]
        if bound == 0:
            out[i] = 0
        else:
            level = np.floor(values[i] / steps[i])
            level = min(max(level, -bound), bound - np.float32(1))
            out[i] = (level + np.float32(0.5)) * steps[i]


@njit(nogil=True, error_model="numpy")
def _fit(values, groups, bounds, steps, above, below):
    for i in range(values.size):
        group = groups[i]
        if group >= 0:
            bound = bounds[i]
            level = np.floor(values[i] / steps[group])
            level = min(max(level, -bound), bound - np.float32(1)) + np.float32(0.5)
            above[group] += values[i] * level
            below[group] += level * level


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, steps: Tensor, bounds: Tensor) -> Tensor:
        if not runs_on_numba(values, steps, bounds):
            return quantise_plain(values, steps, bounds)
        out = torch.empty_like(values, memory_format=torch.contiguous_format)
        _quantise(*(each.contiguous().view(-1).numpy() for each in (values, steps, bounds)),
                  out.view(-1).numpy())
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


def quantise(values: Tensor, steps: Tensor, bounds: Tensor) -> Tensor:
    """The levels of `values`, differentiable in these alone; all of one shape, float32.

    >>> values = torch.tensor([0.9, -0.2, 5.0, 3.0])
    >>> quantise(values, torch.ones(4), torch.tensor([2.0, 2.0, 2.0, 0.0])).tolist()
    [0.5, -0.5, 1.5, 0.0]
    """
    return _StraightThrough.apply(values, steps, bounds)


def quantise_plain(values: Tensor, steps: Tensor, bounds: Tensor) -> Tensor:
    """The definition of `quantise`, without a gradient."""
    levels = torch.minimum(torch.maximum(torch.floor(values / steps), -bounds), bounds - 1)
    return torch.where(bounds == 0, 0.0, (levels + 0.5) * steps)


def codes_of(values: Tensor, steps: Tensor, bounds: Tensor) -> Tensor:
    """What is stored of each entry: code + 2^(b-1), 0 .. 2^b - 1, int64; 0 for no bits.

    >>> codes_of(torch.tensor([0.9, -0.2, 5.0]), torch.ones(3), torch.full((3,), 2.0)).tolist()
    [2, 1, 3]
    """
    levels = torch.minimum(torch.maximum(torch.floor(values / steps), -bounds), bounds - 1)
    return torch.where(bounds == 0, 0.0, levels + bounds).long()


def fitted(values: Tensor, groups: Tensor, bounds: Tensor, steps: np.ndarray) -> np.ndarray:
    """The steps of least squared error for the codes that `values` have now: <v, l> / <l, l> of
    each group, l = code + 1/2.

    Args:
        values, bounds: (N, D) float32.
        groups: (N, D) int32, the group of each entry; -1 for an entry of no bits.
        steps: (G,) float32, of each group.

    Returns:
        (G,) float32, rounded as they are stored; a group that would get no positive step keeps its
        own.
    """
    above, below = np.zeros(len(steps)), np.zeros(len(steps))
    _fit(*(each.detach().cpu().contiguous().view(-1).numpy()
           for each in (values, groups, bounds)), steps, above, below)
    best = np.divide(above, below, out=steps.astype(np.float64), where=below > 0)
    return rounded(np.where(best > 0, best, steps))


def bytes_of(steps: np.ndarray) -> np.ndarray:
    """Steps as they are stored, uint8; the nearest that there is.

    >>> bytes_of(np.array([1.0, 0.5, 0.0]))
    array([200, 192,   0], dtype=uint8)
    """
    with np.errstate(divide="ignore"):
        power = np.rint(PER_OCTAVE * np.log2(steps.astype(np.float64))) - LOWEST
    return np.clip(power, 0, 255).astype(np.uint8)


def steps_of(stored: np.ndarray) -> np.ndarray:
    """The inverse of `bytes_of`, float32.

    >>> steps_of(np.array([200, 208], np.uint8)).tolist()
    [1.0, 2.0]
    """
    return np.exp2((stored.astype(np.float64) + LOWEST) / PER_OCTAVE).astype(np.float32)


def rounded(steps: np.ndarray) -> np.ndarray:
    """Steps as they come back from `bytes_of`."""
    return steps_of(bytes_of(steps))
