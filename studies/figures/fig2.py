"""Figures 2 (MovieLens-1M), 3 (Criteo) and 4 (Avazu): all schemes by size, test AUC and, beyond the
paper, log-loss.

The paper gives its points in the pictures alone; its numbers here are those of its Table 4 and of
its section 5.1.
"""

from collections.abc import Collection
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from studies import choice, pooling, starts
from studies.figures import baselines, budget_curve, name_of
from studies.figures.baselines import Entry
from studies.figures.table4 import PAPER, beside_paper, method_of
from studies.kinds import PEP, Results, kind
from studies.page import (
    OPEN,
    RUNS,
    Number,
    Page,
    bytes_counted,
    needs,
    number,
    runs_of,
    shown,
)
from studies.published import COMPARED
from studies.series import from_last
from studies.table import spread

BASELINES = ("uniform", "mgqe", "mde", "darts")  # of the paper
# section 5.1, percent of AUC
GAINS = {("criteo", "fm", "uniform"): 0.59, ("criteo", "fm", "darts"): 0.24}
# the paper's PEP-2 to PEP-4
COARSE = {"criteo": ("feature_dim", "dimension"), "avazu": ("feature_dim", "dimension")}


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds tuned/, by which the settings of tuned schemes are chosen.
    """
    name = name_of("fig2", dataset)
    page = Page(name, dataset, model,
                (f"Figure {name[3:]}: " if name.startswith("fig") else "")
                + f"AUC and log-loss against size, {shown(model)} on {shown(dataset)}")
    found = choice.of(page, results, model, "linear", tuned=True)
    entries = points(page, found, out, dataset, model) + _of_other_starts(results, dataset, model)
    _list_missing(page, entries, [result for result in found if _belongs(result, dataset)])
    page.behind = list(chain.from_iterable(entry.results for entry in entries))
    needs(page, "inference_bytes", page.behind, "it is older, and not in the right panels")
    tuned = baselines.tuned_schemes(baselines.tuned_in(out, dataset, model, found))
    page.numbers = [_number(page, model, entry) for entry in entries]
    page.numbers += _gains(page, model, entries, tuned)
    for entry in entries:
        page.rows += [{"scheme": entry.scheme, "settings": entry.settings, "seed": result["seed"],
                       "parameters": result["num_embedding_params"],
                       "bytes": result.get("inference_bytes", ""),
                       "test_auc": result["test_auc"], "test_logloss": result["test_logloss"],
                       "cut_from_last_table": from_last([result]), RUNS: runs_of([result])}
                      for result in entry.results]
    page.notes += bytes_counted(page.behind)
    page.notes.append("Ours is the test AUC of the epoch that validation chose; the paper's "
                      "numbers are by its own protocol (the page of Table 4 compares like with "
                      "like). † cut from the search's last table. Means over seeds; bars are one "
                      f"standard deviation. {budget_curve.SHADED}")
    if any(entry.scheme.startswith(f"{PEP}, start") for entry in entries):
        page.notes.append("*PEP, start ...* are tickets of searches whose thresholds start there, "
                          "not at the published -15: validation chose the start at the paper's "
                          "smallest budget (the page of starts). Where another start has as many "
                          "seeds and more budgets, it is shown too.")
    page.tables.append(baselines.table(entries))
    if entries:
        _list_absent(page, found)
        page.figure = baselines.picture(entries, page.title)
    return page


def points(page: Page, found: Results, out: Path, dataset: str, model: str) -> list[Entry]:
    """Every scheme at every size of a data set and a model, as it was tuned."""
    mine = [result for result in found if _belongs(result, dataset)]
    if len(mine) < len(found):
        page.left_out.append(f"Left out are tickets of other granularities, from fresh values, or "
                             f"of searches with a cause of pruning taken away: "
                             f"{len(found) - len(mine)}.")
    return baselines.entries(page, mine, baselines.tuned_in(out, dataset, model, mine))


def _of_other_starts(results: Results, dataset: str, model: str) -> list[Entry]:
    """PEP's tickets from the starts that `starts.drawn` names beside the published
    one, each start a series of its own."""
    method = method_of(dataset, model)
    if method is None:
        return []
    others = starts.of_other_starts(results, dataset, model, PAPER[dataset][method].params)
    entries: list[Entry] = []
    for start, tickets in others.items():
        entries += [Entry(f"{PEP}, {start.words}", "", runs, from_last(runs))
                    for runs in tickets.values()]
    return entries


def _belongs(result: dict[str, Any], dataset: str) -> bool:
    """Whether it is a point of this figure; searches are looked up, and are no points
    themselves."""
    settings = result["settings"]
    if result["stage"] != "retrain" or kind(result) != PEP:
        return not settings.get("with_linear", False)
    return (choice.cause(result) == choice.PUBLISHED and not settings.get("with_linear", False)
            and settings["threshold_type"] in COARSE.get(dataset, choice.FINE)
            and not settings.get("re_init"))


def _list_missing(page: Page, entries: list[Entry], found: Results) -> None:
    schemes = {entry.scheme for entry in entries}
    compared = COMPARED.get(page.dataset, ("lr", "pep", *BASELINES))
    for scheme in ("LR", PEP, *BASELINES):
        if scheme.lower() not in compared:
            continue
        runs = [result for result in found if kind(result) == scheme and result["stage"] == "train"]
        if scheme not in schemes:
            page.missing.append(
                f"{scheme}: {f'runs that no tuning chose ({len(runs)})' if runs else 'no run'} "
                f"(seeds {choice.words(choice.SEEDS)})"
            )
    method = method_of(page.dataset, page.model or "")
    smallest = PAPER[page.dataset][method].params if method else None
    if smallest and not any(entry.scheme == PEP and _size(entry) == smallest for entry in entries):
        page.missing.append(f"PEP at {smallest:,} parameters, the paper's PEP-0: no run")
    for entry in entries:
        choice.list_absent(page, _name(entry), entry.results)


def _list_absent(page: Page, found: Results) -> None:
    """Name budgets that searches were asked for and no ticket has."""
    granularities = COARSE.get(page.dataset, choice.FINE)
    have = {choice.budget_of(run) for run in choice.tickets(found, granularities=granularities)
            if not pooling.rewound_alone(run)}
    absent: dict[int, bool] = {}
    for search in choice.searches(found, granularities=granularities):
        saved = set(search.get("snapshots", ()))
        for budget in search["settings"].get("candidate_p", ()):
            if budget not in have and budget <= search["num_embedding_params_dense"]:
                absent[budget] = absent.get(budget, False) or str(budget) in saved
    for budget, reached in sorted(absent.items(), reverse=True):
        known = any(line.startswith(PEP) and f"at {budget:,} parameters: no run" in line
                    for line in page.missing)
        if not known:
            page.missing.append(f"{PEP} at {budget:,} parameters: "
                                + ("not retrained" if reached else "no search reached it"))


def _size(entry: Entry) -> int:
    return round(entry.mean("num_embedding_params"))


def _name(entry: Entry) -> str:
    settings = f" ({entry.settings})" if entry.settings else ""
    return entry.scheme + settings + (f" at {_size(entry):,} parameters" if _size(entry) else "")


def _number(page: Page, model: str, entry: Entry) -> Number:
    """An entry's AUC, beside Table 4's where that has it."""
    made = number(f"test AUC, {_name(entry)}{' †' if entry.from_last else ''}", entry.results,
                  itemgetter("test_auc"))
    method = method_of(page.dataset, "linear" if entry.scheme == "LR" else model)
    if (
        method
        and entry.scheme in ("LR", PEP)
        and _size(entry) == PAPER[page.dataset][method].params
    ):
        return beside_paper(page, method, made, entry.results)
    return made


def _gains(page: Page, model: str, entries: list[Entry],
           tuned: Collection[str] = ()) -> list[Number]:
    """How much higher PEP's best point is than a baseline's, in percent of AUC; validation says
    which point is best.

    A side that no tuning chose is called untuned: its best is of fewer trials. PEP's published
    settings at budgets beside those of its tuning do not count, as no baseline has such points.

    Args:
        tuned: the schemes that a tuning has chosen settings for.
    """
    best = {}
    for scheme in (PEP, *BASELINES):
        own = [entry for entry in entries if entry.scheme == scheme and entry.has("validation_auc")
               and entry.settings != baselines.BESIDE]
        if own:
            best[scheme] = max(own, key=lambda entry: entry.mean("validation_auc"))
    gains = []
    for scheme in BASELINES if PEP in best else ():
        if scheme in best:
            ours, theirs = (f"{name} (untuned)" if tuned and name not in tuned else name
                            for name in (PEP, scheme))
            gain = 100 * (best[PEP].mean("test_auc") / best[scheme].mean("test_auc") - 1)
            paper = GAINS.get((page.dataset, model, scheme))
            gains.append(Number(f"best point of {ours} over that of {theirs}, % of AUC", [gain],
                                min(len(best[PEP].results), len(best[scheme].results)), paper,
                                "" if paper is None else OPEN, ".2f"))
    if PEP in best and "uniform" in best:
        points = [f"{shown(name)} {spread(best[name].of('test_auc'))} with {_size(best[name]):,} "
                  f"parameters" for name in (PEP, "uniform")]
        page.verdicts.append(f"{shown(model)} on {shown(page.dataset)}, test AUC of the best "
                             f"point by validation: {'; '.join(points)}.")
    return gains
