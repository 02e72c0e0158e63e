"""All results under a folder as one Markdown table, mean and spread over seeds: `python -m
studies.summary tmp`."""

import statistics
import sys
from pathlib import Path

from studies.collect import results_in
from studies.kinds import Results
from studies.series import by_budget, from_last, series_of
from studies.table import Table, spread

HEAD = ("model", "scheme", "parameters", "test AUC", "test log-loss",
        "best test AUC (published protocol)", "seeds")


def summarise(results: Results) -> list[tuple[str, ...]]:
    """Rows under HEAD, by model and falling parameters. Runs that differ in the seed alone share a
    row."""
    groups = []
    models = sorted({result["settings"]["model"] for result in results})
    for model in models:
        series = series_of([result for result in results if result["settings"]["model"] == model])
        for label, members in series.items():
            groups += [(model, label, group) for group in by_budget(members).values()]
    groups.sort(key=lambda item: (item[0], -item[2][0]["num_embedding_params"]))
    return [(model, _scheme(label, group),
             f"{round(statistics.mean(result['num_embedding_params'] for result in group)):,}",
             spread([result["test_auc"] for result in group]),
             spread([result["test_logloss"] for result in group]),
             spread([result["published_protocol"]["best_test_auc"] for result in group]),
             str(len(group)))
            for model, label, group in groups]


def _scheme(label: str, group: Results) -> str:
    if group[0]["stage"] == "train" and group[0]["settings"]["model"] != "linear":
        label += f", d {group[0]['settings']['latent_dim']}"
    return label + (", cut from the last table" if from_last(group) else "")


if __name__ == "__main__":
    results = results_in(Path(sys.argv[1] if len(sys.argv) > 1 else "tmp"))
    print(Table(HEAD, summarise(results)).markdown())
