"""Beyond the paper: does the same feature get the same size twice? Masks and sizes of searches that
differ in the seed.

Overlap of two masks is the number of entries that both keep over the mean of what each keeps. Two
levels stand beside it: entries drawn at random from the whole table, and entries drawn at random
within each feature, of which each search keeps as many as it does. The second is what equal sizes
alone would give: above it, the same coordinates are kept.

Sizes are compared by rank (Spearman). Part of that is frequency, which every seed shares: the
partial correlation takes it out.
"""

import itertools
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from studies import choice, masks
from studies.figures import budget_curve, by_epoch
from studies.figures.fig6 import frequencies_of
from studies.figures.fig10 import SHARE
from studies.figures.styles import INK, NAVY, PALE, STYLES, Style
from studies.kinds import PEP, Results
from studies.page import RUNS, Number, Page, runs_of, shown

SIZE = (7.0, 2.9)  # inches: both columns of a page
BINS = 24  # at most, of sizes
NOTE = ("Left: entries that the masks of two seeds share, and what chance would give: among all "
        "entries, and within each feature at the sizes found. Middle: rank correlation of the "
        "features' sizes between two seeds, and what is left of it when the features' frequency is "
        "taken out. Means over pairs of seeds, bars are one standard deviation. Right: features by "
        "their size in two searches, at the budget above the panel.")
MEASURES: dict[str, tuple[str, Style]] = {
    "overlap": ("overlap of masks", STYLES[PEP]),
    "by_chance_within_features": ("by chance, sizes as found", (NAVY, "^", "--")),
    "by_chance": ("by chance", (INK, "s", ":")), "rank_correlation": ("sizes", STYLES[PEP]),
    "beyond_frequency": ("beyond frequency", (PALE, "D", "-."))}


class Mask(NamedTuple):
    """What one search keeps at a budget."""

    search: dict[str, Any]
    kept: np.ndarray  # (N, D) bool
    frequencies: np.ndarray | None  # (N,)


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/ and embedding/<model>/<alias>/.
    """
    page = Page("stability", dataset, model,
                f"The same sizes twice? {shown(model)} on {shown(dataset)}")
    found = choice.of(page, results, model, kinds=("pep",))
    fine = choice.searches(found)
    searches = choice.chosen(page, "search with feature-dimension thresholds", fine, found)
    by_budget: dict[int, list[Mask]] = defaultdict(list)
    for search in searches:
        for budget, source in masks.sources(search, fine).items():
            if (kept := masks.mask_of(page, out, source, budget)) is not None:
                by_budget[budget].append(Mask(source, kept, frequencies_of(page, out, source)))
    lines = {budget: [_compare(one, other) for one, other in itertools.combinations(members, 2)]
             for budget, members in sorted(by_budget.items(), reverse=True) if len(members) > 1}
    for budget, pairs in lines.items():
        page.rows += [{"budget": budget, **pair} for pair in pairs]
        page.numbers += [Number(f"{MEASURES[name][0]} at {budget:,} parameters, pairs of seeds",
                                values,
                                len(by_budget[budget]), form=".3f") for name in MEASURES
                         if (values := [pair[name] for pair in pairs
                                        if not math.isnan(pair[name])])]
    if searches and not lines:
        page.missing.append("snapshots of two seeds at one budget")
    page.notes.append(NOTE)
    if lines:
        nearest = choice.nearest(set(lines), SHARE * searches[0]["num_embedding_params_dense"])
        _draw(page, lines, nearest, by_budget[nearest])
    return page


def _compare(one: Mask, other: Mask) -> dict[str, Any]:
    """One pair of seeds, under MEASURES."""
    sizes, others = one.kept.sum(axis=1), other.kept.sum(axis=1)
    kept = (sizes.sum() + others.sum()) / 2
    same = masks.rank_correlation(sizes, others)
    beyond = math.nan
    if one.frequencies is not None:
        first, second = (masks.rank_correlation(one.frequencies, each) for each in (sizes, others))
        beyond = (same - first * second) / math.sqrt((1 - first ** 2) * (1 - second ** 2))
    return {"seeds": f"{one.search['seed']} {other.search['seed']}",
            "overlap": float((one.kept & other.kept).sum() / kept),
            "by_chance_within_features": float((sizes * others).sum() / one.kept.shape[1] / kept),
            "by_chance": float(sizes.sum() * others.sum() / one.kept.size / kept),
            "rank_correlation": same,
            "beyond_frequency": beyond, RUNS: runs_of([one.search, other.search])}


def _draw(page: Page, lines: dict[int, list[dict[str, Any]]], nearest: int,
          members: list[Mask]) -> None:
    page.figure = budget_curve.new_figure(SIZE)
    left, middle, right = page.figure.subplots(1, 3)
    names = list(MEASURES)
    for axes, shown_here, label in ((left, names[:3], "share of the entries kept"),
                                    (middle, names[3:], "rank correlation between seeds")):
        for name in shown_here:
            points = [(budget, values) for budget, pairs in lines.items()
                      if (values := [pair[name] for pair in pairs if not math.isnan(pair[name])])]
            if points:
                budget_curve.with_bars(axes, points, *MEASURES[name])
        budget_curve.log_sizes(axes)
        axes.set_ylim(bottom=min(axes.get_ylim()[0], 0.0), top=1.03 if axes is middle else None)
        by_epoch.finish(axes, "embedding parameters", label)
        axes.legend(fontsize=6, frameon=False)
    _sizes(right, nearest, members)
    page.figure.suptitle(page.title, fontsize=8)


def _sizes(axes: Axes, budget: int, members: list[Mask]) -> None:
    """Features by their size in the first two searches."""
    sizes, others = (member.kept.sum(axis=1) for member in members[:2])
    most = int(max(sizes.max(), others.max())) + 1
    edges = np.arange(0, most + 1, max(-(-most // BINS), 1))
    edges = np.append(edges, edges[-1] + edges[1]) if edges[-1] < most else edges
    counts, _, _ = np.histogram2d(sizes, others, bins=(edges, edges))
    mesh = axes.pcolormesh(edges, edges, np.ma.masked_equal(counts.T, 0), cmap="viridis_r",
                           norm=LogNorm(1, max(counts.max(), 2)))
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label("features", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    axes.set_title(f"at {budget:,} parameters", fontsize=7)
    by_epoch.finish(axes, f"entries kept, seed {members[0].search['seed']}",
                    f"entries kept, seed {members[1].search['seed']}")
