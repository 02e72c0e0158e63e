"""How far decay alone, and how far the data, have moved PEP's thresholds and pruned the table,
epoch by epoch."""

from typing import Any

import torch

from engine.loop import State
from engine.settings import Settings
from models.embedding.pep import LANES


class Clock:
    """One threshold that only the optimiser's decay moves, as every s moves while the data have no
    say in it.

    Args:
        settings: start, learning rate, decay and its form.

    >>> from engine.settings import parse
    >>> round(Clock(parse({"threshold_init": -150.0})).at(1000), 3)  # about lr a step
    -149.005
    """

    def __init__(self, settings: Settings) -> None:
        train, form = settings.train, settings.embedding.threshold_decay
        # as many as Adam treats at once: its bits
        self.s = torch.full((LANES,), settings.embedding.threshold_init)
        self.s.grad = torch.zeros_like(self.s)
        decay = 0.0 if form == "none" else train.l2_regularization
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD([self.s], lr=train.lr, weight_decay=decay) if train.optimizer == "sgd"
            else
            torch.optim.Adam([self.s], lr=train.lr, fused=True, weight_decay=decay,
                             decoupled_weight_decay=form == "decoupled"))
        self.step = 0

    def at(self, step: int) -> float:
        """s after `step` steps, which must not be fewer than when it was asked for last."""
        while self.step < step:
            self.optimizer.step()
            self.step += 1
        return float(self.s[0])


class ThresholdTrace:
    """Record the thresholds at the end of epochs, and what has pruned the entries that are pruned.

    An entry with |V| <= g(clock) is pruned by the clock, `by_clock`, or `held` by the data if its
    own s lies so low that it is kept; `by_data` are those that are pruned though |V| > g(clock). V
    is the table as it is at the time: that it might be another one had the thresholds moved
    otherwise is not in these counts. Nothing of the training is touched.

    Args:
        embedding: that is searched.
        clock: of the same settings.
        interval: epochs between two records; the start, epoch 0, is one.
    """

    def __init__(self, embedding: Any, clock: Clock, interval: int) -> None:
        self.embedding = embedding
        self.clock = clock
        self.interval = interval
        self.lines: list[dict[str, Any]] = []

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
        embedding, clock = self.embedding, self.clock.at(step)
        weight, s = embedding.parts().values()
        # to the bits of thresholds
        s = s if embedding.clock is None else embedding.spread(embedding.clock.detach())
        level = embedding.scale * embedding.gate(s.new_tensor(clock))
        each = s.numel() == 1 or s.shape == weight.shape  # every entry has a threshold of its own
        counts = torch.zeros(4, dtype=torch.int64, device=s.device)
        # of s, where kept and where pruned
        sums = torch.zeros(2, dtype=torch.float64, device=s.device)
        for rows, kept in embedding.kept_by_parts():
            below = weight[rows].abs() <= level
            counts += torch.stack([kept.sum(), (below & ~kept).sum(), (~below & ~kept).sum(),
                                   (below & kept).sum()])
            if each:
                own = (s if s.numel() == 1 else s[rows]).expand_as(kept)
                sums += torch.stack([own[where].sum(dtype=torch.float64)
                                     for where in (kept, ~kept)])
        kept, *causes = counts.tolist()
        means = [float(total) / count if each and count else None
                 for total, count in zip(sums, (kept, weight.numel() - kept), strict=True)]
        self.lines.append({
            "epoch": epoch, "step": step, "clock": clock, "least": float(s.min()),
            "most": float(s.max()),
            "mean": float(s.mean(dtype=torch.float64)), "mean_of_kept": means[0],
            "mean_of_pruned": means[1],
            "kept": kept, **dict(zip(("by_clock", "by_data", "held"), causes, strict=True))})

    def result(self) -> dict[str, Any]:
        """For the run's record."""
        return {"lines": self.lines}

    def content(self) -> dict[str, Any]:
        """For the checkpoint; the clock can be run again."""
        return {"lines": self.lines}

    def restore(self, content: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.lines = content["lines"]
