"""How long a training epoch takes on a data set: base model, DartsEmb and PEP, for three models
(Table 2 of the paper).

    python benchmarks/bench_epoch.py --dataset movielens     # or: python reproduce.py table2

One process; the three variants of a model take turns, a round each, every other time backwards, so
that other work on the machine hits them alike (`benchmarks.bench_step`). A round is an epoch over
the first `--steps` batches of the training rows, loading and shuffling in it, evaluation not; the
first, with the compiling, is not timed. Seconds of an epoch are the median over rounds, times the
data set's batches.

base is the uniform table, darts DartsEmb's search with a step on validation rows after each step,
pep the search.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# isort: skip - the engine says how torch's threads wait, before torch
import torch

from benchmarks.bench_step import SEED, measure, our_round
from data.loader import Loader
from data.store import Dataset
from engine.record import commit, device_name
from engine.run import RunContext, Unfinished, open_data
from engine.settings import parse
from studies.figures.table2 import record_at, record_of
from studies.page import Page
from studies.plan import PlannedRun
from studies.published import PRESETS
from utils.files import write_json

MODELS = ("fm", "deepfm", "autoint")
VARIANTS = {"base": "uniform", "darts": "darts", "pep": "pep"}
STEPS, ROUNDS = 100, 7


def bench(script: dict[str, Any], context: RunContext, steps: int = STEPS,
          rounds: int = ROUNDS) -> dict[str, Any]:
    """Time every variant of every model on the data of a script's settings; write and return the
    record.

    Args:
        steps: batches of a round, or all where there are fewer.
        rounds: that are timed.
    """
    width = script["latent_dim"]
    widths = [max(width // 16, 1), max(width // 8, 2), width]  # the largest as wide as the others
    dataset, device = open_data(parse(script), context)
    times: dict[str, dict[str, Any]] = {}
    for model in MODELS:
        settings = {name: parse({**script, "model": model, "embedding": embedding,
                                 "darts_widths": widths}).flat()
                    for name, embedding in VARIANTS.items()}
        loaders = {name: _loaders(dataset, values["batch_size"], steps, device) for name,
                   values in settings.items()}
        variants = {name: our_round(values, dataset.schema.sizes, *loaders[name], device)
                    for name, values in settings.items()}
        times[model] = {name: [1e3 * spent / loaders[name][0].batches for spent in seconds]
                        for name, seconds in measure(variants, rounds, device).items()}
    batch = parse(script).train.batch_size
    made = {"dataset": script["dataset"], "manifest": dataset.hash, "commit": commit(),
            "device": device_name(device),
            "threads": torch.get_num_threads(), "torch": torch.__version__,
            "batch_size": batch,
            "batches": -(-dataset.counts[0] // batch), "rounds": rounds, "steps_per_round": steps,
            "latent_dim": width,
            "darts_widths": widths, "ms_per_step_of_rounds": times}
    write_json(record_of(context.out, script["dataset"]), made)
    return made


def planned_run(script: dict[str, Any]) -> PlannedRun:
    """The benchmark as one run of a plan; a whole record is not measured again."""

    def run(context: RunContext) -> dict[str, Any]:
        path = record_of(context.out, script["dataset"])
        record = None if context.force else record_at(Page("table2", script["dataset"], None, ""),
                                                      path)
        if record is None and context.dry_run:
            raise Unfinished(f"there is no whole {path}")
        return record or bench(script, context)

    return PlannedRun(f"seconds of an epoch of {', '.join(VARIANTS)} x {', '.join(MODELS)}, side "
                      f"by side",
                ("benchmark", "epoch"), run, alone=True)


def _loaders(dataset: Dataset, batch_size: int, steps: int,
             device: torch.device) -> tuple[Loader, Loader]:
    """Training and validation batches, of at most `steps` batches of rows."""
    most = steps * batch_size
    (ids, labels), (others, their) = dataset.split("train"), dataset.split("validation")
    return (Loader(ids[:most], labels[:most], batch_size, SEED, device),
            Loader(others[:most], their[:most], batch_size, SEED + 1, device))


def table(record: dict[str, Any]) -> str:
    """Seconds of an epoch, and how much more than the base model's, one line a model."""
    lines = [
        f"{'model':<10}{'base s':>10}{'darts s':>10}{'pep s':>10}"
        f"{'darts over base':>18}{'pep over base':>16}"
    ]
    for model, times in record["ms_per_step_of_rounds"].items():
        base, darts, pep = (statistics.median(times[name]) * record["batches"] / 1e3
                            for name in VARIANTS)
        lines.append(
            f"{model:<10}{base:>10.2f}{darts:>10.2f}{pep:>10.2f}{100 * (darts / base - 1):>+17.1f}%"
            f"{100 * (pep / base - 1):>+15.1f}%"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--dataset", default="movielens", choices=PRESETS)
    options.add_argument("--data", help="the raw files, as for the scripts")
    options.add_argument("--out", default="tmp", type=Path,
                         help="where benchmarks/epoch_<dataset>.json goes")
    options.add_argument("--steps", type=int, default=STEPS, help="batches of a round")
    options.add_argument("--rounds", type=int, default=ROUNDS, help="timed rounds of each variant")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    given = options.parse_args(arguments)
    if min(given.steps, given.rounds) < 1:
        options.error(f"--steps and --rounds must be at least 1, got {given.steps} and "
                      f"{given.rounds}")
    context = RunContext(out=given.out, data=given.data, device=given.device)
    record = bench(PRESETS[given.dataset], context, given.steps, given.rounds)
    print("{device}, {threads} threads, torch {torch}, commit {commit}; medians of {rounds} rounds "
          "of {steps_per_round} steps".format(**record))
    print(table(record))


if __name__ == "__main__":
    main()
