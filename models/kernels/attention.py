"""Self-attention between the few fields of a row, from the packed queries, keys and values of one
linear map to the heads' outputs side by side.

torch's own bmm wants each head's part contiguous: a fifth of AutoInt's step went into these copies.
The loops here read and write the packed layout (B, F, 3 width) as it is and keep the weights of a
head, F x F, in the nearest cache.
"""

import math

import numpy as np
import torch
from torch import Tensor

from .deferred import njit
from .dropout import LEVELS, random_bits
from .eager import runs_on_numba, widened


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _forward(mixed, heads, places, bits, least, kept, weights, out):
    """`places` is a tuple of a head's width: the compiler knows its length, and unrolls the loops.
    weights (B, heads, F, F) before dropout and out (B, F, width) are written."""
    batch, fields, width = out.shape
    each = len(places)
    root = np.float32(1 / np.sqrt(each))
    for b in range(batch):
        rows = mixed[b]
        for head in range(heads):
            at = head * each
            for i in range(fields):
                query, own, target = rows[i, at:at + each], weights[b, head, i], out[b, i]
                highest = np.float32(-np.inf)
                for j in range(fields):
                    key = rows[j, width + at:width + at + each]
                    score = np.float32(0)
                    for d in range(each):
                        score += query[d] * key[d]
                    own[j] = score * root
                    highest = max(highest, own[j])
                total = np.float32(0)
                for j in range(fields):
                    own[j] = np.exp(own[j] - highest)
                    total += own[j]
                target = target[at:at + each]
                for d in range(each):
                    target[d] = 0
                draws = ((b * heads + head) * fields + i) * fields
                for j in range(fields):
                    own[j] /= total
                    value = rows[j, 2 * width + at:2 * width + at + each]
                    # a product with 0 is faster than a branch that nobody can foretell
                    weight = own[j] * (kept if bits[draws + j] >= least else np.float32(0))
                    for d in range(each):
                        target[d] += weight * value[d]


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _backward(grad, mixed, heads, places, bits, least, kept, weights, grad_mixed):
    """grad (B, F, width); grad_mixed, as mixed, is written."""
    batch, fields, width = grad.shape
    each = len(places)
    root = np.float32(1 / np.sqrt(each))
    slopes, zero = np.empty(fields, np.float32), np.float32(0)
    for b in range(batch):
        rows, found = mixed[b], grad_mixed[b]
        for i in range(fields):
            for d in range(found.shape[1]):
                found[i, d] = 0
        for head in range(heads):
            at = head * each
            for i in range(fields):
                own, incoming = weights[b, head, i], grad[b, i, at:at + each]
                draws = ((b * heads + head) * fields + i) * fields
                mean = np.float32(0)
                for j in range(fields):
                    first, factor = 2 * width + at, kept if bits[draws + j] >= least else zero
                    value, grad_value = rows[j, first:first + each], found[j, first:first + each]
                    weight, slope = own[j] * factor, zero
                    for d in range(each):
                        slope += incoming[d] * value[d]
                    for d in range(each):
                        grad_value[d] += weight * incoming[d]
                    slopes[j] = slope * factor
                    mean += slopes[j] * own[j]
                query, grad_query = rows[i, at:at + each], found[i, at:at + each]
                for j in range(fields):
                    slope, first = own[j] * (slopes[j] - mean) * root, width + at
                    key, grad_key = rows[j, first:first + each], found[j, first:first + each]
                    for d in range(each):
                        grad_query[d] += slope * key[d]
                    for d in range(each):
                        grad_key[d] += slope * query[d]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mixed: Tensor, heads: int, dropped: int,
                generator: torch.Generator | None) -> Tensor:
        batch, fields, width = mixed.shape
        weights = mixed.new_empty(batch, heads, fields, fields)
        out = mixed.new_empty(batch, fields, width // 3)
        bits = random_bits(weights, dropped, generator)
        ctx.of_forward = heads, dropped - LEVELS // 2, np.float32(LEVELS / (LEVELS - dropped))
        heads, least, kept = ctx.of_forward
        _forward(mixed.numpy(), heads, (0,) * (width // 3 // heads), bits.numpy(), least, kept,
                 weights.numpy(), out.numpy())
        ctx.save_for_backward(mixed, weights, bits)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        mixed, weights, bits = ctx.saved_tensors
        heads, least, kept = ctx.of_forward
        grad_mixed = torch.empty_like(mixed)
        places = (0,) * (grad.shape[2] // heads)
        _backward(grad.contiguous().numpy(), mixed.numpy(), heads, places, bits.numpy(), least,
                  kept, weights.numpy(), grad_mixed.numpy())
        return grad_mixed, None, None, None


def attention(mixed: Tensor, heads: int, dropped: int,
              generator: torch.Generator | None = None) -> Tensor:
    """What each field reads from all fields of its row, by `heads` heads.

    Args:
        mixed: (B, F, 3 width), queries, keys and values side by side, the heads side by side in
            each.
        dropped: of the attention weights, in 65,536ths; see `Dropout`.
        generator: that the dropout draws from; torch's global one where it is left out.

    Returns:
        (B, F, width).

    >>> attention(torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 3.0]]]), 1, 0).tolist()
    [[[2.0], [2.0]]]
    """
    mixed = widened(mixed)
    if not runs_on_numba(mixed):
        return attention_plain(mixed, heads, dropped, generator)
    return _Attention.apply(mixed.contiguous(), heads, dropped, generator)


def attention_plain(mixed: Tensor, heads: int, dropped: int,
                    generator: torch.Generator | None = None) -> Tensor:
    """The definition of `attention`; draws the same random numbers."""
    batch, fields, width = mixed.shape
    parts = mixed.view(batch, fields, 3, heads, width // (3 * heads))
    query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, F, width / heads)
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])  # (B, heads, F, F)
    weights = torch.softmax(scores, dim=-1)
    if dropped:
        bits = random_bits(weights.detach(), dropped, generator).view(weights.shape)
        weights = weights * ((bits >= dropped - LEVELS // 2) * (LEVELS / (LEVELS - dropped)))
    return (weights @ value).transpose(1, 2).reshape(batch, fields, width // 3)
