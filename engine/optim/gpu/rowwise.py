"""Tables of which a batch reads few rows, on a GPU.

It is `engine.optim.cpu.rowwise` in shapes that do not depend on the data.

Nothing here waits for the device. Kernels read the number of the step, the rates and the clip
coefficient from tensors, and lists have the length of the batch's ids whatever is in them, so that
a CUDA graph holds a step (`engine.optim.cuda_graph`).
"""

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.optim.cpu.adam import coefficients
from engine.optim.gpu.adam import MEMORY, DeviceTable, Operations, operations_for
from engine.record import wait_for
from models.kernels.batch_rows import first_places

log = logging.getLogger("pep")

# steps whose rates are sent to the device at a time; MEMORY is more than that and any row's lag
AHEAD = 1024
DEFERRED = 32  # steps between two visits of a row
INTERVALS = {"dense": (1,), "deferred": (DEFERRED,), "auto": (1, DEFERRED)}  # to choose from
# entries of a table that are copied for timing: with the moments 400 MB, more than a GPU's caches
# hold
TIMED = 1 << 25


@dataclass
class Table:
    """One parameter (N, D) with its state in the optimiser, and the rates that its device was
    sent."""

    parameter: Tensor
    step: Tensor  # the optimiser's own count, written when all rows are up to date
    group: dict
    arrays: DeviceTable

    def __post_init__(self) -> None:
        # what `arrays.steps` holds or will, kept here to be changed
        self.steps = torch.zeros(MEMORY, 2)
        self.sent = 0  # last step whose rates are there
        self.rates: tuple | None = None  # from which they were made

    def note(self, step: int) -> None:
        """Have the rates of a step on the device; a change of lr holds from the step on at which it
        was made.

        The rates of earlier steps stay, so that rows take late steps with the lr of their time.
        """
        rates = (self.group["lr"], self.group["betas"], self.group["eps"])
        if step <= self.sent and rates == self.rates:
            return
        self.rates, self.sent = rates, step + AHEAD - 1
        for ahead in range(step, self.sent + 1):
            self.steps[ahead % MEMORY] = torch.tensor(coefficients(*rates, ahead))
        target = self.arrays.steps
        # pinned, the copy is not waited for
        source = self.steps.pin_memory() if target.is_cuda else self.steps
        target.copy_(source, non_blocking=True)


class DeviceRowwiseAdam:
    """The tables of a model on a device, opened for a batch before its forward pass and closed with
    the gradients.

    Between the two, the batch's C = B F ids are renumbered to the places where each first stands
    among them, and the row of place i stands in line i of small tables, (C, D). A line that is not
    the first of its row holds anything, is read by nobody and gets a zero gradient. In step t a row
    without data is due every `interval` steps; 1 is dense Adam, streamed. All forms have the same
    bits.

    `auto` times both on the device before the first step, on a copy of the first rows, and keeps
    the faster.

    An id outside 0 .. N-1 is not named here: looking for one would be a wait. torch's own kernels
    assert it on the device, which shows as a CUDA error later.

    Args:
        tables: parameters by name, with their state and group in the optimiser; all have N rows.
        fixed: further tensors with N rows that are copied with them and never change.
        form: "dense", "deferred" or "auto".
    """

    def __init__(self, tables: dict[str, tuple[Tensor, dict, dict]], fixed: dict[str, Tensor],
                 form: str) -> None:
        values = [parameter for parameter, _, _ in tables.values()]
        self.num_rows, device = len(values[0]), values[0].device
        self.tables = {name: _table(*found) for name, found in tables.items()}
        self.fixed = fixed
        self.run = operations_for(values[0])
        self.interval = _fastest(INTERVALS[form], self.run,
                                 [table.arrays for table in self.tables.values()])
        # with the timing the only wait
        counts = [int(table.step) for table in self.tables.values()]
        self.step = max(counts)
        # step up to which the optimiser's counts are
        self.refreshed = self.step if min(counts) == self.step else -1
        # `step`, where kernels read it
        self.now = torch.full((1,), self.step, dtype=torch.int32, device=device)
        self.slots = torch.zeros(self.num_rows, dtype=torch.int32, device=device)
        self.rows = self.slots[:0].long()
        self.local = self.slots[:0]
        self.capacity = 0
        self.compact: dict[str, Tensor] = {}

    def count(self) -> None:
        """Begin a step: what the CPU has to do for it, and a recorded step cannot. `gather` and
        `apply` do the rest."""
        self.step += 1
        for table in self.tables.values():
            table.note(self.step)

    @torch.no_grad()
    def gather(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """ids (B, F) -> the same renumbered, and the batch's rows of each table, (C or more, D)."""
        self.rows = ids.reshape(-1).long()
        self.local = first_places(self.rows, self.slots)
        self._make_room(ids.numel())
        for name, table in self.tables.items():
            self.run.replay_rows(table.arrays, self.rows, self.local, self.now, self.interval,
                                 self.compact[name].detach())
        for name, tensor in self.fixed.items():
            self.compact[name][:len(self.rows)] = tensor[self.rows]
        return self.local.view(ids.shape), self.compact

    def _make_room(self, most: int) -> None:
        """Have small tables of `most` lines or more: as long as the longest batch so far, so that
        shapes stay.

        Never of N lines: the embedding would take them for the whole table, and by field its rows
            have their places.
        """
        if most <= self.capacity:
            return
        self.capacity = most + (most == self.num_rows)
        whole = {**{name: table.parameter for name, table in self.tables.items()}, **self.fixed}
        self.compact = {name: torch.zeros((self.capacity, tensor.shape[1]), dtype=tensor.dtype,
                                          device=tensor.device,
                                          requires_grad=name in self.tables) for name,
                        tensor in whole.items()}

    def entries_gathered(self) -> int:
        """Entries of all tables that the last batch had brought up to date. Waits for the
        device."""
        distinct = len(torch.unique(self.rows))
        return sum(distinct * table.parameter.shape[1] for table in self.tables.values())

    def norm_squared(self, grads: dict[str, Tensor]) -> Tensor:
        """Sum of the squares of the tables' gradients, (C or more, D) each; lines nobody read have
        none."""
        return torch.stack([(grad * grad).sum() for grad in grads.values()]).sum()

    @torch.no_grad()
    def apply(self, grads: dict[str, Tensor], scale: Tensor) -> None:
        """Take the step: rows of the batch with `grads` (C or more, D) times `scale` (), others
        without, now or late.

        Rows of the batch are at the step by the time the others are looked for, so these pass them
        by.
        """
        self.now += 1
        for name, table in self.tables.items():
            self.run.take_step(table.arrays, self.rows, self.local, grads[name], scale, self.now)
            self.run.replay_part(table.arrays, self.now, self.interval, self.interval)

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring every row to the last step taken: before anybody looks at the tables."""
        if self.refreshed == self.step:
            return
        for table in self.tables.values():
            self.run.replay_part(table.arrays, self.now, 1, self.interval)
            table.step.fill_(self.step)
        self.refreshed = self.step


def _table(parameter: Tensor, state: dict, group: dict) -> Table:
    tensors = (parameter.detach(), state["exp_avg"], state["exp_avg_sq"])
    if not all(tensor.is_contiguous() for tensor in tensors):
        raise ValueError("tables and their moments must be contiguous")
    done = torch.full((len(parameter),), int(state["step"]), dtype=torch.int32,
                      device=parameter.device)
    arrays = DeviceTable(*tensors, done, torch.zeros(MEMORY, 2, device=parameter.device),
                         float(group["weight_decay"]),
                         tuple(group["betas"]))
    return Table(parameter, state["step"], group, arrays)


def _fastest(intervals: tuple[int, ...], run: Operations, tables: list[DeviceTable]) -> int:
    """The interval at which rows without data cost least: each is timed for as many steps as the
    longest takes."""
    if len(intervals) == 1:
        return intervals[0]
    seconds = {}
    for interval in intervals:
        seconds[interval] = 0.0
        for table in tables:
            copy = _first_rows(table)
            now = copy.done[:1] + 0
            # the first time compiles, and leaves rows as many steps behind as they stay
            for timed in (False, True):
                wait_for(now.device)
                started = time.perf_counter()
                for _ in range(max(intervals)):
                    now += 1
                    run.replay_part(copy, now, interval, interval)
                wait_for(now.device)
                if timed:
                    seconds[interval] += (time.perf_counter()
                                          - started) * len(table.value) / len(copy.value)
    best = min(seconds, key=lambda interval: seconds[interval])
    log.info("rows without data: %s (ms a step: %s)",
             "each step" if best == 1 else f"made up for every {best} steps",
             ", ".join(f"every {n}: {1e3 * spent / max(intervals):.3f}" for n,
                       spent in seconds.items()))
    return best


def _first_rows(table: DeviceTable) -> DeviceTable:
    """A copy to time with, at some step, with rates that move values as a training's do."""
    rows = max(TIMED // table.value.shape[1], 1)
    values, means, squares, done = (tensor[:rows].clone() for tensor in table[:4])
    steps = torch.tensor(coefficients(1e-3, table.betas, 1e-8, 1 << 14),
                         device=values.device).expand(MEMORY, 2)
    return table._replace(value=values, mean=means, square=squares, done=done.zero_(),
                          steps=steps.contiguous())
