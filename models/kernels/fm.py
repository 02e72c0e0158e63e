"""A factorisation machine as one operation, with its gradient written down (Rendle 2010).

    logit_b = sum_f w[k_bf] + (|a_b|^2 - sum_f |v[i_bf]|^2) / 2, where a_b = sum_f v[i_bf]

is the sum of a row's vectors. With G_b the gradient of the loss to logit_b,

    dL/dw[k] = sum of G_b over the places (b, f) at which k stands,
    dL/dv[i] = sum of G_b a_b over the places of i - v[i] times the sum of G_b over them,

so nothing of size (B, F, D) is made in either pass. Rows are added up in the order of the batch,
which gives the same bits in each run. On a CPU both passes are numba loops (1,024 x 7 ids into
1,300 rows of 64, one core of an AMD EPYC: 0.10 and 0.05 ms); for other devices and types the plain
definition and torch's own gradient of it serve.
"""

import numpy as np
import torch
from torch import Tensor

from .deferred import njit
from .eager import runs_on_numba
from .lookup import lookup


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _forward(table, rows, weights, ids, sums, logits):
    """`sums` (B, D), or (1, D) where nobody reads them later."""
    for b in range(rows.shape[0]):
        total = sums[b if sums.shape[0] > 1 else 0]
        total[:] = 0
        squares, square, first = np.float32(0), np.float32(0), np.float32(0)
        for f in range(rows.shape[1]):
            row = rows[b, f]
            if row < 0 or row >= table.shape[0]:
                return b
            vector = table[row]
            for d in range(vector.size):
                total[d] += vector[d]
                squares += vector[d] * vector[d]
        for d in range(total.size):
            square += total[d] * total[d]
        for f in range(ids.shape[1]):
            row = ids[b, f]
            if row < 0 or row >= weights.shape[0]:
                return b
            first += weights[row, 0]
        logits[b] = (square - squares) * np.float32(0.5) + first
    return -1


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _backward(grad, table, rows, ids, sums, table_grad, weights_grad):
    # of each row: the sum of G_b
    coefficients = np.zeros(table.shape[0], np.float32)
    for b in range(rows.shape[0]):
        total = sums[b]
        for f in range(rows.shape[1]):
            own = table_grad[rows[b, f]]
            coefficients[rows[b, f]] += grad[b]
            for d in range(own.size):
                own[d] += grad[b] * total[d]
        for f in range(ids.shape[1]):
            weights_grad[ids[b, f], 0] += grad[b]
    for row in range(table.shape[0]):
        coefficient = coefficients[row]
        if coefficient != 0:
            for d in range(table.shape[1]):
                table_grad[row, d] -= coefficient * table[row, d]


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def fm_gradients(table, weights, bias, ids, labels, table_grad, weights_grad):
    """An FM's loss and gradients: both passes in one, while a row is in the cache.

    The definition is `binary_cross_entropy_with_logits` of `fm_plain(table, ids, weights, ids) +
    bias`, and torch's gradients of it. Ids are not checked.

    Args:
        table: (U, D) float32, as the others.
        weights: (U, 1).
        bias: (1,).
        ids: (B, F) int32 below U, of both tables.
        labels: (B,) of 0 and 1.
        table_grad, weights_grad: written over, (U, D) and (U, 1).

    Returns:
        The batch's mean loss, and the gradient of the bias.
    """
    one, half = np.float32(1), np.float32(0.5)
    squares = np.zeros(table.shape[0], np.float32)
    total = np.empty(table.shape[1], np.float32)
    table_grad[:] = 0
    weights_grad[:] = 0
    for row in range(table.shape[0]):
        part = np.float32(0)
        for d in range(table.shape[1]):
            part += table[row, d] * table[row, d]
        squares[row] = part
    loss, bias_grad = np.float64(0), np.float32(0)
    for b in range(ids.shape[0]):
        total[:] = 0
        logit, square = np.float32(0), np.float32(0)
        for f in range(ids.shape[1]):
            vector = table[ids[b, f]]
            for d in range(total.size):
                total[d] += vector[d]
            logit += weights[ids[b, f], 0] - half * squares[ids[b, f]]
        for d in range(total.size):
            square += total[d] * total[d]
        logit += half * square + bias[0]
        rest = np.exp(-abs(logit))
        loss += max(logit, np.float32(0)) - logit * labels[b] + np.log1p(rest)
        high, low = one / (one + rest), rest / (one + rest)
        positive, negative = (high, low) if logit >= 0 else (low, high)  # probabilities
        # p - y, without losing the digits of a small one in a difference
        slope = (one - labels[b]) * positive - labels[b] * negative
        slope /= np.float32(ids.shape[0])
        bias_grad += slope
        for f in range(ids.shape[1]):
            vector, own = table[ids[b, f]], table_grad[ids[b, f]]
            weights_grad[ids[b, f], 0] += slope
            for d in range(total.size):
                own[d] += slope * (total[d] - vector[d])
    return loss / ids.shape[0], bias_grad


def _logits(table: Tensor, rows: Tensor, weights: Tensor, ids: Tensor, sums: Tensor) -> Tensor:
    logits = table.new_empty(len(rows))
    wrong = _forward(table.detach().numpy(), rows.numpy(), weights.detach().numpy(), ids.numpy(),
                     sums.numpy(), logits.numpy())
    if wrong >= 0:
        raise IndexError(f"row {wrong} of the batch has an id outside the tables: its ids are "
                         f"{rows[wrong].tolist()} and {ids[wrong].tolist()}, allowed are 0 .. "
                         f"{len(table) - 1} and 0 .. {len(weights) - 1}")
    return logits


class _FM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, rows: Tensor, weights: Tensor, ids: Tensor) -> Tensor:
        sums = table.new_empty((len(rows), table.shape[1]))
        logits = _logits(table, rows, weights, ids, sums)
        ctx.save_for_backward(table, rows, ids, sums)
        ctx.num_weights = len(weights)
        return logits

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, Tensor, None]:
        table, rows, ids, sums = ctx.saved_tensors
        table_grad, weights_grad = torch.zeros_like(table), table.new_zeros((ctx.num_weights, 1))
        _backward(grad.contiguous().numpy(), table.numpy(), rows.numpy(), ids.numpy(), sums.numpy(),
                  table_grad.numpy(), weights_grad.numpy())
        return table_grad, None, weights_grad, None


def fm(table: Tensor, rows: Tensor, weights: Tensor, ids: Tensor) -> Tensor:
    """First-order part and summed pairwise products of the field vectors, without the bias.

    Args:
        table: (U, D) vectors, differentiable.
        rows: (B, F) which of them each row has.
        weights: (N, 1) first-order weights, differentiable.
        ids: (B, F) which of these each row has.

    Returns:
        logits (B,).

    Raises:
        IndexError: an index outside `table` or `weights`.

    >>> table, ids = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0, 1, 2]])
    >>> fm(table, ids, torch.tensor([[0.5], [0.0], [0.0]]), ids)  # 0.5 + 2 + 3 + 6
    tensor([11.5000])
    """
    if not runs_on_numba(table, weights):
        return fm_plain(table, rows, weights, ids)
    table, weights = table.contiguous(), weights.contiguous()
    if torch.is_grad_enabled():
        return _FM.apply(table, rows, weights, ids)
    return _logits(table, rows, weights, ids, table.new_empty((1, table.shape[1])))


def fm_plain(table: Tensor, rows: Tensor, weights: Tensor, ids: Tensor) -> Tensor:
    """The definition of `fm`."""
    vectors = lookup(table, rows)
    pairs = (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=1) / 2
    return pairs + lookup(weights, ids).sum(dim=(1, 2))

