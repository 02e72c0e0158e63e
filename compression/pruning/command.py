"""The tables that `compress.py magnitude|imp|random` makes snapshots of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compression.loaded_run import LoadedRun
from compression.pruning import KEEP, methods, random_mask
from engine import snapshots
from engine.run import RunContext, derive
from utils.files import sha256_of


@dataclass(frozen=True)
class Pruning:
    """How to prune a table.

    Args:
        method: magnitude, imp, random, random_per_field or random_per_feature.
        budgets: entries that are left; () for the last two methods.
        like: snapshots whose number of entries in each field or feature the last two take over.
        keep: share of the entries that a round of `imp` leaves.
    """

    method: str
    budgets: Sequence[int] = ()
    like: Sequence[Path] = ()
    keep: float = KEEP

    @property
    def how(self) -> str:
        """Options that change the tables against the method's defaults.

        >>> Pruning("imp").how, Pruning("imp", keep=0.2).how
        ('', 'keep 0.2')
        """
        if self.method == "imp" and self.keep != KEEP:
            return f"keep {self.keep:g}"
        if self.like:
            tables = [snapshots.read(path)[0].table.tobytes() for path in self.like]
            return "like " + sha256_of(*tables)[:12]
        return ""


def tables(trained: LoadedRun, how: Pruning, context: RunContext) -> dict[int, np.ndarray]:
    """The pruned tables (N, D) by their number of parameters."""
    if how.method == "magnitude":
        return methods.by_magnitude(trained, how.budgets)
    if how.method == "imp":
        return methods.iteratively(trained, how.budgets, how.keep, context)
    initial = trained.initial[0]
    masks = _random_masks(trained, how, initial.shape)
    counts = [int(mask.sum()) for mask in masks]
    if len(set(counts)) < len(counts):
        raise ValueError(f"several masks have as many entries ({counts}), by which snapshots are "
                         "named; give them one by one, each with an --alias")
    return {count: np.where(mask, initial, 0) for count, mask in zip(counts, masks, strict=True)}


def _random_masks(trained: LoadedRun, how: Pruning, shape: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(derive(trained.run.seed, "random mask"))
    if how.method == "random":
        methods.check_budgets(trained, how.budgets)
        return [random_mask.uniform(shape, budget, generator) for budget in how.budgets]
    chosen = [_mask_of(path, shape) for path in how.like]
    if how.method == "random_per_feature":
        return [random_mask.per_feature(mask, generator) for mask in chosen]
    sizes = trained.dataset.schema.sizes
    return [random_mask.per_field(mask, sizes, generator) for mask in chosen]


def _mask_of(path: Path, shape: tuple[int, int]) -> np.ndarray:
    table = snapshots.read(path)[0].table
    if table.shape != shape:
        raise ValueError(f"{path} is of shape {table.shape}, the run's table of {shape}; name a "
                         "snapshot of the same data and width")
    return table != 0
