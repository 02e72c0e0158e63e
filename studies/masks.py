"""The masks that searches left: which entries of the table a snapshot keeps."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

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
        with np.load(path, allow_pickle=False) as arrays:
            table, meta = arrays["table"], json.loads(str(arrays["meta"]))
        if meta["run_id"] == search["run_id"]:
            page.drawn.add(file)
            return table != 0
        page.lose(file, f"{where}: {name} is by now of another search, {meta['run_id']}")
    except FileNotFoundError:
        page.lose(file, f"{where}: there is no {name}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        page.lose(file, f"{where}: {name} cannot be read ({error})")
    return None


def budgets_of(search: dict[str, Any]) -> set[int]:
    """Those that a search has saved snapshots at."""
    return {int(name) for name in search.get("snapshots", []) if name.isdigit()}


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's: the correlation of ranks, ties sharing their mean rank; NaN where one does not
    vary.

    >>> round(rank_correlation(np.array([1, 2, 3]), np.array([10, 30, 20])), 3)
    0.5
    """
    one, other = rankdata(one), rankdata(other)
    return float(np.corrcoef(one, other)[0, 1]) if one.std() and other.std() else float("nan")
