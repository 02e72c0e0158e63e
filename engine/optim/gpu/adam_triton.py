"""The operations of `engine.optim.gpu.adam` in Triton: a row is read once, takes its steps in
registers, and is written once.

Without a GPU the tests run it in Triton's interpreter, and compile it where Triton can.

A program has a tile of rows with all their columns. It alone reads and writes the `done` of its
rows, so that no two programs race.

The bits are those of the plain form: each operation rounds by itself, in the same order. Roots and
quotients are the correctly rounded ones (Triton's `/` is not). Products and sums are not
contracted: `enable_fp_fusion=False` at the launch keeps ptxas from it, and a test reads in the PTX
that nothing before ptxas did.
Denormals are kept, except that Triton 3.5 compiles `sqrt_rn` and `div_rn` to sqrt.rn.ftz and
div.rn.ftz, where numbers under 1.2e-38 count as 0. Only values under 1e-30 are affected.
"""

# the annotations below are read by Triton, and may be read without it
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from engine.optim.gpu.adam import MEMORY, DeviceTable, Operations, part_size, triton_installed

# entries of a tile, about: eight a thread of four warps, each with value, two moments and their
# successors
TILE = 1024

jit: Callable[[Callable], Any]
if triton_installed():
    import triton
    import triton.language as tl

    jit = triton.jit
else:  # the file can be imported all the same; nobody may call what is in it
    def jit(function: Callable) -> Any:
        """Leave it as it is."""
        return function


@jit
def _decay(value, mean, square, done, now, steps, decay, b1, c1, b2, c2, memory: tl.constexpr):
    """Steps done + 1 .. now of a tile (R, D), each row from its own."""
    for step in range(tl.min(done, 0) + 1, now + 1):
        place = steps + step % memory * 2
        a, e = tl.load(place), tl.load(place + 1)
        # adding the 0 that the gradient is keeps the sign of a zero as in the definition
        g = 0.0 + decay * value
        new_mean = b1 * mean + c1 * g
        new_square = b2 * square + (c2 * g) * g
        new_value = value - tl.div_rn(a * new_mean, tl.sqrt_rn(new_square) + e)
        due = (done < step)[:, None]
        value = tl.where(due, new_value, value)
        mean = tl.where(due, new_mean, mean)
        square = tl.where(due, new_square, square)
    return value, mean, square


@jit
def _replay(rows, wanted, value_ptr, mean_ptr, square_ptr, done_ptr, now, steps, decay, b1, c1, b2,
            c2,
            width: tl.constexpr, columns: tl.constexpr, memory: tl.constexpr):
    """Bring the wanted rows (R,) int64 of a tile up to date; returns the values of those that were
    not."""
    done = tl.load(done_ptr + rows, mask=wanted, other=now)
    late = done < now
    column = tl.arange(0, columns)[None, :]
    places = rows[:, None] * width + column
    mask = late[:, None] & (column < width)
    value = tl.load(value_ptr + places, mask=mask, other=0.0)
    mean = tl.load(mean_ptr + places, mask=mask, other=0.0)
    square = tl.load(square_ptr + places, mask=mask, other=0.0)
    value, mean, square = _decay(value, mean, square, done, now, steps, decay, b1, c1, b2, c2,
                                 memory)
    tl.store(value_ptr + places, value, mask=mask)
    tl.store(mean_ptr + places, mean, mask=mask)
    tl.store(square_ptr + places, square, mask=mask)
    tl.store(done_ptr + rows, now, mask=late)
    return value, late


@jit
def _replay_rows(value_ptr, mean_ptr, square_ptr, done_ptr, steps, decay, b1, c1, b2, c2, now_ptr,
                 rows_ptr, local_ptr,
                 out_ptr, count, width: tl.constexpr, columns: tl.constexpr, height: tl.constexpr,
                 memory: tl.constexpr):
    at = tl.program_id(0) * height + tl.arange(0, height)
    wanted = (at < count) & (tl.load(local_ptr + at, mask=at < count, other=-1) == at)
    rows = tl.load(rows_ptr + at, mask=wanted, other=0)
    value, late = _replay(rows, wanted, value_ptr, mean_ptr, square_ptr, done_ptr, tl.load(now_ptr),
                          steps, decay, b1,
                          c1, b2, c2, width, columns, memory)
    column = tl.arange(0, columns)[None, :]
    inside = column < width
    ready = tl.load(value_ptr + rows[:, None] * width + column,
                    mask=(wanted & ~late)[:, None] & inside, other=0.0)
    tl.store(out_ptr + at.to(tl.int64)[:, None] * width + column,
             tl.where(late[:, None], value, ready),
             mask=wanted[:, None] & inside)


@jit
def _replay_part(value_ptr, mean_ptr, square_ptr, done_ptr, steps, decay, b1, c1, b2, c2, now_ptr,
                 num_rows, size,
                 interval, width: tl.constexpr, columns: tl.constexpr, height: tl.constexpr,
                 memory: tl.constexpr):
    now = tl.load(now_ptr)
    start = tl.minimum((now % interval).to(tl.int64) * size, num_rows - size)
    at = tl.program_id(0) * height + tl.arange(0, height)
    _replay(start + at, at < size, value_ptr, mean_ptr, square_ptr, done_ptr, now, steps, decay, b1,
            c1, b2, c2, width,
            columns, memory)


@jit
def _take_step(value_ptr, mean_ptr, square_ptr, done_ptr, steps, decay, b1, c1, b2, c2, now_ptr,
               rows_ptr, local_ptr,
               grads_ptr, scale_ptr, count, width: tl.constexpr, columns: tl.constexpr,
               height: tl.constexpr,
               memory: tl.constexpr):
    at = tl.program_id(0) * height + tl.arange(0, height)
    wanted = (at < count) & (tl.load(local_ptr + at, mask=at < count, other=-1) == at)
    rows = tl.load(rows_ptr + at, mask=wanted, other=0)
    column = tl.arange(0, columns)[None, :]
    places = rows[:, None] * width + column
    mask = wanted[:, None] & (column < width)
    value = tl.load(value_ptr + places, mask=mask, other=0.0)
    mean = tl.load(mean_ptr + places, mask=mask, other=0.0)
    square = tl.load(square_ptr + places, mask=mask, other=0.0)
    grad = tl.load(grads_ptr + at.to(tl.int64)[:, None] * width + column, mask=mask, other=0.0)
    now, scale = tl.load(now_ptr), tl.load(scale_ptr)
    place = steps + now % memory * 2
    a, e = tl.load(place), tl.load(place + 1)
    g = scale * grad + decay * value
    mean = b1 * mean + c1 * g
    square = b2 * square + (c2 * g) * g
    value = value - tl.div_rn(a * mean, tl.sqrt_rn(square) + e)
    tl.store(value_ptr + places, value, mask=mask)
    tl.store(mean_ptr + places, mean, mask=mask)
    tl.store(square_ptr + places, square, mask=mask)
    tl.store(done_ptr + rows, now, mask=wanted)


def replay_rows(table: DeviceTable, rows: Tensor, local: Tensor, now: Tensor, lag: int,
                out: Tensor) -> None:
    """`replay_rows_plain`; places of `out` that are not the first of their row are left as they
    are."""
    _launch(_replay_rows, table, len(rows), now, rows, local, out, len(rows))


def replay_part(table: DeviceTable, now: Tensor, interval: int, lag: int) -> None:
    """`replay_part_plain`."""
    size = part_size(table, interval)
    _launch(_replay_part, table, size, now, len(table.value), size, interval)


def take_step(table: DeviceTable, rows: Tensor, local: Tensor, grads: Tensor, scale: Tensor,
              now: Tensor) -> None:
    """`take_step_plain`."""
    _launch(_take_step, table, len(rows), now, rows, local, grads.contiguous(), scale, len(rows))


def _launch(kernel: Any, table: DeviceTable, rows: int, now: Tensor,
            *arguments: Tensor | int) -> None:
    """Run a kernel over so many rows."""
    width = table.value.shape[1]
    columns = 1 << (width - 1).bit_length()
    height = max(TILE // columns, 1)
    (b1, b2), decay = table.betas, table.decay
    kernel[(-(-rows // height),)](*table[:5], decay, b1, 1 - b1, b2, 1 - b2, now, *arguments,
                                  width=width,
                                  columns=columns, height=height, memory=MEMORY, num_warps=4,
                                  enable_fp_fusion=False)


TRITON = Operations("Triton", replay_rows, replay_part, take_step)
