"""The hook that ends the stretch in which PEP's thresholds are one number."""

import logging

import torch
from torch import Tensor, nn

from engine.loop import State
from models.embedding.pep import FOLDED_BELOW, Pep

log = logging.getLogger("pep")

# in lr: at betas 0.9 and 0.999 no gradients make Adam move an entry further (Cauchy-Schwarz: 7.27)
LONGEST_STEP = 7.3


class Unfold:
    """Unfold the embedding, in model and optimiser, before a step could be taken with s above
    FOLDED_BELOW.

    It looks at s (on a GPU that is a wait) only when s may have come near: first after some 5,000
    steps, from -150 at lr 1e-3, and 60 times in all. The step that it unfolds after depends on s
    alone, not on when it looked before.
    """

    every_step = True

    def __init__(self, embedding: Pep) -> None:
        self.embedding = embedding
        self.next_look = 0.0

    def __call__(self, state: State) -> None:
        """Look, and perhaps unfold."""
        clock = self.embedding.clock
        if clock is None or state.step < self.next_look:
            return
        s, stride = float(clock.detach().max()), LONGEST_STEP * _group_of(state.optimizer,
                                                                          clock)["lr"]
        if not self.next_look:
            log.info("thresholds: one clock for all (s = %.4f after step %d), until it comes to %g",
                     s, state.step,
                     FOLDED_BELOW)
        if s + stride > FOLDED_BELOW:
            self.embedding.unfold()
            _replace(state.optimizer, clock, self.embedding)
            log.info("thresholds: each for itself (s = %.4f after step %d)", s, state.step)
        else:
            self.next_look = state.step + (FOLDED_BELOW - s) // max(stride, 1e-9)  # lr may be 0


def _group_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict:
    return next(group for group in optimizer.param_groups
                if any(one is parameter for one in group["params"]))


def _replace(optimizer: torch.optim.Optimizer, clock: nn.Parameter, embedding: Pep) -> None:
    """Put the thresholds in the clock's place, with its step count and its moments spread as they
    are."""
    group = _group_of(optimizer, clock)
    group["params"] = [embedding.thresholds if one is clock else one for one in group["params"]]
    moments = optimizer.state.pop(clock)
    optimizer.state[embedding.thresholds] = {name: value if name == "step"
                                             else embedding.spread(value)
                                             for name, value in moments.items()}
