"""Curves by epoch as lines of a figure and rows of a csv: from the curve.jsonl of run folders, or
from the page's own csv where these are not at hand."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from studies import curves
from studies.figures import budget_curve
from studies.figures.styles import Style
from studies.kinds import Results
from studies.page import RUNS, Page, runs_of

CURVE = "curve.jsonl"  # of a run's folder: one line an evaluation
LEGEND = "Thick lines are means over seeds, as far as all seeds go; faint ones are the seeds."

Evaluations = Sequence[dict[str, Any]]


class Line(NamedTuple):
    """The runs of one method, with the evaluations of each."""

    label: str
    style: Style
    results: Results
    curves: Sequence[Evaluations]  # one a result

    def mean(self, quantity: str) -> tuple[list[float], list[float]]:
        """Epochs that all runs have, and the mean over runs there."""
        by_epoch = [{line["epoch"]: line[quantity] for line in curve} for curve in self.curves]
        epochs = sorted(set.intersection(*(set(values) for values in by_epoch)))
        return epochs, [statistics.mean(values[epoch] for values in by_epoch) for epoch in epochs]


def line_of(page: Page, out: Path, label: str, style: Style, results: Results) -> Line | None:
    """The curves of results; those that cannot be read are named among what is missing. None when
    none is left."""
    found = []
    for result in results:
        path = out / "runs" / result["run_id"] / CURVE
        file = f"{result['run_id']}/{CURVE}"
        where = f"run {result['run_id']} ({label}, seed {result['seed']})"
        try:
            found.append((result, _evaluations(path, result["run_id"])))
            page.drawn.add(file)
        except FileNotFoundError:
            page.lose(file, f"the curve of {where}: its folder has no {CURVE}")
        except (OSError, ValueError) as error:
            page.lose(file, f"the curve of {where}: {CURVE} cannot be read ({error})")
    return Line(label, style, [result for result, _ in found],
                [curve for _, curve in found]) if found else None


def _evaluations(path: Path, run_id: str) -> Evaluations:
    """Of a run's own file, or what is shipped of it."""
    return evaluations_in(path) if path.exists() else curves.evaluations(run_id)


def evaluations_in(path: Path) -> list[dict[str, Any]]:
    """The evaluations of a run's curve.jsonl.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def rows(panel: str, line: Line, quantities: Sequence[str]) -> list[dict[str, Any]]:
    """One row a run and evaluation."""
    names = ("epoch", "step", *quantities)
    found: list[dict[str, Any]] = []
    for result, curve in zip(line.results, line.curves, strict=True):
        about = {"panel": panel, "line": line.label, "seed": result["seed"]}
        found += [{**about, **{name: evaluation[name] for name in names}, RUNS: runs_of([result])}
                  for evaluation in curve]
    return found


def results_as_rows(line: str, results: Results, quantities: Sequence[str]) -> list[dict[str, Any]]:
    """One row a run: what it ended with, which the numbers of the page are made from."""
    return [{"panel": "result", "line": line, "seed": result["seed"],
             **{name: result[name] for name in quantities},
             RUNS: runs_of([result])} for result in results]


def draw(axes: Axes, lines: Sequence[Line], quantity: str, label: str) -> None:
    """The mean over seeds, as far as all seeds go; where there are several, each of them as a faint
    line too."""
    if not lines:
        nothing(axes, "no curve yet")
    for line in lines:
        colour, _, dashes = line.style
        if len(line.curves) > 1:
            for curve in line.curves:
                axes.plot([one["epoch"] for one in curve], [one[quantity] for one in curve],
                          color=colour,
                          linewidth=0.6, alpha=0.35)
        axes.plot(*line.mean(quantity), color=colour, linestyle=dashes, linewidth=1.3,
                  label=line.label)
    finish(axes, "epoch", label)


def nothing(axes: Axes, words: str) -> None:
    """Say that a panel has nothing to show, in the place of an empty scale from 0 to 1."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=7, transform=axes.transAxes)


def finish(axes: Axes, below: str, beside: str) -> None:
    """Name the axes."""
    axes.set_xlabel(below, fontsize=8)
    axes.set_ylabel(beside, fontsize=8)
    budget_curve.tidy(axes)
