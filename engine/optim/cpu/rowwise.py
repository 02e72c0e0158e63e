"""Exact Adam for tables of which a batch reads few rows, on a CPU.

Before the forward pass the batch's rows are gathered into small tables; after it they take their
step with the gradients of these. Rows without data take theirs late, see `engine.optim.cpu.adam`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from engine.optim.cpu.adam import apply_blocks, coefficients, gather_blocks, sweep_blocks
from models.kernels.batch_rows import blocks_of, copy_rows, renumber, sum_of_squares

BLOCK = 64  # entries of a block, about: 3 KB of value and moments stay in the nearest cache
MEMORY = 128  # steps whose rates are kept: more than any row ever lags behind
# steps between two visits of a row without data
INTERVALS = {"streamed": 1, "lazy": 32}
PADDING = 256  # the rows of a small table are a multiple of it
LARGE = 1 << 22  # bytes from which numpy asks for large pages
ALONE = 200_000  # entries a step below which a second thread costs more than it helps


@dataclass
class Table:
    """One parameter (N, D) with its moments, in blocks of rows. The arrays are those of the
    tensors, not copies."""

    parameter: Tensor
    moments: tuple[Tensor, Tensor]
    step: Tensor  # the optimiser's own count, written when all rows are up to date
    group: dict
    blocks: "Blocks"

    def __post_init__(self) -> None:
        # step that each block was last brought to
        self.done = np.full(self.blocks.count, int(self.step), np.int32)
        self.state = np.zeros(self.blocks.count, np.uint8)
        self.steps = np.zeros((MEMORY, 2), np.float32)  # a and e of step t at t % MEMORY
        betas, decay = self.group["betas"], self.group["weight_decay"]
        rates = tuple(np.float32(rate)
                      for rate in (decay, betas[0], 1 - betas[0], betas[1], 1 - betas[1]))
        arrays = tuple(tensor.detach().numpy() for tensor in (self.parameter, *self.moments))
        self.packed = (*arrays, self.done, self.state, self.blocks.rows, rates, self.steps)

    def note(self, step: int) -> None:
        """Keep the rates of a step, so that late steps are taken with the lr of their time."""
        group = self.group
        self.steps[step % MEMORY] = coefficients(group["lr"], group["betas"], group["eps"], step)


class Blocks:
    """How tables of one width are split into blocks of rows, and which blocks have rows of the
    batch."""

    def __init__(self, num_rows: int, width: int) -> None:
        self.rows = max(BLOCK // width, 1)
        self.count = -(-num_rows // self.rows)
        # index of the batch for which a block was last listed
        self.listed_in = np.zeros(self.count, np.int64)
        self.space = np.zeros(self.count, np.int32)
        self.listed = self.space[:0]

    def find(self, unique: np.ndarray, batch: int) -> None:
        """List the blocks that have the rows `unique`, in the order of memory."""
        self.listed = self.space[:blocks_of(unique, self.rows, self.listed_in, batch, self.space)]
        self.listed.sort()


class RowwiseAdam:
    """Exact Adam for the tables of a model. `gather` comes before a batch's forward pass, `apply`
    after it.

    Between the two, small tables have each of the batch's rows once, and the ids count through
    these. A row without data takes its steps one by one when streamed, and 32 at a time when lazy.
    The rows end up the same to the last bit.

    Args:
        tables: parameters by name, with their state and group in the optimiser; all have N rows.
        fixed: further tensors with N rows that are gathered with them and never change.
        form: "streamed" or "lazy".
    """

    def __init__(self, tables: dict[str, tuple[Tensor, dict, dict]], fixed: dict[str, Tensor],
                 form: str) -> None:
        layouts: dict[int, Blocks] = {}
        self.tables = {}
        for name, (parameter, state, group) in tables.items():
            parameter.data = _in_large_pages(parameter.data)
            state |= {key: _in_large_pages(state[key]) for key in ("exp_avg", "exp_avg_sq")}
            blocks = layouts.setdefault(parameter.shape[1], Blocks(*parameter.shape))
            self.tables[name] = Table(parameter, (state["exp_avg"], state["exp_avg_sq"]),
                                      state["step"], group, blocks)
        self.layouts = tuple(layouts.values())
        self.fixed = {name: tensor.numpy() for name, tensor in fixed.items()}
        self.num_rows = len(next(iter(self.tables.values())).parameter)
        self.slots = np.zeros(self.num_rows, np.int32)
        self.unique = np.zeros(0, np.int32)
        self.step = max(int(table.step) for table in self.tables.values())
        self.batch = 0  # batches gathered so far
        self.capacity = 0
        self.compact: dict[str, Tensor] = {}
        self.interval = INTERVALS[form]
        self.threads = torch.get_num_threads()
        self.space = np.zeros(0, np.int32)

    def gather(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """ids (B, F) -> ids into the small tables (B, F), and the small tables (C, D).

        C is at least the number of distinct ids.

        Raises:
            IndexError: an id is not in 0 .. N-1; field and value are named.
        """
        local = torch.empty(ids.shape, dtype=torch.int32)
        if len(self.space) < ids.numel():
            self.space = np.zeros(ids.numel(), np.int32)
        count = renumber(ids.numpy().reshape(-1), self.slots, self.space, local.numpy().reshape(-1))
        if count < 0:
            row, field = divmod(-1 - count, ids.shape[1])
            raise IndexError(f"field {field} of row {row} of the batch has the id "
                             f"{int(ids[row, field])}; the table has {self.num_rows} rows, ids are "
                             f"0 .. {self.num_rows - 1}")
        self.unique = self.space[:count]
        self._make_room(count, ids.numel())
        self.batch += 1
        for layout in self.layouts:
            layout.find(self.unique, self.batch)
        outs = {name: self.compact[name].detach().numpy() for name in self.tables}

        def work(share: int, shares: int) -> None:
            for name, table in self.tables.items():
                listed = table.blocks.listed
                gather_blocks(table.packed, listed, *_part(len(listed), share, shares), self.slots,
                              self.unique, self.step, outs[name])

        self._in_parallel(work)
        for name, array in self.fixed.items():
            copy_rows(array, self.unique, self.compact[name].numpy())
        return local, self.compact

    def _make_room(self, count: int, most: int) -> None:
        """Have small tables of `count` rows or more. A quarter is added, so that they seldom grow,
        as code is compiled for their size.

        The size changes no result. It is a multiple of PADDING, because the last few entries of a
        vectorised loop can have other last bits, and it is never N, by which an embedding
        recognises its whole table.
        """
        if count <= self.capacity:
            return
        self.capacity = -(-min(count * 5 // 4, max(most, count)) // PADDING) * PADDING
        self.capacity += PADDING * (self.capacity == self.num_rows)
        widths = {**{name: table.parameter.shape[1] for name, table in self.tables.items()},
                  **{name: array.shape[1] for name, array in self.fixed.items()}}
        self.compact = {name: torch.zeros((self.capacity, width), requires_grad=name in self.tables)
                        for name, width in widths.items()}

    def entries_gathered(self) -> int:
        """Entries of all tables that were brought up to date for the last batch: its rows' whole
        blocks."""
        return sum(len(table.blocks.listed) * table.blocks.rows * table.parameter.shape[1]
                   for table in self.tables.values())

    def norm_squared(self, grads: dict[str, Tensor]) -> float:
        """Sum of the squares of the tables' gradients, (C, D) each."""
        return sum(sum_of_squares(grad.numpy()[:len(self.unique)]) for grad in grads.values())

    def apply(self, grads: dict[str, Tensor], scale: float) -> None:
        """Take the step: rows of the batch with `grads` (C, D) times `scale`, the others without a
        gradient, now or later."""
        self.step += 1
        for table in self.tables.values():
            table.note(self.step)
        arrays = {name: grad.numpy() for name, grad in grads.items()}
        factor = np.float32(scale)

        def work(share: int, shares: int) -> None:
            for name, table in self.tables.items():
                blocks = table.blocks
                apply_blocks(table.packed, blocks.listed, *_part(len(blocks.listed), share, shares),
                             self.slots, self.unique, arrays[name], factor, self.step)
                first, last = _part(blocks.count, self.step % self.interval, self.interval)
                low, high = _part(last - first, share, shares)
                sweep_blocks(table.packed, first + low, first + high, blocks.listed_in, self.batch,
                             self.step)

        self._in_parallel(work)

    def refresh(self) -> None:
        """Bring every row to the last step taken, before the tables are read."""
        if all(int(table.step) == self.step for table in self.tables.values()):
            return

        def work(share: int, shares: int) -> None:
            for table in self.tables.values():
                blocks = table.blocks
                sweep_blocks(table.packed, *_part(blocks.count, share, shares), blocks.listed_in,
                             -1, self.step)

        self._in_parallel(work)
        for table in self.tables.values():
            table.step.fill_(self.step)

    def _in_parallel(self, work: Callable[[int, int], None]) -> None:
        """Run `work(share, shares)` for every share, on as many threads as torch has. Their number
        changes no bit."""
        entries = sum(table.parameter.numel() for table in self.tables.values())
        if self.threads == 1 or entries < ALONE:
            work(0, 1)
            return
        others = [_pool(self.threads - 1).submit(work, share, self.threads)
                  for share in range(1, self.threads)]
        work(0, self.threads)
        for other in others:
            other.result()


def _in_large_pages(tensor: Tensor) -> Tensor:
    """The same values in memory for which the operating system may use large pages: numpy asks for
    them, torch does not.

    The rows of a batch are all over a table. With small pages half of the time is spent on looking
    up their addresses.
    """
    if tensor.nbytes < LARGE:
        return tensor
    return torch.from_numpy(np.empty(tensor.shape, np.float32)).copy_(tensor)


def _part(size: int, share: int, shares: int) -> tuple[int, int]:
    return size * share // shares, size * (share + 1) // shares


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="rows")
