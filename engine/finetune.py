"""Training a compressed model on, or its dense original for comparison, and a record of it like any run's."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine import checkpoint
from engine.run import WEIGHTS, Bench, Run, Unfinished, execute
from engine.trained import TrainedModel
from models.base import ClickModel

STAGE = "finetune"
CONTROL = {"method": "dense"}  # how the dense model with the same further epochs is named


@dataclass(frozen=True)
class FineTuning:
    """How long and how fast; 0 epochs only measure."""

    epochs: int = 1
    lr_factor: float = 0.1  # of the training's own

    def __post_init__(self) -> None:
        if self.epochs < 0 or not self.lr_factor > 0:
            raise ValueError(f"fine-tuning takes 0 epochs or more and a positive factor of lr, got {self.epochs} and "
                             f"{self.lr_factor}")


def run_of(trained: TrainedModel, how: FineTuning, compression: dict[str, Any]) -> Run:
    """The run that a fine-tuning would be.

    Args:
        compression: everything that the model before the first step depends on.
    """
    train = trained.run.settings.train
    settings = replace(trained.run.settings, train=replace(train, max_epochs=how.epochs, eval_interval=1,
                                                           lr=train.lr * how.lr_factor))
    return replace(trained.run, settings=settings, stage=STAGE,
                   extra={"stage": STAGE, "source": trained.run_id, "compression": compression})


def finetune(run: Run, make: Callable[[], ClickModel], about: Callable[[ClickModel], dict[str, Any]]) -> dict[str, Any]:
    """Train what `make` gives with the shared loop, and keep the epoch that validation likes best; resumes if killed.

    The record says what the model scored before the first step, under `without_finetuning`, so that one run has both.

    Args:
        run: from `run_of`.
        make: the model to start from; called only where the run is not finished.
        about: more for the record, of the model as it ends.
    """
    if (result := run.finished()) is not None:
        return result
    if run.place.dry:
        raise Unfinished(f"run {run.run_id} ({run.stage}) is not finished")
    model, before = make(), {}
    trains = run.settings.train.max_epochs > 0

    def hooks_for(bench: Bench) -> list:
        before.update(_scores(bench))
        return []

    def finish(bench: Bench) -> dict[str, Any]:
        weights = run.folder / WEIGHTS
        if not trains:
            checkpoint.save_checkpoint(weights, {"model": model.state_dict()})
        untrained = {} if trains else {"train_loss": None}
        return {**untrained, "without_finetuning": before, "compression": {
            **run.extra["compression"], "source": run.extra["source"], "file_bytes": weights.stat().st_size,
            **about(model)}}

    return execute(run, model, hooks_for, finish, keep_best=trains)


def _scores(bench: Bench) -> dict[str, float]:
    validation = asdict(bench.evaluate.validation(bench.model))
    return {**{f"validation_{name}": value for name, value in validation.items()},
            **bench.evaluate.test(bench.model)}
