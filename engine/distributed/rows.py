"""The rows of a data set as one of several processes reads them: its own lanes of each training
batch, its own batches of an evaluation."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.loader import Loader
from engine.distributed.lanes import lane_sizes, numbered
from engine.distributed.shards import Shards
from engine.distributed.world import World
from engine.evaluate import Split
from models.embedding.uniform import Uniform

BATCH = 1_024  # rows of an evaluation that are computed together, as in one process


class LaneLoader(Loader):
    """The batches of a `Loader`, of which each process reads its own lanes.

    Arrays are not copied: a stored set is read from the disk's cache, which all processes share.
    """

    def __init__(self, world: World, ids: np.ndarray, labels: np.ndarray, *others: Any) -> None:
        super().__init__(ids, labels, *others)
        self.world = world

    def _put(self, arrays: list[np.ndarray]) -> list[Tensor]:
        self.place = "mapped"
        return [torch.from_numpy(array) for array in arrays]

    def _send(self, chunk: Tensor) -> Tensor:
        return chunk  # ids are numbered on the CPU; `LaneStep` sends what a lane needs

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Tensor]]:
        """Yield (a list of (inputs, labels), one of each own lane; rows of the whole batch) from
        batch number `start` on."""
        order, per_chunk = self.order(epoch), self._batches_per_chunk()
        for first in range(start, self.batches, per_chunk):
            batches = order[first * self.batch_size:(first + per_chunk) * self.batch_size].split(
                self.batch_size)[:self.batches - first]
            sizes = [lane_sizes(len(batch), self.world.lanes) for batch in batches]
            own = slice(self.world.own.start, self.world.own.stop)
            chosen: list[Tensor] = []
            for batch, of_lanes in zip(batches, sizes, strict=True):
                chosen += batch.split(of_lanes)[own]
            gathered = [array.split([len(lane) for lane in chosen])
                        for array in self._gather(torch.cat(chosen))]
            lanes = [((ids, *dense) if dense else ids, labels)
                     for ids, labels, *dense in zip(*gathered, strict=True)]
            count = len(self.world.own)
            for number, batch in enumerate(batches):
                yield lanes[number * count:(number + 1) * count], torch.tensor(len(batch))


class ShardedSplit(Split):
    """Rows that the processes evaluate together, batch by batch in turns.

    Args:
        shards: of the model's tables.
        others: as those of `Split`.
    """

    def __init__(self, shards: Shards, *others: Any) -> None:
        super().__init__(*others)
        self.shards = shards

    def _put(self, arrays: list[np.ndarray]) -> list[Tensor]:
        return [torch.from_numpy(array) for array in arrays]

    @contextmanager
    def prepared(self, model: nn.Module) -> Iterator[None]:
        """The model as it is: `logits` computes its tables once already."""
        yield

    def logits(self, model: nn.Module) -> Tensor:
        """(rows,) in every process."""
        world, rows = self.shards.world, len(self.ids)
        embedding: Any = model.embedding
        placeholder = Uniform(torch.zeros(1, max(embedding.width, 1)), embedding.num_fields)
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        whole = copy.deepcopy(model, {**shared, id(embedding): placeholder})
        others = [name for name in self.shards.names if not name.startswith("embedding.")]
        tables = [torch.cat([view.table() for view in self.shards.views(embedding)]),
                  *(model.get_parameter(name).detach() for name in others)]
        columns = torch.cat(tables, 1)
        slots, found = np.zeros(self.shards.num_rows, np.int32), []
        for start in range(0, max(rows, 1), BATCH * world.size):
            begin = start + BATCH * world.rank
            ids, *dense = (array[begin:begin + BATCH] for array in (self.ids, *self.dense))
            unique, local = numbered(ids, slots)
            request = self.shards.request(unique)
            received = self.shards.send(request, columns[request.wanted.long()])
            for name, table in zip(("embedding.weight", *others),
                                   received.split([table.shape[1] for table in tables], 1),
                                   strict=True):
                path, _, key = name.rpartition(".")
                whole.get_submodule(path)._parameters[key] = table.contiguous()
            logits = columns.new_zeros(BATCH)
            if len(ids):
                logits[:len(ids)] = whole(*(part.to(columns.device) for part in (local, *dense)))
            found.append(logits)
        # (rounds, processes, BATCH)
        return world.gather(torch.stack(found)).transpose(0, 1).reshape(-1)[:rows]
