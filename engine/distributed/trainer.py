"""A training that several processes share."""

import itertools
import logging
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.distributed import checkpoint
from engine.distributed.lanes import LaneStep
from engine.distributed.rows import LaneLoader, ShardedSplit
from engine.distributed.shards import Shards
from engine.distributed.world import World
from engine.hooks import Checkpoint
from engine.loop import Hook, State
from engine.pep.budgets import SaveAtBudgets
from engine.pep.sparsity_trace import SparsityTrace
from engine.pep.threshold_trace import ThresholdTrace, summary
from engine.progress import Progress
from engine.record import commit, device_name, pick_device
from engine.run import Run, derive
from engine.trainer import Trainer
from models.base import ClickModel

log = logging.getLogger("pep")


class QuietProgress(Progress):
    """A bar that does not count parameters: all processes would have to count with it."""

    def _numbers(self, state: State) -> list[str]:
        auc = self._auc()
        numbers = [f"AUC {auc:.4f}"] if auc is not None else []
        return [*numbers, f"epoch {state.epoch}", f"loss {state.mean_loss():.4f}"]


class NoProgress(Progress):
    """What the processes without a bar have in its place."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __call__(self, state: State) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing is open."""


class AgreedCheckpoint(Checkpoint):
    """A `Checkpoint` that all processes save at the same step: each says with the gradients of a
    step whether it wants one after it."""

    def __init__(self, save: Callable[[State], None], seconds: float, step: LaneStep) -> None:
        super().__init__(save, seconds)
        self.step = step
        self._raise_flags()

    def _raise_flags(self) -> None:
        due = self.step.world.rank == 0 and time.monotonic() - self.last >= self.seconds
        self.step.flags = torch.tensor([float(due), float(self.interrupted)])

    def __call__(self, state: State) -> str | None:
        """"interrupted" when any of the processes was told to end."""
        due, interrupted = (self.step.raised > 0).tolist()
        if due or interrupted:
            state.refresh()
            state.mean_loss()
            self.save(state)
            self.last = time.monotonic()
        self._raise_flags()
        return "interrupted" if interrupted else None


class LaneTrainer(Trainer):
    """A `Trainer` of which each process has a shard of the tables and its lanes of the batches.

    Raises:
        ValueError: the processes differ in what the run depends on, do not divide the lanes, or the
            embedding cannot be cut.
    """

    def __init__(self, run: Run, model: ClickModel) -> None:
        device = pick_device(run.context.device)
        if on_gpus := device.type == "cuda":
            log.warning("lanes have been run on one GPU, not yet on several by NCCL: compare the "
                        "first run with one of --device cpu")
        torch.set_num_threads(1)  # sums of several threads have other last bits
        torch.set_flush_denormal(True)
        self.world = world = World(run.settings.train.lanes, on_gpus)
        if world.rank != run.context.rank:
            raise ValueError(f"rank {world.rank} was told to write as rank {run.context.rank}")
        world.compare(**{"settings, data and seed": run.run_id, "stage": run.stage,
                         "versions": [torch.__version__, np.__version__, platform.machine(),
                                      platform.python_version(), commit()],
                         "setting --force": run.context.force,
                         "GPU": device_name(device) if on_gpus else None,
                         "checkpoint_seconds, log_interval and tensorboard": [
                             run.settings.train.checkpoint_seconds,
                             run.settings.train.log_interval]})
        self.writes = world.rank == 0
        self.shards = Shards(model, world, run.folder)
        self._loader = partial(LaneLoader, world)
        self._split = partial(ShardedSplit, self.shards)
        self._progress = QuietProgress if self.writes else NoProgress
        super().__init__(run, model)

    def whole(self, name: str, value: Any) -> Any:
        """A table from the shards of all processes, where this one writes."""
        if name not in self.shards.names:
            return value
        if isinstance(value, Tensor):
            return torch.from_numpy(self.shards.whole(value, self.writes))
        return self.shards.whole(torch.from_numpy(value), self.writes)

    def train(self, own: Any, keep_best: bool) -> str:
        """As `Trainer.train`, with hooks that see all shards."""
        for hook in own:
            self._show_shards(hook)
        return super().train(own, keep_best)

    def _show_shards(self, hook: Hook) -> None:
        shards, embedding = self.shards, self.model.embedding
        if isinstance(hook, SaveAtBudgets):
            hook.cut_to, hook.count = shards.cut_to, shards.count
        elif isinstance(hook, SparsityTrace):
            hook.whole = lambda rows: torch.from_numpy(shards.whole(rows))
        elif isinstance(hook, ThresholdTrace):
            hook.parts = lambda level: self.world.gather_lanes(
                [summary(view, level) for view in shards.views(embedding)])

    @property
    def _path(self) -> Path:
        return self.run.folder / "checkpoint"

    def forget(self) -> None:
        """Delete the checkpoint of a finished run."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _save(self, stateful: dict[str, Hook]) -> None:
        names = [f".{name}" for name in self.shards.names]
        names += [f".above.{name.removeprefix('embedding.')}" for name in self.shards.names]
        parameters = itertools.chain.from_iterable(
            group["params"] for group in self.state.optimizer.param_groups)
        tables = [self.model.get_parameter(name) for name in self.shards.names
                  if name in dict(self.model.named_parameters())]
        for index, parameter in enumerate(parameters):
            if any(parameter is table for table in tables):
                names += [f"t.optimizer.{index}.{key}" for key in ("exp_avg", "exp_avg_sq")]
        content = {**self._content(stateful), "run_id": self.run.run_id}
        checkpoint.save(self._path, self.state.step, content, self.shards, tuple(names))

    def _saved(self) -> dict[str, Any] | None:
        content = checkpoint.load(self._path, self.shards)
        if content is not None and content.get("run_id") != self.run.run_id:
            raise ValueError(f"the checkpoint {self._path} is of run {content.get('run_id')}, and "
                             f"this is run {self.run.run_id}; delete it, or start again with "
                             f"--force")
        return content

    def _step(self) -> LaneStep:
        train, update = self.run.settings.train, self.run.settings.train.table_update
        if update == "auto" and self.device.type == "cuda":
            update = "streamed"  # without Triton too, where `auto` leaves the tables to torch
        return LaneStep(self.shards, self.model, derive(self.run.seed, f"{self.run.stage}:dropout"),
                        self.state.optimizer, train.grad_clip, train.l2_penalty, update)

    def _saver(self, save: Callable[[State], None], step: Any) -> Checkpoint:
        return AgreedCheckpoint(save, self.run.settings.train.checkpoint_seconds, step)
