"""How far decay alone, and how far the loss's gradient, have moved PEP's thresholds and pruned the
table, epoch by epoch."""

from typing import Any

import torch
from torch import Tensor

from engine.loop import Hook, State
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
        self.optimizer: torch.optim.Optimizer
        if train.optimizer == "sgd":
            self.optimizer = torch.optim.SGD([self.s], lr=train.lr, weight_decay=decay)
        else:
            self.optimizer = torch.optim.Adam([self.s], lr=train.lr, fused=True, weight_decay=decay,
                                              decoupled_weight_decay=form == "decoupled")
        self.step = 0

    def at(self, step: int) -> float:
        """s after `step` steps. They must not be fewer than at the call before."""
        while self.step < step:
            self.optimizer.step()
            self.step += 1
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
        s, decay_only = self.embedding.thresholds.detach(), self.decay_only.at(step)
        kept, by_decay, by_gradient, kept_by_gradient = self._counts(s, decay_only)
        mean_of_kept, mean_of_pruned = self._means(s)
        self.lines.append({
            "epoch": epoch, "step": step, "decay_only": decay_only,
            "least": float(s.min()), "most": float(s.max()),
            "mean": float(s.mean(dtype=torch.float64)),
            "mean_of_kept": mean_of_kept, "mean_of_pruned": mean_of_pruned,
            "kept": kept, "pruned_by_decay": by_decay, "pruned_by_gradient": by_gradient,
            "kept_by_gradient": kept_by_gradient})

    def _counts(self, s: Tensor, decay_only: float) -> list[int]:
        """Entries kept, pruned by decay, pruned by the gradient, and kept by it."""
        embedding = self.embedding
        level = embedding.scale * embedding.gate(s.new_tensor(decay_only))
        counts = torch.zeros(4, dtype=torch.int64, device=s.device)
        for rows, kept in embedding.kept_by_chunk():
            below = embedding.weight[rows].abs() <= level
            counts += torch.stack([kept.sum(), (below & ~kept).sum(), (~below & ~kept).sum(),
                                   (below & kept).sum()])
        return counts.tolist()

    def _means(self, s: Tensor) -> tuple[float | None, float | None]:
        """Mean s of the entries kept and of those pruned; None where there are none, or where
        entries have no threshold of their own."""
        one_for_all = s.numel() == 1
        if not one_for_all and s.shape != self.embedding.weight.shape:
            return None, None
        sums = torch.zeros(2, dtype=torch.float64, device=s.device)
        counts = torch.zeros(2, dtype=torch.int64, device=s.device)
        for rows, kept in self.embedding.kept_by_chunk():
            own = (s if one_for_all else s[rows]).expand_as(kept)
            sums += torch.stack([own[kept].sum(dtype=torch.float64),
                                 own[~kept].sum(dtype=torch.float64)])
            counts += torch.stack([kept.sum(), (~kept).sum()])
        of_kept, of_pruned = (float(total) / int(count) if count else None
                              for total, count in zip(sums, counts, strict=True))
        return of_kept, of_pruned

    def result(self) -> dict[str, Any]:
        """What the run's record says."""
        return {"lines": self.lines}

    def state_dict(self) -> dict[str, Any]:
        """The lines; the decay-only threshold is computed again."""
        return {"lines": self.lines}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The lines so far."""
        self.lines = state["lines"]
