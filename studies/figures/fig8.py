"""Figures 8 (Criteo), 9 (Avazu), and the same for other data: is it the mask, its first values, or
the retraining?

Test log-loss and test AUC by epoch of the winning ticket, of its mask on fresh values, and of the
base model; the pruned table as the search left it is a level. The paper shows FM and does not say
at which number of parameters; here it is the budget nearest to 9 % of the table, among those that
were retrained from fresh values too.
"""

from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

from studies import choice
from studies.figures import budget_curve, by_epoch, name_of
from studies.figures.fig10 import SHARE
from studies.figures.styles import NO_RETRAINING, RE_INIT, STYLES
from studies.kinds import PEP, Results
from studies.page import RUNS, Number, Page, number, runs_of, shown

SIZE = (7.0, 2.8)  # inches: both columns of a page
MEASURES = {"test_logloss": "test log-loss", "test_auc": "test AUC"}
LEVEL = "no retraining"


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/.
    """
    name = name_of("fig8", dataset)
    figure = f"Figure {name[3:]}" if dataset in ("criteo", "avazu") else "As Figures 8 and 9"
    page = Page(name, dataset, model,
                f"{figure}: ticket, fresh values, no retraining and base model, {shown(model)} on "
                f"{shown(dataset)}")
    found = choice.of(page, results, model, kinds=("pep", PEP, "uniform"))
    budget = _budget(found)
    at = f" at {budget:,} parameters" if budget else ""
    tickets, fresh = (choice.chosen(page, name + at,
                                    [ticket for ticket in choice.tickets(found, re_init)
                                                      if choice.budget_of(ticket) == budget], found)
                      for name,
                      re_init in (("winning ticket", False), ("re-initialised ticket", True)))
    width = _width(found)
    base = choice.chosen(page, f"base model, uniform d {width}" if width else "base model, uniform",
                         choice.uniform(found, width), found)
    lines = []
    for label, style, runs in (("winning ticket", STYLES[PEP], tickets),
                               ("fresh values", RE_INIT, fresh),
                               ("base model", STYLES["uniform"], base)):
        page.rows += by_epoch.results_as_rows(label, runs, ("num_embedding_params", *MEASURES))
        page.numbers += [number(f"{name}, {label}", runs, itemgetter(field))
                         for field, name in MEASURES.items() if runs]
        if line := by_epoch.line_of(page, out, label, style, runs):
            lines.append(line)
            page.rows += by_epoch.rows("curves", line, tuple(MEASURES))
    levels = _levels(page, tickets or fresh)
    page.notes.append("The paper has the winning ticket learn faster and end better than its mask "
                      "on fresh values, and above the base model; it gives its values in the "
                      "pictures alone, so that no number of its own stands beside ours.")
    page.notes.append("Tickets start every weight from the search's initial values. Fresh values "
                      "are new random ones of the table alone: the rest starts from the search's "
                      "initial values there too, so that the two differ in the table's values and "
                      "in nothing else. The published code draws the rest anew as well.")
    page.notes.append(
        f"Test scores by epoch; tickets{at or ' at a budget'}, base model d "
        f"{width or '?'}. The level is the pruned table as the search left it. "
        f"{by_epoch.LEGEND} The numbers are those of the epoch that validation chose."
    )
    if lines:
        draw(page, lines, levels)
    return page


def draw(page: Page, lines: list[by_epoch.Line], levels: list[Number]) -> None:
    """Log-loss beside AUC, one legend below."""
    page.figure = budget_curve.new_figure(SIZE)
    panels = page.figure.subplots(1, 2)
    colour, _, dashes = NO_RETRAINING
    for axes, (field, label) in zip(panels, MEASURES.items(), strict=True):
        by_epoch.draw(axes, lines, field, label)
        for level in levels:
            if level.what.startswith(f"{label},"):
                axes.axhline(sum(level.values) / len(level.values), color=colour, linestyle=dashes,
                             linewidth=1.3,
                             label=LEVEL)
    handles, labels = panels[0].get_legend_handles_labels()
    page.figure.legend(handles, labels, fontsize=6.5, frameon=False, loc="outside lower center",
                       ncols=4)
    page.figure.suptitle(page.title, fontsize=8)


def _budget(found: Results) -> int:
    """Of the tickets to show; 0 without any."""
    plain = {choice.budget_of(ticket) for ticket in choice.tickets(found)}
    fresh = {choice.budget_of(ticket) for ticket in choice.tickets(found, re_init=True)}
    budgets = (plain & fresh) or plain or fresh
    tickets = choice.tickets(found) + choice.tickets(found, re_init=True)
    return choice.nearest(budgets, SHARE
                          * tickets[0]["num_embedding_params_dense"]) if budgets else 0


def _width(found: Results) -> int:
    """Of the searched table; 0 without a search or ticket."""
    widths = [run["settings"]["latent_dim"] for run in choice.tickets(found)
              + choice.searches(found)]
    return max(widths, key=widths.count, default=0)


def _levels(page: Page, tickets: list[dict[str, Any]]) -> list[Number]:
    """What the snapshots scored in the search's own model, before any retraining."""
    for ticket in tickets:
        if "without_retraining" not in ticket["snapshot"]:
            page.missing.append(f"{LEVEL}, seed {ticket['seed']}: the snapshot of run "
                                f"{ticket['run_id']} has no `without_retraining`; search again "
                                f"with --force")
    scored = [ticket for ticket in tickets if "without_retraining" in ticket["snapshot"]]
    page.rows += [{"panel": "result", "line": LEVEL, "seed": ticket["seed"],
                   "num_embedding_params": ticket["num_embedding_params"],
                   **{field: _unretrained(field)(ticket) for field in MEASURES},
                   RUNS: runs_of([ticket])} for ticket in scored]
    made = [number(f"{name}, {LEVEL}", scored, _unretrained(field))
            for field, name in MEASURES.items() if scored]
    page.numbers += made
    return made


def _unretrained(field: str) -> Callable[[dict[str, Any]], float]:
    return lambda ticket: ticket["snapshot"]["without_retraining"][field]
