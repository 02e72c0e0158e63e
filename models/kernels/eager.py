"""When a numba loop may take the place of torch's operations."""

import functools
import importlib.util

import torch
from torch import Tensor, nn


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


def transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, ...) is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def recorded() -> bool:
    """Whether anything but torch itself takes the operations: a compiler, a tracer, a transform, or
    a mode that gets each of them (make_fx, FakeTensorMode)."""
    return (torch.compiler.is_compiling() or torch.jit.is_tracing() or transformed()
            or torch._C._len_torch_dispatch_stack() > 0)


def runs_on_numba(*values: Tensor, ids: Tensor | None = None) -> bool:
    """Whether a numba loop may read these tensors: it is installed, values are float32, all are on
    a CPU and of no subclass of Tensor (whose memory need not hold its values), and the operations
    are not `recorded`: a loop's result would be recorded as a constant.

    >>> runs_on_numba(torch.ones(2)), runs_on_numba(torch.ones(2).double())
    (True, False)
    >>> runs_on_numba(ids=torch.ones(2).long())
    True
    """
    return not recorded() and has_numba() and (ids is None or _plain(ids)) and all(
        _plain(value) and value.dtype == torch.float32 for value in values)


def _plain(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and type(tensor) in (Tensor, nn.Parameter)
