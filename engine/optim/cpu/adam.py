"""Adam with coupled decay on a table of which a batch has few rows: steps without a gradient may be
taken late.

PEP's optimiser moves every row at every step: a row without data still decays, and that is what
prunes it. Such steps depend on nothing but the row itself, so they can be taken later, in order,
before the row is read. Rows are kept in blocks, which stay in the nearest cache while their late
steps are replayed; all rows of a block are at the same step, `done`. Every form has the same bits,
because each element sees the same operations in the same order. `adam_plain` is the definition.

On a CPU of 2 cores (AMD EPYC), 1,086,810 x 24, one decay step of all rows: 12 to 14 ms when the
table streams through memory at each step, 5.2 ms a step when blocks are replayed 32 steps at a time
(one core: 16 and 9.5).
"""

import math
from collections.abc import Callable

import numba
import numpy as np
from torch import Tensor

from models.kernels.jit import njit
from models.kernels.machine import ON, control, fetch, set_control

AHEAD = 2  # while a block is computed, the memory of the block so many places later is fetched
RUN = 8  # neighbouring blocks that are computed as one if they are at the same step
LINE = 16  # floats of a cache line
SCRATCH = 1024  # entries whose gradient is laid out at a time, so that it stays in the cache

# state of a block: unknown; only `square` still changes; nothing changes any more
MOVING, STILL, EMPTY = 0, 1, 2


def coefficients(lr: float, betas: tuple[float, float], eps: float,
                 step: int) -> tuple[float, float]:
    """(a, e) of a step, counted from 1: the parameter moves by -a m / (sqrt(v) + e), bias
    corrections included."""
    root = math.sqrt(1 - betas[1] ** step)
    return lr * root / (1 - betas[0] ** step), eps * root


def rounded_root(square: Tensor) -> Tensor:
    """The square root, correctly rounded; torch's own in float32 may be off by a last bit."""
    return square.double().sqrt().float()


def adam_plain(value: Tensor, mean: Tensor, square: Tensor, grad: Tensor, decay: float | Tensor,
               betas: tuple[float, float], scale: float | Tensor, a: float | Tensor,
               e: float | Tensor,
               root: Callable[[Tensor], Tensor] = rounded_root) -> None:
    """The definition, in place and elementwise, float32 throughout (Kingma & Ba 2015, with L2 in
    the gradient).

    g = scale * grad + decay * value; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; value -= a m /
    (sqrt(v) + e).

    Args:
        value, mean, square, grad: of one shape.
        scale: of the gradient: below 1 where the global norm is clipped.
        a, e: see `coefficients`; as tensors, each row may be at a step of its own.
        root: of v. Compiled for a CPU, torch's own is rounded correctly.
    """
    g = grad * scale + value * decay
    mean.mul_(betas[0]).add_(g * (1 - betas[0]))
    square.mul_(betas[1]).add_(g * (1 - betas[1]) * g)
    value.sub_(mean * a / (root(square) + e))


@numba.njit(nogil=True, error_model="numpy", inline="always")
def _decay_once(value, mean, square, rates, a, e):
    decay, b1, c1, b2, c2 = rates
    zero = np.float32(0.0)
    for i in range(value.size):
        # adding the 0 that the gradient is keeps the sign of a zero as in the definition
        g = zero + decay * value[i]
        m = b1 * mean[i] + c1 * g
        v = b2 * square[i] + (c2 * g) * g
        value[i] -= (a * m) / (np.sqrt(v) + e)
        mean[i] = m
        square[i] = v


@numba.njit(nogil=True, error_model="numpy", inline="always")
def _grad_once(value, mean, square, grad, rates, scale, a, e):
    decay, b1, c1, b2, c2 = rates
    for i in range(value.size):
        g = scale * grad[i] + decay * value[i]
        m = b1 * mean[i] + c1 * g
        v = b2 * square[i] + (c2 * g) * g
        value[i] -= (a * m) / (np.sqrt(v) + e)
        mean[i] = m
        square[i] = v


@numba.njit(nogil=True, error_model="numpy", inline="always")
def _all_zero(values):
    i = 0
    while i < values.size and values[i] == 0:
        i += 1
    return i == values.size


@numba.njit(nogil=True, error_model="numpy", inline="always")
def _at_rest(value, mean, rates):
    decay, c1 = rates[0], rates[2]
    i = 0
    while i < value.size and mean[i] == 0 and c1 * (decay * value[i]) == 0:
        i += 1
    return i == value.size


@numba.njit(nogil=True, error_model="numpy")
def _replay(value, mean, square, first, now, rates, steps):
    for step in range(first, now + 1):
        a, e = steps[step % steps.shape[0]]
        _decay_once(value, mean, square, rates, a, e)


@numba.njit(nogil=True, error_model="numpy")
def _catch_up(flat, mean, square, done, state, block, end, entries, now, rates, steps):
    """Bring the blocks block .. end-1, all at the same step and in the same state, to step `now`.

    When all of m is 0 after a step and the decay is too small to raise it, that step moved nothing
    and the next ones will not either: only v still falls. That m is 0 is not enough, as it may be
    about to change its sign.
    """
    first = done[block] + 1
    part = slice(block * entries, min(end * entries, flat.size))
    if state[block] == MOVING:
        _replay(flat[part], mean[part], square[part], first, now, rates, steps)
    elif state[block] == STILL:
        part_square, b2 = square[part], rates[3]
        for _ in range(first, now + 1):
            for i in range(part_square.size):
                part_square[i] = b2 * part_square[i]
    for one in range(block, end):
        part = slice(one * entries, min((one + 1) * entries, flat.size))
        if state[one] == MOVING and _at_rest(flat[part], mean[part], rates):
            state[one] = STILL
        if state[one] == STILL and _all_zero(square[part]):
            state[one] = EMPTY
        done[one] = now


@numba.njit(nogil=True, error_model="numpy", inline="always")
def _fetch_block(flat, mean, square, slots, block, rows, num_rows):
    low, high = block * rows, min((block + 1) * rows, num_rows)
    width = flat.size // num_rows
    for i in range(low * width, high * width, LINE):
        fetch(flat, i)
        fetch(mean, i)
        fetch(square, i)
    for row in range(low, high, LINE):
        fetch(slots, row)


@njit(nogil=True, error_model="numpy")
def adam_flat(value, mean, square, grad, rates, scale, a, e):
    """Take one step with a flat parameter, in place; see `adam_plain`."""
    before = control()
    set_control(before | ON)
    _grad_once(value, mean, square, grad, rates, scale, a, e)
    set_control(before)


@njit(nogil=True, error_model="numpy")
def adam_rows(table, first, last, slots, rising, grads, scale, now):
    """Take step `now` in the rows first .. last-1 of a table that is in step: those of the batch
    with their gradient, the others without.

    Args:
        table: (value, mean, square, rates, steps) of `engine.optim.cpu.rowwise.Table`.
        slots: (N,), where the gradient of a row of the batch stands.
        rising: (U,), the rows of the batch in rising order, so that the loop need not ask of every
            row whether it is one of them.
        grads: (U or more, D).
        scale: of the gradient.
    """
    value, mean, square, rates, steps = table
    a, e = steps[now % steps.shape[0]]
    before = control()
    set_control(before | ON)
    width = value.shape[1]
    flat, flat_mean, flat_square = value.reshape(-1), mean.reshape(-1), square.reshape(-1)
    rows = max(SCRATCH // width, 1)
    whole = np.empty(rows * width, np.float32)
    at = np.searchsorted(rising, first)
    for low in range(first, last, rows):  # one long loop is faster than one for each row
        high = min(low + rows, last)
        for i in range(whole.size):
            whole[i] = 0
        while at < rising.size and rising[at] < high:
            start = (rising[at] - low) * width
            source, target = grads[slots[rising[at]]], whole[start:start + width]
            for d in range(width):
                target[d] = source[d]
            at += 1
        part = slice(low * width, high * width)
        _grad_once(flat[part], flat_mean[part], flat_square[part], whole[:(high - low) * width],
                   rates, scale, a, e)
    set_control(before)


@njit(nogil=True, error_model="numpy")
def gather_blocks(table, blocks, begin, end, slots, unique, now, out):
    """Bring the listed blocks to step `now` and copy the batch's rows to `out` (U, D), in the order
    of `unique`.

    Args:
        table: (value, mean, square, done, state, rows, rates, steps), see
            `engine.optim.cpu.rowwise.Table`.
        blocks, begin, end: indices of blocks; those at begin .. end-1 are computed.
        slots: (N,); row r is in the batch if slots[r] < U and unique[slots[r]] == r, see
            `models.kernels.batch_rows.renumber`.
    """
    value, mean, square, done, state, rows, rates, steps = table
    num_rows, width = value.shape
    flat, flat_mean, flat_square = value.reshape(-1), mean.reshape(-1), square.reshape(-1)
    before = control()
    set_control(before | ON)
    for position in range(begin, end):
        if position + AHEAD < end:
            _fetch_block(flat, flat_mean, flat_square, slots, blocks[position + AHEAD], rows,
                         num_rows)
        block = blocks[position]
        low, high = block * rows, min((block + 1) * rows, num_rows)
        if done[block] < now:
            _catch_up(flat, flat_mean, flat_square, done, state, block, block + 1, rows * width,
                      now, rates, steps)
        for row in range(low, high):
            slot = slots[row]
            if slot < unique.size and unique[slot] == row:
                for d in range(width):
                    out[slot, d] = value[row, d]
    set_control(before)


@njit(nogil=True, error_model="numpy")
def apply_blocks(table, blocks, begin, end, slots, unique, grads, scale, now):
    """Take step `now` in the listed blocks, which are at now - 1: the batch's rows with a gradient,
    their other rows without.

    Args:
        grads: (U or more, D), gradient of the rows `unique`.
        scale: of the gradient.
    """
    value, mean, square, done, state, rows, rates, steps = table
    num_rows, width = value.shape
    flat, flat_mean, flat_square = value.reshape(-1), mean.reshape(-1), square.reshape(-1)
    whole = np.zeros(rows * width, np.float32)
    a, e = steps[now % steps.shape[0]]
    before = control()
    set_control(before | ON)
    for position in range(begin, end):
        if position + AHEAD < end:
            _fetch_block(flat, flat_mean, flat_square, slots, blocks[position + AHEAD], rows,
                         num_rows)
        block = blocks[position]
        low, high = block * rows, min((block + 1) * rows, num_rows)
        for row in range(low, high):
            slot = slots[row]
            start = (row - low) * width
            if slot < unique.size and unique[slot] == row:
                for d in range(width):
                    whole[start + d] = grads[slot, d]
            else:
                for d in range(width):
                    whole[start + d] = 0
        part = slice(low * width, high * width)
        _grad_once(flat[part], flat_mean[part], flat_square[part], whole[:(high - low) * width],
                   rates, scale, a, e)
        done[block] = now
        state[block] = MOVING
    set_control(before)


@njit(nogil=True, error_model="numpy")
def sweep_blocks(table, first, last, listed_in, stamp, now):
    """Bring the blocks first .. last-1 to step `now`, without those of the batch, whose listed_in
    is `stamp`."""
    value, mean, square, done, state, rows, rates, steps = table
    width = value.shape[1]
    flat, flat_mean, flat_square = value.reshape(-1), mean.reshape(-1), square.reshape(-1)
    before = control()
    set_control(before | ON)
    block = first
    while block < last:
        end = block + 1
        if done[block] < now and listed_in[block] != stamp:
            while (end < min(block + RUN, last) and done[end] == done[block]
                   and state[end] == state[block]
                   and listed_in[end] != stamp):
                end += 1
            _catch_up(flat, flat_mean, flat_square, done, state, block, end, rows * width, now,
                      rates, steps)
        block = end
    set_control(before)
