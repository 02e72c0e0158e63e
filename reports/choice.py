"""Which runs a page shows: those of one setting, of all seeds, and what is missing among them."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from reports.kinds import FREE, PEP, STEPPING_STONE, Results, kind
from reports.page import Page

SEEDS = (1, 2, 3)  # that every number of the paper's figures should have
Cause = tuple[str, bool]  # of the thresholds' movement: their decay, and whether the loss's gradient reaches them
PUBLISHED: Cause = ("coupled", True)


def of(results: Results, dataset: str, *models: str) -> list[dict[str, Any]]:
    """The results of a data set and of some models."""
    return [result for result in results if result["settings"]["dataset"] == dataset
            and result["settings"]["model"] in models]


def cause(run: dict[str, Any]) -> Cause:
    """What moved the thresholds of a search, or of the search before a retraining; older runs had no choice."""
    settings = run["settings"]
    return settings.get("threshold_decay", "coupled"), settings.get("threshold_gradient", True)


def searches(results: Results, moved_by: Cause = PUBLISHED) -> list[dict[str, Any]]:
    """PEP's searches."""
    return [result for result in results if result["stage"] == "search" and kind(result) == "pep"
            and cause(result) == moved_by]


def tickets(results: Results, re_init: bool = False, moved_by: Cause = PUBLISHED) -> list[dict[str, Any]]:
    """Retrained PEP snapshots, from their initial values or from fresh ones."""
    return [result for result in results if result["stage"] == "retrain" and kind(result) == PEP
            and result["snapshot"]["source"] != STEPPING_STONE and cause(result) == moved_by
            and result["settings"].get("re_init", False) == re_init]


def uniform(results: Results, width: int) -> list[dict[str, Any]]:
    """Base models of a width."""
    return [result for result in results if result["stage"] == "train" and kind(result) == "uniform"
            and result["settings"]["latent_dim"] == width]


def budget_of(ticket: dict[str, Any]) -> int:
    """The budget that a ticket's snapshot was saved for; its parameters where the record names none."""
    return (ticket["snapshot"].get("budgets") or [ticket["num_embedding_params"]])[0]


def nearest(budgets: set[int], wanted: float) -> int:
    """The budget with the smallest ratio to the wanted one.

    >>> nearest({10_000, 23_675, 50_000}, 0.09 * 264_256)
    23675
    """
    return min(budgets, key=lambda budget: (max(budget / wanted, wanted / budget), budget))


def chosen(page: Page, what: str, results: Results, every: Results) -> list[dict[str, Any]]:
    """The runs of the one setting that most seeds have, by seed; the page learns what is used, missing or left out."""
    taken = of_most_seeds(page, what, results, every)
    if taken:
        list_absent(page, what, taken)
    else:
        page.missing.append(f"{what}: no run (seeds {words(SEEDS)})")
    page.behind += [result for result in taken if result not in page.behind]
    return taken


def of_most_seeds(page: Page, what: str, results: Results, every: Results) -> list[dict[str, Any]]:
    """The runs of the one setting that most seeds have, by seed; a note says how many are left out.

    Runs belong together that differ in nothing but the seed and the list of a search's budgets. Between settings of
    equally many seeds the one that departs least from the neutral defaults is taken.

    Args:
        what: the runs, in words.
        results: to choose among.
        every: the results among which a ticket's search is looked up.
    """
    by_id = {result["run_id"]: result for result in every}
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[_setting(result, by_id)].append(result)
    if not groups:
        return []
    best = min(groups, key=lambda key: (-len({result["seed"] for result in groups[key]}), len(key), key))
    taken = _one_search_a_seed(sorted(groups[best], key=lambda result: (result["seed"], result["run_id"])))
    if others := len(results) - len(groups[best]):
        page.notes.append(f"{what}: {others} runs of other settings are left out." if others > 1
                          else f"{what}: 1 run of another setting is left out.")
    return taken


def _one_search_a_seed(results: Results) -> list[dict[str, Any]]:
    """Of searches that differ in the list of budgets alone, and so are one, that with the most snapshots."""
    best: dict[Any, dict[str, Any]] = {}
    for result in results:
        key = result["seed"] if result["stage"] == "search" else result["run_id"]
        if key not in best or len(result.get("snapshots", ())) > len(best[key].get("snapshots", ())):
            best[key] = result
    return list(best.values())


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two searches or trainings differ in nothing but the seed and the list of budgets."""
    return (_own(one), one["manifest"]) == (_own(other), other["manifest"])


def list_absent(page: Page, what: str, results: Results) -> None:
    """Say which seeds are missing among some runs."""
    absent = [seed for seed in SEEDS if seed not in {result["seed"] for result in results}]
    if absent:
        page.missing.append(f"{what}: seed{'s' * (len(absent) > 1)} {words(absent)}")


def words(seeds: Sequence[int]) -> str:
    """Seeds in a sentence.

    >>> words([1, 2])
    '1, 2'
    """
    return ", ".join(map(str, seeds))


def _setting(result: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> str:
    searched = by_id.get(result.get("snapshot", {}).get("run_id"))
    return json.dumps([_own(result), _own(searched) if searched else {}, result["manifest"]], sort_keys=True)


def _own(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result["identity"]["settings"].items() if name not in FREE}

