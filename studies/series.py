"""Which runs belong together: curves and table rows that differ in nothing but seed, width and
budget."""

import statistics
from collections import defaultdict
from itertools import chain
from typing import Any

from studies import names, pooling, published, tuning
from studies.kinds import COMPRESSED, PEP, STEPPING_STONE, Results, kind
from utils.text import counted


def series_of(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Results by the label of their curve; searches, rounds of pruning and what was fine-tuned have
    none.

    A label names the settings that vary, and always what keeps a run out of the pages beside the
    paper: a length that was cut, a sample of the rows, tickets with the embedding alone rewound.

    >>> run = {"run_id": "a", "stage": "train", "seed": 1, "manifest": "m",
    ...        "settings": {"embedding": "uniform", "model": "fm"},
    ...        "identity": {"settings": {"latent_dim": 8}}}
    >>> other = {**run, "run_id": "b", "identity": {"settings": {"latent_dim": 8, "lr": 0.1}}}
    >>> list(series_of([run, other]))
    ['uniform', 'uniform, lr 0.1']
    """
    by_id, rows = pooling.by_run(results), pooling.rows_by_manifest(results)
    kinds: dict[str, list[tuple[dict[str, Any], dict[str, str]]]] = defaultdict(list)
    for result in by_id.values():
        stone = result.get("snapshot", {}).get("source") == STEPPING_STONE
        if result["stage"] not in ("search", *COMPRESSED) and not stone:
            kinds[kind(result)].append((result, _facts(result, by_id)))
    series: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for scheme in sorted(kinds, key=lambda name: (name != PEP, name == "LR", name)):
        members = kinds[scheme]
        known = set(chain.from_iterable(facts for _, facts in members))
        varying = sorted(name for name in known
                         if len({facts.get(name) for _, facts in members}) > 1)
        labels = [", ".join([scheme, *(facts[name] for name in varying if name in facts),
                             *_marks(result, by_id, rows)]) for result, facts in members]
        for label, (result, _) in sorted(zip(labels, members, strict=True),
                                         key=lambda item: item[0]):
            series[label].append(result)
    first = (PEP, "uniform")  # so that these two keep their colours from figure to figure
    return {label: series[label] for label in sorted(series, key=lambda label: label not in first)}


def by_budget(results: Results) -> dict[int, list[dict[str, Any]]]:
    """One series' results by their budget, or by their parameters where there was none, smallest
    first.

    Tickets of one budget belong together even where their searches landed on other counts
    (`budget="as_reached"`). Each seed counts once (`pooling.one_a_seed`).
    """
    return {budget: pooling.one_a_seed(own) for budget, own in all_by_budget(results).items()}


def all_by_budget(results: Results) -> dict[int, list[dict[str, Any]]]:
    """As `by_budget`, with every run, and with the mean parameters of those that have no budget.

    Trainings of one width belong together: seeds differ in their parameters where a size is
    learned, and by the values that training has left at zero.
    """
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    trained: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        parameters = result["num_embedding_params"]
        if result["stage"] == "train" and parameters:
            trained[result["settings"]["latent_dim"]].append(result)
        else:
            groups[(result.get("snapshot", {}).get("budgets") or [parameters])[0]].append(result)
    for own in trained.values():
        groups[round(statistics.mean(run["num_embedding_params"] for run in own))] += own
    return {size: groups[size] for size in sorted(groups)}


def from_last(results: Results) -> bool:
    """Whether any of these was cut from its search's last table, because the search itself did not
    get that low."""
    return any(result.get("snapshot", {}).get("source") == "cut_last" for result in results)


def _facts(result: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Everything but seed, width of a baseline and budget that sets a run apart, as text by
    name."""
    own = _labels(result, pooling.settings_of(result))
    if result["stage"] != "retrain":
        own.pop("latent_dim", None)
    facts = dict(own)
    parent = pooling.parent_of(result, by_id)
    if parent is not None:
        theirs = _labels(parent, pooling.settings_of_parent(parent))
        # what the ticket departs in, and the search does not
        theirs |= {name: names.setting(name, parent["settings"][name], parent["settings"])
                   for name in own if name in parent["settings"]
                   and name not in (*theirs, *tuning.RETRAINING, *pooling.NAMED)}
        facts |= {f"search {name}": f"search {label}" for name, label in theirs.items()
                  if own.get(name) != label}
    if result.get("snapshot", {}).get("how"):
        facts["made"] = f"made {result['snapshot']['how']}"
    return {**facts, "data": f"data {result['manifest']}"}


def _labels(result: dict[str, Any], own: dict[str, Any]) -> dict[str, str]:
    """A run's own settings as text by name; published decays go without saying, rewinding is among
    the marks."""
    if pooling.published_protocol(result):  # it is among the marks
        dataset = result["settings"].get("dataset", "")
        protocol = published.VARIANTS.get(dataset, published.VARIANTS["movielens"])["published"]
        own = {name: value for name, value in own.items()
               if name not in pooling.PROTOCOL or value != protocol.get(name, value)}
    usual = all(own[name] == value for name, value in pooling.DECAYS.items() if name in own)
    labels = {name: names.setting(name, value, own) for name, value in own.items()
              if name != "rewind"}
    if usual:
        return {name: label for name, label in labels.items() if name not in pooling.DECAYS}
    if "l2_regularization" in own:  # its label says what the rest has
        del labels["weight_decay"]
    if not own.get("l2_penalty"):
        labels.pop("l2_penalty", None)
    return labels


def _marks(result: dict[str, Any], by_id: dict[str, dict[str, Any]],
           rows: dict[str, int]) -> list[str]:
    """What sets a run apart from whole ones, and is said even where all runs share it."""
    marks = []
    if pooling.rewound_alone(result):
        marks.append("embedding alone rewound")
    parent = pooling.parent_of(result, by_id)
    if pooling.published_protocol(result):
        marks.append("published protocol")
        if result["stop_reason"] == "max_epochs" and result["stage"] != "search":
            marks.append(f"cut at {counted(result['settings']['max_epochs'], 'epoch')}")
    elif not pooling.full_length(result):
        marks.append(f"cut at {counted(result['settings']['max_epochs'], 'epoch')}")
    if (parent is not None and not pooling.published_protocol(parent)
            and not pooling.full_length(parent)):
        marks.append(f"search of {counted(parent['settings']['max_epochs'], 'epoch')}")
    whole = pooling.ROWS.get(result["settings"].get("dataset", ""))
    here = rows.get(result["manifest"])
    if whole is not None and here is not None and here != whole:
        marks.append(f"{here:,} rows")
    return marks
