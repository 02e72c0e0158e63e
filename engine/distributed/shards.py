"""Tables cut over the processes of a run, each row with its thresholds and moments in one
process."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.distributed.order import Order
from engine.distributed.world import BROADCAST, World
from models.base import ClickModel, row_indexed_tables
from models.memory import array_in_file
from models.serving.compact import stored_bytes

SMALL = 1 << 24  # bytes of a whole table that is kept in memory; a larger one is kept in a file
DIGIT = 16  # bits that are counted at a time where an n-th value is searched


@dataclass(frozen=True)
class Request:
    """Rows that this process asks the others for, and rows that they ask it for.

    Args:
        order: in which its own rows are sent, by process.
        asked: rows asked of each process.
        asking: rows that each process asks for.
        wanted: (sum of asking,) int32, these, counted in this process's shard.
    """

    order: np.ndarray
    asked: list[int]
    asking: list[int]
    wanted: Tensor


class Shards(Order):
    """The rows of all tables of a model of N rows, cut over the processes.

    Args:
        model: its tables are replaced by this process's rows of them, (own rows, D), where they
            are not that already.
        world: the processes.
        folder: for the files of tables that are too large to be made whole in memory.

    Raises:
        ValueError: the embedding cannot be cut, or has fewer rows than the run has lanes.
    """

    def __init__(self, model: ClickModel, world: World, folder: Path) -> None:
        embedding, name = model.embedding, type(model.embedding).__name__
        if embedding.sharded is None:
            raise ValueError(f"the embedding {name} cannot be cut over processes: its vectors are "
                             f"not made of rows of their own. Run it without torchrun and with "
                             f"lanes=0, or use pep or uniform")
        if embedding.num_rows < world.lanes:
            raise ValueError(f"a table of {embedding.num_rows} rows cannot be cut into "
                             f"{world.lanes} lanes; set fewer lanes")
        self.world = world
        self.folder = folder
        super().__init__(embedding.num_rows, world.lanes, world.size, world.rank)
        tables = row_indexed_tables(model)
        self.names = tuple(tables)
        own = torch.from_numpy(self.own())
        # one entry a row that is not among the tables: the field of a row
        self.of_rows = tuple(key for key, buffer in embedding.named_buffers()
                             if buffer.shape == (self.num_rows,))
        for tensor in (*tables.values(), *map(embedding.get_buffer, self.of_rows)):
            if len(tensor) == self.num_rows:
                tensor.data = tensor.data[own]
        kind = type(embedding)
        embedding.__class__ = type(f"Sharded{name}", (ShardedEmbedding, kind),
                                   {"kind": kind, "shards": self})

    def views(self, embedding: Any) -> list[Any]:
        """The embedding with the rows of one part in the place of its tables, for each own part."""
        names = (*embedding.row_indexed, *self.of_rows)
        made = []
        for part in self.parts:
            tables = {**embedding._parameters, **embedding._buffers}
            cut = {name: tensor[part] for name, tensor in tables.items() if name in names}
            view = with_tables(embedding, cut)
            view.num_rows = part.stop - part.start
            made.append(view)
        return made

    def request(self, rows: np.ndarray) -> Request:
        """Ask the processes that hold them for distinct rows of the tables."""
        places = self.places(rows)
        holders = np.searchsorted(self.edges[1:], places, side="right")
        order = np.argsort(holders.astype(np.int16), kind="stable")
        asked = np.bincount(holders, minlength=self.world.size)
        ones = [1] * self.world.size
        asking = self.world.exchange(torch.from_numpy(asked), ones, ones).tolist()
        own = torch.from_numpy((places - self.edges[holders])[order].astype(np.int32))
        return Request(order, asked.tolist(), asking,
                       self.world.exchange(own, asked.tolist(), asking))

    def send(self, request: Request, wanted: Tensor) -> Tensor:
        """What was made of the wanted rows, to those who asked; returns that of the own rows, in
        their order."""
        received = self.world.exchange(wanted, request.asking, request.asked)
        own = torch.empty_like(received)
        own[torch.from_numpy(request.order)] = received
        return own

    def send_back(self, request: Request, own: Tensor) -> Tensor:
        """Gradients of the own rows, to those who hold them; returns those of the wanted rows."""
        ordered = own[torch.from_numpy(request.order)]
        return self.world.exchange(ordered, request.asked, request.asking)

    def whole(self, shard: Tensor, keep: bool = True) -> np.ndarray:
        """A table from the shards of all processes, in the order of its rows, a few rows at a time.

        Args:
            shard: (own rows, ...).
            keep: whether this process wants it; it takes part in any case.

        Returns:
            (N, ...), in a file where it is large; the shard where it is not wanted.
        """
        row_bytes = shard[:1].nbytes
        shape = (self.num_rows, *shard.shape[1:])
        out: Any = shard.cpu().numpy()
        if keep and row_bytes * self.num_rows <= SMALL:
            out = np.empty(shape, out.dtype)
        elif keep:
            out = array_in_file(shape, out.dtype, self.folder)
        for rank in range(self.world.size):
            end = int(self.edges[rank + 1])
            for start in range(int(self.edges[rank]), end, max(BROADCAST // row_bytes, 1)):
                stop = min(start + max(BROADCAST // row_bytes, 1), end)
                part = shard.new_empty((stop - start, *shard.shape[1:]))
                if rank == self.world.rank:
                    part.copy_(shard[start - self.first:stop - self.first])
                self.world.from_rank(rank, part)
                if keep:
                    out[self.rows_at(np.arange(start, stop))] = part.cpu().numpy()
        return out

    def count(self, shard: np.ndarray) -> int:
        """Entries of all processes that are not zero."""
        return int(self.world.total(torch.tensor([np.count_nonzero(shard)])))

    def cut_to(self, values: np.ndarray, margins: np.ndarray, count: int) -> np.ndarray:
        """As `engine.snapshots.cut_to`, of this process's rows of a table: the entries that it
        keeps of the whole table."""
        width = values.shape[1]
        if count > self.num_rows * width:
            raise ValueError(f"cannot keep {count} of {self.num_rows * width} entries")
        falling = (0.0 - margins.astype(np.float32)).ravel().view(np.uint32)
        negative = falling >> 31 == 1
        keys = np.where(negative, ~falling, falling | np.uint32(1 << 31))  # in the order of numbers
        last, left = self._nth(keys, count, 32)
        tied = np.flatnonzero(keys == last)
        rows = self.rows_at(tied // width + int(self.first))
        indices = (rows * width + tied % width).astype(np.uint64)
        kept = keys < last
        kept[tied[indices <= self._nth(indices, left, 48)[0]]] = True
        return np.where(kept.reshape(values.shape), values, np.zeros((), values.dtype))

    def _nth(self, keys: np.ndarray, count: int, bits: int) -> tuple[int, int]:
        """The count-th smallest key of all processes, and the rank of it among its equals."""
        found = 0
        for shift in range(bits - DIGIT, -1, -DIGIT):
            digits = (keys >> keys.dtype.type(shift)) & keys.dtype.type((1 << DIGIT) - 1)
            counts = torch.from_numpy(np.bincount(digits.astype(np.int64), minlength=1 << DIGIT))
            up_to = np.cumsum(self.world.total(counts).numpy())
            digit = int(np.searchsorted(up_to, count))
            count -= int(up_to[digit - 1]) if digit else 0
            found = found << DIGIT | digit
            keys = keys[digits == digit]
        return found, count


def with_tables(embedding: Any, tables: Mapping[str, Tensor]) -> Any:
    """The embedding, uncut, with other tensors in the place of some of its own; nothing is copied.

    The embedding itself stays as it is.
    """
    view = copy.copy(embedding)
    view.__class__ = getattr(type(embedding), "kind", type(embedding))
    for kind in ("_parameters", "_buffers"):
        own = vars(embedding)[kind]
        vars(view)[kind] = own | {name: tables[name] for name in own if name in tables}
    return view


class ShardedEmbedding:
    """What is asked of a whole embedding, answered by all processes together or for the own rows.

    `Shards` puts it before the class of an embedding that is cut, as hooks hold the object itself.
    """

    shards: Shards
    kind: type

    def num_params(self) -> int:
        """Of all processes."""
        own = sum(view.num_params() for view in self._own())
        return int(self.shards.world.total(torch.tensor([own])))

    def inference_bytes(self) -> int:
        """Of the whole table, which depend on how many rows keep how many entries alone."""
        width = self._own()[0].width
        if not width:
            return 0
        own = torch.cat([view.kept_per_row() for view in self._own()]).cpu()
        rows = self.shards.world.total(torch.bincount(own, minlength=width + 1))
        kept = np.repeat(np.arange(width + 1), rows.numpy())
        return min(4 * len(kept) * width, stored_bytes(kept, width))

    def table(self) -> Tensor:
        """(own rows, D)."""
        return torch.cat([view.table() for view in self._own()])

    def margins_of(self, weight: Tensor, thresholds: Tensor) -> Tensor:
        """(own rows, D)."""
        by_feature = (len(thresholds) == len(weight)
                      and "embedding.thresholds" in self.shards.names)
        return torch.cat([
            view.margins_of(weight[part], thresholds[part] if by_feature else thresholds)
            for view, part in zip(self._own(), self.shards.parts, strict=True)])

    def _own(self) -> list[Any]:
        return self.shards.views(self)

