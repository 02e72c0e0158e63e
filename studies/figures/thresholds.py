"""Beyond the paper: what moves PEP's thresholds, and does the mask that the loss had a say in
retrain better?

Searches with one cause taken away: decay on the thresholds coupled (as published), decoupled, none;
or no gradient of the loss to them, so that decay alone moves them. Let t be the decay-only
threshold. A pruned entry with |V| <= g(t) counts as pruned by decay, a pruned entry with |V| > g(t)
as pruned by the gradient, and an entry that is kept though |V| <= g(t) as kept by the gradient; V
is the search's own at that epoch (`engine.pep.threshold_trace`). Without coupled decay t does not
move, or hardly (decoupled decay takes the share lr times decay off s at a step, 1e-8 as published).
Then the entries below it are values that decayed to 0 themselves, of rows without data.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from studies import choice, masks, paired
from studies.choice import PUBLISHED, Cause
from studies.figures import budget_curve, by_epoch
from studies.figures.styles import GREEN, NAVY, PALE, RED, SLATE, STYLES, Style
from studies.kinds import PEP, Results
from studies.page import RUNS, Number, Page, needs, number, runs_of, shown

SIZE = (7.0, 2.9)  # inches: both columns of a page
DECAY_ONLY: Cause = ("coupled", False)
NAMES: dict[Cause, str] = {PUBLISHED: "coupled decay (PEP)",
                           DECAY_ONLY: "coupled decay, no loss gradient",
                           ("decoupled", True): "decoupled decay", ("none", True): "no decay"}
CAUSE_STYLES: dict[Cause, Style] = {PUBLISHED: STYLES[PEP], DECAY_ONLY: (NAVY, "^", "--"),
                             ("decoupled", True): (PALE, "D", "-."),
                             ("none", True): (SLATE, "s", ":")}
UNMOVED = {"none": "does not move", "decoupled": "hardly moves"}  # by threshold_decay
PRUNED_BY = {"pruned_by_decay": ("pruned by decay", NAVY, "--"),
             "pruned_by_gradient": ("pruned by the gradient", RED, "-"),
             "kept_by_gradient": ("kept by the gradient", GREEN, "-.")}
NOTE = ("Left: non-zero parameters while the search goes on, with one cause of pruning taken away. "
        "Middle: of the published search, entries that are pruned where decay alone would prune "
        "them too (by decay), that are pruned though it would not (by the gradient), and that are "
        "kept though it would prune them (kept by the gradient). Right: test AUC of both "
        f"masks, retrained with every weight from its initial value, at the budgets that both "
        f"have; bars are one standard deviation. {by_epoch.LEGEND} Differences are paired by seed, "
        f"with the 95 % confidence interval of their mean.")

# searches, each with the search that has the snapshot of each budget
Sources = list[tuple[dict[str, Any], dict[int, dict[str, Any]]]]


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/ and embedding/<model>/<alias>/.
    """
    page = Page("thresholds", dataset, model,
                f"What moves the thresholds, {shown(model)} on {shown(dataset)}")
    found = choice.of(page, results, model, kinds=("pep", PEP))
    searches, lines = {}, []
    every = {cause: choice.searches(found, cause) for cause in NAMES}
    for cause, name in NAMES.items():
        searches[cause] = choice.chosen(page, f"search with {name}", every[cause], found)
        if searches[cause]:
            page.numbers.append(number(f"parameters at the end of the search, {name}",
                                       searches[cause],
                                       lambda run: run["num_embedding_params"], form=",.0f"))
        if line := by_epoch.line_of(page, out, name, CAUSE_STYLES[cause], searches[cause]):
            lines.append(line)
    for line in lines:
        page.rows += by_epoch.rows("search", line, ("num_embedding_params",))
    recorded = {cause: needs(page, "thresholds", runs,
                             "it was searched before that was recorded; search again")
                for cause, runs in searches.items()}
    _causes(page, recorded)
    _overlap(page, out, *([(run, masks.sources(run, every[cause])) for run in searches[cause]]
                          for cause in (PUBLISHED, DECAY_ONLY)))
    tickets = {cause: _tickets(page, found, cause) for cause in (PUBLISHED, DECAY_ONLY)}
    _differences(page, tickets)
    page.notes.append(NOTE)
    if lines or any(tickets.values()):
        _draw(page, lines, recorded[PUBLISHED], tickets)
    return page


def _causes(page: Page, recorded: dict[Cause, list[dict[str, Any]]]) -> None:
    """Rows and numbers of what pruned the entries."""
    for cause, runs in recorded.items():
        for run in runs:
            page.rows += [{"panel": "causes", "line": NAMES[cause], "seed": run["seed"], **line,
                           RUNS: runs_of([run])} for line in run["thresholds"]["lines"]]
        for field, (what, *_) in PRUNED_BY.items() if runs else ():
            if field == "pruned_by_decay" and cause[0] in UNMOVED:
                what = (f"pruned as the value itself decayed to 0 (the decay-only threshold "
                        f"{UNMOVED[cause[0]]})")
            page.numbers.append(Number(f"{what} at the end, {NAMES[cause]}",
                                       [run["thresholds"]["lines"][-1][field] for run in runs],
                                       len(runs),
                                       form=",.0f"))


def _overlap(page: Page, out: Path, published: Sources, decay_only: Sources) -> None:
    """How much of the learned mask is in that of decay alone, of the same seed and budget, against
    chance."""
    by_seed = {run["seed"]: own for run, own in decay_only}
    shares: dict[int, list[float]] = defaultdict(list)
    for run, own in published:
        others = by_seed.get(run["seed"], {})
        for budget in sorted({*own} & {*others}, reverse=True):
            behind = [own[budget], others[budget]]
            first, second = (masks.mask_of(page, out, one, budget) for one in behind)
            if first is not None and second is not None:
                shares[budget].append(float((first & second).sum() / budget))
                page.rows.append({"panel": "overlap", "seed": run["seed"], "budget": budget,
                                  "overlap": shares[budget][-1], "by_chance": budget / first.size,
                                  RUNS: runs_of(behind)})
    if published and decay_only and not shares:
        page.missing.append("masks of both causes at one budget and seed")
    for budget, values in shares.items():
        chance = budget / published[0][0]["num_embedding_params_dense"]
        page.numbers.append(Number(f"share of the learned mask that decay alone keeps too, "
                                   f"{budget:,} parameters", values,
                                   len(values), form=".3f", beside=f"by chance {chance:.3f}"))


def _tickets(page: Page, found: Results, cause: Cause) -> dict[int, list[dict[str, Any]]]:
    """Retrained tickets of a cause's searches, by budget."""
    own = choice.tickets(found, moved_by=cause)
    if not own:
        choice.chosen(page, f"retrained ticket, {NAMES[cause]}", [], found)
    return {budget: taken for budget in sorted({choice.budget_of(run) for run in own}, reverse=True)
            if (taken := choice.chosen(page, f"retrained ticket, {NAMES[cause]}, at {budget:,} "
                                             f"parameters",
                                       [run for run in own if choice.budget_of(run) == budget],
                                       found))}


def _differences(page: Page, tickets: dict[Cause, dict[int, list[dict[str, Any]]]]) -> None:
    """Rows of both masks' scores, and their difference at the budgets that both have."""
    for cause, by_budget in tickets.items():
        for budget, runs in by_budget.items():
            page.rows += [{"panel": "retraining", "line": NAMES[cause], "seed": run["seed"],
                           "budget": budget, "test_auc": run["test_auc"],
                           "test_logloss": run["test_logloss"], RUNS: runs_of([run])}
                          for run in runs]
    for budget in sorted(set(tickets[PUBLISHED]) & set(tickets[DECAY_ONLY]), reverse=True):
        learned, decay_only = tickets[PUBLISHED][budget], tickets[DECAY_ONLY][budget]
        page.numbers += [number(f"test AUC at {budget:,} parameters, {name}", runs,
                                lambda run: run["test_auc"])
                         for name,
                         runs in (("learned mask", learned), ("mask of decay alone", decay_only))]
        if values := paired.differences(learned, decay_only, "test_auc"):
            gain = paired.interval(values)
            page.numbers.append(Number(f"learned less decay alone at {budget:,} parameters, paired",
                                       values,
                                       len(values), form="+.4f", beside=gain.words))


def _draw(page: Page, lines: Sequence[by_epoch.Line], published: Results,
          tickets: dict[Cause, dict[int, list[dict[str, Any]]]]) -> None:
    page.figure = budget_curve.new_figure(SIZE)
    left, middle, right = page.figure.subplots(1, 3)
    by_epoch.draw(left, lines, "num_embedding_params", "embedding parameters")
    _draw_causes(middle, published)
    both = [budget for budget in tickets[PUBLISHED] if tickets[DECAY_ONLY].get(budget)]
    for cause, by_budget in tickets.items() if both else ():
        budget_curve.with_bars(right, [(budget, [run["test_auc"] for run in by_budget[budget]])
                                       for budget in both],
                               NAMES[cause], CAUSE_STYLES[cause])
    if both:
        budget_curve.log_sizes(right)
    else:
        by_epoch.nothing(right, "no budget that both masks have")
    by_epoch.finish(right, "embedding parameters", "test AUC, retrained")
    for axes in (left, middle):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: budget_curve.short(count)
                                                     if count else "0"))
    if middle.get_legend_handles_labels()[0]:
        middle.legend(fontsize=6, frameon=False, loc="center right", handlelength=1.3,
                      bbox_to_anchor=(1.02, 0.35))
    budget_curve.legend_below(page.figure, (right, left))
    page.figure.suptitle(page.title, fontsize=8)


def _draw_causes(axes: Axes, runs: Results) -> None:
    """Means over seeds, as far as all go."""
    by_seed = [{line["epoch"]: line for line in run["thresholds"]["lines"]} for run in runs]
    epochs = sorted(set.intersection(*(set(lines) for lines in by_seed))) if by_seed else []
    for field, (label, colour, dashes) in PRUNED_BY.items() if epochs else ():
        means = [np.mean([lines[epoch][field] for lines in by_seed]) for epoch in epochs]
        axes.plot(epochs, means, color=colour, linestyle=dashes, linewidth=1.3, label=label)
    if not epochs:
        by_epoch.nothing(axes, "no search recorded it yet")
    by_epoch.finish(axes, "epoch", "entries")
