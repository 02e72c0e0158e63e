"""Random settings: each dict is refused before any data is read, or gives a run of two steps that
ends finite or says why not."""

import contextlib
import logging
import math
import shutil
import typing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture.trials import Outcome
from data import store
from data.store import Dataset
from engine import stages
from engine.run import RunContext
from engine.settings import Known, known_settings, parse

BATCH = 32
ROWS = 80  # 64 of them to train on: two steps
SIZES = {"user": 30, "item": 12, "day": 7}
CHANGED = 8  # settings, at most
WRONG = 0.05  # of the values that are drawn
SAID = (ValueError, OSError, FloatingPointError)  # what a command prints as one line
OTHERS: tuple[Any, ...] = (None, "", "yes", -1, 0, 1, 2.5, math.nan, math.inf, 10**6, 10**12, True,
                           [], [0], [3, 5], (4,), {"a": 1}, b"x", "1e-3", -1e308, 1e-320)


class Watched(dict[Any, Dataset]):
    """Opened data sets: every one is the same small one, and whether it was asked for is kept."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.dataset = dataset
        self.read = False

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: Any) -> Dataset:
        self.read = True
        return self.dataset


def small_dataset(seed: int = 0, rows: int = ROWS) -> Dataset:
    """Random rows, with dense features, so that every model can read them."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, size, rows) for name, size in SIZES.items()}
    made = store.build("small", columns, np.arange(rows) % 2, split_seed=1)
    dense = rng.random((rows, 2), dtype=np.float32)
    return Dataset(made.schema, made.ids, made.labels, made.counts, made.manifest, dense)


def trial(seed: int, folder: Path) -> Outcome:
    """One random dict, parsed and, where it is not refused, trained for an epoch of two steps."""
    rng = np.random.default_rng(seed)
    given = random_settings(rng)
    watched = Watched(small_dataset())
    context = RunContext(out=folder / "out", cache=folder / "cache", device="cpu", opened=watched)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _silent():
        try:
            settings = parse(given)
        except SAID as error:
            return _said("refused", error, given)
        short = {"max_epochs": 1, "batch_size": BATCH, "tensorboard": False}
        settings = parse({**settings.flat(), **short})
        try:
            result = stages.train(settings, 1, context)
        except SAID as error:
            if list(folder.rglob("result.json")):
                return Outcome("refused", f"a result was written before: {error} {given}")
            return _said("stopped" if watched.read else "refused", error, given)
    if not math.isfinite(result["test_logloss"]):
        return Outcome("ran", f"log-loss {result['test_logloss']} without a word: {given}")
    return Outcome("ran")


def _said(kind: str, error: Exception, given: dict[str, Any]) -> Outcome:
    return Outcome(kind, "" if str(error).strip() else f"an error without a word: {given}")


def random_settings(rng: np.random.Generator) -> dict[str, Any]:
    """A few settings with values that are mostly allowed."""
    known = known_settings()
    names = rng.choice(sorted(known), rng.integers(1, CHANGED + 1), replace=False).tolist()
    names = sorted({*names, "model", "embedding"})  # the same for a seed in every process
    given = {name: _value(known[name], rng) for name in names}
    if rng.random() < 0.02:
        given[rng.choice(["laten_dim", "", "lr ", "Modell"])] = 1
    if given.get("embedding") == "pep" and rng.random() < 0.9:
        given["candidate_p"] = sorted({int(n) for n in rng.integers(1, 3000, 3)}, reverse=True)
    return given


def _value(known: Known, rng: np.random.Generator) -> Any:
    if rng.random() < WRONG:
        return OTHERS[rng.integers(len(OTHERS))]
    rules = known.rules
    choices = rules["choices"]() if callable(rules["choices"]) else rules["choices"]
    if choices is not None:
        return str(rng.choice(sorted(map(str, choices))))
    kinds = typing.get_args(known.kind) or (known.kind,)
    if typing.get_origin(known.kind) is tuple:
        return rng.integers(1, 40, rng.integers(0, 4)).tolist()
    if bool in kinds:
        return bool(rng.integers(2))
    low = rules["low"] or 0
    if int in kinds:
        return int(low + rng.integers(0, 20))
    if float in kinds:
        below = rules["below"]
        top = below if below is not None else 10.0 ** rng.integers(-6, 4)
        return float(rules["default"] if rng.random() < 0.3 and rules["default"] is not None
                     else low + rng.random() * (top - low))
    return rules["default"]


@contextlib.contextmanager
def _silent() -> typing.Iterator[None]:
    log = logging.getLogger("pep")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
