"""The tables that `compress.py magnitude|imp|random` makes snapshots of."""

from pathlib import Path

import numpy as np

from compression.pruning import methods, random_mask
from compression.pruning.methods import LoadedTable
from engine import snapshots
from engine.run import RunContext, derive
from utils.files import sha256_of

KEEP = 0.5  # share of the entries that a round of iterative pruning leaves


def tables(trained: LoadedTable, method: str, budgets: list[int], like: list[Path], keep: float,
           context: RunContext) -> dict[int, np.ndarray]:
    """The pruned tables (N, D) by their number of parameters.

    Args:
        method: magnitude, imp, random, random_per_field or random_per_feature.
        like: snapshots whose number of entries in each field or feature the last two take over.
        keep: share of the entries that a round of `imp` leaves.
    """
    if method == "magnitude":
        return methods.by_magnitude(trained, budgets)
    if method == "imp":
        return methods.iteratively(trained, budgets, keep, context)
    generator = np.random.default_rng(derive(trained.run.seed, "random mask"))
    if method == "random":
        trained.check(budgets)
        masks = [random_mask.uniform(trained.initial.shape, budget, generator)
                 for budget in budgets]
    else:
        chosen = [_mask_of(path, trained) for path in like]
        masks = [random_mask.per_feature(mask, generator) if method == "random_per_feature" else
                 random_mask.per_field(mask, trained.dataset.schema.sizes, generator)
                 for mask in chosen]
    counts = [int(mask.sum()) for mask in masks]
    if len(set(counts)) < len(counts):
        raise ValueError(f"several masks have as many entries ({counts}), by which snapshots are "
                         "named; give them one by one, each with an --alias")
    return {count: np.where(mask, trained.initial, 0) for count,
            mask in zip(counts, masks, strict=True)}


def how(method: str, like: list[Path], keep: float) -> str:
    """What sets tables apart from a method's usual ones of the same run.

    >>> how("imp", [], KEEP), how("imp", [], 0.2)
    ('', 'keep 0.2')
    """
    if method == "imp" and keep != KEEP:
        return f"keep {keep:g}"
    if like:
        return "like " + sha256_of(*(snapshots.read(path)[0].table.tobytes() for path in like))[:12]
    return ""


def _mask_of(path: Path, trained: LoadedTable) -> np.ndarray:
    table = snapshots.read(path)[0].table
    if table.shape != trained.initial.shape:
        raise ValueError(f"{path} is of shape {table.shape}, the run's table of "
                         f"{trained.initial.shape}; name a snapshot of the same data and width")
    return table != 0
