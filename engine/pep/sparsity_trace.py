"""What a search has pruned of rare and of frequent features, epoch by epoch (Figure 6 of the
paper)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.loop import Hook, State
from models.embedding.pep import Pep

GROUPS = 5  # of features, by frequency; equal in number of features


class SparsityTrace(Hook):
    """Record the sparsity of the features' vectors at the end of epochs, by frequency.

    A feature's sparsity is the share of its vector that is exactly zero. Of each group of features
    the mean and the standard deviation over its features are kept. The hook changes nothing of the
    training.

    Args:
        embedding: that is searched.
        counts: (N,) how often each feature occurs in the training rows.
        interval: epochs between two records; the start, epoch 0, is one.
    """

    name = "sparsity_trace"

    def __init__(self, embedding: Pep, counts: Tensor, interval: int) -> None:
        self.embedding = embedding
        self.interval = interval
        order = torch.argsort(counts, stable=True)
        self.groups = torch.tensor_split(order, min(GROUPS, len(order)))  # rarest first
        self.about = [{"features": len(group), "least": int(counts[group].min()),
                       "most": int(counts[group].max())} for group in self.groups]
        self.lines: list[dict[str, Any]] = []
        # rows (N, ...) from those of this process, where the table is cut over several
        self.whole: Callable[[Tensor], Tensor] = lambda rows: rows

    def __call__(self, state: State) -> None:
        """Add a line when an epoch is due."""
        if state.epoch_done and state.epoch % self.interval == 0:
            state.refresh()
            self.record(state.epoch)

    def record(self, epoch: float) -> None:
        """Add a line of the table as it is, unless there is one of this epoch."""
        if self.lines and self.lines[-1]["epoch"] == epoch:
            return
        table = self.embedding.table()
        left = self.whole(torch.count_nonzero(table, dim=1))
        sparsity = 1 - left.double().cpu() / table.shape[1]
        parts = [sparsity[group] for group in self.groups]
        self.lines.append({"epoch": epoch, "mean": [round(float(part.mean()), 6) for part in parts],
                           "std": [round(float(part.std(correction=0)), 6) for part in parts]})

    def result(self) -> dict[str, Any]:
        """What the run's record says: the groups, rarest first, and the lines."""
        return {"groups": self.about, "lines": self.lines}

    def state_dict(self) -> dict[str, Any]:
        """The lines so far."""
        return {"lines": self.lines}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The lines so far."""
        self.lines = state["lines"]
