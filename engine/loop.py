"""The training loop. It runs every method and knows none of them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from data.loader import Loader
from engine.optim.step import Optimizer
from engine.record import wait_for
from models.base import ClickModel


@dataclass
class State:
    """Where a training stands. `batch` counts the batches done of the current epoch, `step` those
    of the whole run."""

    model: ClickModel
    optimizer: Optimizer
    loss_sum: Tensor  # of the current epoch; after its last batch, of the epoch just done
    epoch: int = 0  # finished epochs
    batch: int = 0
    step: int = 0
    epoch_done: bool = False  # the step just taken ended an epoch
    loss_batches: int = 0
    stop_reason: str | None = None
    # training alone, of epochs run in one piece
    epoch_seconds: list[float] = field(default_factory=list)

    def refresh(self) -> None:
        """Bring every parameter up to date: rows without data may take their steps late.

        See `engine.optim.cpu.rowwise`.
        """
        self.optimizer.refresh()

    def mean_loss(self) -> float:
        """Mean loss of the current epoch so far.

        Raises:
            FloatingPointError: it is not finite.
        """
        mean = float(self.loss_sum) / max(self.loss_batches, 1)
        if not math.isfinite(mean):
            raise self.broken(f"the loss is {mean}")
        return mean

    def broken(self, what: str, ahead: int = 0) -> FloatingPointError:
        """The error of a training that cannot go on, found in the last step or `ahead` of it."""
        where = f"step {self.step + ahead} (epoch {self.epoch}, batch {self.batch + ahead})"
        return FloatingPointError(f"{what} at {where}; lower lr or look at the data. The last good "
                                  f"checkpoint stays")


class Hook(Protocol):
    """Acts after a step. Returns a reason to stop, or None.

    One that looks at parameters calls `state.refresh` first.
    """

    def __call__(self, state: State) -> str | None:
        """Look at the state; every hook sees every step."""


def fit(state: State, loader: Loader, step: Callable[[Tensor, Tensor], Tensor],
        hooks: Sequence[Hook],
        max_epochs: int) -> str:
    """Train from where `state` stands until a hook gives a reason to stop or `max_epochs` are done;
    say which."""
    state.model.train()
    while state.epoch < max_epochs and not state.stop_reason:
        if state.batch == 0:
            state.loss_sum, state.loss_batches = torch.zeros_like(state.loss_sum), 0
        whole, started = state.batch == 0, time.perf_counter()
        for ids, labels in loader.epoch(state.epoch, state.batch):
            try:
                state.loss_sum = state.loss_sum + step(ids, labels)
            except FloatingPointError as error:  # nothing was changed by the step
                raise state.broken(str(error), ahead=1) from error
            state.loss_batches += 1
            state.step += 1
            state.batch += 1
            state.epoch_done = state.batch == loader.batches
            if state.epoch_done:
                state.epoch, state.batch = state.epoch + 1, 0
                if whole:
                    wait_for(state.loss_sum.device)
                    state.epoch_seconds.append(time.perf_counter() - started)
            # all of them, so that the checkpoint after a stop is complete and holds the reason
            for hook in hooks:
                state.stop_reason = hook(state) or state.stop_reason
            if state.stop_reason:
                break
    return state.stop_reason or "max_epochs"
