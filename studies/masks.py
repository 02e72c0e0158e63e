"""The masks that searches left: which entries of the table a snapshot keeps."""

from pathlib import Path
from typing import Any

import numpy as np

from studies import choice, curves
from studies.kinds import Results
from studies.page import Page


class OtherSearchError(Exception):
    """A snapshot was overwritten by the search that this names."""


def mask_of(page: Page, out: Path, search: dict[str, Any], budget: int) -> np.ndarray | None:
    """(N, D) bool of a search's snapshot at a budget; None where it is not to be had, which the
    page then lists.

    Args:
        out: the folder that holds embedding/<model>/<alias>/.
    """
    path = path_of(out, search, f"{budget}.npz")
    where = f"snapshot of run {search['run_id']} (seed {search['seed']})"
    name = f"{search['alias']}/{path.name}"
    file = f"{search['run_id']}/{path.name}"
    try:
        kept = read(out, search, budget)
        page.drawn.add(file)
        return kept
    except FileNotFoundError:
        page.lose(file, f"{where}: there is no {name}")
    except OtherSearchError as error:
        page.lose(file, f"{where}: {name} is by now of another search, {error}")
    except (ValueError, KeyError) as error:
        page.lose(file, f"{where}: {name} cannot be read ({error})")
    return None


def read(out: Path, search: dict[str, Any], budget: int) -> np.ndarray:
    """(N, D) bool of a search's snapshot at a budget, or what is shipped of it.

    Raises:
        FileNotFoundError: it is not there, and not shipped.
        ValueError, KeyError: it cannot be read.
        OtherSearchError: the file is by now of another search, and nothing is shipped.
    """
    from models.pruned_tables import PrunedTables  # and torch with it

    path = path_of(out, search, f"{budget}.npz")
    owner = None
    if path.exists():
        pruned = PrunedTables.load(path)
        owner = pruned.meta["run_id"]
        if owner == search["run_id"]:
            return pruned.table != 0
    try:
        return curves.mask(search["run_id"], budget)
    except FileNotFoundError as error:
        if owner is None:
            raise
        raise OtherSearchError(owner) from error


def path_of(out: Path, search: dict[str, Any], name: str) -> Path:
    """Of a snapshot, by its file's name."""
    return out / "embedding" / search["settings"]["model"] / search["alias"] / name


def sources(search: dict[str, Any], every: Results) -> dict[int, dict[str, Any]]:
    """The search that has each budget's snapshot: this one, or another that differs in the list of
    budgets alone."""
    alike = [run for run in every if run["seed"] == search["seed"] and choice.alike(run, search)]
    owners: dict[int, dict[str, Any]] = {}
    for run in [*alike, search]:
        owners |= dict.fromkeys(budgets_of(run), run)
    return owners


def budgets_of(search: dict[str, Any]) -> set[int]:
    """Those that a search has saved snapshots at."""
    return {int(name) for name in search.get("snapshots", []) if name.isdigit()}


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; NaN where one does not vary.

    >>> round(rank_correlation(np.array([1, 2, 3]), np.array([10, 30, 20])), 3)
    0.5
    """
    from scipy.stats import spearmanr  # half a second

    if not np.ptp(one) or not np.ptp(other):
        return float("nan")
    return float(spearmanr(one, other).statistic)
