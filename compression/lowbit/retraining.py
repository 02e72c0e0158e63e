"""Retraining a table of few bits from the dense weights, and the record of it."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compression.finetune import finetune, scores
from compression.loaded_run import LoadedRun
from compression.lowbit import whole_model
from engine.loop import Hook, State
from engine.run import Run
from engine.settings import COSINE
from engine.trainer import Trainer
from models.base import ClickModel
from models.embedding.quantised import Quantised, QuantisedParts

STAGE = "quantise"
RENEWED = 20  # steps between two renewals of the quantiser's steps
FM_EPOCHS, FM_LR = 14, 8e-3
EPOCHS, LR = 7, 4e-3  # of other models


@dataclass(frozen=True)
class Retraining:
    """How long, how fast, and with which decay of the table; 0 epochs only measure.

    The learning rate falls to 0 by a cosine. The dense run's own decay where it is None.
    """

    epochs: int
    lr: float
    decay: float | None = None

    def __post_init__(self) -> None:
        decay = 0.0 if self.decay is None else self.decay
        if self.epochs < 0 or not (0 < self.lr < math.inf and 0 <= decay < math.inf):
            raise ValueError(f"a retraining takes 0 epochs or more, a positive lr and a decay of 0 "
                             f"or more, got epochs {self.epochs}, lr {self.lr} and decay "
                             f"{self.decay}")


def usual(model: str) -> Retraining:
    """What the water line was developed with."""
    return Retraining(FM_EPOCHS, FM_LR) if model == "fm" else Retraining(EPOCHS, LR)


def run_of(trained: LoadedRun, how: Retraining, compression: dict[str, Any]) -> Run:
    """The run that a retraining would be.

    Args:
        compression: everything that the model before the first step depends on.
    """
    train = trained.settings.train
    decay = train.l2_regularization if how.decay is None else how.decay
    settings = replace(trained.settings, train=replace(
        train, max_epochs=how.epochs, lr=how.lr, lr_schedule=COSINE, ema=0.0, eval_interval=1,
        early_stop=max(how.epochs, 1), l2_regularization=decay,
        weight_decay=train.decay_of_others))
    return replace(trained.run, settings=settings, stage=STAGE,
                   extra={"stage": STAGE, "source": trained.run_id, "compression": compression})


class RenewSteps(Hook):
    """Fit the steps of a quantiser to the values every RENEWED steps."""

    every_step = True

    def __init__(self, embedding: Quantised | QuantisedParts) -> None:
        self.embedding = embedding

    def __call__(self, state: State) -> None:
        """Renew when it is time."""
        if state.step % RENEWED == 0:
            state.refresh()
            self.embedding.renew()


def retrain(run: Run, make: Callable[[], tuple[ClickModel, np.ndarray]],
            finish: Callable[[ClickModel], dict[str, Any]]) -> dict[str, Any]:
    """Train what `make` gives, keep the epoch that validation likes best, and measure it once as it
    is and once with its other weights at 8 bits; resumes if killed.

    Args:
        run: from `run_of`.
        make: the model with its quantised embedding, and (N,) whether training has seen each row;
            called only where the run is not finished.
        finish: more for the record, of the model as it ends.

    Returns:
        The record: `without_finetuning` has the scores before the first step; `compression` has
        `stored`, the bytes of `table`, `others` and `whole`, and `whole_model`, the scores with the
        other weights coded too.
    """
    seen: list[np.ndarray] = []

    def start() -> ClickModel:
        model, rows = make()
        seen.append(rows)
        return model

    def about(trainer: Trainer) -> dict[str, Any]:
        model, name = trainer.model, run.settings.model.model
        whole, others = whole_model.coded(model, name, seen[0], run.dataset.schema.sizes)
        table = model.embedding.inference_bytes()
        return {"stored": {"table": table, "others": others, "whole": table + others},
                "whole_model": scores(trainer, whole), **finish(model)}

    return finetune(run, start, about, lambda model: [RenewSteps(model.embedding)])


def retraining_of(args: argparse.Namespace, model: str) -> Retraining:
    """What the command line asks for, filled up with what is usual for a model."""
    own = usual(model)
    return Retraining(own.epochs if args.epochs is None else args.epochs,
                      own.lr if args.lr is None else args.lr, args.decay)


def describe(result: dict[str, Any]) -> str:
    """One line.

    >>> describe({"run_id": "ab", "compression": {"method": "waterline",
    ...     "stored": {"table": 9000, "whole": 14000}, "whole_model": {"test_auc": 0.5}},
    ...     "validation_auc": 0.6, "test_auc": 0.5, "without_finetuning": {"test_auc": 0.4}})
    'waterline: table 9,000 bytes, validation AUC 0.6000, test AUC 0.5000 (0.4000 before
    retraining); whole model 14,000 bytes, test AUC 0.5000; run ab'
    """
    made = result["compression"]
    stored, name = made["stored"], made.get("scheme", made["method"])
    width = f", width {made['width']}" if "width" in made else ""
    return (f"{name}{width}: table {stored['table']:,} bytes, validation AUC "
            f"{result['validation_auc']:.4f}, test AUC {result['test_auc']:.4f} "
            f"({result['without_finetuning']['test_auc']:.4f} before retraining); whole model "
            f"{stored['whole']:,} bytes, test AUC {made['whole_model']['test_auc']:.4f}; run "
            f"{result['run_id']}")
