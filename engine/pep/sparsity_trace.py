"""What a search has pruned of rare and of frequent features, epoch by epoch (Figure 6 of the
paper)."""

from typing import Any

import torch
from torch import Tensor

from engine.loop import State

GROUPS = 5  # of features, by popularity; equal in number of features


class SparsityTrace:
    """Record the sparsity of the features' vectors at the end of epochs, by popularity.

    A feature's sparsity is the share of its vector that is exactly zero; of each group of features
    the mean and the standard deviation over its features are kept. Nothing of the training is
    touched.

    Args:
        embedding: that is searched.
        popularity: (N,) how often each feature occurs in the training rows.
        interval: epochs between two records; the start, epoch 0, is one.
    """

    def __init__(self, embedding: Any, popularity: Tensor, interval: int) -> None:
        self.embedding = embedding
        self.interval = interval
        order = torch.argsort(popularity, stable=True)
        self.groups = torch.tensor_split(order, min(GROUPS, len(order)))  # rarest first
        self.about = [{"features": len(group), "least": int(popularity[group].min()),
                       "most": int(popularity[group].max())} for group in self.groups]
        self.lines: list[dict[str, Any]] = []

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
        sparsity = 1 - torch.count_nonzero(table, dim=1).double().cpu() / table.shape[1]
        parts = [sparsity[group] for group in self.groups]
        self.lines.append({"epoch": epoch, "mean": [round(float(part.mean()), 6) for part in parts],
                           "std": [round(float(part.std(correction=0)), 6) for part in parts]})

    def result(self) -> dict[str, Any]:
        """For the run's record: the groups, rarest first, and the lines."""
        return {"groups": self.about, "lines": self.lines}

    def content(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"lines": self.lines}

    def restore(self, content: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.lines = content["lines"]
