"""The shipped records: experiments/runs.csv, and what pictures need beside it.

    python -m studies.records tmp               # append what is new in tmp/runs to the csv
    python -m studies.records tmp --replace     # and take the new results of runs that are in it

Weights, snapshots and whole curves stay where they were made; what the shipped pictures draw of
them goes to experiments/curves. `python -m studies.pages` draws the pages again.
"""

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from engine import cli
from studies import curves, masks, runs_csv
from studies.collect import results_in
from studies.curves import RUNS_CSV, SHIPPED
from studies.figures import by_epoch, fig5, fig6
from studies.pages import existing
from studies.runs_csv import append
from utils.text import counted


def keep_drawn(out: Path, folder: Path = SHIPPED, without: Collection[str] = ()) -> int:
    """Keep what the shipped pages draw of the files of runs in a folder, in folder/curves.

    Args:
        out: the folder that holds runs/ and embedding/.
        without: runs whose files there are of another result than their line has.

    Returns:
        How many such files there are.
    """
    by_id = {run["run_id"]: run for run in results_in(folder)}
    data = fig5.fields_by_manifest(list(by_id.values()))
    files = set().union(*(made.drawn for made in existing(folder, out)))
    drawn = {file for file in files if file.split("/")[0] not in without}
    found: dict[str, curves.Evaluations] = {}
    count = 0
    for file in sorted(drawn):
        run_id, name = file.split("/")
        path = out / "runs" / run_id / name
        manifest = by_id[run_id]["manifest"]
        if name == by_epoch.CURVE and path.exists():
            found[run_id] = by_epoch.evaluations_in(path)
        elif name in fig6.COUNTS and (path := fig6.counts_file(path.parent)).exists():
            curves.keep_frequencies(folder, manifest, np.load(path, allow_pickle=False))
        elif name == fig5.WEIGHTS and path.exists():
            fields = data[manifest]
            curves.keep_interactions(folder, run_id, list(fields),
                                     fig5.interactions_of(path, run_id, fields))
        elif name.endswith(".npz") and masks.path_of(out, by_id[run_id], name).exists():
            budget = int(name.removesuffix(".npz"))
            kept = masks.read(out, by_id[run_id], budget)
            curves.keep_mask(folder, run_id, budget, kept)
        else:
            continue
        count += 1
    curves.keep_evaluations(folder, found)
    return count


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, help="the folder that holds runs/, such as tmp")
    options.add_argument("--replace", action="store_true",
                         help="of runs that are known with another result, take the one of `out`")
    options.add_argument("--to", type=Path, default=SHIPPED, metavar="FOLDER",
                         help="another folder than experiments, for trials; curves that are not in "
                              "`out` are looked for in experiments all the same")
    given = options.parse_args(arguments)
    _append(given.to, given.out, given.replace)


def _append(folder: Path, out: Path, replace: bool) -> None:
    path = folder / RUNS_CSV
    written, differ = append(path, out, replace)
    runs = counted(len(runs_csv.lines(path)), "run")
    print(f"{path}: {runs}, {len(written)} of them written now")
    if differ:
        others = counted(len(differ), "run")
        print(f"another result in {out}: {others}, whose lines and curves were left as they are "
              f"(--replace takes the new ones): {' '.join(differ)}")
    kept = keep_drawn(out, folder, differ)
    print(f"{folder / curves.FOLDER}: kept what pictures draw of {counted(kept, 'file')}")


if __name__ == "__main__":
    cli.main(main, trains=False)
