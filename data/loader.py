"""Batches as slices of whole tensors: no row is ever read on its own."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class Loader:
    """Shuffled training batches, the same for the same (seed, epoch) on every machine.

    Args:
        ids: (rows, F) int32 global ids.
        labels: (rows,) float32.
        batch_size: B; the last batch of an epoch is shorter. A last batch of a single row is left out, because batch
            normalisation has no variance there.
        seed: of the order.
        device: where the whole set lives and is shuffled.

    >>> loader = Loader(np.arange(10, dtype=np.int32)[:, None], np.zeros(10, np.float32), 4, seed=0)
    >>> [len(labels) for ids, labels in loader.epoch(0)]
    [4, 4, 2]
    """

    def __init__(self, ids: np.ndarray, labels: np.ndarray, batch_size: int, seed: int,
                 device: torch.device | str = "cpu") -> None:
        if batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {batch_size}")
        if len(labels) < 2:
            raise ValueError(f"{len(labels)} training rows are too few; at least 2 are needed")
        self.ids = torch.tensor(np.asarray(ids), device=device)
        self.labels = torch.tensor(np.asarray(labels), device=device)
        self.batch_size = batch_size
        self.seed = seed

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return len(self.labels)

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        full, rest = divmod(self.rows, self.batch_size)
        return full + (rest > 1)

    def order(self, epoch: int) -> Tensor:
        """(rows,) permutation of this epoch, made on the CPU so that every device sees the same one."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        return torch.randperm(self.rows, generator=generator).to(self.labels.device)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (ids (B,F), labels (B,)) of one epoch from its batch number `start` on."""
        order = self.order(epoch)
        ids, labels = self.ids[order], self.labels[order]
        for batch in range(start, self.batches):
            rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            yield ids[rows], labels[rows]


def in_order(ids: Tensor, batch_size: int = 16_384) -> Iterator[Tensor]:
    """Yield a tensor's rows in their stored order, for evaluation."""
    for batch in range(math.ceil(len(ids) / batch_size)):
        yield ids[batch * batch_size:(batch + 1) * batch_size]
