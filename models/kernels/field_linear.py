"""The first layer of an MLP on looked-up vectors, computed once for each distinct row of a field.

    h_b = bias + sum_f W_f v[i_bf]

where W_f (H, D) is the part of the weight (H, F * D) that reads field f. The definition looks the
vectors up, lays them side by side and multiplies: B * F products of W_f with a vector. Batches hold
few distinct rows (1,024 x 7 ids of MovieLens-1M: 1,319), so here W_f v is computed once a row and
looked up instead: a fifth of the products, and no tensor (B, F, D). The same holds for the
gradients, which are summed over the places of a row before they are multiplied. Sums have another
order than those of the definition, so the last bits differ from it. It stays in float32 where other
products are in bfloat16, which would be slower.
"""

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from .batch_rows import copy_rows
from .deferred import njit
from .eager import runs_on_numba
from .lookup import lookup


@njit(nogil=True)
def _number(rows, num_rows, unique, places, starts):
    """Number the distinct rows of each column of rows (B, F), column after column.

    Args:
        unique: (B * F,); the first ones become the distinct rows.
        places: (B, F), becomes where each row stands in `unique`.
        starts: (F + 1,), becomes where the rows of each column start there.

    Returns:
        the flat position of the first row that is not in 0 .. num_rows-1, or -1.
    """
    slots = np.full(num_rows, -1, np.int32)
    count = 0
    for f in range(rows.shape[1]):
        starts[f] = count
        for b in range(rows.shape[0]):
            row = rows[b, f]
            if row < 0 or row >= num_rows:
                return b * rows.shape[1] + f
            if slots[row] < starts[f]:  # not seen in this column
                slots[row] = count
                unique[count] = row
                count += 1
            places[b, f] = slots[row]
    starts[rows.shape[1]] = count
    return -1


@njit(nogil=True)
def _gather_sum(products, places, bias, out):
    """out[b] = bias + the sum over f of products[places[b, f]]."""
    for b in range(places.shape[0]):
        own = out[b]
        own[:] = bias
        for f in range(places.shape[1]):
            product = products[places[b, f]]
            for h in range(own.size):
                own[h] += product[h]


@njit(nogil=True)
def _scatter_sum(grad, places, out):
    """out[places[b, f]] += grad[b], in the order of the batch."""
    for b in range(places.shape[0]):
        own = grad[b]
        for f in range(places.shape[1]):
            target = out[places[b, f]]
            for h in range(own.size):
                target[h] += own[h]


@njit(nogil=True)
def _add_to(values, rows, out):
    """out[rows[i]] += values[i]."""
    for i in range(rows.size):
        source, target = values[i], out[rows[i]]
        for d in range(source.size):
            target[d] += source[d]


class _FieldLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        (batch, fields), width = rows.shape, table.shape[1]
        numbers, places = np.empty(rows.numel(), np.int32), np.empty((batch, fields), np.int32)
        starts = np.empty(fields + 1, np.int64)
        wrong = _number(rows.numpy(), len(table), numbers, places, starts)
        if wrong >= 0:
            raise IndexError(f"row {wrong // fields} of the batch has the id "
                             f"{int(rows.reshape(-1)[wrong])} in field {wrong % fields}; allowed "
                             f"are 0 .. {len(table) - 1}")
        unique = numbers[:starts[-1]]
        vectors = table.new_empty(len(unique), width)
        copy_rows(table.numpy(), unique, vectors.numpy())
        products = table.new_empty(len(unique), len(weight))
        with torch.autocast("cpu", enabled=False):
            for _, own, of_field in _parts(starts, weight, width):
                torch.mm(vectors[own], of_field.T, out=products[own])
        out = table.new_empty(batch, len(weight))
        _gather_sum(products.numpy(), places, bias.numpy(), out.numpy())
        ctx.save_for_backward(vectors, weight)
        ctx.of_batch = unique, places, starts, len(table)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        vectors, weight = ctx.saved_tensors
        unique, places, starts, num_rows = ctx.of_batch
        width = vectors.shape[1]
        of_products = grad.new_zeros(len(unique), len(weight))
        _scatter_sum(grad.contiguous().numpy(), places, of_products.numpy())
        of_vectors, of_weight = torch.empty_like(vectors), torch.empty_like(weight)
        for field, own, of_field in _parts(starts, weight, width):
            torch.mm(of_products[own], of_field, out=of_vectors[own])
            of_weight[:, field] = of_products[own].T @ vectors[own]
        of_table = vectors.new_zeros(num_rows, width)
        _add_to(of_vectors.numpy(), unique, of_table.numpy())
        return of_table, None, of_weight, grad.sum(0)


def _parts(starts: np.ndarray, weight: Tensor, width: int) -> list[tuple[slice, slice, Tensor]]:
    """Of each field: its columns of the weight, its distinct rows, and W_f (H, D)."""
    found = []
    for f, (start, end) in enumerate(itertools.pairwise(starts)):
        field = slice(f * width, (f + 1) * width)
        found.append((field, slice(int(start), int(end)), weight[:, field]))
    return found


def field_linear(table: Tensor, rows: Tensor, linear: nn.Linear) -> Tensor:
    """`linear` of the vectors of each row's fields side by side.

    Args:
        table: (U, D) vectors, differentiable.
        rows: (B, F) which of them each row has.
        linear: of F * D features.

    Returns:
        (B, H).

    Raises:
        IndexError: an index outside `table`.

    >>> linear = nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = linear.weight.copy_(torch.tensor([[1.0, 10.0]])), linear.bias.fill_(0.5)
    >>> table, rows = torch.tensor([[1.0], [2.0]]), torch.tensor([[0, 1], [1, 1], [0, 0]])
    >>> field_linear(table, rows, linear).squeeze(1).tolist()
    [21.5, 22.5, 11.5]
    """
    # whatever the table's size: of it a batch of several processes has other rows in each of them
    if linear.bias is None or not table.shape[1] or not runs_on_numba(table, linear.weight):
        return field_linear_plain(table, rows, linear)
    return _FieldLinear.apply(table.contiguous(), rows, linear.weight.contiguous(), linear.bias)


def field_linear_plain(table: Tensor, rows: Tensor, linear: nn.Linear) -> Tensor:
    """The definition of `field_linear`."""
    return linear(lookup(table, rows).flatten(1))
