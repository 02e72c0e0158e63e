"""The figure of the paper's main claim: test AUC against the number of embedding parameters."""

import io
import logging
import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from studies.figures.styles import INK, Style, styles_for
from studies.kinds import PEP, Results
from studies.names import shown
from studies.series import by_budget, from_last, series_of
from utils.files import atomic_path

log = logging.getLogger("pep")

Series = dict[str, list[dict[str, Any]]]  # results by the label of their curve
COLUMN = (3.4, 2.6)  # inches: one column of a two-column page
MOST = 8  # curves of one column that an eye still tells apart
LINE = 0.14  # inches of height that a name takes in a legend below the axes
SHORT = 20  # letters of names that stand two in a line there
LETTERS = 44  # of a name that fit into a line there
TICK = 0.3  # inches that a tick's label takes
BESIDE = 0.7  # inches that the labels beside an axis take
CROWD = 6  # values that can crowd
FINE = 0.7  # share of an axis for the values that do
APART = 0.06  # of an axis, that ticks must be
SHADED = ("Where scores crowd at one end of an axis, the shaded rest of it has a coarser scale. "
          "A scheme of which there is one size alone is in the table and not in the picture.")
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


def draw(results: Results, dataset: str, model: str, folder: Path, of: Results = (),
         settings: str = "") -> Path | None:
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
        settings: of all of them, for the title.
    """
    series = series_of([result for result in results if result["settings"]["dataset"] == dataset
                        and result["settings"]["model"] in (model, "linear")])
    if not series:
        return None
    chosen = _foremost(series, {result["run_id"] for result in of})
    if len(chosen) < len(series):
        log.info("the figure shows %d of %d series; python -m studies.pages %s fig2 --new "
                 "has every scheme", len(chosen), len(series), folder.parent)
    width, height = COLUMN
    lines = sum(1 + len(label) // LETTERS for label in chosen)
    figure = new_figure((width, height + LINE * (lines + 1)))
    axes = figure.add_subplot()
    draw_series(axes, chosen)
    axes.set_title(f"{shown(model)} on {shown(dataset)}{settings}", fontsize=8)
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


def png(figure: Figure, about: dict[str, str] | None = None) -> bytes:
    """A figure as PNG; `about` goes into the file's own text fields."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata=about)
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    content = png(figure)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def points_of(results: Results) -> list[Point]:
    """One curve's points by rising parameters."""
    return sorted(Point(statistics.mean(result["num_embedding_params"] for result in group),
                        [result["test_auc"] for result in group], from_last(group))
                  for group in by_budget(results).values())


def draw_series(axes: Axes, series: Series) -> None:
    """Draw labelled results; those without embedding parameters (LR) are horizontal lines."""
    curves = {label: points_of(results) for label, results in series.items()}
    styles = styles_for(curves)
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
    every = list(chain.from_iterable(curves.values()))
    if any(point.from_last for point in every):
        axes.plot([], [], linestyle="none", marker="o", markersize=4, markerfacecolor="white",
                  color=INK,
                  label="hollow: cut from the last table")
    _label(axes, several=any(len(point.aucs) > 1 for point in every))


def log_sizes(axes: Axes) -> None:
    """A logarithmic axis of parameters or bytes, across, with as many ticks as have room.

    To be called when everything is drawn.
    """
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    figure, place = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None
    columns = place.get_gridspec().ncols if place else 1
    inches = figure.get_figwidth() / columns - BESIDE
    subs = next((subs for subs in ((1, 2, 5), (1, 3)) if len(subs) * decades <= inches / TICK),
                (1,))
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: short(count)))
    axes.xaxis.set_minor_locator(NullLocator())


def widen_crowd(axes: Axes, values: Sequence[float], low: bool = False,
                end: float | None = None) -> None:
    """Give most of a score's axis to the values that crowd at its good end.

    The axis is linear in either part; the part of the other values is shaded, and coarser. Nothing
    is changed where the values do not crowd.

    Args:
        values: that are drawn.
        low: the good scores are the low ones, as of log-loss.
        end: of the error bar that reaches furthest at the good end.
    """
    ordered = sorted(values, reverse=not low)  # good ones first
    if len(ordered) < CROWD:
        return
    edge, worst, best = ordered[round(0.7 * (len(ordered) - 1))], ordered[-1], ordered[0]
    if abs(edge - best) > 0.45 * abs(worst - best) or edge in (best, worst):
        return
    bottom, top = axes.get_ylim()
    margin = 0.2 * abs(best - edge)
    reach = best if end is None else end
    if low:
        bottom = min(best - margin, reach - margin / 4)
    else:
        top = max(best + margin, reach + margin / 4)
    ends = (bottom, edge, top)
    share = FINE if low else 1 - FINE  # of the axis, below the edge
    axes.set_yscale("function", functions=(partial(np.interp, xp=ends, fp=(0, share, 1)),
                                           partial(np.interp, xp=(0, share, 1), fp=ends)))
    axes.set_ylim(bottom, top)
    fine, coarse = ((bottom, edge), (edge, top)) if low else ((edge, top), (bottom, edge))
    axes.axhspan(*coarse, color=INK, alpha=0.08, linewidth=0, zorder=0,
                 label="shaded: coarser scale")
    heights: dict[float, float] = {}  # of the ticks, the fine ones first
    for tick in [*MaxNLocator(6).tick_values(*fine), *MaxNLocator(3).tick_values(*coarse)]:
        height = float(np.interp(tick, ends, (0, share, 1)))
        free = all(abs(height - other) > APART for other in heights.values())
        if bottom <= tick <= top and free:
            heights[float(tick)] = height
    # a tick at 0.9025 must not be called 0.902
    digits = 3 if all(abs(tick - round(tick, 3)) < 1e-6 for tick in heights) else 4
    axes.set_yticks(list(heights), [f"{tick:.{digits}f}" for tick in heights])


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


def _label(axes: Axes, several: bool) -> None:
    log_sizes(axes)
    axes.set_xlabel("embedding parameters", fontsize=8)
    axes.set_ylabel(score_label("test AUC", several), fontsize=8)
    tidy(axes)
    named = sorted(zip(*axes.get_legend_handles_labels(), strict=True),
                   key=lambda pair: not isinstance(pair[0], ErrorbarContainer))  # curves first
    handles = [handle for handle, _ in named]
    labels = [textwrap.fill(label, LETTERS) for _, label in named]
    columns = 2 if max(map(len, labels)) <= SHORT else 1
    axes.legend(handles, labels, fontsize=6.5, frameon=False, ncols=columns, loc="upper center",
                bbox_to_anchor=(0.5, -0.2))  # below the axes, where no curve runs


def legend_below(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend below all panels, with each name of theirs once."""
    handles: dict[str, Any] = {}
    for axes in panels:
        artists, labels = axes.get_legend_handles_labels()
        handles |= zip(labels, artists, strict=True)
    figure.legend(handles.values(), handles.keys(), fontsize=6.5, frameon=False,
                  loc="outside lower center", ncols=4)


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
