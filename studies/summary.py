"""All results of a folder as Markdown tables, one a data set, with mean and spread over seeds.

    python -m studies.summary tmp
    python -m studies.summary experiments  # the shipped results
    python /path/to/reproduce.py summary   # from any folder; of tmp there
"""

import argparse
import re
import statistics
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from engine import cli
from studies.collect import require_results, results_in
from studies.kinds import Results
from studies.names import shown
from studies.series import by_budget, from_last, series_of
from studies.table import Table, spread

HEAD = ("model", "scheme", "parameters", "test AUC", "test log-loss",
        "best test AUC (published protocol)", "epochs", "seeds")
# in labels: what sets other rows of the data set, or masks like those of another search, apart
HASH = re.compile(r"\b(data|like) ([0-9a-f]{8,})\b")


def summarise(results: Results) -> list[tuple[str, ...]]:
    """Rows under HEAD, by model and falling parameters. Runs that differ in nothing but the seed
    share a row."""
    groups = []
    models = sorted({result["settings"]["model"] for result in results})
    for model in models:
        series = series_of([result for result in results if result["settings"]["model"] == model])
        for label, members in series.items():
            groups += [(model, label, group) for group in by_budget(members).values()]
    groups.sort(key=lambda item: (item[0], -item[2][0]["num_embedding_params"]))
    numbers: dict[str, int] = {}
    return [_row(model, label, group, numbers) for model, label, group in groups]


def _row(model: str, label: str, group: Results, numbers: dict[str, int]) -> tuple[str, ...]:
    """A row; `numbers` numbers the hashes that labels name."""

    def numbered(found: re.Match[str]) -> str:
        return f"{found[1]} {numbers.setdefault(found[2], len(numbers) + 1)}"

    return (shown(model), HASH.sub(numbered, shown(_scheme(label, group))),
            f"{round(statistics.mean(result['num_embedding_params'] for result in group)):,}",
            spread([result["test_auc"] for result in group]),
            spread([result["test_logloss"] for result in group]),
            spread([result["published_protocol"]["best_test_auc"] for result in group]),
            _range([result["epochs"] for result in group]), str(len(group)))


def _range(epochs: list[int]) -> str:
    """The fewest and the most.

    >>> _range([30, 24]), _range([30])
    ('24-30', '30')
    """
    fewest, most = min(epochs), max(epochs)
    return str(most) if fewest == most else f"{fewest}-{most}"


def _scheme(label: str, group: Results) -> str:
    if group[0]["stage"] == "train" and group[0]["settings"]["model"] != "linear":
        label += f", d {group[0]['settings']['latent_dim']}"
    return label + (", cut from the last table" if from_last(group) else "")


def of_folder(out: Path) -> str:
    """The tables of all results in a folder, under the names of their data sets.

    Raises:
        ValueError: it is no folder of results.
    """
    require_results(out)
    results = results_in(out)
    if not results:
        raise ValueError(f"no run in {out} is finished yet")
    by_data: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_data.setdefault(result["settings"]["dataset"], []).append(result)
    parts = []
    for dataset, own in sorted(by_data.items()):
        lines = summarise(own)
        part = [Table(HEAD, lines).markdown()] if lines else []
        if absent := _absent(own):
            part.append(f"Runs of other stages are not among these: {absent}.")
        if part:
            parts.append("\n\n".join([f"## {shown(dataset)}", *part]))
    return "\n\n".join(parts)


def _absent(results: Results) -> str:
    """How many runs have no row, by their stage; a retraining among them is a round of iterative
    pruning before the last."""
    there = {run["run_id"] for run in chain.from_iterable(series_of(results).values())}
    counts = Counter(run["stage"] for run in results if run["run_id"] not in there)
    return ", ".join(f"{count:,} {stage}" for stage, count in sorted(counts.items()))


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, nargs="?", default=Path("tmp"),
                         help="of the results (default: tmp)")
    print(of_folder(options.parse_args().folder))


if __name__ == "__main__":
    cli.main(main, trains=False)
