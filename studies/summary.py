"""All results under a folder as one Markdown table, mean and spread over seeds: `python -m
studies.summary tmp`."""

import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

from studies.collect import results_in
from studies.kinds import Results
from studies.series import by_budget, from_last, series_of

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


if __name__ == "__main__":
    print(markdown(HEAD, summarise(results_in(Path(sys.argv[1] if len(sys.argv) > 1 else "tmp")))))
