"""When a numba loop may take the place of torch's operations."""

import functools
import importlib.util

import torch
from torch import Tensor


@functools.cache
def has_numba() -> bool:
    """Whether numba is installed; it is not imported."""
    return importlib.util.find_spec("numba") is not None


def widened(values: Tensor) -> Tensor:
    """What a product in bfloat16 gave, in float32; other values as they are.

    >>> widened(torch.ones(1).bfloat16()).dtype, widened(torch.ones(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return values.float() if values.dtype == torch.bfloat16 else values


def runs_on_numba(*values: Tensor) -> bool:
    """Whether all values are float32 on a CPU, numba is installed and nothing records the
    operations: a compiler or a tracer would see a loop's result as a constant, or fail at it.

    >>> runs_on_numba(torch.ones(2)), runs_on_numba(torch.ones(2).double())
    (True, False)
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not recorded and has_numba() and all(
        value.device.type == "cpu" and value.dtype == torch.float32 for value in values)
