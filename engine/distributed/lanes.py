"""The training step over lanes and shards.

Each lane goes through the model by itself, with the rows of its own ids, as if it were a process:
nothing that it computes depends on who computes the other lanes. What has to be known of the whole
batch (the statistics of a batch norm, the gradients, their norm) is added up as a balanced tree.
"""

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from engine.distributed.shards import Shards, with_tables
from engine.distributed.world import World, tree
from engine.optim.cpu import rowwise as cpu
from engine.optim.gpu import rowwise as gpu
from engine.optim.step import Step
from engine.run import derive
from models.base import ClickModel, Inputs, as_inputs
from models.embedding.uniform import Uniform
from models.kernels.batch_rows import renumber
from models.kernels.deferred import njit
from models.kernels.dropout import Dropout

WHOLE_VECTORS = 64  # rows: of a multiple of them no entry is left over by the CPU's vectors
Lane = tuple[Inputs, Tensor]  # inputs and labels


def lane_sizes(rows: int, lanes: int) -> list[int]:
    """Rows of each lane of a batch.

    >>> lane_sizes(10, 4)
    [3, 3, 2, 2]
    """
    least, more = divmod(rows, lanes)
    return [least + (lane < more) for lane in range(lanes)]


class Meeting:
    """Where the lanes of this process wait for each other, and then for the other processes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.barrier = threading.Barrier(len(world.own))
        self.parts: list[Tensor] = [torch.empty(0)] * len(world.own)
        self.everyone = torch.empty(0)
        self.rows = torch.empty(0)  # of each lane of the batch, (lanes, 1)

    def gather(self, index: int, part: Tensor) -> Tensor:
        """A tensor of the own lane number `index` -> (lanes, ...), of all lanes."""
        self.parts[index] = part
        if self.barrier.wait() == 0:
            self.everyone = self.world.gather_lanes(self.parts)
        self.barrier.wait()
        return self.everyone


class _Normalise(torch.autograd.Function):
    """Batch norm of a lane by the mean and the variance of the whole batch."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, own: "LaneBatchNorm") -> Tensor:
        sums, rows = x.sum(0), own.meeting.rows
        square = (x - sums / max(len(x), 1)).square().sum(0)
        all_sums, squares = own.meeting.gather(own.index, torch.stack([sums, square])).unbind(1)
        mean = tree(all_sums.unbind()) / rows.sum()
        # the squares about the batch's mean from those about the lanes' (Chan et al. 1979)
        shift = all_sums / rows.clamp(min=1) - mean
        variance = tree((squares + rows * shift.square()).unbind()) / rows.sum()
        own.note(mean, variance)
        scale = (variance + own.norm.eps).rsqrt()
        normal = (x - mean) * scale
        ctx.save_for_backward(normal, weight, scale)
        ctx.own = own
        return normal * weight + bias

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        normal, weight, scale = ctx.saved_tensors
        own = torch.stack([(grad * normal).sum(0), grad.sum(0)])
        meeting = ctx.own.meeting
        by_weight, by_bias = (tree(meeting.gather(ctx.own.index, own).unbind())
                              / meeting.rows.sum())
        return (grad - by_bias - normal * by_weight) * (weight * scale), own[0], own[1], None


class LaneBatchNorm(nn.Module):
    """A batch norm of which each lane has one, around the model's own."""

    def __init__(self, norm: nn.BatchNorm1d, meeting: Meeting, index: int) -> None:
        super().__init__()
        self.norm = norm
        self.meeting = meeting
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """(rows of the lane, C)."""
        return _Normalise.apply(x, self.norm.weight, self.norm.bias, self)

    def note(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, once for all lanes of this process."""
        if self.index == 0:
            rows, norm = float(self.meeting.rows.sum()), self.norm
            rate = norm.momentum or 0.1  # torch's own default; no model here has another
            norm.get_buffer("running_mean").lerp_(mean, rate)
            norm.get_buffer("running_var").lerp_(variance * (rows / (rows - 1)), rate)
            norm.get_buffer("num_batches_tracked").add_(1)


class LaneModel:
    """The model as one lane goes through it: its tables hold the rows of the lane's ids alone."""

    def __init__(self, model: ClickModel, embedding: Any, meeting: Meeting, index: int) -> None:
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.model = copy.deepcopy(model, {**shared, id(model.embedding): embedding}).train()
        self.generator = torch.Generator(next(model.parameters()).device)
        self._replace(self.model, meeting, index)

    def put(self, names: Sequence[str], tables: Sequence[Tensor]) -> None:
        """Put tables, as they are, in the place of parameters."""
        for name, table in zip(names, tables, strict=True):
            path, _, key = name.rpartition(".")
            self.model.get_submodule(path)._parameters[key] = table  # type: ignore[assignment]

    def _replace(self, module: nn.Module, meeting: Meeting, index: int) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d):
                setattr(module, name, LaneBatchNorm(child, meeting, index))
            elif isinstance(child, Dropout):
                child.generator = self.generator  # a copy's, which is the lane's own
            else:
                self._replace(child, meeting, index)


@njit(nogil=True)
def _squares_of_rows(values, out):
    for row in range(out.size):
        total = np.float64(0.0)
        for d in range(values.shape[1]):
            total += np.float64(values[row, d]) * values[row, d]
        out[row] += total


class LaneStep(Step):
    """A `Step` of which this process computes its own lanes, on tables that are cut by `Shards`.

    The tables are updated row by row, each row in the process that has it; all other parameters are
    everywhere, and take the same step everywhere.

    Args:
        shards: of the model.
        seed: of the dropout, together with the step and the lane.
        others: as those of `Step` from `optimizer` on.
    """

    def __init__(self, shards: Shards, model: ClickModel, seed: int, *others: Any) -> None:
        super().__init__(model, *others)
        self.shards = shards
        self.world = shards.world
        self.seed = seed
        self.device = next(model.parameters()).device
        self.flags = torch.zeros(2)  # raised by this process: save, and save and stop
        self.raised = torch.zeros(2)  # by any of them, in the last step
        self.meeting = Meeting(self.world)
        self.by_vector = model.embedding.sharded == "vectors"
        self.lanes = [LaneModel(model, self._embedding_of_lane(), self.meeting, index)
                      for index in range(len(self.world.own))]
        meets = any(isinstance(module, LaneBatchNorm) for module in self.lanes[0].model.modules())
        self.pool = None
        if meets and len(self.lanes) > 1:
            self.pool = ThreadPoolExecutor(len(self.lanes), "lane", _begin, (self.device,))
        self.slots = np.zeros(model.embedding.num_rows, np.int32)

    def _embedding_of_lane(self) -> Any:
        embedding = self.model.embedding
        if self.by_vector:
            return Uniform(torch.zeros(1, embedding.width), embedding.num_fields)
        return with_tables(embedding, {})

    def __call__(self, batch: Any, rows: Tensor) -> Tensor:
        """The own lanes of a batch (a list of `Lane`) and the rows of the whole batch -> its mean
        loss; raises as `Step` does."""
        ids = [as_inputs(inputs)[0] for inputs, _ in batch]
        every = torch.cat(ids)
        self._see_parameters(every.numel())
        assert self.rows is not None
        if isinstance(self.rows, gpu.RowwiseAdam):
            self.rows.count()
        unique, local = numbered(every, self.slots)
        request = self.shards.request(unique)
        # one row more, so that no shard is ever without one; it gets no gradient
        wanted = torch.cat([request.wanted, request.wanted.new_zeros(1)])
        slots, gathered = self.rows.gather(wanted[:, None].to(self.device))
        slots = slots[:-1, 0].long()
        outgoing = self._outgoing(gathered)
        table = self.shards.send(request, outgoing.detach()[slots])
        widths = [self.rows.tables[name].parameter.shape[1] for name in self.table_names]
        tables = [part.contiguous().requires_grad_() for part in table.split(widths, 1)]
        loss, grads, row_grads = self._over_lanes(batch, int(rows), local, tables)
        back = self.shards.send_back(request, row_grads).split(request.asking)
        sums = []
        for places, grad in zip(slots.split(request.asking), back, strict=True):
            sums.append(torch.zeros_like(outgoing))
            sums[-1][places] = grad
        own = torch.autograd.grad(outgoing, [gathered[name] for name in self.rows.tables],
                                  tree(sums))
        by_table = dict(zip(self.rows.tables, own, strict=True))
        scale = self._scale(float(loss), self._norm(grads, by_table))
        self._apply(grads, by_table, scale if self.waits else torch.tensor(scale).to(loss))
        return loss

    def _outgoing(self, gathered: dict[str, Tensor]) -> Tensor:
        """What lanes get of rows: the vectors, or the rows of the embedding's tables; then those of
        the other tables."""
        inside = {name: rows for name, rows in gathered.items() if name.startswith("embedding.")}
        parts = [rows for name, rows in gathered.items()
                 if rows.requires_grad and not (self.by_vector and name in inside)]
        if self.by_vector:
            count = len(next(iter(gathered.values())))
            more = -count % WHOLE_VECTORS
            padded = {name: pad(rows, (0, 0, 0, more)) for name, rows in inside.items()}
            with self._in_place(padded):
                vectors, _ = self.model.embedding.rows(torch.arange(count + more,
                                                                    device=self.device))
            parts.insert(0, vectors[:count])
        return torch.cat(parts, 1)

    def _over_lanes(self, batch: Sequence[Lane], rows: int, local: Tensor,
                    tables: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
        """The loss, the gradients of `rest`, and those of the rows of `tables`, side by side, by
        the own lanes."""
        of_lanes = torch.tensor(lane_sizes(rows, self.world.lanes), device=self.device)
        self.meeting.rows = of_lanes.float()[:, None]
        sizes = [len(labels) for _, labels in batch]
        works = list(zip(range(len(batch)), batch, local.split(sizes), strict=True))

        def work(index: int, lane: Lane, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
            try:
                return self._lane(index, lane, ids, tables, rows)
            except BaseException:
                self.meeting.barrier.abort()  # so that the other lanes do not wait for this one
                raise

        if self.pool is None:
            done = [work(*one) for one in works]
        else:
            waiting = [self.pool.submit(work, *one) for one in works]
            errors = [one.exception() for one in waiting]
            for error in errors:
                if error is not None and not isinstance(error, threading.BrokenBarrierError):
                    raise error
            done = [one.result() for one in waiting]
        flags = self.flags.to(self.device) / len(done)
        flat = self.world.add_lanes([torch.cat([flags, dense]) for dense, _ in done])
        self.raised = flat[:2]
        shapes = [parameter.shape for parameter in self.rest]
        pieces = flat[3:].split([shape.numel() for shape in shapes])
        grads = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        by_table = zip(*(row_grads for _, row_grads in done), strict=True)
        return flat[2].clone(), grads, torch.cat([tree(parts) for parts in by_table], 1)

    def _lane(self, index: int, lane: Lane, ids: Tensor, tables: Sequence[Tensor],
              rows: int) -> tuple[Tensor, list[Tensor]]:
        """(loss and gradients of `rest` in one tensor, gradients of the tables of the rows)."""
        own, dense = self.lanes[index], [part.to(self.device) for part in as_inputs(lane[0])[1:]]
        labels = lane[1].to(self.device)
        assert self.rows is not None
        own.generator.manual_seed(derive(
            self.seed, f"dropout:{self.rows.step}:{self.world.own[index]}"))
        of_lane = tables
        if not self.by_vector:  # sums over the rows of a table are then those of the lane's rows
            chosen, ids = numbered(ids, np.zeros(len(tables[0]), np.int32))
            places = torch.from_numpy(chosen).long().to(self.device)
            # one row more where there are N: by that number an embedding knows its whole table
            more = int(len(chosen) == len(self.slots))
            of_lane = [pad(table.detach()[places], (0, 0, 0, more)).requires_grad_()
                       for table in tables]
        own.put(self.table_names, of_lane)
        ids = ids.to(self.device)
        logits = own.model(ids, *dense)
        loss = binary_cross_entropy_with_logits(logits, labels, reduction="sum") / rows
        total = loss
        if self.l2_penalty:
            vectors = own.model.embedding(ids)
            total = loss + self.l2_penalty * vectors.square().sum() / rows
        # in this thread: the backward passes of a GPU share one of autograd's, in which a lane that
        # waits for the others would keep them from coming
        with torch.autograd.set_multithreading_enabled(False):
            grads = torch.autograd.grad(total, [*self.rest, *of_lane])
        others = [loss.detach().view(1), *(grad.reshape(-1) for grad in grads[:len(self.rest)])]
        row_grads = list(grads[len(self.rest):])
        if not self.by_vector:
            row_grads = [torch.zeros_like(table).index_copy_(0, places, grad[:len(places)])
                         for table, grad in zip(tables, row_grads, strict=True)]
        return torch.cat(others), row_grads

    @property
    def table_names(self) -> list[str]:
        """Of the tables whose rows go to the lanes."""
        assert self.rows is not None
        if not self.by_vector:
            return list(self.rows.tables)
        others = [name for name in self.rows.tables if not name.startswith("embedding.")]
        return ["embedding.weight", *others]

    def _norm(self, grads: Sequence[Tensor], by_table: dict[str, Tensor]) -> float:
        """Global norm of the gradients, the squares of rows added up in an order of their own."""
        rows, lines = self._distinct()
        squares = np.zeros(len(rows))
        for grad in by_table.values():
            _squares_of_rows(grad[lines].cpu().numpy(), squares)
        ends = [part.stop for part in self.shards.parts]
        part_of = np.searchsorted(np.array(ends), rows, side="right")
        sums = [torch.tensor(np.sort(squares[part_of == part]).sum())
                for part in range(len(ends))]
        total = float(self.world.add_lanes(sums))
        return float(np.sqrt(total + sum(float(torch.dot(grad.reshape(-1), grad.reshape(-1)))
                                         for grad in grads)))

    def _distinct(self) -> tuple[np.ndarray, Any]:
        """The batch's rows of this process, each once, and which lines of their gradients are
        theirs."""
        if isinstance(self.rows, cpu.RowwiseAdam):
            return self.rows.unique, slice(None)
        assert self.rows is not None
        places = self.rows.local
        first = torch.nonzero(places == torch.arange(len(places), device=self.device))[:, 0]
        return self.rows.rows[first].cpu().numpy(), first


def _begin(device: torch.device) -> None:
    """Set up a thread of the pool: these settings hold for one thread alone."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        torch.cuda.set_device(device)


def numbered(ids: Tensor, slots: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """The distinct ids in the order of their first coming, and the ids counted through them.

    Raises:
        IndexError: an id outside the tables.
    """
    flat, local = ids.numpy().reshape(-1), np.empty(tuple(ids.shape), np.int32)
    unique = np.empty(flat.size, np.int32)
    count = renumber(flat, slots, unique, local.reshape(-1))
    if count < 0:
        raise IndexError(f"the batch has the id {flat[-1 - count]}; ids are 0 .. {len(slots) - 1}")
    return unique[:count], torch.from_numpy(local)
