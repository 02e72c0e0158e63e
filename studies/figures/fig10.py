"""Figure 10: thresholds of four granularities, parameters and test AUC after retraining by epoch.

The paper shows FM on MovieLens-1M and does not say which of each search's tables is retrained; here
it is, of each granularity, the ticket with the budget nearest to 9 % of the table, the share of
Figure 5 (23,675 of 264,256).
"""

from operator import itemgetter
from pathlib import Path

from matplotlib.ticker import FuncFormatter

from studies import choice
from studies.figures import budget_curve, by_epoch
from studies.figures.styles import GRANULARITIES
from studies.kinds import PEP, Results
from studies.page import Page, number, shown
from studies.series import from_last

SIZE = (7.0, 2.6)  # inches: both columns of a page
NAMES = {"global": "global", "dimension": "dimension", "feature": "feature",
         "feature_dim": "feature-dimension"}
SHARE = 23_675 / 264_256  # of the parameters, that Figure 5 keeps


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/.
    """
    page = Page("fig10", dataset, model,
                f"Figure 10: granularity of the thresholds, {shown(model)} on "
                                         f"{shown(dataset)}")
    found = choice.of(page, results, model, kinds=("pep", PEP))
    left, right = [], []
    for granularity, name in NAMES.items():
        searches = choice.chosen(page, f"search with {name} thresholds",
                                 choice.searches(found, granularities=(granularity,)), found)
        if searches:
            page.numbers.append(number(f"parameters at the end of the search, {name}", searches,
                                       itemgetter("num_embedding_params"), form=",.0f"))
        if line := by_epoch.line_of(page, out, name, GRANULARITIES[granularity], searches):
            left.append(line)
        tickets = nearest_tickets(page, name, choice.tickets(found, granularities=(granularity,)),
                                  found)
        label = f"{name}, {choice.budget_of(tickets[0]):,}{_mark(tickets)}" if tickets else name
        if line := by_epoch.line_of(page, out, label, GRANULARITIES[granularity], tickets):
            right.append(line)
        page.rows += by_epoch.results_as_rows(name, [*searches, *tickets],
                                              ("num_embedding_params", "test_auc"))
    for line in left:
        page.rows += by_epoch.rows("search", line, ("num_embedding_params",))
    for line in right:
        page.rows += by_epoch.rows("retraining", line, ("test_auc",))
    page.notes.append("The paper has feature-dimension thresholds prune most and score best after "
                      "retraining; it gives its values in the picture alone, so that no number of "
                      "its own stands beside ours.")
    page.notes.append("Left: non-zero parameters while the search goes on. Right: test AUC while "
                      "the ticket of the budget in the legend is retrained; the paper does not say "
                      f"which it shows. † cut from the search's last table, because the search "
                      f"itself does not get that low. {by_epoch.LEGEND}")
    if left or right:
        draw(page, left, right)
    return page


def nearest_tickets(page: Page, name: str, tickets: Results, found: Results) -> list[dict]:
    """The tickets of the budget that is nearest to Figure 5's share of the table."""
    budgets = {choice.budget_of(ticket) for ticket in tickets}
    if not budgets:
        return choice.chosen(page, f"retrained ticket with {name} thresholds", [], found)
    budget = choice.nearest(budgets, SHARE * tickets[0]["num_embedding_params_dense"])
    taken = choice.chosen(page, f"retrained ticket with {name} thresholds at {budget:,} parameters",
                          [ticket for ticket in tickets if choice.budget_of(ticket) == budget],
                          found)
    if not taken:
        return []
    page.numbers.append(number(f"test AUC of the ticket at {budget:,} parameters, "
                               f"{name}{_mark(taken)}", taken,
                               itemgetter("test_auc")))
    return taken


def _mark(tickets: Results) -> str:
    return " †" if from_last(tickets) else ""


def draw(page: Page, left: list[by_epoch.Line], right: list[by_epoch.Line]) -> None:
    """Both panels, side by side."""
    page.figure = budget_curve.new_figure(SIZE)
    panels = page.figure.subplots(1, 2)
    for axes, lines, quantity, label in ((panels[0], left, "num_embedding_params",
                                          "embedding parameters"),
                                         (panels[1], right, "test_auc",
                                          "test AUC while retraining")):
        by_epoch.draw(axes, lines, quantity, label)
        if lines:
            axes.legend(fontsize=6.5, frameon=False)
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda count, _: budget_curve.short(count)))
    page.figure.suptitle(page.title, fontsize=8)
