"""Figure 5: which fields interact, before and after pruning.

The paper (5.3): "Each value in the matrix is the normalized average of the absolute value of those
two field features' dot product result." How it normalises is not spelt out. Here the value of two
fields is the mean of |v . w| over all pairs of their features' vectors, divided by the sum over all
pairs of two different fields (both triangles), so that the off-diagonal part sums to 1. Two
features of one field never meet in a row, so the diagonal is left empty.

Before: the trained uniform table as wide as the search's. After: the retrained ticket whose budget
is nearest to the paper's share of the table, 23,675 of 264,256 parameters. Matrices are means over
seeds.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from safetensors import SafetensorError, safe_open

from studies import choice, curves
from studies.figures import budget_curve
from studies.figures.fig10 import SHARE
from studies.kinds import PEP, Results
from studies.page import RUNS, Page, number, runs_of, shown

SIZE = (7.0, 3.1)  # inches: both columns of a page
WEIGHTS = "model.safetensors"  # of a run's folder
SAMPLE = 4096  # features of a field that are looked at; a larger field is thinned evenly
ANNOTATED = 10  # fields up to which the values are written into their cells
Data = dict[str, dict[str, int]]  # manifest -> field -> its features, in the table's order
# a mean matrix, and the runs that it is made from
Found = tuple[np.ndarray | None, list[dict[str, Any]]]
PAPER = {("movielens", "fm"): (264_256, 23_675)}  # parameters before and after


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/.
    """
    page = Page("fig5", dataset, model,
                f"Figure 5: interaction of fields, {shown(model)} on {shown(dataset)}")
    found = choice.of(page, results, model, kinds=("pep", PEP, "uniform"))
    tickets = choice.tickets(found)
    width = tickets[0]["settings"]["latent_dim"] if tickets else 0
    budgets = {choice.budget_of(ticket) for ticket in tickets}
    budget = choice.nearest(budgets, SHARE
                            * tickets[0]["num_embedding_params_dense"]) if budgets else 0
    before = choice.chosen(page, f"uniform d {width}" if width
                           else "uniform, as wide as the search's table",
                           choice.uniform(found, width), found)
    after = choice.chosen(page, f"retrained ticket at {budget:,} parameters" if budget
                          else "retrained ticket",
                          [ticket for ticket in tickets if choice.budget_of(ticket) == budget],
                          found)
    papers = PAPER.get((dataset, model), (None, None))
    for name, runs, paper in (("without", before, papers[0]), ("with", after, papers[1])):
        page.rows += [{"panel": f"{name} pruning", "seed": run["seed"],
                       "parameters": run["num_embedding_params"],
                       RUNS: runs_of([run])} for run in runs]
        if runs:
            made = number(f"parameters {name} pruning", runs, itemgetter("num_embedding_params"),
                          paper, form=",.0f")
            page.numbers.append(made._replace(why="the nearest there is" if made.difference
                                              else ""))
    data = fields_by_manifest(results)
    matrices = [_mean_matrix(page, out, runs, data) for runs in (before, after)]
    fields = _fields([*matrices[0][1], *matrices[1][1]], data)
    page.notes.append("Mean |v . w| over the pairs of two fields' features, as shares of the sum "
                      "over all pairs of two different fields; means over seeds. The paper does "
                      f"not spell its normalisation out, and gives its values in the picture "
                      f"alone. Fields of more than {SAMPLE:,} features are thinned evenly to so "
                      f"many.")
    _fill(page, fields, *matrices)
    return page


def fields_by_manifest(results: Results) -> Data:
    """Sizes of the fields in the table's order; older results lack it, newer ones of the same data
    have it."""
    return {run["manifest"]: {name: run["data"]["field_sizes"][name]
                              for name in run["data"]["fields"]}
            for run in results if "fields" in run.get("data", {})}


def interactions(table: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Normalised mean absolute dot products of fields, (F, F), with an empty (NaN) diagonal.

    Args:
        table: (N, D), the rows of one field after another.
        sizes: of the fields; they sum to N.

    Raises:
        ValueError: they do not, or no two fields interact at all.

    >>> table = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
    >>> interactions(table, [2, 1, 1]).round(3).tolist()
    [[nan, 0.125, 0.125], [0.125, nan, 0.25], [0.125, 0.25, nan]]
    """
    if sum(sizes) != len(table):
        raise ValueError(f"the fields have {sum(sizes)} features, the table has {len(table)} rows")
    ends = np.cumsum(sizes)
    parts = [_thinned(table[end - size:end]) for end, size in zip(ends, sizes, strict=True)]
    matrix = np.full((len(sizes), len(sizes)), np.nan)
    for i, j in itertools.combinations(range(len(sizes)), 2):
        matrix[i, j] = matrix[j, i] = np.abs(parts[i] @ parts[j].T).mean()
    total = np.nansum(matrix)
    if not total > 0:
        raise ValueError("no two fields interact: the table is empty")
    return matrix / total


def interactions_of(path: Path, run_id: str, sizes: Mapping[str, int]) -> np.ndarray:
    """`interactions` of a run's weights, or what is shipped of them.

    Args:
        sizes: of the fields, by name, in the table's order.

    Raises:
        FileNotFoundError: there are no weights, and nothing is shipped.
        ValueError: the weights cannot be read, or are no such table.
    """
    if path.exists():
        return interactions(table_of(path), list(sizes.values()))
    return curves.interactions(run_id, list(sizes))


def table_of(path: Path) -> np.ndarray:
    """The embedding table (N, D) of a run's weights; a ticket's is zero outside its mask.

    Raises:
        ValueError: the file cannot be read, or holds no such table.
    """
    try:
        with safe_open(path, framework="np") as opened:
            names = json.loads(opened.metadata()["content"])["model"]
            table = opened.get_tensor(names["embedding.weight"]["$tensor"])
            mask = names.get("embedding.mask")
            return table if mask is None else table * opened.get_tensor(mask["$tensor"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({error!r})") from error


def _thinned(vectors: np.ndarray) -> np.ndarray:
    """At most SAMPLE rows, evenly spaced."""
    if len(vectors) <= SAMPLE:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, SAMPLE).round().astype(np.int64)]


def _mean_matrix(page: Page, out: Path, runs: Results, data: Data) -> Found:
    """The runs' mean matrix; runs without one are named among what is missing.

    Args:
        data: field sizes by manifest. Older results lack them, but newer ones of the same data have
            them.
    """
    matrices, used = [], []
    for run in runs:
        which = f"run {run['run_id']} (seed {run['seed']})"
        path, file = out / "runs" / run["run_id"] / WEIGHTS, f"{run['run_id']}/{WEIGHTS}"
        if run["manifest"] not in data:
            page.missing.append(f"{which} has no `data.fields`: it is older, and the order of its "
                                "fields in the table is not known")
        else:
            try:
                matrices.append(interactions_of(path, run["run_id"], data[run["manifest"]]))
                used.append(run)
                page.drawn.add(file)
            except FileNotFoundError:
                page.lose(file, f"the table of {which}: its folder has no {WEIGHTS}")
            except ValueError as error:
                page.lose(file, f"the table of {which}: {error}")
    return (np.mean(matrices, axis=0) if matrices else None), used


def _fields(runs: Results, data: Data) -> list[str]:
    """Names of the fields.

    Raises:
        ValueError: the runs have different fields.
    """
    names = [list(data[run["manifest"]]) for run in runs]
    if any(other != names[0] for other in names):
        raise ValueError(f"the runs {runs_of(runs)} have different fields: they are of different "
                         f"data")
    return names[0] if names else []


def _fill(page: Page, fields: list[str], before: Found, after: Found) -> None:
    """Rows and picture of the matrices that there are."""
    (dense, dense_runs), (pruned, pruned_runs) = before, after
    shown_matrices = {"without_pruning": dense, "with_pruning": pruned,
                      "difference": pruned - dense if dense is not None and pruned is not None
                      else None}
    there = {name: matrix for name, matrix in shown_matrices.items() if matrix is not None}
    if not there:
        return
    for i, j in itertools.combinations(range(len(fields)), 2):
        page.rows.append({"panel": "interaction", "field": fields[i], "other_field": fields[j],
                          **{name: matrix[i, j] for name, matrix in there.items()},
                          RUNS: runs_of([*dense_runs, *pruned_runs])})
    counts = {"without_pruning": dense_runs, "with_pruning": pruned_runs}
    page.figure = budget_curve.new_figure(SIZE)
    panels = page.figure.subplots(1, len(there), squeeze=False)[0]
    # one scale for both
    largest = max(float(np.nanmax(there[name])) for name in counts if name in there)
    for axes, (name, matrix) in zip(panels, there.items(), strict=True):
        runs = counts.get(name)
        axes.set_title(f"{name.replace('_', ' ')}, {runs[0]['num_embedding_params']:,} parameters"
                       if runs else name,
                       fontsize=7)
        image = _heat_map(axes, matrix, fields, largest if name in counts else None)
        bar = page.figure.colorbar(image, ax=axes, location="bottom", shrink=0.8, pad=0.02,
                                   ticks=MaxNLocator(5))
        bar.ax.tick_params(labelsize=6)
        if axes is not panels[0]:
            axes.set_yticklabels([])
    page.figure.suptitle(page.title, fontsize=8)


def _heat_map(axes: Axes, matrix: np.ndarray, fields: list[str],
              largest: float | None) -> AxesImage:
    """One matrix; shares from white to blue, differences (no `largest`) from red for less over
    white to blue."""
    differs = largest is None
    bound = float(np.nanmax(np.abs(matrix))) if largest is None else largest
    image = axes.imshow(matrix, cmap="RdBu" if differs else "Blues", vmin=-bound if differs else 0,
                        vmax=bound)
    axes.set_xticks(range(len(fields)), fields, rotation=90)
    axes.set_yticks(range(len(fields)), fields)
    axes.tick_params(labelsize=6, length=0)
    if len(fields) <= ANNOTATED:
        for (i, j), value in np.ndenumerate(matrix):
            if i != j:
                dark = abs(value) > 0.6 * bound
                axes.text(j, i, _brief(value), ha="center", va="center", fontsize=5,
                          color="white" if dark else "black")
    return image


def _brief(value: float) -> str:
    """As a cell shows it.

    >>> _brief(0.0241), _brief(-0.0021), _brief(-0.0001)
    ('.024', '-.002', '.000')
    """
    return f"{value:.3f}".replace("-0.000", "0.000").replace("0.", ".", 1)
