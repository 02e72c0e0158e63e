"""Tables of which a batch reads few rows: what is copied to the batch, and when which row takes its
Adam steps."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from engine.optim.cpu.adam import close_blocks, coefficients, open_blocks, sweep_blocks
from models.kernels.batch_rows import blocks_of, copy_rows, renumber, sum_of_squares

log = logging.getLogger("pep")

BLOCK = 64  # entries of a block, about: 3 KB of value and moments stay in the nearest cache
MEMORY = 128  # steps whose rates are kept: more than any row ever lags behind
# steps between two visits of a row, to choose from
INTERVALS = {"dense": (1,), "deferred": (32,), "auto": (1, 32)}
SPARE = 256  # the rows of a small table are a multiple of it
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
        number = -(-len(self.parameter) // self.blocks.rows)
        # step that each block was last brought to
        self.done = np.full(number, int(self.step), np.int32)
        self.state = np.zeros(number, np.uint8)
        self.steps = np.zeros((MEMORY, 2), np.float32)  # a and e of step t at t % MEMORY
        betas, decay = self.group["betas"], self.group["weight_decay"]
        rates = tuple(np.float32(rate)
                      for rate in (decay, betas[0], 1 - betas[0], betas[1], 1 - betas[1]))
        arrays = tuple(tensor.detach().numpy() for tensor in (self.parameter, *self.moments))
        self.packed = (*arrays, self.done, self.state, self.blocks.rows, rates, self.steps)

    def note(self, step: int) -> None:
        """Keep the rates of a step, so that a change of lr holds from the step on at which it was
        made."""
        group = self.group
        self.steps[step % MEMORY] = coefficients(group["lr"], group["betas"], group["eps"], step)


class Blocks:
    """How the rows of one width are parted into blocks, and which blocks hold rows of the batch."""

    def __init__(self, num_rows: int, width: int) -> None:
        self.rows = max(BLOCK // width, 1)
        self.number = -(-num_rows // self.rows)
        # number of the batch for which a block was last listed
        self.listed_in = np.zeros(self.number, np.int64)
        self.space = np.zeros(self.number, np.int32)
        self.listed = self.space[:0]

    def find(self, unique: np.ndarray, batch: int) -> None:
        """List the blocks that hold the rows `unique`, in the order of memory."""
        self.listed = self.space[:blocks_of(unique, self.rows, self.listed_in, batch, self.space)]
        self.listed.sort()


class RowwiseAdam:
    """The tables of a model on a CPU, opened for a batch before its forward pass and closed with
    the gradients.

    Between the two, the batch's rows stand each once in small tables, with ids renumbered to them.
    In step t a row without data is due every `interval` steps; 1 is dense Adam, streamed. The rows
    end up the same to the last bit.

    Args:
        tables: parameters by name; all have N rows.
        fixed: further tensors with N rows that are copied with them and never change.
        form: "dense", "deferred", or "auto", which times the intervals in turns and keeps the
            fastest.
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
        self.batch = 0  # number of the batch that was opened last
        self.capacity = 0
        self.compact: dict[str, Tensor] = {}
        self.pace = Pace(INTERVALS[form])
        self.threads = torch.get_num_threads()
        self.space = np.zeros(0, np.int32)

    def open(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """ids (B, F) -> the same renumbered, and the batch's rows of each table (C, D), C at least
        their number.

        Raises:
            IndexError: an id is not in 0 .. N-1; field and value are named.
        """
        started = time.perf_counter()
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
                open_blocks(table.packed, listed, *_part(len(listed), share, shares), self.slots,
                            self.unique,
                            self.step, outs[name])

        self._in_parallel(work)
        for name, array in self.fixed.items():
            copy_rows(array, self.unique, self.compact[name].numpy())
        self.pace.spent += time.perf_counter() - started
        return local, self.compact

    def _make_room(self, count: int, most: int) -> None:
        """Have small tables of `count` rows or more: a quarter more, so that they seldom grow
        (compiled code must too).

        Their size decides nothing. It is a multiple of SPARE, since the last few entries of a
        vectorised loop can have other last bits, and it never is N, by which an embedding knows its
        whole table.
        """
        if count <= self.capacity:
            return
        self.capacity = -(-min(count * 5 // 4, max(most, count)) // SPARE) * SPARE
        self.capacity += SPARE * (self.capacity == self.num_rows)
        widths = {**{name: table.parameter.shape[1] for name, table in self.tables.items()},
                  **{name: array.shape[1] for name, array in self.fixed.items()}}
        self.compact = {name: torch.zeros((self.capacity, width), requires_grad=name in self.tables)
                        for name, width in widths.items()}

    @property
    def interval(self) -> int:
        """Steps between two visits of a row without data."""
        return self.pace.interval

    def entries_opened(self) -> int:
        """Entries of all tables that the last batch had brought up to date, with those of its rows'
        blocks."""
        return sum(len(table.blocks.listed) * table.blocks.rows * table.parameter.shape[1]
                   for table in self.tables.values())

    def norm_squared(self, grads: dict[str, Tensor]) -> float:
        """Sum of the squares of the tables' gradients, (C, D) each."""
        return sum(sum_of_squares(grad.numpy()[:len(self.unique)]) for grad in grads.values())

    def close(self, grads: dict[str, Tensor], scale: float) -> None:
        """Take the step: rows of the batch with `grads` (C, D) times `scale`, the others without,
        now or late."""
        started = time.perf_counter()
        self.step += 1
        for table in self.tables.values():
            table.note(self.step)
        arrays = {name: grad.numpy() for name, grad in grads.items()}
        factor, interval = np.float32(scale), self.pace.interval

        def work(share: int, shares: int) -> None:
            for name, table in self.tables.items():
                blocks = table.blocks
                close_blocks(table.packed, blocks.listed, *_part(len(blocks.listed), share, shares),
                             self.slots,
                             self.unique, arrays[name], factor, self.step)
                first, last = _part(blocks.number, self.step % interval, interval)
                low, high = _part(last - first, share, shares)
                sweep_blocks(table.packed, first + low, first + high, blocks.listed_in, self.batch,
                             self.step)

        self._in_parallel(work)
        self.pace.step_done(time.perf_counter() - started)

    def refresh(self) -> None:
        """Bring every row to the last step taken: before anybody looks at the tables."""
        if all(int(table.step) == self.step for table in self.tables.values()):
            return
        started = time.perf_counter()

        def work(share: int, shares: int) -> None:
            for table in self.tables.values():
                blocks = table.blocks
                sweep_blocks(table.packed, *_part(blocks.number, share, shares), blocks.listed_in,
                             -1, self.step)

        self._in_parallel(work)
        for table in self.tables.values():
            table.step.fill_(self.step)
        self.pace.spent += time.perf_counter() - started

    def _in_parallel(self, work: Callable[[int, int], None]) -> None:
        """Run `work(share, shares)` for every share, on as many threads as torch has. Bits do not
        depend on it."""
        entries = sum(table.parameter.numel() for table in self.tables.values())
        if self.threads == 1 or entries < ALONE:
            work(0, 1)
            return
        others = [_pool(self.threads - 1).submit(work, share, self.threads)
                  for share in range(1, self.threads)]
        work(0, self.threads)
        for other in others:
            other.result()


class Pace:
    """How many steps lie between two visits of a row: the fastest of `choices`, each timed once it
    runs evenly."""

    def __init__(self, choices: tuple[int, ...]) -> None:
        self.left = list(choices)
        self.interval = self.left.pop(0)
        self.spent = 0.0
        self.steps = 0
        self.times: dict[int, float] = {}
        self.deciding = bool(self.left)

    def step_done(self, seconds: float) -> None:
        """Add a step's time; perhaps go on to another interval."""
        self.spent += seconds
        self.steps += 1
        warm = 2 * self.interval + 3
        if self.deciding and self.steps == warm:
            self.spent = 0.0
        elif self.deciding and self.steps >= 2 * warm + 10:
            self.times[self.interval] = self.spent / (self.steps - warm)
            self.interval = self.left.pop(0) if self.left else min(self.times,
                                                                   key=lambda n: self.times[n])
            self.spent, self.steps = 0.0, 0
            self.deciding = len(self.times) == 0 or self.interval not in self.times
            if not self.deciding:
                log.info("rows without data: %s (ms a step: %s)",
                         "each step" if self.interval == 1
                         else f"made up for every {self.interval} steps",
                         ", ".join(f"every {n}: {1e3 * t:.2f}" for n, t in self.times.items()))


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
