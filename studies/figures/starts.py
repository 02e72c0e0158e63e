"""Beyond the paper: where thresholds start, with and without the published penalty.

The published code has one start a data set. Here each of `studies.starts` is searched with one
seed at the paper's smallest budget; the one with the best validation AUC gets all seeds and
budgets. The page compares those of the most seeds.
"""

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from studies import pooling, starts
from studies.figures import budget_curve, by_epoch
from studies.figures.styles import GREEN, INK, RED, STYLES, Style
from studies.figures.table4 import PAPER, beside_paper, method_of
from studies.kinds import PEP, Results
from studies.page import RUNS, Page, number, runs_of, shown
from studies.starts import PUBLISHED, Curves, Start, Starts, by_start
from studies.table import Table, spread

SIZE = (3.4, 2.7)  # inches: one column of a page
PUBLISHED_STYLE, CHOSEN_STYLE, OTHER_STYLE = STYLES[PEP], (RED, "D", "-"), (GREEN, "s", "--")
HEAD = ("start", "l2_penalty", "rewound", "entries the search ends with", "epochs", "ticket",
        "validation AUC", "test AUC", "published protocol", "seeds")
NOTE = ("Tickets at the paper's smallest budget, best validation AUC first; those with the "
        "embedding alone rewound, or with a first-order part that the model has not by default, "
        "are for comparison and are not chosen. † cut from the search's "
        "last table, because its thresholds do not get that low. *published protocol*: the mean of "
        "per-batch test AUCs at the best test epoch. Bars are one standard deviation over seeds.")


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model; `out` is not looked at.

    Args:
        results: of any data sets and models.
    """
    page = Page("starts", dataset, model,
                f"Where thresholds start, {shown(model)} on {shown(dataset)}")
    found = starts.runs_of_every_start(page, results, model)
    method = method_of(dataset, model)
    if method is None:
        page.list_missing(f"the paper's budget for {shown(model)} on {shown(dataset)}")
        return page
    budget = PAPER[dataset][method].params
    by_budget = by_start(found)
    at_paper = by_budget.get(budget, {})
    if starts.chosen(at_paper) is None:
        page.list_missing(f"no ticket of {budget:,} parameters")
        return page
    searches = pooling.by_run(found)
    page.tables.append(_table(at_paper, searches))
    curves = starts.drawn(by_budget, budget)
    for start, by_size in curves.items():
        for size, runs in by_size.items():
            made = number(f"test AUC at {size:,} parameters, {start.words}", runs,
                          itemgetter("test_auc"))
            page.numbers.append(beside_paper(page, method, made, runs) if size == budget else made)
    every = [*at_paper.values(), *chain.from_iterable(by_size.values()
                                                      for by_size in curves.values())]
    page.behind = list(pooling.by_run(list(chain.from_iterable(every))).values())
    page.rows = [_row(run, searches) for run in page.behind]
    page.notes.append(NOTE)
    for init in starts.INITS:
        absent = [f"{penalty:g}" for penalty in starts.PENALTIES
                  if Start(init, penalty, "all") not in at_paper]
        if absent:
            page.missing.append(f"start {init:g}: no ticket with l2_penalty {', '.join(absent)}; "
                                f"`python reproduce.py starts --model {model} --dry-run` says how "
                                f"long they take")
    _draw(page, curves, budget, PAPER[dataset][method].auc)
    return page


def _table(found: Starts, searches: dict[str, dict[str, Any]]) -> Table:
    ordered = sorted(found.items(), key=lambda item: -starts.mean(item[1], "validation_auc"))
    rows: list[Sequence[Any]] = []
    for start, runs in ordered:
        parents = [searches[run["snapshot"]["run_id"]] for run in runs]
        cut = "†" if any(run["snapshot"]["source"] == "cut_last" for run in runs) else ""
        part = ", first-order part" if start.first_order else ""
        rows.append((f"{start.init:g}{part}", f"{start.penalty:g}", start.rewind,
                     spread([run["num_embedding_params"] for run in parents], ",.0f"),
                     spread([run["epochs"] for run in parents], ".0f"),
                     f"{runs[0]['num_embedding_params']:,} {cut}".strip(),
                     spread([run["validation_auc"] for run in runs]),
                     spread([run["test_auc"] for run in runs]),
                     spread([run["published_protocol"]["best_test_auc"] for run in runs]),
                     str(len(runs))))
    return Table(HEAD, rows)


def _row(run: dict[str, Any], searches: dict[str, dict[str, Any]]) -> dict[str, Any]:
    parent = searches[run["snapshot"]["run_id"]]
    return {"threshold_init": parent["settings"]["threshold_init"],
            "l2_penalty": run["settings"].get("l2_penalty", 0.0),
            "rewind": run["settings"].get("rewind", "embedding"),
            "with_linear": run["settings"].get("with_linear", False), "seed": run["seed"],
            "parameters": run["num_embedding_params"],
            "entries_of_the_search": parent["num_embedding_params"],
            "epochs_of_the_search": parent["epochs"], "validation_auc": run["validation_auc"],
            "test_auc": run["test_auc"], "test_logloss": run["test_logloss"],
            "published_protocol_auc": run["published_protocol"]["best_test_auc"],
            RUNS: runs_of([run])}


def _look(start: Start, chosen: Start) -> tuple[str, Style]:
    if start == PUBLISHED:
        return "published: ", PUBLISHED_STYLE
    return ("chosen: ", CHOSEN_STYLE) if start == chosen else ("", OTHER_STYLE)


def _draw(page: Page, curves: Curves, budget: int, paper: float) -> None:
    page.figure = budget_curve.new_figure(SIZE)
    axes = page.figure.subplots()
    chosen = next((start for start in curves if start != PUBLISHED), PUBLISHED)
    for start, by_size in curves.items():
        points = [(size, [run["test_auc"] for run in runs]) for size, runs in by_size.items()]
        words, look = _look(start, chosen)
        budget_curve.with_bars(axes, points, words + start.words, look)
    axes.plot([budget], [paper], color=INK, marker="*", markersize=8, linestyle="none",
              label="paper")
    budget_curve.log_sizes(axes)
    by_epoch.finish(axes, "embedding parameters", budget_curve.score_label("test AUC", True))
    axes.legend(fontsize=6, frameon=False)
    page.figure.suptitle(page.title, fontsize=8)
