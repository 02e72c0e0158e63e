"""The kept width of every feature of a run, with its raw value and count, and a picture of them.

    python -m studies.sizes RUN                         # sizes_RUN.csv and sizes_RUN.png
    python -m studies.sizes RUN --format parquet
    python -m studies.sizes SEARCH --budget 20000       # a snapshot of a search

RUN is the id, or its beginning, of a retrained ticket or a trained baseline.
"""

import argparse
import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.store import Dataset
from engine import cli
from models.vocabulary import QUANTILES, FieldInfo
from studies.figures.budget_curve import new_figure, save
from studies.figures.styles import DISTINCT, INK
from utils.files import atomic_path

COLUMNS = ("field", "value", "meaning", "count", "share_of_rows", "kept_width",
           "share_of_kept")
# what an id means; of a cell with several values the empty slots are counted, not the gaps
VALUE, GAP, RARE, EMPTY = "value", "gap", "rare", "empty slot"
BINS = 12  # of counts, in the picture
MOST_LINES = len(DISTINCT)


@dataclass(frozen=True)
class FieldSizes:
    """The features of one field, in the order of their ids.

    Args:
        name: of the field.
        values: raw values, of buckets by floor(ln(v)^2) their numbers; None for a gap and for rare
            values.
        meanings: VALUE, GAP, RARE or EMPTY.
        counts: rows that have each, of those over which values were counted.
        kept: entries of each vector that are kept.
        slots: values that a cell has, empty ones among them.
    """

    name: str
    values: list[str | None]
    meanings: list[str]
    counts: np.ndarray
    kept: np.ndarray
    slots: int = 1

    def lines(self) -> Iterator[tuple[Any, ...]]:
        """Yield what stands under COLUMNS."""
        rows = max(int(self.counts.sum()) // self.slots, 1)
        entries = max(int(self.kept.sum()), 1)
        for place, value in enumerate(self.values):
            count, kept = int(self.counts[place]), int(self.kept[place])
            share = None if self.meanings[place] == EMPTY else count / rows
            yield (self.name, value, self.meanings[place], count, share, kept, kept / entries)


def sizes_of(dataset: Dataset, kept: np.ndarray) -> list[FieldSizes]:
    """The features of each field.

    Args:
        kept: (N,) entries that are kept of each row of the table.

    Raises:
        ValueError: the data set has no vocabulary.
    """
    if dataset.vocabulary is None:
        raise ValueError(f"the data set {dataset.schema.name} was encoded without its values; "
                         "encode it again")
    found = []
    for field in dataset.vocabulary.fields:
        if field.info.slot:  # its rows are those of the first
            continue
        entries = list(field.entries())
        ids = np.array([row for row, _, _ in entries])
        slots = sum(other.info.column == field.info.column is not None
                    for other in dataset.vocabulary.fields) if field.info.separator else 1
        special = {field.unknown: RARE, field.info.missing: GAP if slots == 1 else EMPTY}
        meanings = [special.get(row, VALUE) for row in ids.tolist()]
        values = [_raw(field.info, str(value)) if meaning == VALUE else None
                  for (_, value, _), meaning in zip(entries, meanings, strict=True)]
        found.append(FieldSizes(field.name, values, meanings,
                                np.array([count for _, _, count in entries]), kept[ids], slots))
    return found


def _raw(info: FieldInfo, value: str) -> str:
    """A value as it stands in the table; of quantiles, from which number to which.

    >>> _raw(FieldInfo("price", "bucket", rule="quantiles", edges=(1.0, 2.5)), "1")
    '[1, 2.5)'
    """
    if info.rule != QUANTILES:
        return value
    edges = [float("-inf"), *info.edges, float("inf")]
    low, high = (repr(edges[int(value) + more]).removesuffix(".0") for more in (0, 1))
    return f"[{low}, {high})"


def write(sizes: list[FieldSizes], path: Path) -> None:
    """Write a line for each feature to a .csv or .parquet."""
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                for field in sizes:
                    writer.writerows(field.lines())
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        lines = itertools.chain.from_iterable(field.lines() for field in sizes)
        columns = list(zip(*lines, strict=True))
        pq.write_table(pa.table(dict(zip(COLUMNS, map(list, columns), strict=True))), temporary)


def picture(sizes: list[FieldSizes], title: str, path: Path) -> None:
    """Draw the mean kept width against the count, a line for each of the largest fields."""
    figure = new_figure((7, 4.5))
    axes = figure.subplots()
    largest = sorted(sizes, key=lambda field: -len(field.values))[:MOST_LINES]
    lines, names = [], []
    for field, colour in zip(largest, DISTINCT, strict=False):
        came = field.counts > 0
        counts, widths = field.counts[came], field.kept[came]
        if not len(counts):
            continue
        edges = np.unique(np.geomspace(counts.min(), counts.max() + 1, BINS + 1).round())
        place = np.digitize(counts, edges)
        there = np.unique(place)
        across = [np.exp(np.log(counts[place == one]).mean()) for one in there]
        up = [widths[place == one].mean() for one in there]
        lines += axes.plot(across, up, marker="o", markersize=4, color=colour)
        escaped = field.name.replace("$", r"\$")  # which begins a formula
        names.append(f"{escaped} ({len(field.values):,})")
    axes.set_xscale("log")
    axes.set_xlabel("rows with the value")
    axes.set_ylabel("kept width, mean of the values of such counts")
    axes.set_title(title, fontsize=10)
    axes.tick_params(colors=INK)
    # lines and names by themselves: the legend leaves out a line whose own name begins with _
    axes.legend(lines, names, fontsize=8, title="field (its values)", title_fontsize=8,
                frameon=False)
    save(figure, path)


def summary(sizes: list[FieldSizes]) -> str:
    """A line for each field: its features, how many are left with nothing, and its share."""
    entries = max(sum(int(field.kept.sum()) for field in sizes), 1)
    lines = [f"{'field':24} {'features':>10} {'of width 0':>10} {'mean width':>10} "
             f"{'entries':>10} {'share':>7}"]
    for field in sizes:
        kept = int(field.kept.sum())
        lines.append(f"{field.name:24} {len(field.kept):>10,} {int((field.kept == 0).sum()):>10,} "
                     f"{field.kept.mean():>10.2f} {kept:>10,} {kept / entries:>7.1%}")
    return "\n".join(lines)


def show(options: argparse.Namespace) -> None:
    """Write the file and the picture of a run, and print the summary."""
    from studies.kept_widths import kept_of  # and torch with it

    name, dataset, kept = kept_of(options.run, options.budget, cli.place_of(options))
    sizes = sizes_of(dataset, kept)
    folder = Path(options.out) / "sizes"
    target = folder / f"sizes_{name}.{options.format}"
    write(sizes, target)
    drawing = target.with_suffix(".png")
    picture(sizes, f"{dataset.schema.name}, run {name}: {int(kept.sum()):,} "
            f"entries kept, {len(kept):,} features", drawing)
    print(f"{summary(sizes)}\nsizes: {target}\npicture: {drawing}")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and show a run's sizes."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", metavar="RUN")
    options.add_argument("--budget", metavar="NAME", help="of a search: which snapshot (default: "
                         "the smallest)")
    options.add_argument("--format", choices=("csv", "parquet"), default="csv")
    cli.add_place_options(options)
    given = options.parse_args(arguments)
    cli.main(lambda: show(given))


if __name__ == "__main__":
    main()
