"""Finding the results of runs: in a folder, and among those that are shipped."""

from pathlib import Path
from typing import Any

from studies import result_files, runs_csv
from studies.curves import RUNS_CSV, SHIPPED


def require_results(out: Path) -> None:
    """Raise ValueError where a folder holds no results."""
    if not (out / "runs").is_dir() and not (out / RUNS_CSV).exists():
        inner = f" Did you mean {out.parent}?" if out.name == "runs" else ""
        raise ValueError(f"{out} is no folder of results: it holds neither runs/ nor "
                         f"{RUNS_CSV}.{inner}")


def results_in(out: Path, shipped: bool = False, planted: str = "") -> list[dict[str, Any]]:
    """Every result under out/runs and in out/runs.csv, in the order of run ids.

    Args:
        out: a folder of runs (tmp), or that of shipped records (experiments).
        shipped: whether to add the shipped results; of a run that is in both, `out` has the say.
        planted: of shipped results, the kind of planted data; "" is those of real data.

    Raises:
        ValueError: a csv is of another form, or one of its lines cannot be read.

    >>> results_in(Path("no/such/folder"))
    []
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in dict.fromkeys([SHIPPED, out] if shipped else [out]):
        if (path := folder / RUNS_CSV).exists():
            found |= {result["run_id"]: result for result in runs_csv.read(path, planted)}
    found |= {result["run_id"]: result for result in result_files.in_folder(out)}
    return [found[run_id] for run_id in sorted(found)]
