r"""How long a training step takes: published style, ours with PEP, ours with the uniform base.

    python benchmarks/bench_step.py --threads 1 --json benchmarks/results/DATE_step_amd-epyc.json
    python benchmarks/bench_step.py --threads 2 --json benchmarks/results/DATE_step_amd-epyc.json
    python benchmarks/bench_step.py --device cuda \
        --json benchmarks/results/DATE_step_nvidia-h200.json
    python -m studies.docs    # the table of docs/speed.md, from the newest record

All variants of a model take turns, a round each, so that other work on the machine hits them alike;
the medians over rounds are reported. A round is one epoch of `--steps` batches, so it holds its
share of the shuffling; the first round of each variant is not timed. Loading
is part of every variant's time, evaluation of none.

published: rows one by one through torch's DataLoader, the whole table thresholded in plain eager
    torch and its non-zeros counted at every step, unfused Adam, torch's own dropout and attention,
    denormals kept.
pep: our loop with the search's own hooks, which count the non-zeros every `log_interval` steps.
    Denormals are flushed, as our scripts do.
uniform: the same loop around a dense table.
darts: the search of DartsEmb over widths 4, 8 and 64: the same loop with a step on validation rows
    after each step.
pep_bfloat16: as pep, with products in bfloat16; of models with an MLP, on a processor that has it.

The denormal mode belongs to a thread and is switched in the main thread alone; torch's other
threads keep the mode that they were made with. It hardly matters here: denormals appear only after
more steps than a benchmark takes.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks  # noqa: F401 - its engine says how torch's threads wait, before torch

# isort: split
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.published import Published, PublishedStep
from data.loader import Loader
from engine.bilevel import Bilevel
from engine.hooks import EverySteps, require_finite
from engine.loop import Hook, State, fit
from engine.optim.step import Step, build_optimizer
from engine.pep.budgets import SaveAtBudgets
from engine.record import commit, device_name, has_bfloat16, pick_device, wait_for
from engine.settings import parse
from models.build import build_embedding, build_model
from models.embedding.base import initial_table
from studies.published import PRESETS
from utils.files import write_json

FIELD_SIZES = (278, 2, 7, 21, 3439, 81, 301)  # MovieLens-1M's
MODELS = ("fm", "deepfm", "autoint")
VARIANTS = ("published", "pep", "uniform", "darts")
ROUNDED = "pep_bfloat16"
DARTS_WIDTHS = [4, 8, 64]  # the largest as wide as the others
SEED = 1

Round = Callable[[], None]  # trains one epoch


@dataclass(frozen=True)
class Rows:
    """Synthetic rows: values (rows, F) int64 counted from 0 in each field, few of them common;
    labels (rows,) float32."""

    codes: np.ndarray
    labels: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        """(rows, F) int32 ids that count through all fields."""
        return (self.codes + np.cumsum((0, *FIELD_SIZES[:-1]))).astype(np.int32)


def made_rows(rows: int, seed: int = SEED) -> Rows:
    """Draw rows; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    skewed = rng.random((rows, len(FIELD_SIZES))) ** 3
    return Rows((skewed * np.array(FIELD_SIZES)).astype(np.int64),
                       (rng.random(rows) < 0.78).astype(np.float32))


class RowByRow(Dataset):
    """One row at a time, as torch's DataLoader asks for them."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.float32]:
        """(F,) values and the label."""
        return self.rows.codes[index], self.rows.labels[index]


def published_round(values: dict[str, Any], rows: Rows, device: torch.device) -> Round:
    """The published variant, ready to train."""
    generator = torch.Generator().manual_seed(SEED)
    initial = initial_table(sum(FIELD_SIZES), values["latent_dim"], generator)
    model = Published(values, initial, FIELD_SIZES).to(device).train()
    loader, step = DataLoader(RowByRow(rows), values["batch_size"],
                              shuffle=True), PublishedStep(model, values)

    def epoch() -> None:
        torch.set_flush_denormal(False)
        for codes, labels in loader:
            step(codes.to(device), labels.to(device))
        torch.set_flush_denormal(True)

    return epoch


def our_round(values: dict[str, Any], sizes: tuple[int, ...], loader: Loader, validation: Loader,
              device: torch.device) -> Round:
    """One of our variants, ready to train: the real loop, with the hooks that a search has at every
    step.

    Args:
        sizes: of the fields.
        loader: training batches; a round is all of them.
        validation: batches that DartsEmb learns its mixture from.
    """
    model = build_model(sizes, values, SEED, build_embedding(sizes, values, SEED)).to(device)
    optimizer = build_optimizer(model, values["lr"], values["l2_regularization"],
                                values["l2_regularization"])
    step = Step(model, optimizer, values["grad_clip"], precision=values["precision"])
    state = State(model, optimizer, torch.zeros((), device=device))
    hooks: list[Hook] = [EverySteps(values["log_interval"], require_finite)]
    if values["embedding"] == "pep":
        # 0 is never reached
        saver = SaveAtBudgets(model.embedding, (0,), True, lambda name, table, meta: None)
        hooks.append(EverySteps(values["log_interval"], saver))
    if values["embedding"] == "darts":
        hooks.append(Bilevel("embedding.mixing", validation, values["darts_lr"],
                             values["grad_clip"]))

    def epoch() -> None:
        torch.set_flush_denormal(True)
        fit(state, loader, step, hooks, state.epoch + 1)

    return epoch


def variants_of(model: str, rows: Rows, device: torch.device) -> dict[str, Round]:
    """The variants of a model by name."""
    values = {name: parse({**PRESETS["movielens"], "model": model, "embedding": name,
                           "darts_widths": DARTS_WIDTHS}).flat()
              for name in VARIANTS[1:]}
    if model != "fm" and has_bfloat16(device):
        values[ROUNDED] = {**values["pep"], "precision": "bfloat16"}
    made = {"published": published_round(values["pep"], rows, device)}
    for name in values:
        loader, validation = (Loader(rows.ids, rows.labels, values[name]["batch_size"], seed,
                                     device)
                              for seed in (SEED, SEED + 1))
        made[name] = our_round(values[name], FIELD_SIZES, loader, validation, device)
    return made


def measure(variants: dict[str, Round], rounds: int,
            device: torch.device) -> dict[str, list[float]]:
    """Seconds of each timed round, by variant. Every other round goes through the variants
    backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in list(variants) if number % 2 else reversed(variants):
            started = time.perf_counter()
            variants[name]()
            wait_for(device)
            if number:  # round 0 warms up
                seconds[name].append(time.perf_counter() - started)
    return seconds


def bench(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a variant."""
    device, batch = pick_device(options.device), parse(PRESETS["movielens"]).train.batch_size
    variants = variants_of(model, made_rows(options.steps * batch), device)
    origin = {"device": device_name(device), "threads": torch.get_num_threads(),
              "torch": torch.__version__,
              "commit": commit(), "rounds": options.rounds, "steps_per_round": options.steps,
              "batch_size": batch}
    rows = []
    for name, seconds in measure(variants, options.rounds, device).items():
        each = [1e3 * spent / options.steps for spent in seconds]
        middle = statistics.median(each)
        rows.append({"model": model, "variant": name, "ms_per_step": middle,
                     "samples_per_second": 1e3 * batch / middle,
                     "ms_per_step_of_rounds": each, **origin})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a model: milliseconds a step, our speed against the published style, PEP's cost over
    the base model."""
    lines = [
        f"{'model':<10}"
        + "".join(f"{name + ' ms':>14}" for name in VARIANTS)
        + f"{'pep samples/s':>16}{'pep/published':>16}"
        + f"{'pep over uniform':>19}{'darts over uniform':>20}{'pep bfloat16 ms':>17}"
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        by_variant = {row["variant"]: row for row in rows if row["model"] == model}
        published, pep, uniform, darts = times = [by_variant[name]["ms_per_step"]
                                                  for name in VARIANTS]
        lines.append(
            f"{model:<10}"
            + "".join(f"{value:>14.3f}" for value in times)
            + f"{by_variant['pep']['samples_per_second']:>16,.0f}{published / pep:>15.2f}x"
            + f"{100 * (pep / uniform - 1):>+18.1f}%{100 * (darts / uniform - 1):>+19.1f}%"
            + (f"{by_variant[ROUNDED]['ms_per_step']:>17.3f}" if ROUNDED in by_variant else "")
        )
    return "\n".join(lines)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a record, of which there may be none; a ValueError where it is damaged."""
    try:
        return json.loads(path.read_text()) if path.exists() else []
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); remove it, or name another "
                         "file") from error


def merged(old: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old rows, with those of the same model and number of threads replaced by new ones."""
    measured = {(row["model"], row["threads"]) for row in rows}
    return [row for row in old if (row["model"], row["threads"]) not in measured] + rows


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--model", action="append", choices=MODELS,
                         help="may be repeated; all when left away")
    options.add_argument("--steps", type=_positive, default=200, help="steps of a round")
    options.add_argument("--rounds", type=_positive, default=7, help="timed rounds of each variant")
    options.add_argument("--threads", type=_positive,
                         help="CPU threads; torch's own choice when left away")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--json", type=Path, metavar="FILE",
                         help="write the rows here, e.g. below benchmarks/results; a file that "
                         "is there keeps its rows of other models and numbers of threads")
    given = options.parse_args(arguments)
    old = rows_of(given.json) if given.json else []  # before a measurement could be lost
    if given.threads:
        torch.set_num_threads(given.threads)
    rows = []
    for model in dict.fromkeys(given.model or MODELS):
        rows += bench(model, given)
    print("{device}, {threads} threads, torch {torch}, commit {commit}; medians of {rounds} rounds "
          "of {steps_per_round} steps of {batch_size} rows".format(**rows[0]))
    print(table(rows))
    if given.json:
        write_json(given.json, merged(old, rows))


if __name__ == "__main__":
    main()
