"""Columns of a layer's weights in groups of equal size, one unit after the other: their energies,
and their scaling.

A step of UMEC does both on whole layers between two steps of training, when the weights lie in the
nearest caches. As torch expressions they make and multiply matrices of the layers' sizes; the numba
loops read the weights once, and write nothing but the columns that change.
"""

import numpy as np
import torch
from torch import Tensor

from models.kernels.jit import njit

# rows that are summed up in single precision before they are added to the total in double
BLOCK = 16
# share of the columns up to which they are scaled one by one; from there on whole rows are faster
FEW = 0.25


@njit(nogil=True)
def add_up(weight, out):
    """`energies`, of arrays."""
    rows, columns = weight.shape
    part, total = np.empty(columns, np.float32), np.zeros(columns, np.float64)
    for first in range(0, rows, BLOCK):
        part[:] = 0
        for row in range(first, min(first + BLOCK, rows)):
            for column in range(columns):
                part[column] += weight[row, column] * weight[row, column]
        for column in range(columns):
            total[column] += part[column]
    size = columns // out.size
    for unit in range(out.size):
        out[unit] = total[unit * size:(unit + 1) * size].sum()


@njit(nogil=True)
def multiply(weight, factors):
    """`scale`, of arrays."""
    rows, columns = weight.shape
    size, count = columns // factors.size, 0
    each, changed = np.empty(columns, np.float32), np.empty(columns, np.int64)
    for column in range(columns):
        each[column] = factors[column // size]
        if each[column] != 1:
            changed[count] = column
            count += 1
    if count <= FEW * columns:
        for row in range(rows):
            for place in range(count):
                weight[row, changed[place]] *= each[changed[place]]
    else:
        for row in range(rows):
            for column in range(columns):
                weight[row, column] *= each[column]


def energies(weight: Tensor, out: Tensor) -> None:
    """Sum of the squared weights of each unit, into `out`.

    Args:
        weight: (outputs, inputs), contiguous; not differentiated.
        out: (G,), a divisor of the inputs.

    >>> energies(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 0.0]]), found := torch.zeros(2))
    >>> found.tolist()
    [6.0, 25.0]
    """
    if weight.device.type == "cpu":
        add_up(weight.detach().numpy(), out.numpy())
    else:
        energies_plain(weight, out)


def energies_plain(weight: Tensor, out: Tensor) -> None:
    """The definition of `energies`, up to rounding."""
    weight = weight.detach()
    out.copy_(torch.linalg.vecdot(weight, weight, dim=0).view(len(out), -1).sum(1))


def scale(weight: Tensor, factors: Tensor) -> None:
    """Multiply the columns of each unit by its factor, in place.

    Args:
        weight: (outputs, inputs), contiguous; not differentiated.
        factors: (G,), a divisor of the inputs.

    >>> scale(weight := torch.ones(1, 4), torch.tensor([1.0, 0.5]))
    >>> weight.tolist()
    [[1.0, 1.0, 0.5, 0.5]]
    """
    if weight.device.type == "cpu":
        multiply(weight.detach().numpy(), factors.numpy())
    else:
        scale_plain(weight, factors)


def scale_plain(weight: Tensor, factors: Tensor) -> None:
    """The definition of `scale`."""
    weight.detach().view(len(weight), len(factors), -1).mul_(factors[:, None])
