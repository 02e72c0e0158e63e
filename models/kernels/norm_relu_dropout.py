"""Batch norm, ReLU and dropout of a hidden layer as one operation.

The plain definition is the three modules one after the other. Here each pass over (B, C) does what
it can: two for the column's mean and variance, one for the output; two for the gradient. The output
says by itself where the gradient passes: where it is not zero. 1,024 x 100 on one core of an AMD
EPYC: see `benchmarks/results`.
"""

import numpy as np
import torch
from torch import Tensor, nn

from .deferred import njit
from .dropout import LEVELS, Dropout, random_bits
from .eager import runs_on_numba, widened


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _moments(x, mean, variance):
    """Of the columns of x (B, C), summed in double precision; the variance is the biased one."""
    rows, width = x.shape
    for b in range(rows):
        row = x[b]
        for c in range(width):
            mean[c] += row[c]
    mean /= rows
    for b in range(rows):
        row = x[b]
        for c in range(width):
            variance[c] += (row[c] - mean[c]) ** 2
    variance /= rows


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _forward(x, factor, shift, bits, least, kept, out):
    """out = relu(factor * x + shift), times `kept` where bits >= least, else 0."""
    rows, width = x.shape
    for b in range(rows):
        row, own, draws = x[b], out[b], bits[b * width:(b + 1) * width]
        for c in range(width):
            value = factor[c] * row[c] + shift[c]
            # a NaN is neither above 0 nor below it, and must be seen
            value = np.float32(0) if value <= 0 else value * kept
            own[c] = value if draws[c] >= least else np.float32(0)


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _backward(grad, x, out, mean, root, weight, kept, grad_x, grad_weight, grad_bias):
    """`root` is 1 / sqrt(variance + eps); the gradients of weight and bias must hold zeros."""
    rows, width = x.shape
    for b in range(rows):
        row, own, incoming = x[b], out[b], grad[b]
        for c in range(width):
            passed = incoming[c] * kept if own[c] != 0 else np.float32(0)
            grad_bias[c] += passed
            grad_weight[c] += passed * (row[c] - mean[c])
    for c in range(width):
        grad_weight[c] *= root[c]
    factor, slope, level = weight * root, grad_weight * root / rows, grad_bias / np.float32(rows)
    for b in range(rows):
        row, own, incoming, found = x[b], out[b], grad[b], grad_x[b]
        for c in range(width):
            passed = incoming[c] * kept if own[c] != 0 else np.float32(0)
            found[c] = factor[c] * (passed - level[c] - (row[c] - mean[c]) * slope[c])


class _NormReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d,
                dropped: int) -> Tensor:
        width, values = x.shape[1], x.numpy()
        mean, variance = np.zeros(width), np.zeros(width)
        _moments(values, mean, variance)
        _keep_running(norm, len(x), mean, variance)
        root = (1 / np.sqrt(variance + norm.eps)).astype(np.float32)
        factor, middle = weight.numpy() * root, mean.astype(np.float32)
        bits = random_bits(x, dropped)
        out, kept = torch.empty_like(x), np.float32(LEVELS / (LEVELS - dropped))
        _forward(values, factor, bias.numpy() - factor * middle, bits.numpy(),
                 dropped - LEVELS // 2, kept, out.numpy())
        ctx.save_for_backward(x, weight, out)
        ctx.of_forward = middle, root, kept
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, out = ctx.saved_tensors
        middle, root, kept = ctx.of_forward
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        grad_bias = torch.zeros_like(weight)
        _backward(grad.contiguous().numpy(), x.numpy(), out.numpy(), middle, root, weight.numpy(),
                  kept, grad_x.numpy(), grad_weight.numpy(), grad_bias.numpy())
        return grad_x, grad_weight, grad_bias, None, None


def _keep_running(norm: nn.BatchNorm1d, rows: int, mean: np.ndarray, variance: np.ndarray) -> None:
    """Move the running mean and (unbiased) variance, as torch's batch norm does."""
    running, momentum = dict(norm.named_buffers()), norm.momentum
    assert momentum is not None  # see `fits`
    running["num_batches_tracked"].add_(1)
    unbiased = variance * (rows / (rows - 1))
    for name, value in (("running_mean", mean), ("running_var", unbiased)):
        running[name].lerp_(torch.from_numpy(value.astype(np.float32)), momentum)


def fits(norm: nn.Module, relu: nn.Module, dropout: nn.Module, x: Tensor) -> bool:
    """Whether the three modules on x (B, C) may be taken as one: in training, on a CPU, with the
    parameters and running values of torch's default."""
    return (type(norm) is nn.BatchNorm1d and type(relu) is nn.ReLU and type(dropout) is Dropout
            and norm.training and dropout.training and norm.affine and norm.track_running_stats
            and norm.momentum is not None and len(x) > 1 and x.dim() == 2
            and runs_on_numba(widened(x)))


def norm_relu_dropout(x: Tensor, norm: nn.BatchNorm1d, dropout: Dropout) -> Tensor:
    """`dropout(relu(norm(x)))` where the modules `fits`; draws the same random numbers.

    Args:
        x: (B, C), float32 or what a product in bfloat16 gave.

    >>> x, norm = torch.tensor([[1.0], [3.0]]), nn.BatchNorm1d(1)
    >>> norm_relu_dropout(x, norm, Dropout(0.0)).detach().round(decimals=3).tolist()
    [[0.0], [1.0]]
    """
    return _NormReluDropout.apply(widened(x).contiguous(), norm.weight, norm.bias, norm,
                                  dropout.dropped)
