"""Weight averaging and schedules of the learning rate: hooks that any training may have."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.loop import Hook, State


class WeightAverage(Hook):
    """Exponential moving average of all parameters and floating-point buffers (Polyak averaging).

    After step t each average moves towards the weights by max(1 - decay, 1 / t): at first it is the
    plain mean of the steps so far, so that the initial values do not linger. Training itself never
    sees the averages. Rows that take their steps late are brought up to date at every step, which
    makes the lazy form of the table update as slow as the streamed one.

    Args:
        model: that is trained.
        decay: between 0 and 1; 0.999 averages about the last 1,000 steps.
    """

    name = "weight_average"
    every_step = True

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.steps = 0
        self.means = {name: value.clone() for name, value in self._values().items()}

    def _values(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.model.state_dict().items()
                if value.is_floating_point()}

    def __call__(self, state: State) -> None:
        """Take the weights of one more step in."""
        state.refresh()
        self.steps += 1
        torch._foreach_lerp_(list(self.means.values()), list(self._values().values()),
                             max(1 - self.decay, 1 / self.steps))

    @contextmanager
    def in_place(self, state: State) -> Iterator[None]:
        """The model with its averages in the place of its weights."""
        state.refresh()
        values = self._values()
        kept = [value.clone() for value in values.values()]
        torch._foreach_copy_(list(values.values()), list(self.means.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(list(values.values()), kept)

    def measuring(self, *hooks: Callable[[State], str | None]) -> Callable[[State], str | None]:
        """A hook that calls `hooks` on the averages; its reason is the last one that they give."""
        def measure(state: State) -> str | None:
            reason = None
            with self.in_place(state):
                for hook in hooks:
                    reason = hook(state) or reason
            return reason

        return measure

    def state_dict(self) -> dict[str, Any]:
        """The averages and how many steps are in them."""
        return {"steps": self.steps, "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The averages and how many steps are in them."""
        self.steps = state["steps"]
        for name, value in state["means"].items():
            self.means[name].copy_(value)


class CosineRate(Hook):
    """Set the learning rate of the next step: lr * (1 + cos(pi * t / total)) / 2 after t steps.

    Call it once before the first step, as nothing of it is in a checkpoint.

    Args:
        lr: of the first step.
        total: steps of the whole training, at the end of which the rate is 0.
    """

    every_step = True

    def __init__(self, lr: float, total: int) -> None:
        self.lr = lr
        self.total = total

    def at(self, step: int) -> float:
        """The rate after `step` steps.

        >>> rate = CosineRate(0.1, 100)
        >>> [round(rate.at(step), 3) for step in (0, 50, 100)]
        [0.1, 0.05, 0.0]
        """
        return self.lr * (1 + math.cos(math.pi * min(step / max(self.total, 1), 1))) / 2

    def __call__(self, state: State) -> None:
        """Set it in all groups of the optimiser."""
        _set_rate(state, self.at(state.step))


class PlateauRate(Hook):
    """Set the learning rate of the next step: a tenth of it after every `patience` evaluations that
    are no better than the best.

    It comes after the hook that evaluates, at the end of each epoch. Call it once before the first
    step, as nothing of it is in a checkpoint.

    Args:
        lr: of the first step.
        scores: of the evaluations so far, higher is better.
        patience: evaluations.
    """

    def __init__(self, lr: float, scores: Callable[[], list[float]], patience: int) -> None:
        self.lr = lr
        self.scores = scores
        self.patience = patience

    def now(self) -> float:
        """The rate after the evaluations so far.

        >>> scores = [0.5, 0.7, 0.6, 0.6, 0.7, 0.8, 0.7, 0.7]
        >>> [round(PlateauRate(0.1, lambda: scores[:n], 2).now(), 4) for n in (0, 3, 4, 6, 8)]
        [0.1, 0.1, 0.01, 0.01, 0.001]
        """
        best, waited, drops = -math.inf, 0, 0
        for score in self.scores():
            waited = 0 if score > best else waited + 1
            best = max(best, score)
            drops += waited > 0 and waited % self.patience == 0
        return self.lr / 10**drops

    def __call__(self, state: State) -> None:
        """Set it in all groups of the optimiser."""
        _set_rate(state, self.now())


def _set_rate(state: State, lr: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = lr
