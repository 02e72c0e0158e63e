"""All results under a folder as one Markdown table, mean and spread over seeds: `python -m reports.summary tmp`."""

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.collect import results_in

HEAD = ("model", "scheme", "parameters", "test AUC", "test log-loss", "best test AUC (published protocol)", "seeds")


def scheme_of(result: dict[str, Any], searches: dict[str, dict[str, Any]]) -> str:
    """What a run is, in words: every setting that sets it apart is named, those of a ticket's search too.

    Args:
        result: of one run.
        searches: results of searches by run id.

    >>> settings = {"model": "fm", "embedding": "uniform", "latent_dim": 8}
    >>> scheme_of({"settings": settings, "stage": "train", "identity": {"settings": settings}}, {})
    'uniform d 8'
    """
    settings = result["settings"]
    if settings["model"] == "linear":
        name = "LR"
    elif result["stage"] == "retrain":
        name = {"cut": "PEP ticket", "reached": "PEP ticket", "cut_last": "PEP ticket, cut from the last table",
                "cut_last_magnitude": "same table cut by |V| alone"}[result["snapshot"]["source"]]
    else:
        name = f"{'PEP search' if result['stage'] == 'search' else settings['embedding']} d {settings['latent_dim']}"
    told = ("model", "embedding", "latent_dim", "candidate_p", "max_epochs", "dataset")
    own = dict(result["identity"]["settings"])
    if result["stage"] == "retrain":
        search = searches.get(result["snapshot"]["run_id"])
        own = {**(search["identity"]["settings"] if search else {"search": "unknown"}), **own}
    others = {key: value for key, value in own.items() if key not in told}
    if result["stage"] == "retrain" and "latent_dim" in own:
        others["d"] = settings["latent_dim"]
    return name + "".join(f", {key} {value}" for key, value in sorted(others.items()))


def summarise(results: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows under HEAD. Runs that differ in the seed alone share a row; a search's own row has the mean count."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    results = list(results)
    searches = {result["run_id"]: result for result in results if result["stage"] == "search"}
    for result in results:
        count = 0 if result["stage"] == "search" else result["num_embedding_params"]
        groups[result["settings"]["model"], scheme_of(result, searches), count].append(result)
    rows: list[tuple[str, ...]] = []
    for (model, scheme, _), group in sorted(groups.items(), key=_by_model_and_size):
        count = round(statistics.mean(result["num_embedding_params"] for result in group))
        rows.append((model, scheme, f"{count:,}", spread([r["test_auc"] for r in group]),
                     spread([r["test_logloss"] for r in group]),
                     spread([r["published_protocol"]["best_test_auc"] for r in group]), str(len(group))))
    return rows


def spread(values: list[float]) -> str:
    """Mean ± standard deviation (of a sample; absent for one value).

    >>> spread([0.5, 0.7]), spread([0.5])
    ('0.6000 ± 0.1414', '0.5000')
    """
    mean = f"{statistics.mean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), *[list(row) for row in rows]]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _by_model_and_size(item: tuple[tuple[str, str, int], list[dict[str, Any]]]) -> tuple[str, int, str]:
    (model, scheme, _), group = item
    return model, -group[0]["num_embedding_params"], scheme


if __name__ == "__main__":
    print(markdown(HEAD, summarise(results_in(Path(sys.argv[1] if len(sys.argv) > 1 else "tmp")))))
