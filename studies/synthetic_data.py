"""Synthetic files in the place of Criteo's and Avazu's, in a folder of their own, so that nothing
synthetic can pass for real."""

import tempfile
from dataclasses import replace
from pathlib import Path

from data import avazu, criteo
from data.raw.source import RawFile, find_file
from data.synthetic import raw_planted
from engine.run import RunContext

LAYOUTS = {"criteo": criteo.LAYOUT, "avazu": avazu.LAYOUT}
# of --out: a folder for each length of file, with the files, runs, snapshots and figures
FOLDER = "planted"


def planted(context: RunContext, dataset: str, rows: int, values: int | None,
            write: bool) -> RunContext:
    """The same place with a planted raw file, and with another folder for all that is made from it.

    Args:
        rows: of the file, which is written when it is missing and `write` holds.
        values: most of a category; None for as many as the real file has.

    Raises:
        ValueError: there is no planted form of this data set, the number of rows is impossible, or
            --data is given.
    """
    if dataset not in LAYOUTS:
        raise ValueError(f"--planted stands in for {' and '.join(LAYOUTS)}; {dataset} has no "
                         f"planted file")
    if context.data is not None:
        raise ValueError(f"--planted makes its own file, --data {context.data} names another; give "
                         f"one of them")
    out = context.out / FOLDER / (f"{rows}_rows" if values is None
                                  else f"{rows}_rows_{values}_values")
    file = out / "raw" / dataset / LAYOUTS[dataset].file_names[0]
    if write and not file.exists():
        raw_planted.write(dataset, rows, file, values=values)
    return replace(context, out=out, cache=out / "cache", data=str(file))


def require_real(context: RunContext, dataset: str) -> None:
    """Raise ValueError when the raw file of a data set is a planted one (of the usual seed):
    nothing may mix them."""
    if dataset not in LAYOUTS:
        return
    layout = LAYOUTS[dataset]
    file = find_file(layout, context.data)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / file.name.removesuffix(".gz").removesuffix(".zip")
        raw_planted.write(dataset, 1, made)
        if _first_line(file, dataset) == _first_line(made, dataset):
            raise ValueError(f"{file} is a planted file, not {dataset}'s own; leave it away and "
                             "give --planted, which keeps what is made from such files apart")


def _first_line(file: Path, dataset: str) -> bytes:
    """The first row of a raw file."""
    return next(RawFile(file, LAYOUTS[dataset], 1 << 16).blocks()).tobytes().partition(b"\n")[0]
