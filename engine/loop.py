"""The training loop. It runs every method and knows none of them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from data.loader import Loader
from engine.optim.step import Optimizer
from engine.record import wait_for
from models.base import ClickModel, Inputs


@dataclass
class State:
    """How far a training has come.

    Args:
        loss_sum: of the current epoch; after its last batch, of the epoch just done.
        epoch: finished epochs.
        batch: finished batches of the current epoch.
        step: finished batches of the whole run.
        epoch_done: whether the last step ended an epoch.
        epoch_seconds: time of each epoch that ran without interruption: its steps and the hooks
            between them, not those behind its last step (evaluation).
    """

    model: ClickModel
    optimizer: Optimizer
    loss_sum: Tensor
    epoch: int = 0
    batch: int = 0
    step: int = 0
    epoch_done: bool = False
    loss_batches: int = 0
    stop_reason: str | None = None
    epoch_seconds: list[float] = field(default_factory=list)

    def refresh(self) -> None:
        """Bring every parameter up to date, as rows without data may take their steps late."""
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
    """What happens between optimiser steps. Subclasses override what they need of the defaults.

    A hook that reads parameters calls `state.refresh` first.

    >>> class StopAt(Hook):
    ...     name = "stop_at"
    ...     def __call__(self, state):
    ...         return "enough" if state.step == 100 else None
    """

    name: str = ""  # of its state in a checkpoint; empty for a hook that has no state
    # whether a run calls it after every step, and not only every `log_interval` steps
    every_step: bool = False

    def __call__(self, state: State) -> str | None:
        """Act after a step; returns a reason to stop the training, or None."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: numbers, strings and tensors, in dicts and lists."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        return

    def shown(self) -> dict[str, Any]:
        """Numbers for the progress bar and for TensorBoard."""
        return {}


def fit(state: State, loader: Loader, step: Callable[[Inputs, Tensor], Tensor],
        hooks: Sequence[Hook], max_epochs: int) -> str:
    """Train on from `state` until a hook gives a reason to stop or `max_epochs` are done; returns
    the reason."""
    state.model.train()
    while state.epoch < max_epochs and not state.stop_reason:
        if state.batch == 0:
            state.loss_sum, state.loss_batches = torch.zeros_like(state.loss_sum), 0
        whole, started = state.batch == 0, time.perf_counter()
        for inputs, labels in loader.epoch(state.epoch, state.batch):
            try:
                state.loss_sum = state.loss_sum + step(inputs, labels)
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
            # every hook is called, so that a checkpoint after a stop is complete and has the reason
            for hook in hooks:
                state.stop_reason = hook(state) or state.stop_reason
            if state.stop_reason:
                break
    return state.stop_reason or "max_epochs"
