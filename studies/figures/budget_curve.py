"""The figure of the paper's main claim: test AUC against the number of embedding parameters."""

import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from studies.figures.styles import INK, Style, looks
from studies.kinds import PEP, Results
from studies.names import shown
from studies.series import by_budget, from_last, series_of
from utils.files import atomic_path

log = logging.getLogger("pep")

Series = dict[str, list[dict[str, Any]]]  # results by the label of their curve
COLUMN = (3.4, 2.6)  # inches: one column of a two-column page
MOST = 8  # curves of one column that an eye still tells apart
# names that a legend can hold without covering curves; a longer one stands below the axes
WITHIN = 5
LINE = 0.14  # inches of height that each name takes there
DPI = 200


class Point(NamedTuple):
    """One place on a curve."""

    params: float  # embedding parameters; the mean where seeds differ
    aucs: list[float]  # test AUC of each seed
    # cut from a search's last table, because the search itself did not get that low
    from_last: bool

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.mean(self.aucs)

    @property
    def spread(self) -> float:
        """Standard deviation of a sample; 0 for one seed."""
        return statistics.stdev(self.aucs) if len(self.aucs) > 1 else 0.0


def draw(results: Results, dataset: str, model: str, folder: Path, of: Results = ()) -> Path | None:
    """Write folder/<dataset>_<model>.png from the retrained tickets, the baselines and LR; None
    without any.

    Points of several seeds are drawn as their mean with one standard deviation either way. Runs
    that differ in a setting are separate series, and the legend says which setting. Of more than
    MOST series those of `of`, PEP, uniform and LR are drawn and those with the most runs; the log
    says how many are not.

    Args:
        results: the contents of result.json files, of any data sets and models.
        dataset, model: those to draw.
        folder: made when it is absent.
        of: those of them that the picture must show.
    """
    series = series_of([result for result in results if result["settings"]["dataset"] == dataset
                        and result["settings"]["model"] in (model, "linear")])
    if not series:
        return None
    chosen = _foremost(series, {result["run_id"] for result in of})
    if len(chosen) < len(series):
        log.info("the figure shows %d of %d series; python -m studies.figures.baselines %s %s %s "
                 "has every scheme",
                 len(chosen), len(series), folder.parent, dataset, model)
    width, height = COLUMN
    figure = new_figure((width, height + LINE * len(chosen) if len(chosen) > WITHIN else height))
    axes = figure.add_subplot()
    draw_series(axes, chosen)
    axes.set_title(f"{shown(model)} on {shown(dataset)}", fontsize=8)
    return save(figure, folder / f"{dataset}_{model}.png")


def _foremost(series: Series, wanted: set[str]) -> Series:
    """At most MOST of them, but all that hold one of the wanted runs, in their order."""
    def rank(label: str) -> tuple[bool, bool, int]:
        return (any(result["run_id"] in wanted for result in series[label]),
                label in (PEP, "uniform", "LR"),
                len(series[label]))
    sure = sum(rank(label)[0] for label in series)
    kept = sorted(series, key=rank, reverse=True)[:max(MOST, sure)]
    return {label: series[label] for label in series if label in kept}


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of `size` inches. It needs no display and leaves pyplot's state alone."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, about: dict[str, str] | None = None) -> Path:
    """Write a figure, whole or not at all; `about` goes into the file's own text fields."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata=about)
    return path


def points_of(results: Results) -> list[Point]:
    """One curve's points by rising parameters."""
    return sorted(Point(statistics.mean(result["num_embedding_params"] for result in group),
                        [result["test_auc"] for result in group], from_last(group))
                  for group in by_budget(results).values())


def draw_series(axes: Axes, series: Series) -> None:
    """Draw labelled results; those without embedding parameters (LR) are horizontal lines."""
    curves = {label: points_of(results) for label, results in series.items()}
    styles = looks(curves)
    for label, points in curves.items():
        if points[-1].params == 0:
            horizontal(axes, label, points[-1].mean)
            continue
        with_bars(axes, [(point.params, point.aucs) for point in points], label, styles[label])
        colour, marker, _ = styles[label]
        hollow = [point for point in points if point.from_last]
        axes.plot([point.params for point in hollow], [point.mean for point in hollow],
                  linestyle="none", color=colour,
                  marker=marker, markersize=4, markerfacecolor="white", zorder=5)
    every = [point for points in curves.values() for point in points]
    if any(point.from_last for point in every):
        axes.plot([], [], linestyle="none", marker="o", markersize=4, markerfacecolor="white",
                  color=INK,
                  label="hollow: cut from the last table")
    _label(axes, several=any(len(point.aucs) > 1 for point in every))


def log_sizes(axes: Axes) -> None:
    """A logarithmic axis of parameters or bytes, across."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: short(count)))
    axes.xaxis.set_minor_locator(NullLocator())


def with_bars(axes: Axes, points: Sequence[tuple[float, Sequence[float]]], label: str,
              style: Style) -> None:
    """A curve of (size, values of the seeds) through the means, with one standard deviation either
    way."""
    colour, marker, line = style
    ordered = sorted(points, key=lambda point: point[0])
    spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in ordered]
    axes.errorbar([size for size, _ in ordered], [statistics.mean(values) for _, values in ordered],
                  yerr=spreads if any(spreads) else None, label=shown(label), color=colour,
                  marker=marker,
                  linestyle=line, markersize=4, linewidth=1.1, capsize=2)


def mark_missing(axes: Axes, sizes: Sequence[float]) -> None:
    """A cross on the lower edge at each size that was asked for and that no run has."""
    if sizes:
        axes.plot(list(sizes), [0.02] * len(sizes), transform=axes.get_xaxis_transform(),
                  linestyle="none", marker="x",
                  color=INK, markersize=4, label="no run")


def _label(axes: Axes, several: bool) -> None:
    log_sizes(axes)
    axes.set_xlabel("embedding parameters", fontsize=8)
    axes.set_ylabel(score_label("test AUC", several), fontsize=8)
    tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    # curves first
    order = sorted(range(len(handles)), key=lambda i: not isinstance(handles[i], ErrorbarContainer))
    legend = axes.legend([handles[i] for i in order], [labels[i] for i in order], fontsize=6.5,
                         frameon=False)
    if len(handles) > WITHIN + 1:  # and what hollow means
        legend.set_loc("upper center")
        legend.set_bbox_to_anchor((0.5, -0.2), transform=axes.transAxes)


def score_label(score: str, several: bool) -> str:
    """Of the axis of a score: whether some of the points have several seeds.

    >>> score_label("test AUC", several=False)
    'test AUC (one seed)'
    """
    return f"{score} ({'mean ± s.d. over seeds' if several else 'one seed'})"


def horizontal(axes: Axes, label: str, level: float) -> None:
    """A dashed line across the axes, named in the legend."""
    axes.axhline(level, color=INK, linestyle="--", linewidth=1, label=shown(label))


def tidy(axes: Axes) -> None:
    """Small ticks, a light grid below the data, no box."""
    axes.tick_params(labelsize=7, colors=INK)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def short(count: float) -> str:
    """A count as an axis shows it.

    >>> short(500), short(2000), short(23_675), short(1e6)
    ('500', '2k', '23.7k', '1M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"
