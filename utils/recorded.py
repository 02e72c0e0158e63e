"""Records of earlier runs in today's names and meanings, and which of them are shipped."""

import csv
from pathlib import Path
from typing import Any

RUNS_CSV = Path(__file__).resolve().parent.parent / "experiments" / "runs.csv"
# settings that had one value in every record, or changed no result
GONE = ("popularity", "compile", "cuda_graph")
TABLE_UPDATES = {"whole": "dense", "deferred": "lazy"}
LINE = {"clock": "decay_only", "by_clock": "pruned_by_decay", "by_data": "pruned_by_gradient",
        "held": "kept_by_gradient"}  # of a search's thresholds


def translate(recorded: dict[str, Any]) -> dict[str, Any]:
    """The settings of a record, a snapshot or a checkpoint, whenever it was made.

    Records from before `weight_decay` was a setting called it `l2_penalty`; the published penalty
    of that name was not there, so it is 0 in them. What has no `rewind` rewound the embedding
    alone. Settings that are GONE are left out.

    >>> translate({"l2_penalty": 1e-5, "lr": 0.1})
    {'l2_penalty': 0.0, 'lr': 0.1, 'weight_decay': 1e-05, 'rewind': 'embedding'}
    >>> translate({"l2_penalty": 0.0, "weight_decay": None, "popularity": "train"})
    {'l2_penalty': 0.0, 'weight_decay': None}
    """
    recorded = {name: value for name, value in recorded.items() if name not in GONE}
    if recorded.get("table_update") in TABLE_UPDATES:
        recorded["table_update"] = TABLE_UPDATES[recorded["table_update"]]
    if "weight_decay" in recorded or "l2_penalty" not in recorded:
        return recorded
    older = {"l2_penalty": 0.0, "weight_decay": recorded["l2_penalty"]}
    return {**recorded, **older, "rewind": recorded.get("rewind", "embedding")}


def shipped_words(run_id: str = "", alias: str = "", model: str = "") -> str:
    """A sentence for an error about files that are not there: that the run is among the shipped
    records, which have no weights and no snapshots. "" where it is not among them.

    Args:
        run_id: of the run, or the beginning of it.
        alias: of a search, instead, of `model`.

    >>> shipped_words("no such run")
    ''
    """
    if not RUNS_CSV.exists() or not (run_id or alias):
        return ""
    with RUNS_CSV.open(newline="") as file:
        for line in csv.DictReader(file):
            named = bool(run_id) and line["run_id"].startswith(run_id)
            if named or (line["model"] == model and f"alias={alias}" in line["other"].split()):
                return (f" Run {line['run_id']} ({line['stage']} of {line['model']} on "
                        f"{line['dataset']}, seed {line['seed']}) is among the shipped records, "
                        f"{RUNS_CSV}, but these have no weights and no snapshots: run it again to "
                        f"go on from it.")
    return ""


def translate_result(result: dict[str, Any]) -> dict[str, Any]:
    """A run's result, whenever it was made: its settings, and the lines of its thresholds.

    >>> translate_result({"settings": {}, "thresholds": {"lines": [{"epoch": 2, "held": 5}]}})
    {'settings': {}, 'thresholds': {'lines': [{'epoch': 2, 'kept_by_gradient': 5}]}}
    """
    result = {**result, "settings": translate(result["settings"])}
    if "thresholds" in result:
        lines = [{LINE.get(name, name): value for name, value in line.items()}
                 for line in result["thresholds"]["lines"]]
        result["thresholds"] = {**result["thresholds"], "lines": lines}
    return result
