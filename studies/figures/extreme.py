"""Beyond the paper: the budget curve to the extreme, PEP against magnitude pruning and small
uniform tables.

The budgets hold the sizes of uniform tables of MovieLens-1M's 4,129 features, widths 16 to 1, so
that each of these has a ticket of exactly its size beside it. Below width 1 no uniform table goes.
"""

import math
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from studies import choice, paired
from studies.figures import budget_curve, by_epoch
from studies.figures.styles import STYLES
from studies.kinds import PEP, Results, kind
from studies.page import RUNS, Number, Page, number, runs_of, shown
from studies.series import from_last

SIZE = (7.0, 3.1)  # inches: both columns of a page
BUDGETS = (100_000, 66_064, 33_032, 16_516, 8_258, 4_129, 2_000, 1_000, 500)
WIDTHS = (16, 8, 4, 2, 1)
MAGNITUDE, UNIFORM = "magnitude pruning", "uniform"
NOTE = ("Left: test AUC against parameters, means over seeds and one standard deviation. Right: "
        "PEP's AUC less that of the other scheme at the same size, paired by seed, with the 95 % "
        "confidence interval of the mean (Student's t). A cross on the lower edge is a budget that "
        "no run of PEP has. The settings are the scripts' own, no scheme is tuned here. † cut from "
        "the search's last table.")

Sizes = dict[int, list[dict[str, Any]]]  # parameters -> runs by seed


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model; `out` is not looked at.

    Args:
        results: of any data sets and models.
    """
    page = Page("extreme", dataset, model,
                f"Budgets to the extreme, {shown(model)} on {shown(dataset)}")
    found = choice.of(page, results, model, kinds=("pep", PEP, MAGNITUDE, "uniform"))
    tickets = choice.tickets(found)
    cut = [run for run in found if run["stage"] == "retrain" and kind(run) == MAGNITUDE]
    curves: dict[str, Sizes] = {PEP: _by_budget(page, PEP, tickets, found),
                                MAGNITUDE: _by_budget(page, MAGNITUDE, cut, found), UNIFORM: {}}
    for width in WIDTHS:
        if runs := choice.chosen(page, f"uniform d {width}", choice.uniform(found, width), found):
            curves[UNIFORM][runs[0]["num_embedding_params"]] = runs
    for scheme, sizes in curves.items():
        for size, runs in sorted(sizes.items(), reverse=True):
            cut_off = " †" if from_last(runs) else ""
            page.numbers.append(number(f"test AUC, {scheme} at {size:,} parameters{cut_off}", runs,
                                       lambda run: run["test_auc"]))
            page.rows += [{"panel": "curve", "scheme": scheme, "parameters": size,
                           "seed": run["seed"],
                           "test_auc": run["test_auc"], "test_logloss": run["test_logloss"],
                           "cut_from_last_table": from_last([run]), RUNS: runs_of([run])}
                          for run in runs]
    gains = {scheme: _gains(page, curves[PEP], scheme, curves[scheme])
             for scheme in (MAGNITUDE, UNIFORM)}
    page.notes.append(NOTE)
    if any(curves.values()):
        _draw(page, curves, gains)
    return page


def _by_budget(page: Page, scheme: str, runs: Results, found: Results) -> Sizes:
    """Runs by budget; those of BUDGETS that have none are listed."""
    budgets = {choice.budget_of(run) for run in runs} | set(BUDGETS)
    return {budget: own for budget in sorted(budgets, reverse=True) if budget <= BUDGETS[0]
            and (own := choice.chosen(page, f"{scheme} at {budget:,} parameters",
                                      [run for run in runs if choice.budget_of(run) == budget],
                                      found))}


def _gains(page: Page, ours: Sizes, scheme: str, others: Sizes) -> dict[int, paired.Interval]:
    """PEP's AUC less the other's at the sizes that both have; numbers and rows of them."""
    gains = {}
    for size in sorted(set(ours) & set(others), reverse=True):
        if values := paired.differences(ours[size], others[size], "test_auc"):
            gain = gains[size] = paired.interval(values)
            page.numbers.append(Number(f"PEP less {scheme} at {size:,} parameters, paired", values,
                                       len(values),
                                       form="+.4f", beside=gain.words))
            page.rows.append({"panel": "difference", "scheme": scheme, "parameters": size,
                              "gain": gain.mean,
                              "half_of_interval": "" if math.isnan(gain.half) else gain.half,
                              "seeds": gain.seeds,
                              RUNS: runs_of([*ours[size], *others[size]])})
    return gains


def _draw(page: Page, curves: dict[str, Sizes],
          gains: dict[str, dict[int, paired.Interval]]) -> None:
    page.figure = budget_curve.new_figure(SIZE)
    left, right = page.figure.subplots(1, 2)
    for scheme, sizes in curves.items():
        if sizes:
            budget_curve.with_bars(left, [(size, [run["test_auc"] for run in runs]) for size,
                                          runs in sizes.items()],
                                   scheme, STYLES[scheme])
    for number_of, (scheme, by_size) in enumerate(gains.items()):
        _intervals(right, scheme, by_size, 1 + 0.04 * (2 * number_of - 1))
    several = any(len(runs) > 1 for runs in chain.from_iterable(
        sizes.values() for sizes in curves.values()))
    for axes, label in ((left, budget_curve.score_label("test AUC", several)),
                        (right, "PEP's AUC less the other's")):
        if axes is left or any(gains.values()):
            budget_curve.log_sizes(axes)
        by_epoch.finish(axes, "embedding parameters", label)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=6.5, frameon=False)
    if any(gains.values()):
        right.axhline(0, color=budget_curve.INK, linewidth=0.8)
    else:
        by_epoch.nothing(right, "no size that PEP and another have")
    page.figure.suptitle(page.title, fontsize=8)


def _intervals(axes: Axes, scheme: str, by_size: dict[int, paired.Interval], aside: float) -> None:
    """Means with their intervals; `aside` is a factor of the sizes, so that two schemes do not hide
    each other."""
    colour, marker, _ = STYLES[scheme]
    if by_size:
        halves = [0.0 if math.isnan(gain.half) else gain.half for gain in by_size.values()]
        axes.errorbar([aside * size for size in by_size], [gain.mean for gain in by_size.values()],
                      yerr=halves,
                      label=f"against {scheme}", color=colour, marker=marker, linestyle="none",
                      markersize=4,
                      linewidth=1.1, capsize=2)
