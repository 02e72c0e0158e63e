"""A small data set with a learnable signal, and the settings that train on it in a fraction of a
second."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data import store
from data.registry import DATASETS
from data.store import Dataset
from engine import darts, stages
from engine.run import RunContext
from engine.settings import Settings, identity, parse
from studies import pooling

SIZES = {"user": 150, "item": 40, "genre": 8, "gender": 2}
SETTINGS = {"model": "fm", "latent_dim": 4, "batch_size": 64, "lr": 0.01, "max_epochs": 3,
            "eval_interval": 1, "early_stop": 2, "log_interval": 1, "mlp_dims": [8],
            "num_layers": 1, "atten_embed_dim": 4, "threshold_init": -3.0,
            "tensorboard": False, "checkpoint_seconds": 1000.0}
TIMES = {"seconds", "processor_seconds", "seconds_per_epoch", "samples_per_second",
         "peak_memory_bytes",
         "commit", "checksum"}  # may differ


def dataset(rows: int = 1500, seed: int = 0) -> Dataset:
    """Skewed columns (few values are common, many rare); the label follows pairs of values."""
    rng = np.random.default_rng(seed)
    columns = {name: (size * rng.random(rows) ** 2).astype(int) for name, size in SIZES.items()}
    hidden = {name: rng.normal(0, 1.5, (size, 2)) for name, size in SIZES.items()}
    vectors = [hidden[name][column] for name, column in columns.items()]
    total = sum(vectors)
    logits = ((total ** 2).sum(1) - sum((vector ** 2).sum(1) for vector in vectors)) / 2
    return store.build("tiny", columns, (logits + rng.logistic(size=rows) > 0).astype(int),
                       split_seed=5)


def with_test_labels(made: Dataset, change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    """The same rows, but for the labels of the test split, and so with another hash."""
    labels = made.labels.copy()
    start = sum(made.counts[:2])
    labels[start:] = change(labels[start:])
    return replace(made, labels=labels, manifest={**made.manifest, "content": "other-" + made.hash})


def install(monkeypatch: Any, made: Dataset) -> None:
    """Let the name `movielens` open this data set."""
    monkeypatch.setitem(DATASETS, "movielens", lambda *arguments: made)


def publish(monkeypatch: Any, script: dict[str, Any], rows: int | None = None) -> None:
    """Let pages take runs of these settings for published ones, and so many rows for the whole data
    set."""
    settings = parse(script)
    monkeypatch.setitem(pooling.LENGTH, settings.data.dataset, settings.train.max_epochs)
    monkeypatch.setitem(pooling.DEPARTURES, settings.data.dataset, json.loads(identity(settings)))
    if rows is not None:
        monkeypatch.setitem(pooling.ROWS, settings.data.dataset, rows)


def spy(monkeypatch: Any) -> list[tuple[Any, dict[str, Any]]]:
    """(model, its state before the first step) of every training that follows."""
    seen = []
    execute = stages.execute

    def keep(run, model, *others, **named):
        seen.append((model, {name: value.clone() for name, value in model.state_dict().items()}))
        return execute(run, model, *others, **named)

    for module in (stages, darts):
        monkeypatch.setattr(module, "execute", keep)
    return seen


def settings(**changes: Any) -> Settings:
    return parse({**SETTINGS, **changes})


def context(out: Path, **changes: Any) -> RunContext:
    return RunContext(**{"out": out, "device": "cpu", **changes})


def train(out: Path, seed: int = 1, places: dict[str, Any] | None = None,
          **changes: Any) -> dict[str, Any]:
    return stages.train(settings(**changes), seed, context(out, **(places or {})))


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """What two equal runs must agree on, as it reads in the result file."""
    return json.loads(json.dumps({name: value for name, value in result.items()
                                  if name not in TIMES}))
