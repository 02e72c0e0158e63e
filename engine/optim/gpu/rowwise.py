"""Exact Adam for tables of which a batch reads few rows, on a GPU.

Without a GPU the tests run its plain form and Triton's interpreter.

It is `engine.optim.cpu.rowwise` with shapes that do not depend on the data. Nothing here waits for
the device: kernels read step, rates and clip coefficient from tensors, and lists have the length of
the batch's ids, so that a CUDA graph can replay a step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.optim.cpu.adam import coefficients
from engine.optim.gpu.adam import MEMORY, DeviceTable, operations_for
from models.kernels.batch_rows import first_places

AHEAD = 1024  # steps whose rates are sent to the device at a time; MEMORY is more than that and 32
INTERVALS = {"streamed": 1, "lazy": 32}  # steps between two visits of a row without data


@dataclass
class Table:
    """One parameter (N, D) with its state in the optimiser, and its rates on the device."""

    parameter: Tensor
    step: Tensor  # the optimiser's own count, written when all rows are up to date
    group: dict
    arrays: DeviceTable

    def __post_init__(self) -> None:
        self.steps = torch.zeros(MEMORY, 2)  # on the host; copied to `arrays.steps`
        self.sent = 0  # last step whose rates are on the device
        self.rates: tuple | None = None  # from which they were computed

    def note(self, step: int) -> None:
        """Send the rates of a step to the device, if they are not there.

        The rates of earlier steps stay, so that late steps are taken with the lr of their time.
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


class RowwiseAdam:
    """Exact Adam for the tables of a model. `gather` comes before a batch's forward pass, `apply`
    after it.

    Between the two, each of the batch's C = B F ids is replaced by the place where it first occurs
    among them, and line i of the small tables, (C, D), is the row of the id at place i. Lines of
    places where an id is repeated have any values, are not read, and get a zero gradient. A row
    without data takes its steps every `interval` steps. All forms have the same bits.

    An id outside 0 .. N-1 is not found here, as the search would wait for the device. torch's own
    kernels assert it there, which shows as a CUDA error later.

    Args:
        tables: parameters by name, with their state and group in the optimiser; all have N rows.
        fixed: further tensors with N rows that are gathered with them and never change.
        form: "streamed" or "lazy".
    """

    def __init__(self, tables: dict[str, tuple[Tensor, dict, dict]], fixed: dict[str, Tensor],
                 form: str) -> None:
        values = [parameter for parameter, _, _ in tables.values()]
        self.num_rows, device = len(values[0]), values[0].device
        self.tables = {name: _table(*found) for name, found in tables.items()}
        self.fixed = fixed
        self.run = operations_for(values[0])
        self.interval = INTERVALS[form]
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
        """Begin a step on the CPU, which a recorded step cannot do; `gather` and `apply` do the
        rest."""
        self.step += 1
        for table in self.tables.values():
            table.note(self.step)

    @torch.no_grad()
    def gather(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """ids (B, F) -> ids into the small tables (B, F), and the small tables (C or more, D)."""
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
        """Have small tables of `most` lines or more: as many as the longest batch so far, so that
        shapes stay.

        They never have N lines, by which an embedding recognises its whole table.
        """
        if most <= self.capacity:
            return
        self.capacity = most + (most == self.num_rows)
        whole = {**{name: table.parameter for name, table in self.tables.items()}, **self.fixed}
        self.compact = {
            name: torch.zeros((self.capacity, tensor.shape[1]), dtype=tensor.dtype,
                              device=tensor.device, requires_grad=name in self.tables)
            for name, tensor in whole.items()}

    def entries_gathered(self) -> int:
        """Entries of all tables that were brought up to date for the last batch. Waits for the
        device."""
        distinct = len(torch.unique(self.rows))
        return sum(distinct * table.parameter.shape[1] for table in self.tables.values())

    def norm_squared(self, grads: dict[str, Tensor]) -> Tensor:
        """Sum of the squares of the tables' gradients, (C or more, D) each."""
        return torch.stack([(grad * grad).sum() for grad in grads.values()]).sum()

    @torch.no_grad()
    def apply(self, grads: dict[str, Tensor], scale: Tensor) -> None:
        """Take the step: rows of the batch with `grads` (C or more, D) times `scale` (), the others
        without a gradient, now or later."""
        self.now += 1
        for name, table in self.tables.items():
            self.run.take_step(table.arrays, self.rows, self.local, grads[name], scale, self.now)
            # the batch's rows are at this step already and stay as they are
            self.run.replay_part(table.arrays, self.now, self.interval, self.interval)

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring every row to the last step taken, before the tables are read."""
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
