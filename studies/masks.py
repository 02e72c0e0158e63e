"""The masks that searches left: which entries of the table a snapshot keeps."""

from pathlib import Path
from typing import Any

import numpy as np

from models.pruned_tables import PrunedTables
from studies.page import Page


def mask_of(page: Page, out: Path, search: dict[str, Any], budget: int) -> np.ndarray | None:
    """(N, D) bool of a search's snapshot at a budget; None where it is not to be had, which the
    page then lists.

    Args:
        out: the folder that holds embedding/<model>/<alias>/.
    """
    path = out / "embedding" / search["settings"]["model"] / search["alias"] / f"{budget}.npz"
    where = f"snapshot of run {search['run_id']} (seed {search['seed']})"
    name = f"{search['alias']}/{path.name}"
    file = f"{search['run_id']}/{path.name}"
    try:
        pruned = PrunedTables.load(path)
        if pruned.meta["run_id"] == search["run_id"]:
            page.drawn.add(file)
            return pruned.table != 0
        page.lose(file, f"{where}: {name} is by now of another search, {pruned.meta['run_id']}")
    except FileNotFoundError:
        page.lose(file, f"{where}: there is no {name}")
    except (ValueError, KeyError) as error:
        page.lose(file, f"{where}: {name} cannot be read ({error})")
    return None


def budgets_of(search: dict[str, Any]) -> set[int]:
    """Those that a search has saved snapshots at."""
    return {int(name) for name in search.get("snapshots", []) if name.isdigit()}


def ranks(values: np.ndarray) -> np.ndarray:
    """Mean rank of each value.

    >>> ranks(np.array([5, 1, 5])).tolist()
    [1.5, 0.0, 1.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's: the correlation of ranks, ties sharing their mean rank; NaN where one does not
    vary.

    >>> round(rank_correlation(np.array([1, 2, 3]), np.array([10, 30, 20])), 3)
    0.5
    """
    one, other = ranks(one), ranks(other)
    return float(np.corrcoef(one, other)[0, 1]) if one.std() and other.std() else float("nan")
