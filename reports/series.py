"""Which runs belong together: curves and table rows that differ in nothing but seed, width and budget."""

import json
from collections import defaultdict
from typing import Any

from reports.kinds import COMPRESSED, FREE, PEP, STEPPING_STONE, Results, kind


def series_of(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Results by the label of their curve; searches, rounds of pruning and what was trained on have none.

    >>> run = {"run_id": "a", "stage": "train", "seed": 1, "manifest": "m", "settings": {"embedding": "uniform",
    ...        "model": "fm"}, "identity": {"settings": {"embedding": "uniform", "latent_dim": 8}}}
    >>> other = {**run, "run_id": "b", "identity": {"settings": {"embedding": "uniform", "latent_dim": 8, "lr": 0.1}}}
    >>> list(series_of([run, other]))
    ['uniform', 'uniform, lr 0.1']
    """
    by_id = {result["run_id"]: result for result in results}
    kinds: dict[str, list[tuple[dict[str, Any], dict[str, str]]]] = defaultdict(list)
    for result in by_id.values():
        stone = result.get("snapshot", {}).get("source") == STEPPING_STONE
        if result["stage"] not in ("search", *COMPRESSED) and not stone:
            kinds[kind(result)].append((result, _facts(result, by_id)))
    series: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for scheme in sorted(kinds, key=lambda name: (name != PEP, name == "LR", name)):
        members = kinds[scheme]
        names = {name for _, facts in members for name in facts}
        varying = sorted(name for name in names if len({facts.get(name) for _, facts in members}) > 1)
        labels = [", ".join([scheme, *(f"{name} {facts[name]}" for name in varying if name in facts)])
                  for _, facts in members]
        for label, (result, _) in sorted(zip(labels, members, strict=True), key=lambda item: item[0]):
            series[label].append(result)
    first = (PEP, "uniform")  # so that these two keep their colours from figure to figure
    return {label: series[label] for label in sorted(series, key=lambda label: label not in first)}


def by_budget(results: Results) -> dict[int, list[dict[str, Any]]]:
    """One series' results by their budget, or by their parameters where there was none, smallest first.

    Tickets of one budget belong together even where their searches landed on other counts (`budget="as_reached"`).
    """
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        budgets = result.get("snapshot", {}).get("budgets") or [result["num_embedding_params"]]
        groups[budgets[0]].append(result)
    return dict(sorted(groups.items()))


def from_last(results: Results) -> bool:
    """Whether any of these was cut from its search's last table, because the search itself did not get that low."""
    return any(result.get("snapshot", {}).get("source") == "cut_last" for result in results)


def _facts(result: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Everything but seed, width of a baseline and budget that sets a run apart, as text."""
    own = dict(result["identity"]["settings"])
    if result["stage"] == "retrain":
        search = by_id.get(result["snapshot"].get("run_id"))
        searched = search["identity"]["settings"] if search else {}
        own |= {f"search {name}": value for name, value in searched.items() if own.get(name) != value}
        own |= {"made": result["snapshot"]["how"]} if result["snapshot"].get("how") else {}
    else:
        own.pop("latent_dim", None)
    own = {name: value for name, value in own.items() if name.removeprefix("search ") not in FREE}
    return {**{name: json.dumps(value).strip('"') for name, value in own.items()}, "data": result["manifest"]}
