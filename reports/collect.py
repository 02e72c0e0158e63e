"""Finding the results of runs on disk."""

import json
import sys
from pathlib import Path
from typing import Any

NEEDED = ("run_id", "stage", "seed", "settings", "identity", "manifest", "num_embedding_params", "test_auc")


def results_in(out: Path) -> list[dict[str, Any]]:
    """Every result under out/runs, in the order of run ids; unreadable ones are listed on standard error.

    A run that has not finished has no result and is not looked for.

    >>> results_in(Path("no/such/folder"))
    []
    """
    found, unreadable = [], []
    for path in sorted((out / "runs").glob("*/result.json")):
        try:
            found.append(_checked(json.loads(path.read_text())))
        except (OSError, ValueError) as error:
            unreadable.append(f"  {path}: {error}")
    if unreadable:
        print("\n".join([f"{len(unreadable)} results cannot be read and are left out:", *unreadable]), file=sys.stderr)
    return found


def _checked(result: Any) -> dict[str, Any]:
    missing = [name for name in NEEDED if name not in result] if isinstance(result, dict) else list(NEEDED)
    if missing:
        raise ValueError(f"not a run's result, it lacks {', '.join(missing)}")
    return result
