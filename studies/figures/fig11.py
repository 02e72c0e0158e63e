"""Figure 11: training loss with and without PEP. The paper shows FM on MovieLens-1M and on Criteo.

A search writes its mean loss over an epoch every few epochs, so that is what is drawn, of both; the
paper's Criteo panel has gradient steps below it.
"""

from operator import itemgetter
from pathlib import Path

from studies import choice
from studies.figures import budget_curve, by_epoch
from studies.figures.styles import STYLES
from studies.kinds import PEP, Results
from studies.page import Page, number, shown

SIZE = budget_curve.COLUMN


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/.
    """
    page = Page("fig11", dataset, model,
                f"Figure 11: training loss, {shown(model)} on {shown(dataset)}")
    found = choice.of(page, results, model, kinds=("pep", "uniform"))
    searches = choice.chosen(page, "search with feature-dimension thresholds",
                             choice.searches(found), found)
    width = searches[0]["settings"]["latent_dim"] if searches else 0
    base = choice.chosen(page, f"base model, uniform d {width}" if width else "base model, uniform",
                         choice.uniform(found, width), found)
    lines = []
    for label, style, runs in (("with PEP", STYLES[PEP], searches),
                               ("without PEP", STYLES["uniform"], base)):
        page.rows += by_epoch.results_as_rows(label, runs, ("train_loss",))
        if runs:
            page.numbers.append(number(f"training loss of the last epoch, {label}", runs,
                                       itemgetter("train_loss")))
        if line := by_epoch.line_of(page, out, label, style, runs):
            lines.append(line)
            page.rows += by_epoch.rows("curves", line, ("train_loss",))
    page.notes.append("The paper has the training loss with PEP converge, and below that without; "
                      "it gives its values in the pictures alone, so that no number of its own "
                      "stands beside ours.")
    page.notes.append("Mean training loss of an epoch. With PEP it is the search, which is never "
                      f"stopped early; the base model stops by validation. {by_epoch.LEGEND}")
    if lines:
        page.figure = budget_curve.new_figure(SIZE)
        axes = page.figure.subplots()
        by_epoch.draw(axes, lines, "train_loss", "training loss")
        axes.legend(fontsize=6.5, frameon=False)
        axes.set_title(f"{shown(model)} on {shown(dataset)}", fontsize=8)
    return page
