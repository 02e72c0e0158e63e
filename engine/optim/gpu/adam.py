"""Adam with coupled decay by row, on a GPU: rows of the batch take their step, the others take
theirs later.

Without a GPU the tests run the plain form and Triton's interpreter.

It does what `engine.optim.cpu.adam` does, with shapes that do not depend on the data and without
waiting for the device: steps are read from tensors, so that every step makes the same calls. The
plain form here, made of `adam_plain`, is the definition; `adam_triton` does the same in one pass
over memory.

The bits differ from a CPU's in one thing: denormals are flushed there and kept here, as torch does
on a GPU. Only numbers under about 1e-31 are affected. Two things are simpler than on a CPU: each
row has its own `done`, and a row whose moments are all 0 is replayed like the others, because a
tile waits for its slowest row.
"""

import importlib.util
import logging
import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from engine.optim.cpu.adam import adam_plain

log = logging.getLogger("pep")

MEMORY = 2048  # steps whose rates a table holds: those ahead and those that a row may still lack


class DeviceTable(NamedTuple):
    """One parameter with what its steps need, all on one device, contiguous, float32 but for
    `done`."""

    value: Tensor  # (N, D)
    mean: Tensor  # (N, D)
    square: Tensor  # (N, D)
    done: Tensor  # (N,) int32, the step that each row was last brought to
    steps: Tensor  # (MEMORY, 2), a and e of step t at t % MEMORY, see `adam.coefficients`
    decay: float
    betas: tuple[float, float]


class Operations(NamedTuple):
    """The three operations in one form, plain or Triton; arguments as in the plain ones."""

    name: str
    replay_rows: Callable[[DeviceTable, Tensor, Tensor, Tensor, int, Tensor], None]
    replay_part: Callable[[DeviceTable, Tensor, int, int], None]
    take_step: Callable[[DeviceTable, Tensor, Tensor, Tensor, Tensor, Tensor], None]


def replay_rows_plain(table: DeviceTable, rows: Tensor, local: Tensor, now: Tensor, lag: int,
                      out: Tensor) -> None:
    """Bring the listed rows to step `now` and copy them to out[:C].

    Args:
        rows: (C,) int64; a row may be listed several times, and all its places then get the same.
        local: (C,) int32, the first place of each row in the list. Triton skips the other places,
            and leaves theirs in `out` as they are.
        now: (1,) int32.
        lag: no row lacks more steps.
        out: (C or more, D).
    """
    _replay(table, rows, now, lag)
    out[:len(rows)] = table.value[rows]


def replay_part_plain(table: DeviceTable, now: Tensor, interval: int, lag: int) -> None:
    """Bring the rows whose turn it is in step `now` to that step: one part of `interval`, each part
    of one size.

    The last part begins earlier where N is no multiple of it; rows that come twice are only brought
    on earlier.
    """
    size = part_size(table, interval)
    start = ((now % interval).long() * size).clamp(max=len(table.value) - size)
    _replay(table, start + torch.arange(size, device=now.device), now, lag)


def take_step_plain(table: DeviceTable, rows: Tensor, local: Tensor, grads: Tensor, scale: Tensor,
                    now: Tensor) -> None:
    """Take step `now` in the listed rows, which are at now - 1.

    Args:
        rows, local, now: see `replay_rows_plain`.
        grads: (C or more, D); the gradient of a row stands at its first place.
        scale: (), of the gradient.
    """
    value, mean, square = (tensor[rows] for tensor in table[:3])
    a, e = _rates(table, now)
    adam_plain(value, mean, square, grads.index_select(0, local), table.decay, table.betas, scale,
               a, e)
    _write(table, rows, value, mean, square, now.expand(len(rows)))


def _replay(table: DeviceTable, rows: Tensor, now: Tensor, lag: int) -> None:
    """Decay-only steps; a row that is there already stays as it is."""
    value, mean, square, done = (tensor[rows] for tensor in table[:4])
    nothing = torch.zeros_like(value)
    for late in range(1, lag + 1):
        step = done + late
        a, e = _rates(table, step)
        after = value.clone(), mean.clone(), square.clone()
        adam_plain(*after, nothing, table.decay, table.betas, 1.0, a, e)
        due = (step <= now)[:, None]
        value, mean, square = (torch.where(due, new, old)
                               for new, old in zip(after, (value, mean, square), strict=True))
    _write(table, rows, value, mean, square, torch.maximum(done, now))


def _rates(table: DeviceTable, steps: Tensor) -> tuple[Tensor, Tensor]:
    """a and e of each step, (n, 1)."""
    found = table.steps.index_select(0, steps % MEMORY)
    return found[:, :1], found[:, 1:]


def _write(table: DeviceTable, rows: Tensor, value: Tensor, mean: Tensor, square: Tensor,
           done: Tensor) -> None:
    for tensor, new in zip(table[:4], (value, mean, square, done), strict=True):
        tensor[rows] = new


PLAIN = Operations("plain torch", replay_rows_plain, replay_part_plain, take_step_plain)


def part_size(table: DeviceTable, interval: int) -> int:
    """Rows of each of `interval` parts of the table."""
    return -(-len(table.value) // interval)


def triton_installed() -> bool:
    """Whether Triton can be imported; it is no requirement, torch brings it along with CUDA on
    Linux."""
    return importlib.util.find_spec("triton") is not None


def operations_for(tensor: Tensor) -> Operations:
    """Triton where it is installed and the tensor is on a GPU, or where its interpreter is on; else
    plain torch."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not (triton_installed() and (tensor.is_cuda or interpreted)):
        _say(PLAIN.name, "Triton is not installed" if tensor.is_cuda or interpreted
             else "the tables are on no GPU")
        return PLAIN
    # Triton takes long to import, and on a CPU is not needed
    from engine.optim.gpu.adam_triton import TRITON

    _say(TRITON.name, "its interpreter is on" if interpreted else "the tables are on a GPU")
    return TRITON


@cache
def _say(name: str, reason: str) -> None:
    """Once a process."""
    log.info("update by row on a device: %s (%s)", name, reason)
