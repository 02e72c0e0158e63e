"""The shipped records: experiments/runs.csv, what pictures need beside it, and the pages of both.

    python -m studies.records tmp               # append what is new in tmp/runs to the csv
    python -m studies.records tmp --replace     # and take the new results of runs that are in it
    python -m studies.records --draw            # draw every page of experiments/figures again

Weights, snapshots and whole curves stay where they were made; what the shipped pictures draw of
them goes to experiments/curves.
"""

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from studies import curves, masks, page, runs_csv
from studies.collect import results_in
from studies.curves import RUNS_CSV, SHIPPED
from studies.figures import by_epoch, fig5, fig6
from studies.page import Page
from studies.pages import PAGES
from studies.runs_csv import append, read

__all__ = ["append", "draw", "keep_drawn", "pages", "read"]
MODELS = ("fm", "deepfm", "autoint", "dlrm")
FIGURES = "figures"


def pages(folder: Path = SHIPPED, out: Path | None = None) -> Iterator[Page]:
    """The pages whose text is in folder/figures, made anew from folder/runs.csv.

    Args:
        out: where the files of runs are looked for before those in folder/curves; absent: nowhere.

    Raises:
        ValueError: the csv is of another form, or a page is of no figure or table that we know.
    """
    kinds = runs_csv.kinds(folder / RUNS_CSV)
    results = {kind: results_in(folder, planted=kind) for kind in kinds}
    for path in sorted((folder / FIGURES).glob("*.md")):
        name, dataset, model, planted = _parts(path.stem)
        if name not in PAGES:
            raise ValueError(f"{path} is of no page that we know; there are: {', '.join(PAGES)}")
        for kind in [kind for kind in kinds if bool(kind) == planted]:
            made = PAGES[name](results[kind], out or folder, dataset, model)
            yield page.mark_synthetic(made, kind) if planted else made


def draw(folder: Path = SHIPPED, to: Path | None = None) -> list[Path]:
    """Write the pages of `pages`; returns the files.

    Args:
        to: where to; absent: where they are.
    """
    return [file for made in pages(folder) for file in page.write(made, to or folder / FIGURES)]


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
    drawn = {file for made in pages(folder, out) for file in made.drawn
             if file.split("/")[0] not in without}
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


def _parts(stem: str) -> tuple[str, str, str, bool]:
    """Page, data set, model, and whether the data are planted, of a file's name.

    >>> _parts("umec-fig2_planted_criteo_dlrm"), _parts("table2_movielens")
    (('umec-fig2', 'criteo', 'dlrm', True), ('table2', 'movielens', 'fm', False))
    >>> _parts("umec-fig2_planted_fields_dlrm")
    ('umec-fig2', 'planted_fields', 'dlrm', False)
    """
    name, _, rest = stem.partition("_")
    dataset, _, model = rest.rpartition("_")
    if model not in MODELS:  # the page shows all of them
        dataset, model = rest, MODELS[0]
    planted = dataset.startswith("planted_") and dataset != "planted_fields"
    return name, dataset.removeprefix("planted_") if planted else dataset, model, planted


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, nargs="?",
                         help="the folder that holds runs/, such as tmp")
    options.add_argument("--replace", action="store_true",
                         help="of runs that are known with another result, take the one of `out`")
    options.add_argument("--to", type=Path, default=SHIPPED, metavar="FOLDER",
                         help="another folder than experiments, for trials; curves that are not in "
                              "`out` are looked for in experiments all the same")
    options.add_argument("--draw", action="store_true", help="draw the shipped pages again")
    given = options.parse_args(arguments)
    if given.out is None and not given.draw:
        options.error("name the folder that holds runs/ (such as tmp), or give --draw")
    try:
        if given.out is not None:
            _append(given.to, given.out, given.replace)
        if given.draw:
            print("\n".join(map(str, draw(given.to))))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def _append(folder: Path, out: Path, replace: bool) -> None:
    path = folder / RUNS_CSV
    written, differ = append(path, out, replace)
    print(f"{path}: {len(runs_csv.lines(path))} runs, {len(written)} of them written now")
    if differ:
        print(f"{len(differ)} runs have another result in {out}; their lines and curves were left "
              f"as they are (--replace takes the new ones): {' '.join(differ)}")
    kept = keep_drawn(out, folder, differ)
    print(f"{folder / curves.FOLDER}: kept what pictures draw of {kept} files")


if __name__ == "__main__":
    main()
