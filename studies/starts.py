"""PEP's tickets by the start of their searches' thresholds and by the published penalty."""

from collections import defaultdict
from typing import Any, NamedTuple

from studies import choice, pooling
from studies.kinds import PEP, Results
from studies.page import Page

INITS = (-15.0, -8.0, -6.0, -5.0, -4.0)
PENALTIES = (0.0, 3e-4, 1e-3)
LARGER = (100_000,)  # budgets above those of the other pages: the paper's curves have five points
# in a record's identity, where `l2_penalty` is the name of another setting
IN_IDENTITY = ("threshold_init", "vector_penalty")


class Start(NamedTuple):
    """How a search's thresholds are brought down, and what its ticket restarts."""

    init: float  # `threshold_init`
    penalty: float  # `l2_penalty`, of the search and the ticket
    rewind: str
    first_order: bool = False  # whether the model has the first-order part, AutoInt's `with_linear`

    @property
    def words(self) -> str:
        """For a legend.

        >>> Start(-5.0, 0.001, "all").words
        'start -5, l2_penalty 0.001'
        """
        penalty = f", l2_penalty {self.penalty:g}" if self.penalty else ""
        return f"start {self.init:g}{penalty}"

    @property
    def may_be_chosen(self) -> bool:
        """Whether it is of the page's own model, with every weight rewound."""
        return self.rewind == "all" and not self.first_order


Starts = dict[Start, list[dict[str, Any]]]
Curves = dict[Start, dict[int, list[dict[str, Any]]]]  # the tickets of a start by their budgets
PUBLISHED = Start(-15.0, 0.0, "all")  # of MovieLens-1M


def runs_of_every_start(page: Page, results: Results, model: str) -> list[dict[str, Any]]:
    """PEP's searches and tickets of a page's data set, whatever they start from."""
    return choice.of(page, results, model, kinds=("pep", PEP), tuned=True)


def mean(runs: Results, name: str) -> float:
    """Of a field of the results."""
    return sum(run[name] for run in runs) / len(runs)


def by_start(found: Results) -> dict[int, Starts]:
    """The tickets of each budget, one a seed, by the start of their searches; all else is as
    published.

    Args:
        found: tickets and their searches.
    """
    searches = pooling.by_run(found)
    plain = {run["run_id"]: _with_published_start(run) for run in found}
    groups: dict[int, Starts] = defaultdict(lambda: defaultdict(list))
    for ticket in choice.tickets(found) + choice.tickets(found, with_linear=True):
        parent = pooling.parent_of(ticket, searches)
        if parent is None:
            continue
        own, penalties = parent["settings"], [each["settings"].get("l2_penalty", 0.0)
                                              for each in (ticket, parent)]
        if penalties[0] == penalties[1] and pooling.published(plain[ticket["run_id"]], plain):
            rewind = ticket["settings"].get("rewind", "embedding")
            start = Start(own["threshold_init"], penalties[0], rewind,
                          own.get("with_linear", False))
            groups[choice.budget_of(ticket)][start].append(ticket)
    return {budget: {start: pooling.one_a_seed(runs) for start, runs in own.items()}
            for budget, own in sorted(groups.items())}


def chosen(starts: Starts) -> Start | None:
    """The start with the best mean validation AUC, among those of the most seeds that may be
    chosen; None without any."""
    whole = {start: runs for start, runs in starts.items() if start.may_be_chosen}
    most = max(map(len, whole.values()), default=0)
    return max((start for start, runs in whole.items() if len(runs) == most),
               key=lambda start: mean(whole[start], "validation_auc"), default=None)


def first_choice(starts: Starts, seed: int) -> Start | None:
    """The start with the best validation AUC with one seed, to be run with the others; None without
    any."""
    of_seed: dict[Start, float] = {}
    for start, runs in starts.items():
        scores = {run["seed"]: run["validation_auc"] for run in runs}
        if start.may_be_chosen and seed in scores:
            of_seed[start] = scores[seed]
    return max(of_seed, key=lambda start: of_seed[start], default=None)


def drawn(found: dict[int, Starts], budget: int) -> Curves:
    """The tickets, by budget, of each start that pictures show: the published one; if another is
    chosen at a budget, that one next; last, if a third has as many seeds there and was run at more
    budgets, the third."""
    at_budget = found.get(budget, {})
    best = chosen(at_budget)
    if best is None:
        return {}
    curves = {start: {size: runs[start] for size, runs in found.items() if start in runs}
              for start in (PUBLISHED, *at_budget)}
    others = [start for start, runs in at_budget.items() if start.may_be_chosen
              and start != PUBLISHED and len(runs) == len(at_budget[best])]
    order = [PUBLISHED]
    if best != PUBLISHED:
        order += [best, max(others, key=lambda start: (len(curves[start]), start == best))]
    return {start: curves[start] for start in order if curves[start]}


def of_other_starts(results: Results, dataset: str, model: str, budget: int) -> Curves:
    """`drawn` without the published start."""
    page = Page("starts", dataset, model, "")  # collects notes that the page of starts has
    curves = drawn(by_start(runs_of_every_start(page, results, model)), budget)
    return {start: by_size for start, by_size in curves.items() if start != PUBLISHED}


def _with_published_start(run: dict[str, Any]) -> dict[str, Any]:
    """A record as if its search had started as published."""
    published = {"threshold_init": PUBLISHED.init, "l2_penalty": PUBLISHED.penalty}
    own = {name: value for name, value in run["identity"]["settings"].items()
           if name not in IN_IDENTITY}
    return {**run, "settings": {**run["settings"], **published},
            "identity": {**run["identity"], "settings": own}}
