"""Training a compressed model on, or its dense original for comparison, and a record of it like any
run's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from compression.loaded_run import LoadedRun
from engine import checkpoint
from engine.evaluate import resample_test
from engine.loop import Hook
from engine.run import WEIGHTS, Run, Unfinished
from engine.trainer import Trainer, execute
from models.base import ClickModel
from utils.files import write_record

STAGE = "finetune"
DRAWS = 500  # samples of the test rows for an interval
INTERVALS = "intervals"  # where a record has them
CONTROL = {"method": "dense"}  # how the dense model with the same further epochs is named
FROZEN = "freeze_embedding"  # beside how it is named, where that is so


@dataclass(frozen=True)
class FineTuning:
    """How long and how fast; 0 epochs only measure."""

    epochs: int = 1
    lr_factor: float = 0.1  # of the training's own
    # train everything but the table (of a factored one: codes, bases and means)
    freeze_embedding: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 0 or not 0 < self.lr_factor < math.inf:
            raise ValueError(f"fine-tuning takes 0 epochs or more and a positive factor of lr, got "
                             f"{self.epochs} and {self.lr_factor}")


def run_of(trained: LoadedRun, how: FineTuning, compression: dict[str, Any]) -> Run:
    """The run that a fine-tuning would be.

    Args:
        compression: everything that the model before the first step depends on.
    """
    train = trained.run.settings.train
    if how.freeze_embedding:
        compression = {**compression, FROZEN: True}
    settings = replace(trained.run.settings,
                       train=replace(train, max_epochs=how.epochs, eval_interval=1,
                                                           lr=train.lr * how.lr_factor))
    return replace(trained.run, settings=settings, stage=STAGE,
                   extra={"stage": STAGE, "source": trained.run_id, "compression": compression})


def finetune(run: Run, make: Callable[[], ClickModel],
             about: Callable[[Trainer], dict[str, Any]],
             hooks: Callable[[ClickModel], list[Hook]] = lambda model: []) -> dict[str, Any]:
    """Train what `make` gives with the shared loop, and keep the epoch that validation likes best;
    resumes if killed.

    The record says what the model scored before the first step, under `without_finetuning`, so that
    one run has both.

    Args:
        run: from `run_of`.
        make: the model to start from; called only where the run is not finished.
        about: more for the record's `compression`, when the model is as it ends.
        hooks: called while the model is trained.
    """
    if (result := run.finished()) is not None:
        return result
    model, before = make(), {}
    if run.extra["compression"].get(FROZEN):
        model.embedding.requires_grad_(False)
    trains = run.settings.train.max_epochs > 0

    def hooks_for(trainer: Trainer) -> list[Hook]:
        before.update(scores(trainer, trainer.model))
        return hooks(model)

    def finish(trainer: Trainer) -> dict[str, Any]:
        if not trains:
            checkpoint.save_checkpoint(run.folder / WEIGHTS, {"model": model.state_dict()})
        more: dict[str, Any] = {} if trains else {"train_loss": None}
        if run.extra["compression"]["method"] == "lowbit":
            # others' schemes at their best: files of ours give codes and masks more room
            more["bytes_counted"] = "least that the scheme needs"
        return {**more, "without_finetuning": before, "compression": {
            **run.extra["compression"], "source": run.extra["source"], **about(trainer)}}

    return execute(run, model, hooks_for, finish, keep_best=trains)


def scores(trainer: Trainer, model: ClickModel) -> dict[str, float]:
    """Of a model as it is now, on the validation and the test rows of a training."""
    validation, test = trainer.measure(model)
    return {**{f"validation_{name}": value for name, value in asdict(validation).items()}, **test}


def with_intervals(run: Run, result: dict[str, Any], models: Callable[[], Sequence[ClickModel]],
                   against: str) -> dict[str, Any]:
    """The record with 95 % intervals from DRAWS bootstrap samples of the test rows, which its file
    is given too.

    They say how much hangs on which rows the test set happens to have, not how much on the
    training's seed.

    Args:
        run: that `result` is of.
        models: gives, when asked, the model as it ends and the one that it is compared with.
        against: the other's run, for the record.

    Returns:
        `result` with `intervals`: [low, high] of test_auc and test_logloss, and of their
        differences from the other's (`test_auc_less`, `test_logloss_less`).
    """
    if result.get(INTERVALS, {}).get("against") == against:
        return result
    if run.context.dry_run:
        raise Unfinished(f"run {run.run_id} ({run.stage}) has no intervals against {against}")
    own, other = models()
    trainer = Trainer(run, own)
    scores, others = resample_test([own, other.to(trainer.device)], trainer.test, DRAWS, run.seed)
    found: dict[str, Any] = {"against": against, "draws": DRAWS}
    for name, values in scores.items():
        found |= {name: _middle(values), f"{name}_less": _middle(values - others[name])}
    result = {**result, INTERVALS: found}
    write_record(run.folder / "result.json", result)
    return result


def _middle(values: np.ndarray) -> list[float]:
    """The middle 95 %."""
    return [float(end) for end in np.quantile(values, (0.025, 0.975))]
