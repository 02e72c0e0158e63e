"""How long a training epoch takes on a data set: base model, DartsEmb and PEP, for three models
(Table 2 of the paper).

    python reproduce.py table2

One process; the three variants of a model take turns, a round each, every other time backwards, so
that other work on the machine hits them alike (`benchmarks.bench_step`). A round is an epoch over
the first STEPS batches of the training rows, loading and shuffling in it, evaluation not; the
first is not timed. Seconds of an epoch are the median over rounds, times the data set's batches.

base is the uniform table, darts DartsEmb's search with a step on validation rows after each step,
pep the search.
"""

from typing import Any

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
