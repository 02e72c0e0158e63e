"""Training rows, once, without their labels: what a calibration reads."""

import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from data.loader import Loader
from engine.run import Run, derive

BATCH = 4096
SAVE_EVERY = 30.0  # seconds


class Sweep:
    """Batches of ids of the training rows, in an order drawn from the run's seed, with a bar.

    Args:
        run: whose rows.
        device: of the batches.
        rows: at most so many; None for all.

    Raises:
        ValueError: fewer than 1 row.
    """

    def __init__(self, run: Run, device: torch.device, rows: int | None = None) -> None:
        if rows is not None and rows < 1:
            raise ValueError(f"there are no calibration data: {rows} samples were asked for; take at least 1")
        self.loader = Loader(*run.dataset.split("train"), BATCH, derive(run.seed, "calibration"), device)
        self.rows = min(rows or self.loader.rows, self.loader.rows)

    def batches(self, title: str, done: int = 0, save: Callable[[int], None] | None = None) -> Iterator[Tensor]:
        """Yield ids (B, F), after the first `done` batches; call `save(batches used)` now and then and at the end."""
        saved, number = time.monotonic(), done
        total = min(-(-self.rows // BATCH), self.loader.batches)
        with tqdm(total=total, initial=done, desc=title, unit="batch", file=sys.stderr, disable=None) as bar:
            if done >= total:
                return
            for number, (ids, _) in enumerate(self.loader.epoch(0, done), done + 1):
                yield ids[:self.rows - (number - 1) * BATCH]
                bar.update()
                if save and (number == total or time.monotonic() - saved >= SAVE_EVERY):
                    save(number)
                    saved = time.monotonic()
                if number == total:
                    return
