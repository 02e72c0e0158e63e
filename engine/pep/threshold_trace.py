"""How far decay alone, and how far the loss's gradient, have moved PEP's thresholds and pruned the
table, epoch by epoch."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.loop import Hook, State
from engine.optim.cpu.rowwise import Other
from engine.optim.step import Adam, Optimizer, Sgd, state_of
from engine.settings import Settings
from models.embedding.pep import Pep

VECTOR = 64  # entries: whole vectors of any CPU; Adam has other last bits for what is left over


class DecayOnlyThreshold:
    """One threshold that only the optimiser's decay moves.

    Every s moves like it for as long as the loss has no gradient to it.

    Args:
        settings: start, learning rate, decay and its form.

    >>> from engine.settings import parse
    >>> threshold = DecayOnlyThreshold(parse({"threshold_init": -150.0}))
    >>> round(threshold.at(1000), 3)  # it moves by about lr a step
    -149.005
    """

    def __init__(self, settings: Settings) -> None:
        train, form = settings.train, settings.embedding.threshold_decay
        decay = 0.0 if form == "none" else train.l2_regularization
        self.s = torch.full((VECTOR,), settings.embedding.threshold_init)
        self.s.grad = torch.zeros_like(self.s)
        self.no_grad = self.s.grad.numpy()
        self.optimizer: Optimizer
        if train.optimizer == "sgd":
            self.optimizer = Sgd([self.s], lr=train.lr, weight_decay=decay)
        else:
            self.optimizer = Adam([self.s], lr=train.lr, fused=True, weight_decay=decay,
                                  decoupled_weight_decay=form == "decoupled")
        # the step of the tables' own kernel, where they take that one: a tenth of torch's time
        self.kernel: Other | None = None
        by_row = form != "decoupled" and train.table_update != "dense"
        if by_row and isinstance(self.optimizer, Adam):
            self.kernel = Other(self.s, state_of(self.optimizer, self.s),
                                self.optimizer.param_groups[0])
        self.step = 0

    def at(self, step: int) -> float:
        """s after `step` steps. They must not be fewer than at the call before."""
        while self.step < step:
            self.step += 1
            if self.kernel is None:
                self.optimizer.step()
            else:
                self.kernel.apply(self.no_grad, np.float32(1), self.step)
        return float(self.s[0])


class ThresholdTrace(Hook):
    """Record the thresholds at the end of epochs, and what has pruned the entries.

    Let t be the decay-only threshold of the step. An entry with |V| <= g(t) is `pruned_by_decay`;
    or it is `kept_by_gradient` where its own s is so low that it is kept. An entry with |V| > g(t)
    that is pruned all the same is `pruned_by_gradient`. V is the table at that step; the counts do
    not say what V would be if the thresholds had moved otherwise. The hook changes nothing of the
    training.

    Args:
        embedding: that is searched.
        decay_only: the decay-only threshold of the same settings.
        interval: epochs between two records; the start, epoch 0, is one.
    """

    name = "threshold_trace"

    def __init__(self, embedding: Pep, decay_only: DecayOnlyThreshold, interval: int) -> None:
        self.embedding = embedding
        self.decay_only = decay_only
        self.interval = interval
        self.lines: list[dict[str, Any]] = []
        # summaries of the parts of the table
        self.parts: Callable[[float], Tensor] = lambda level: summary(embedding, level)[None]

    def __call__(self, state: State) -> None:
        """Add a line when an epoch is due."""
        if state.epoch_done and state.epoch % self.interval == 0:
            state.refresh()
            self.record(state.epoch, state.step)

    @torch.no_grad()
    def record(self, epoch: float, step: int) -> None:
        """Add a line of the table as it is, unless there is one of this step."""
        if self.lines and self.lines[-1]["step"] == step:
            return
        decay_only = self.decay_only.at(step)
        self.lines.append({"epoch": epoch, "step": step, "decay_only": decay_only,
                           **pooled(self.parts(decay_only))})

    def result(self) -> dict[str, Any]:
        """What the run's record says."""
        return {"lines": self.lines}

    def state_dict(self) -> dict[str, Any]:
        """The lines; the decay-only threshold is computed again."""
        return {"lines": self.lines}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The lines so far."""
        self.lines = state["lines"]


COUNTS = ("kept", "pruned_by_decay", "pruned_by_gradient", "kept_by_gradient")


@torch.no_grad()
def summary(embedding: Pep, decay_only: float) -> Tensor:
    """What a line of the trace is made of, as far as one embedding, or a part of one, tells.

    Returns:
        (11,) float64: least and largest s; sum and number of s; of the entries the four COUNTS; the
        sum of s over those kept and over those pruned (NaN where entries have no threshold of their
        own), and how many are pruned.
    """
    s = embedding.thresholds.detach()
    level = embedding.scale * embedding.gate(s.new_tensor(decay_only))
    one_for_all = s.numel() == 1
    own = one_for_all or s.shape == embedding.weight.shape
    counts = torch.zeros(4, dtype=torch.int64, device=s.device)
    sums = torch.full((2,), 0.0 if own else math.nan, dtype=torch.float64, device=s.device)
    for rows, kept in embedding.kept_by_chunk():
        below = embedding.weight[rows].abs() <= level
        counts += torch.stack([kept.sum(), (below & ~kept).sum(), (~below & ~kept).sum(),
                               (below & kept).sum()])
        if own:
            of_entry = (s if one_for_all else s[rows]).expand_as(kept)
            sums += torch.stack([of_entry[kept].sum(dtype=torch.float64),
                                 of_entry[~kept].sum(dtype=torch.float64)])
    of_s = torch.stack([s.min().double(), s.max().double(), s.sum(dtype=torch.float64)])
    numbers = torch.tensor([float(s.numel())], dtype=torch.float64, device=s.device)
    pruned = (counts[1] + counts[2]).double()[None]
    return torch.cat([of_s, numbers, counts.double(), sums, pruned])


def pooled(parts: Tensor) -> dict[str, Any]:
    """The line of a table from the summaries of its parts, (parts, 11)."""
    total = parts.sum(0).tolist()
    means = [None if not count or math.isnan(of_s) else of_s / count
             for of_s, count in ((total[8], total[4]), (total[9], total[10]))]
    return {"least": float(parts[:, 0].min()), "most": float(parts[:, 1].max()),
            "mean": total[2] / total[3], "mean_of_kept": means[0], "mean_of_pruned": means[1],
            **{name: int(count) for name, count in zip(COUNTS, total[4:8], strict=True)}}
