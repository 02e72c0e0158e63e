"""Figure 6: what pruning leaves of rare and of frequent features.

(a) The density of feature frequencies. (b) The share of a feature's vector that is kept, by groups
of frequency, while the search goes on; the paper calls this share "sparsity" (its footnote 8), and
shades the spread within a group; here the shade is one standard deviation. (c) How many entries
each feature keeps at one budget, against its frequency.

The pictures are of the search with the lowest seed that has what they need; the numbers are of all
seeds.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from studies import choice, curves, masks
from studies.figures import budget_curve, by_epoch
from studies.figures.fig10 import SHARE
from studies.figures.styles import BLUE
from studies.kinds import Results
from studies.page import RUNS, Page, needs, number, runs_of, shown

SIZE = (7.0, 2.8)  # inches: both columns of a page
# of a search's run folder: how often each feature occurs in the training rows
COUNTS = ("feature_counts.npy", "popularity.npy")  # the second of older runs
PLACES = 200  # at which a density is computed
BINS = 24  # at most, of frequencies, equal in their logarithm
LEVELS = 16  # at most, of kept entries
NOTE = ("(a) Density of the features over the logarithm of their frequency in the training rows. "
        "(b) Share of a feature's vector that is kept, which the paper calls sparsity: mean of "
        "each group of features by frequency, and one standard deviation within it. (c) Features "
        "by their frequency and by the entries that they keep at the budget above the panel. The "
        "picture is of the lowest seed that has the files, the numbers are of all seeds; features "
        "that no training row has are in neither (a) nor (c).")


class Counted(NamedTuple):
    """A search and how often each feature occurs, (N,)."""

    search: dict[str, Any]
    frequencies: np.ndarray


class Kept(NamedTuple):
    """The same, with the non-zero entries of each feature, (N,), in the snapshot at a budget."""

    search: dict[str, Any]
    frequencies: np.ndarray
    entries: np.ndarray
    budget: int


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/ and embedding/<model>/<alias>/.
    """
    page = Page("fig6", dataset, model,
                f"Figure 6: sparsity and frequency, {shown(model)} on {shown(dataset)}")
    found = choice.of(page, results, model, kinds=("pep",))
    fine = choice.searches(found)
    searches = choice.chosen(page, "search with feature-dimension thresholds", fine, found)
    trajectories = needs(page, "sparsity", searches,
                         "it was searched before that was recorded; search again")
    counted = [part for run in searches if (part := _counted(page, out, run))]
    kept = [whole for one in counted if (whole := _kept(page, out, one, fine))]
    _numbers(page, trajectories, kept)
    panels: list[Callable[[Axes], None]] = []
    if counted:
        panels.append(lambda axes: _density(page, axes, counted[0]))
    if trajectories:
        panels.append(lambda axes: _trajectory(axes, trajectories[0]))
    if kept:
        panels.append(lambda axes: _heat_map(page, axes, kept[0]))
    if panels:
        page.figure = budget_curve.new_figure(SIZE)
        for axes, fill in zip(page.figure.subplots(1, len(panels), squeeze=False)[0], panels,
                              strict=True):
            fill(axes)
        page.figure.suptitle(page.title, fontsize=8)
        if trajectories:
            handles, labels = page.figure.axes[len(counted) > 0].get_legend_handles_labels()
            page.figure.legend(handles, labels, fontsize=6.5, frameon=False,
                               loc="outside lower center", ncols=5,
                               title="(b) features by how often they occur", title_fontsize=6.5)
        page.notes.append(NOTE)
    return page


def _counted(page: Page, out: Path, search: dict[str, Any]) -> Counted | None:
    frequencies = frequencies_of(page, out, search)
    return None if frequencies is None else Counted(search, frequencies)


def counts_file(folder: Path) -> Path:
    """Where a search's run folder has, or should have, how often each feature occurs."""
    return next((folder / name for name in COUNTS if (folder / name).exists()), folder / COUNTS[0])


def frequencies_of(page: Page, out: Path, search: dict[str, Any]) -> np.ndarray | None:
    """(N,) how often each feature occurs in a search's training rows; None where that is not known,
    which is listed."""
    path = counts_file(out / "runs" / search["run_id"])
    where = f"frequencies of the features, run {search['run_id']} (seed {search['seed']})"
    file = f"{search['run_id']}/{COUNTS[1]}"  # as pictures of older runs name it
    try:
        frequencies = (np.load(path, allow_pickle=False) if path.exists()
                       else curves.frequencies(search["manifest"]))
        page.drawn.add(file)
        return frequencies
    except FileNotFoundError:
        page.lose(file, f"{where}: its folder has no {path.name}")
    except (OSError, ValueError, EOFError) as error:
        page.lose(file, f"{where}: {path.name} cannot be read ({error})")
    return None


def _kept(page: Page, out: Path, counted: Counted, every: Results) -> Kept | None:
    """With what is kept at the budget nearest to the share of Figure 5, by this search or by
    another one of `every` that differs in the list of budgets alone."""
    search, frequencies = counted
    budgets = masks.sources(search, every)
    if not budgets:
        page.missing.append(f"snapshot of run {search['run_id']} (seed {search['seed']}): it names "
                            f"none")
        return None
    budget = choice.nearest({*budgets}, SHARE * search["num_embedding_params_dense"])
    source = budgets[budget]
    mask = masks.mask_of(page, out, source, budget)
    return None if mask is None else Kept(source, frequencies, mask.sum(axis=1), budget)


def _numbers(page: Page, trajectories: Results, kept: list[Kept]) -> None:
    """What each group keeps in the end, and how frequency and kept entries go together."""
    if trajectories:
        groups = trajectories[0]["sparsity"]["groups"]
        same = [run for run in trajectories if run["sparsity"]["groups"] == groups]
        page.numbers += [number(f"share kept at the end of the search, {_label(group)}", same,
                                partial(_kept_at_end, i), form=".3f")
                         for i, group in enumerate(groups)]
    if kept:
        correlations = {part.search["run_id"]: masks.rank_correlation(part.frequencies,
                                                                      part.entries)
                        for part in kept}
        page.numbers.append(number("correlation of frequency and kept entries (ranks)",
                                   [part.search for part in kept],
                                   lambda run: correlations[run["run_id"]], form=".3f"))
        page.rows += [{"panel": "result", "seed": part.search["seed"], "budget": part.budget,
                       "rank_correlation": correlations[part.search["run_id"]],
                       RUNS: runs_of([part.search])}
                      for part in kept]
    for run in trajectories:
        groups = [_label(group) for group in run["sparsity"]["groups"]]
        for line in run["sparsity"]["lines"]:
            page.rows += [{"panel": "b", "seed": run["seed"], "epoch": line["epoch"],
                           "group": group, "kept_mean": round(1 - mean, 6), "kept_std": std,
                           RUNS: runs_of([run])}
                          for group, mean, std in zip(groups, line["mean"], line["std"],
                                                      strict=True)]


def _kept_at_end(group: int, search: dict[str, Any]) -> float:
    return 1 - search["sparsity"]["lines"][-1]["mean"][group]


def density(frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (PLACES,) and the density of features there, per decade: Gaussian kernels of
    Scott's width.

    Args:
        frequencies: (N,) from 1 up.

    >>> places, densities = density(np.array([1, 10, 100, 100]))
    >>> bool(abs(np.trapezoid(densities, np.log10(places)) - 1) < 0.01)
    True
    """
    values, counts = np.unique(frequencies, return_counts=True)
    logarithms = np.log10(values)
    mean = np.average(logarithms, weights=counts)
    # all alike: any width will do
    spread = np.sqrt(np.average((logarithms - mean) ** 2, weights=counts)) or 1.0
    width = spread * len(frequencies) ** -0.2
    places = np.linspace(logarithms[0] - 4 * width, logarithms[-1] + 4 * width, PLACES)
    kernels = np.exp(-0.5 * ((places[:, None] - logarithms)
                             / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return 10 ** places, kernels @ (counts / counts.sum())


def _density(page: Page, axes: Axes, part: Counted) -> None:
    """(a): a density over log10 of the frequency; features that the training rows lack have no
    logarithm."""
    seen = part.frequencies[part.frequencies > 0]
    places, densities = density(seen)
    axes.fill_between(places, densities, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(places, densities, color=BLUE, linewidth=1.2)
    axes.set_ylim(bottom=0)
    absent = len(part.frequencies) - len(seen)
    axes.set_title("(a)" + (f" without {absent:,} unseen features" if absent else ""), fontsize=7)
    axes.set_xscale("log")
    by_epoch.finish(axes, "frequency of a feature", "density (per decade)")
    page.rows += [{"panel": "a", "seed": part.search["seed"], "frequency": place, "density": value,
                   RUNS: runs_of([part.search])} for place,
                  value in zip(places, densities, strict=True)]


def _trajectory(axes: Axes, search: dict[str, Any]) -> None:
    """(b): mean and spread of the kept share, light for rare and dark for frequent features."""
    groups, lines = search["sparsity"]["groups"], search["sparsity"]["lines"]
    colours = matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1, len(groups)))
    epochs = [line["epoch"] for line in lines]
    for i, group in enumerate(groups):
        kept = 1 - np.array([line["mean"][i] for line in lines])
        spread = np.array([line["std"][i] for line in lines])
        axes.fill_between(epochs, np.clip(kept - spread, 0, 1), np.clip(kept + spread, 0, 1),
                          color=colours[i],
                          alpha=0.15, linewidth=0)
        axes.plot(epochs, kept, color=colours[i], linewidth=1.2, label=_label(group))
    axes.set_title("(b)", fontsize=7)
    by_epoch.finish(axes, "epoch of the search", "share kept of a vector")


def _heat_map(page: Page, axes: Axes, part: Kept) -> None:
    """(c): the number of features in each cell of frequency and kept entries."""
    seen = part.frequencies > 0
    width = part.search["settings"]["latent_dim"]
    # whole: none is empty
    across = np.unique(np.logspace(0, np.log10(part.frequencies.max() + 1), BINS + 1).round())
    step = -(-width // LEVELS)
    # features that keep nothing have a level of their own
    up = np.array([0, *range(1, width + 1 + step, step)])
    counts, _, _ = np.histogram2d(part.frequencies[seen], part.entries[seen], bins=(across, up))
    mesh = axes.pcolormesh(across, up, np.ma.masked_equal(counts.T, 0), cmap="viridis_r",
                           norm=LogNorm(1, max(counts.max(), 2)))
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label("features", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    axes.set_xscale("log")
    axes.set_title(f"(c) at {part.budget:,} parameters", fontsize=7)
    by_epoch.finish(axes, "frequency of a feature", "kept entries of its vector")
    page.rows += [{"panel": "c", "seed": part.search["seed"], "budget": part.budget,
                   "frequency_from": across[i],
                   "frequency_to": across[i + 1], "kept_from": up[j], "kept_to": up[j + 1],
                   "features": int(counts[i, j]), RUNS: runs_of([part.search])} for i,
                  j in np.argwhere(counts)]


def _label(group: dict[str, Any]) -> str:
    """A group by how often its features occur.

    >>> _label({"features": 9, "least": 5, "most": 1200})
    '5 to 1,200'
    """
    return f"{group['least']:,} to {group['most']:,}"
