"""Adam on a CPU for tables that are read row by row: what a batch gets, and when which row takes
its steps."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from engine.optim.cpu.adam import (
    adam_flat,
    adam_rows,
    apply_blocks,
    coefficients,
    gather_blocks,
    sweep_blocks,
)
from models.kernels.batch_rows import blocks_of, copy_rows, renumber, sum_of_squares

BLOCK = 64  # entries of a block, about: 3 KB of value and moments stay in the nearest cache
MEMORY = 128  # steps whose rates are kept: more than any row ever lags behind
INTERVALS = {"streamed": 1, "lazy": 32}  # steps between two visits of a row without data
LARGE = 1 << 22  # bytes from which numpy asks for large pages
ALONE = 200_000  # entries a step below which a second thread costs more than it helps

# parameter, what the optimiser keeps of it, its group there
Learned = tuple[Tensor, dict, dict]
Gradient = Tensor | np.ndarray


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
        count = -(-len(self.parameter) // self.blocks.rows)
        # step that each block was last brought to
        self.done = np.full(count, int(self.step), np.int32)
        self.state = np.zeros(count, np.uint8)
        self.steps = np.zeros((MEMORY, 2), np.float32)  # a and e of step t at t % MEMORY
        rates = _rates(self.group)
        self.arrays = tuple(tensor.detach().numpy() for tensor in (self.parameter, *self.moments))
        self.packed = (*self.arrays, self.done, self.state, self.blocks.rows, rates, self.steps)
        self.whole = (*self.arrays, rates, self.steps)

    def note(self, step: int) -> None:
        """Keep the rates of a step, so that a change of lr holds from the step on at which it was
        made."""
        group = self.group
        self.steps[step % MEMORY] = coefficients(group["lr"], group["betas"], group["eps"], step)


@dataclass
class Other:
    """A parameter of any shape that is updated as it is, with its state and group in the
    optimiser."""

    parameter: Tensor
    state: dict
    group: dict

    def __post_init__(self) -> None:
        self.step = self.state["step"]
        tensors = (self.parameter.detach(), self.state["exp_avg"], self.state["exp_avg_sq"])
        self.arrays = tuple(tensor.view(-1).numpy() for tensor in tensors)
        self.rates = _rates(self.group)

    def apply(self, grad: Gradient, scale: np.float32, step: int) -> None:
        """Take the step with `grad` times `scale`."""
        group = self.group
        a, e = coefficients(group["lr"], group["betas"], group["eps"], step)
        adam_flat(*self.arrays, np.asarray(grad).reshape(-1), self.rates, scale, np.float32(a),
                  np.float32(e))


def _rates(group: dict) -> tuple[np.float32, ...]:
    betas = group["betas"]
    return tuple(np.float32(rate) for rate in (group["weight_decay"], betas[0], 1 - betas[0],
                                               betas[1], 1 - betas[1]))


class Blocks:
    """How the rows of one width are parted into blocks, and which blocks hold rows of the batch."""

    def __init__(self, num_rows: int, width: int) -> None:
        self.rows = max(BLOCK // width, 1)
        self.count = -(-num_rows // self.rows)
        # the batch for which a block was last listed
        self.listed_in = np.zeros(self.count, np.int64)
        self.space = np.zeros(self.count, np.int32)
        self.listed = self.space[:0]

    def find(self, unique: np.ndarray, batch: int) -> None:
        """List the blocks that hold the rows `unique`, in the order of memory."""
        self.listed = self.space[:blocks_of(unique, self.rows, self.listed_in, batch, self.space)]
        self.listed.sort()


class RowwiseAdam:
    """Adam with coupled decay for the tables of a model on a CPU, with gradients of a batch's rows.

    Before a forward pass `gather` copies the batch's rows, each once, into small tables and counts
    the ids through them; after it `apply` takes the step with the gradients of these. Every row
    takes every step, with a gradient or with decay alone. "streamed" takes it at once, in one pass
    over the table; "lazy" lets a row without data wait for up to 32 steps, which it then takes one
    after the other in the cache: less work for memory where a table is large. The values are the
    same to the last bit.

    Args:
        tables: parameters by name, with their state and group in the optimiser; all have N rows.
        fixed: further tensors with N rows that are copied with them and never change.
        form: "streamed" or "lazy".
        others: parameters that are updated as they are.
    """

    def __init__(self, tables: dict[str, Learned], fixed: dict[str, Tensor], form: str,
                 others: Sequence[Learned] = ()) -> None:
        layouts: dict[int, Blocks] = {}
        self.tables = {}
        for name, (parameter, state, group) in tables.items():
            parameter.data = _in_large_pages(parameter.data)
            state |= {key: _in_large_pages(state[key]) for key in ("exp_avg", "exp_avg_sq")}
            blocks = layouts.setdefault(parameter.shape[1], Blocks(*parameter.shape))
            self.tables[name] = Table(parameter, (state["exp_avg"], state["exp_avg_sq"]),
                                      state["step"], group, blocks)
        self.layouts = tuple(layouts.values())
        self.others = [Other(*other) for other in others]
        self.fixed = {name: tensor.numpy() for name, tensor in fixed.items()}
        self.num_rows = len(next(iter(self.tables.values())).parameter)
        self.slots = np.zeros(self.num_rows, np.int32)
        self.unique = self.rising = np.zeros(0, np.int32)  # the rows of the batch
        self.step = max(int(one.step) for one in self._all())
        self.batch = 0  # batches that were gathered
        self.capacity = 0
        self.buffers: dict[str, np.ndarray] = {}
        self.interval = INTERVALS[form]
        self.lazy = self.interval > 1 or any(int(table.step) < self.step
                                             for table in self.tables.values())
        entries = sum(table.parameter.numel() for table in self.tables.values())
        self.threads = torch.get_num_threads() if entries >= ALONE else 1
        self.space = np.zeros(0, np.int32)

    def _all(self) -> "list[Table | Other]":
        return [*self.tables.values(), *self.others]

    def gather(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `gather_arrays`, in tensors, of which those of learned tables require a gradient."""
        return self.as_tensors(*self.gather_arrays(ids))

    def as_tensors(self, local: np.ndarray,
                   rows: dict[str, np.ndarray]) -> tuple[Tensor, dict[str, Tensor]]:
        """What `gather_arrays` gave, in tensors of the same memory."""
        gathered = {name: torch.from_numpy(array).requires_grad_(name in self.tables)
                    for name, array in rows.items()}
        return torch.from_numpy(local), gathered

    def gather_arrays(self, ids: Tensor) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """ids (B, F) -> the same counted through the batch's rows, int32, and these of each table
        (U, D), overwritten by the next call.

        Raises:
            IndexError: an id is not in 0 .. N-1; field and value are named.
        """
        local = np.empty(ids.shape, np.int32)
        if len(self.space) < ids.numel():
            self.space = np.zeros(ids.numel(), np.int32)
        count = renumber(ids.numpy().reshape(-1), self.slots, self.space, local.reshape(-1))
        if count < 0:
            row, field = divmod(-1 - count, ids.shape[1])
            raise IndexError(f"field {field} of row {row} of the batch has the id "
                             f"{int(ids[row, field])}; the table has {self.num_rows} rows, ids are "
                             f"0 .. {self.num_rows - 1}")
        self.unique = self.space[:count]
        self.batch += 1
        rows = self._space_for(count)
        if self.lazy:
            for layout in self.layouts:
                layout.find(self.unique, self.batch)
            self._in_parallel(lambda share, shares: self._gather_blocks(rows, share, shares))
        else:
            self.rising = np.sort(self.unique)
            for name, table in self.tables.items():
                copy_rows(table.arrays[0], self.unique, rows[name])
        for name, array in self.fixed.items():
            copy_rows(array, self.unique, rows[name])
        return local, rows

    def _space_for(self, count: int) -> dict[str, np.ndarray]:
        """Small tables of `count` rows, and one more where these are N: by that number an embedding
        knows its whole table, in its own order."""
        count += count == self.num_rows
        if count > self.capacity:
            self.capacity = count * 5 // 4
            widths = {name: table.parameter.shape[1] for name, table in self.tables.items()}
            widths |= {name: array.shape[1] for name, array in self.fixed.items()}
            self.buffers = {name: np.zeros((self.capacity, width), np.float32)
                            for name, width in widths.items()}
        return {name: buffer[:count] for name, buffer in self.buffers.items()}

    def _gather_blocks(self, outs: dict[str, np.ndarray], share: int, shares: int) -> None:
        for name, table in self.tables.items():
            listed = table.blocks.listed
            gather_blocks(table.packed, listed, *_part(len(listed), share, shares), self.slots,
                          self.unique, self.step, outs[name])

    def entries_gathered(self) -> int:
        """Entries of all tables that the last batch had brought up to date, with those of its rows'
        blocks."""
        return sum(len(table.blocks.listed) * table.blocks.rows * table.parameter.shape[1]
                   for table in self.tables.values())

    def norm_squared(self, grads: Mapping[str, Gradient]) -> float:
        """Sum of the squares of the tables' gradients, (U, D) each."""
        return sum(sum_of_squares(np.asarray(grad)[:len(self.unique)]) for grad in grads.values())

    def apply(self, grads: Mapping[str, Gradient], of_others: Sequence[Gradient],
              scale: float) -> None:
        """Take the step: rows of the batch with `grads` (U, D) times `scale`, the others without,
        now or late; then the other parameters."""
        self.step += 1
        for table in self.tables.values():
            table.note(self.step)
            # of somebody's backward(); the optimiser would take a second step with it
            table.parameter.grad = None
        arrays = {name: np.asarray(grad) for name, grad in grads.items()}
        work = self._apply_blocks if self.lazy else self._apply_rows
        self._in_parallel(lambda share, shares: work(arrays, np.float32(scale), share, shares))
        for other, grad in zip(self.others, of_others, strict=True):
            other.apply(grad, np.float32(scale), self.step)

    def _apply_rows(self, grads: dict[str, np.ndarray], scale: np.float32, share: int,
                    shares: int) -> None:
        for name, table in self.tables.items():
            adam_rows(table.whole, *_part(self.num_rows, share, shares), self.slots, self.rising,
                      grads[name], scale, self.step)

    def _apply_blocks(self, grads: dict[str, np.ndarray], scale: np.float32, share: int,
                      shares: int) -> None:
        for name, table in self.tables.items():
            blocks = table.blocks
            apply_blocks(table.packed, blocks.listed, *_part(len(blocks.listed), share, shares),
                         self.slots, self.unique, grads[name], scale, self.step)
            first, last = _part(blocks.count, self.step % self.interval, self.interval)
            low, high = _part(last - first, share, shares)
            sweep_blocks(table.packed, first + low, first + high, blocks.listed_in, self.batch,
                         self.step)

    def refresh(self) -> None:
        """Bring every row to the last step taken: before anybody looks at the tables."""
        if all(int(one.step) == self.step for one in self._all()):
            return
        if self.lazy:
            self._in_parallel(self._sweep_all)
        for one in self._all():
            one.step.fill_(self.step)

    def _sweep_all(self, share: int, shares: int) -> None:
        for table in self.tables.values():
            blocks = table.blocks
            sweep_blocks(table.packed, *_part(blocks.count, share, shares), blocks.listed_in, -1,
                         self.step)

    def _in_parallel(self, work: Callable[[int, int], None]) -> None:
        """Run `work(share, shares)` for every share, on as many threads as torch has where that
        pays. Bits do not depend on it."""
        if self.threads == 1:
            work(0, 1)
            return
        others = [_pool(self.threads - 1).submit(work, share, self.threads)
                  for share in range(1, self.threads)]
        work(0, self.threads)
        for other in others:
            other.result()


def _in_large_pages(tensor: Tensor) -> Tensor:
    """The same values where the operating system may use large pages: numpy asks for them, torch
    does not.

    Rows are read all over a table, and with small pages half of the time goes into finding where
    they lie.
    """
    if tensor.nbytes < LARGE:
        return tensor
    home = torch.from_numpy(np.empty(tensor.shape, np.float32))
    return home.copy_(tensor)


def _part(size: int, share: int, shares: int) -> tuple[int, int]:
    return size * share // shares, size * (share + 1) // shares


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="rows")
