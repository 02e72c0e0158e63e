"""The figure of `benchmarks/bench_scale.py`: milliseconds a step and peak memory against the rows
of the table.

    python -m studies.figures.scale_curve benchmarks/results/FILE.json
    experiments/figures/scale_fm.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from studies.figures import budget_curve
from studies.figures.styles import COLOURS
from studies.names import shown

MARKERS = "os^Dv<"
LINES = ("-", "--", ":", "-.")  # curves may lie on one another
SIZE = (7.0, 2.8)  # inches: both columns of a page
# variants that are drawn, and what older records call them
NAMES = {"naive": "published", "streamed": "streamed", "dense": "streamed", "lazy": "lazy",
         "deferred": "lazy", "uniform": "uniform"}


def draw(rows: Sequence[dict[str, Any]], model: str, path: Path) -> Path:
    """Write the two panels as PNG.

    Args:
        rows: what the benchmark wrote with --json, of any models.
        model: the one to draw.
        path: of the picture.

    Raises:
        ValueError: there is no row of that model.
    """
    chosen = [{**row, "variant": NAMES[row["variant"]]} for row in rows
              if row["model"] == model and row["variant"] in NAMES]
    if not chosen:
        raise ValueError(f"no row of model {model!r}; there are: "
                         f"{sorted({row['model'] for row in rows})}")
    figure = budget_curve.new_figure(SIZE)
    left, right = figure.subplots(1, 2)
    _panel(left, chosen, "ms_per_step", 1.0, "milliseconds a step")
    _panel(right, chosen, "peak_memory_bytes", 1e-9, "peak memory, GB")
    left.legend(fontsize=6.5, frameon=False)
    figure.suptitle(f"{shown(model)}, batch 1,024 x 39: {chosen[0]['device']}, "
                    f"{chosen[0]['threads']} threads", fontsize=8)
    return budget_curve.save(figure, path)


def _panel(axes: Axes, rows: Sequence[dict[str, Any]], quantity: str, unit: float,
           label: str) -> None:
    for number, variant in enumerate(dict.fromkeys(row["variant"] for row in rows)):
        points = sorted((row["num_rows"], row[quantity] * unit) for row in rows
                        if row["variant"] == variant)
        axes.plot([x for x, _ in points], [y for _, y in points], label=variant, linewidth=1.2,
                  markersize=4, linestyle=LINES[number % len(LINES)],
                  color=COLOURS[number % len(COLOURS)],
                  marker=MARKERS[number % len(MARKERS)])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted({row["num_rows"] for row in rows}))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: budget_curve.short(count)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("rows of the table", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    budget_curve.tidy(axes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, draw."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("results", type=Path, help="what bench_scale.py wrote with --json")
    options.add_argument("picture", type=Path, help="the PNG to write")
    options.add_argument("--model", default="fm", help="the one to draw")
    given = options.parse_args(arguments)
    draw(json.loads(given.results.read_text()), given.model, given.picture)


if __name__ == "__main__":
    main()
