"""Training rows, once, without their labels: what a calibration reads."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tqdm import tqdm

from data.loader import Loader
from engine.run import Run, derive

BATCH = 4096
SAVE_EVERY = 30.0  # seconds


class CalibrationBatches:
    """Batches of the training rows as a model takes them, in an order drawn from the run's seed,
    with a bar.

    Args:
        run: whose rows.
        dense: give the dense features too, for a model that reads them.
        device: of the batches.
        rows: at most so many; None for all.
        batch: rows in one; None for BATCH.

    Raises:
        ValueError: fewer than 1 row.
    """

    def __init__(self, run: Run, dense: bool, device: torch.device, rows: int | None = None,
                 batch: int | None = None) -> None:
        if rows is not None and rows < 1:
            raise ValueError(f"there are no calibration data: {rows} samples were asked for; take "
                             f"at least 1")
        given = run.dataset.dense_of("train") if dense else None
        self.batch = batch or BATCH
        self.loader = Loader(*run.dataset.split("train"), self.batch,
                             derive(run.seed, "calibration"), device, given)
        self.rows = min(rows or self.loader.rows, self.loader.rows)

    def batches(self, title: str, done: int = 0,
                save: Callable[[int], None] | None = None) -> Iterator[Any]:
        """Yield ids (B, F), or these and dense features, after the first `done` batches.

        `save(batches used)` is called now and then and at the end.
        """
        saved, number = time.monotonic(), done
        total = min(-(-self.rows // self.batch), self.loader.batches)
        with tqdm(total=total, initial=done, desc=title, unit="batch", file=sys.stderr,
                  disable=None) as bar:
            if done >= total:
                return
            for number, (inputs, _) in enumerate(self.loader.epoch(0, done), done + 1):
                left = self.rows - (number - 1) * self.batch
                yield (inputs[0][:left],
                       inputs[1][:left]) if isinstance(inputs, tuple) else inputs[:left]
                bar.update()
                if save and (number == total or time.monotonic() - saved >= SAVE_EVERY):
                    save(number)
                    saved = time.monotonic()
                if number == total:
                    return
