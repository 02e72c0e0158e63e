"""DartsEmb in two stages: search a width for each feature, then train with the chosen widths."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.bilevel import Bilevel
from engine.initial_model import fresh_model
from engine.loop import Hook
from engine.run import Run, derive
from engine.settings import CONSTANT
from engine.trainer import Trainer, execute
from models.build import build_mixed, build_model
from models.npz import read_npz, write_npz
from utils.files import atomic_path, sha256_of

log = logging.getLogger("pep")

CHOICE = "widths.npz"  # in the search's run folder


def search_and_train(run: Run) -> dict[str, Any]:
    """A bilevel search of `darts_epochs`, a hard choice of widths, and a training from scratch with
    these widths.

    The result is that of the training; it names the search's run under `search`.
    """
    settings = run.settings
    # averages and schedule of the learning rate are the final training's
    searched = replace(settings, train=replace(
        settings.train, max_epochs=settings.embedding.darts_epochs, ema=0.0, lr_schedule=CONSTANT))
    search = replace(run, settings=searched, stage="search", extra={"stage": "search"})
    if search.finished() is None or not (search.folder / CHOICE).exists():
        _search(search)
    widths = read_choice(search.folder / CHOICE)
    chosen, features = np.unique(widths, return_counts=True)
    counts = dict(zip(chosen.tolist(), features.tolist(), strict=True))
    log.info("features by their chosen width: %s", counts)
    run = replace(run, extra={"widths": sha256_of(widths.tobytes())[:16]})
    if (result := run.finished()) is not None:
        return result
    sizes, values = run.dataset.schema.sizes, settings.flat()
    embedding = build_mixed(torch.from_numpy(widths), settings.embedding.darts_widths, sizes,
                            derive(run.seed, "table"))
    model = build_model(sizes, values, derive(run.seed, "train:model"), embedding,
                        run.dataset.num_dense)
    record = {"search": search.run_id,
              "features_by_width": {str(width): count for width, count in counts.items()}}
    return execute(run, model, lambda trainer: [], lambda trainer: record, keep_best=True)


def read_choice(path: Path) -> np.ndarray:
    """The width of each feature, (N,), that a search has chosen.

    Raises:
        ValueError: the file is corrupt.
    """
    try:
        return read_npz(path)["widths"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is corrupt ({error}); delete it, and the search is run "
                         f"again") from error


def _search(run: Run) -> None:
    model = fresh_model(run)

    def hooks_for(trainer: Trainer) -> list[Hook]:
        return [Bilevel("embedding.mixing", trainer.shuffled_validation(),
                        run.settings.embedding.darts_lr, run.settings.train.grad_clip)]

    def finish(trainer: Trainer) -> dict[str, Any]:
        path = run.folder / CHOICE
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            write_npz(file, {"widths": model.embedding.chosen().cpu().numpy()})
        return {}

    execute(run, model, hooks_for, finish, keep_best=False)
