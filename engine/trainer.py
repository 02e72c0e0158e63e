"""One training from a run and its model to the result."""

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.loader import Loader
from engine import checkpoint
from engine.averaging import CosineRate, PlateauRate, WeightAverage
from engine.distributed import launch
from engine.evaluate import Metrics, Split, measure_both, with_base_rate
from engine.hooks import (
    Checkpoint,
    EarlyStop,
    Evaluate,
    EveryEpochs,
    EverySteps,
    PublishedPatience,
    TensorBoard,
    require_finite,
)
from engine.loop import Hook, State, fit
from engine.optim.step import Optimizer, Step, build_optimizer
from engine.progress import Progress
from engine.record import (
    commit,
    peak_memory_bytes,
    pick_device,
    provenance,
    reset_peak_memory,
)
from engine.run import ALGORITHM_VERSION, CHECKPOINT, WEIGHTS, Interrupted, Run, derive
from engine.settings import COSINE, PLATEAU, PUBLISHED_PATIENCE, identity
from models.base import ClickModel
from models.build import inference_bytes, num_embedding_params
from models.memory import GIB, require_memory
from utils.files import write_record

log = logging.getLogger("pep")

LANE_STAGES = ("search", "train", "retrain")  # that several processes may share


def execute(run: Run, model: ClickModel, hooks_for: Callable[["Trainer"], Sequence[Hook]],
            finish: Callable[["Trainer"], dict[str, Any]], keep_best: bool) -> dict[str, Any]:
    """Train `model`, resuming where a killed run was, and write the result.

    Args:
        hooks_for: gives the method's own hooks. They are called every `log_interval` steps and at
            the end of each epoch, those with `every_step` after each step.
        finish: called after training; what it returns is merged into the result.
        keep_best: stop early by validation, measure the best weights and keep them in
            model.safetensors. Otherwise the last weights are measured, and not kept.

    Raises:
        Unfinished: in a dry run.
        Interrupted: the process was told to end.
        FloatingPointError: the loss or a gradient is not finite; step and run are named.
        FileNotFoundError: the run's folder was removed meanwhile, and files of it may be lost.
    """
    run.require_finished()
    with alone(run) as there:
        trainer = trainer_of(run, model)
        trainer.there = there
        if run.context.force and trainer.writes:
            trainer.forget()  # its hooks begin anew, and what they save is deleted
        own = hooks_for(trainer)
        try:
            reason = trainer.train(own, keep_best)
        except FloatingPointError as error:
            raise FloatingPointError(f"run {run.run_id}: {error}") from error
        if reason == "interrupted":
            raise Interrupted(f"interrupted at step {trainer.state.step}; {_how_to_go_on(run)}")
        if keep_best:
            trainer.state.refresh()  # no late step may be taken on the weights that are loaded now
            model.load_state_dict(trainer.early_stop.best_weights)
            weights = {name: trainer.whole(name, value)
                       for name, value in model.state_dict().items()}
            if trainer.writes:
                checkpoint.save_checkpoint(run.folder / WEIGHTS, {"model": weights})
        result = with_base_rate({**trainer.result(reason), **finish(trainer)}, run.dataset)
        # so that it is the same now as when it is read back
        result = json.loads(json.dumps(result))
        if trainer.writes:
            trainer.require_folder()
            write_record(run.folder / "result.json", result)
            trainer.forget()
        return result


def _how_to_go_on(run: Run) -> str:
    if not run.context.force:
        return "the same command goes on from there"
    if (run.folder / "result.json").exists():
        return "the result of before is still there, and --force begins anew"
    return "the same command without --force goes on from there"


@contextmanager
def alone(run: Run) -> Iterator[Callable[[], bool]]:
    """Hold the run's folder for this process, or for the first of those that share the run; yields
    whether it is still there."""
    if run.context.rank:
        yield lambda: True
        return
    with checkpoint.only_one(run.folder) as there:
        # left by a process that was killed while it wrote; the second are safetensors' own
        for part in [*run.folder.glob(".*.part*"), *run.folder.glob(".tmp*")]:
            part.unlink()
        yield there


def trainer_of(run: Run, model: ClickModel) -> "Trainer":
    """The trainer of a run in one process, or in several where it has lanes.

    Raises:
        ValueError: torchrun has started several processes for a run that is trained in one.
    """
    if run.stage in LANE_STAGES and run.settings.train.lanes:
        from engine.distributed.trainer import LaneTrainer

        return LaneTrainer(run, model)
    launch.refuse(f"the stage {run.stage!r} with lanes={run.settings.train.lanes}")
    return Trainer(run, model)


class Trainer:
    """Model, data, optimiser and hooks during one training."""

    writes = True  # whether this process writes the files of the run

    def __init__(self, run: Run, model: ClickModel) -> None:
        self.run = run
        commit()  # asked for before the checkout may have moved on
        self.device = pick_device(run.context.device)
        reset_peak_memory(self.device)
        self.model = self._placed(model)
        self.loader = self._shuffled("train", "order")
        self.validation = self._split(*run.dataset.split("validation"), self.device,
                                      self._dense_features("validation"))
        self.test = self._split(*run.dataset.split("test"), self.device,
                                self._dense_features("test"))
        self.state = State(model, self._optimizer(), torch.zeros((), device=self.device))
        self.evaluate = Evaluate(self.measure, run.folder / "curve.jsonl" if self.writes else None)
        metric, patience = run.settings.train.early_stop_metric, run.settings.train.early_stop
        if metric == PUBLISHED_PATIENCE:  # `PublishedPatience` stops; this one keeps the weights
            metric, patience = "auc", sys.maxsize
        self.early_stop = EarlyStop(lambda: self.evaluate.history, metric, patience)
        self.patience: str | None = None  # the metric whose patience may end this run
        self.seconds_before = 0.0  # of the process that was killed
        self.processor_before = 0.0
        self.started, self.processor_started = time.monotonic(), time.process_time()
        self.there: Callable[[], bool] = lambda: True  # whether nobody has removed the folder

    def require_folder(self) -> None:
        """Raise FileNotFoundError where the run's folder was removed, and with it what the run
        wrote before."""
        if not self.there():
            raise FileNotFoundError(f"{self.run.folder} was removed while this run wrote to it; "
                                    f"start the same command again")

    def measure(self, model: ClickModel) -> tuple[Metrics, dict[str, float]]:
        """What the model scores on the validation and the test rows."""
        return measure_both(model, self.validation, self.test, self.loader.batch_size)

    def shuffled_validation(self) -> Loader:
        """Validation rows in batches, for a method that also learns from them."""
        return self._shuffled("validation", "validation order")

    def _shuffled(self, split: str, purpose: str) -> Loader:
        run = self.run
        return self._loader(*run.dataset.split(split), run.settings.train.batch_size,
                            derive(run.seed, f"{run.stage}:{purpose}"), self.device,
                            self._dense_features(split))

    # what `LaneTrainer` does in another way
    _loader: Callable[..., Loader] = Loader
    _split: Callable[..., Split] = Split

    def _placed(self, model: ClickModel) -> ClickModel:
        return model.to(self.device)

    def whole(self, name: str, value: Any) -> Any:
        """A parameter, or an array of its shape, with its rows of all processes; of use where
        `writes` is True alone."""
        return value

    @property
    def _path(self) -> Path:
        return self.run.folder / CHECKPOINT

    def forget(self) -> None:
        """Delete the checkpoint of a finished run."""
        self._path.unlink(missing_ok=True)

    def _save(self, stateful: dict[str, Hook]) -> None:
        checkpoint.save_checkpoint(self._path, self._content(stateful))

    def _saved(self) -> dict[str, Any] | None:
        """What the checkpoint holds; None where there is none."""
        return checkpoint.load_checkpoint(self._path) if self._path.exists() else None

    def _step(self) -> Step:
        train = self.run.settings.train
        return Step(self.model, self.state.optimizer, train.grad_clip, train.l2_penalty,
                    train.table_update, self.run.settings.flat()["precision"])

    def _saver(self, save: Callable[[State], None], step: Step) -> Checkpoint:
        return Checkpoint(save, self.run.settings.train.checkpoint_seconds)

    _progress: Callable[..., Progress] = Progress

    def _dense_features(self, split: str) -> np.ndarray | None:
        """(rows, M) for a model that reads them."""
        return self.run.dataset.dense_of(split) if self.model.num_dense else None

    def _optimizer(self) -> Optimizer:
        train = self.run.settings.train
        if self.device.type == "cpu":
            _require_room(self.model, train.optimizer, train.table_update)
        return build_optimizer(self.model, train.lr, train.l2_regularization, train.decay_of_others,
                               train.optimizer)

    def train(self, own: Sequence[Hook], keep_best: bool) -> str:
        """Assemble the hooks and fit; returns the reason to stop."""
        run, train = self.run, self.run.settings.train
        average = WeightAverage(self.model, train.ema) if train.ema and keep_best else None
        stateful = _by_name([self.evaluate, self.early_stop, *own, *([average] if average else [])])
        torch.manual_seed(derive(run.seed, f"{run.stage}:dropout"))
        content = None if run.context.force else self._saved()
        if content is not None:
            self._restore(checkpoint.checked(content, self._path, stateful), stateful)
            log.info("resuming run %s at epoch %d, batch %d", run.run_id, self.state.epoch,
                     self.state.batch)
        step = self._step()
        shown = [hook.shown for hook in own]
        title = f"{run.stage} {run.settings.model.model}/{run.settings.model.embedding}"
        progress = self._progress(title, self.loader.batches, train.max_epochs,
                                  lambda: self.evaluate.history, shown, run.context.report)

        def save(state: State) -> None:
            self.require_folder()
            self._save(stateful)

        saver = self._saver(save, step)
        hooks: list[Hook] = [EverySteps(train.log_interval, require_finite)]
        hooks += [hook if hook.every_step else EverySteps(train.log_interval, hook) for hook in own]
        measure: Callable[[State], str | None] = self.evaluate
        if average is not None:
            hooks.append(average)
            measure = average.measuring(self.evaluate, self.early_stop)
        hooks.append(EveryEpochs(train.eval_interval, train.max_epochs, measure))
        if keep_best:
            self.patience = train.early_stop_metric
            # the measure of an average calls it already, while the averages are in place
            hooks.append(self.early_stop)
        hooks += self._rate()  # after what measures, as it may go by that
        if self.patience == PUBLISHED_PATIENCE:
            hooks.append(PublishedPatience(self.evaluate.published_scores, train.early_stop))
        if train.tensorboard and self.writes:
            values = run.settings
            name = f"{run.stage}_{values.model.model}_{values.model.embedding}_seed{run.seed}"
            # what changes the result, with the names in the run's id
            own_settings = {**json.loads(identity(values)), "seed": run.seed, "stage": run.stage}
            hooks.append(TensorBoard(run.folder / "tensorboard" / name, self.evaluate,
                                     self.state.step, shown, own_settings))
        with saver.listening():
            try:
                return fit(self.state, self.loader, step, [*hooks, progress, saver],
                           train.max_epochs)
            finally:
                progress.close()

    def _rate(self) -> list[Hook]:
        """The hook that changes the learning rate, if any. Sets the rate of the first step."""
        train = self.run.settings.train
        if train.lr_schedule == COSINE:
            cosine = CosineRate(train.lr, train.max_epochs * self.loader.batches)
            cosine(self.state)
            return [cosine]
        if train.lr_schedule == PLATEAU:
            plateau = PlateauRate(train.lr, self.early_stop.scores, (train.early_stop + 1) // 2)
            plateau(self.state)
            return [EveryEpochs(1, train.max_epochs, plateau)]
        return []

    def result(self, reason: str) -> dict[str, Any]:
        """The record of a finished training, measured on the model as it is now."""
        run, state = self.run, self.state
        state.refresh()
        if not self.evaluate.history:
            self.evaluate(state)
        validation, test = self.measure(self.model)
        tests = self.evaluate.test_history
        published = {
            "best_test_auc": max(line["test_auc_mean_of_batches"] for line in tests),
            "best_test_logloss": min(line["test_logloss"] for line in tests),
            "patience": self.patience}
        seconds = statistics.median(state.epoch_seconds) if state.epoch_seconds else None
        best = self.early_stop.best
        return {
            "run_id": run.run_id, "stage": run.stage, "seed": run.seed,
            "settings": run.settings.flat(),
            "identity": {"settings": json.loads(identity(run.settings)), "extra": run.extra,
                         "algorithm_version": ALGORITHM_VERSION},
            "manifest": run.dataset.hash, "values_hash": run.dataset.values_hash,
            "data": self._data(), "stop_reason": reason,
            "epochs": state.epoch, "steps": state.step,
            "selected_epoch": best["epoch"] if best else state.epoch,
            "validation_auc": validation.auc, "validation_logloss": validation.logloss,
            "validation_accuracy": validation.accuracy, "test_accuracy": test["test_accuracy"],
            "test_auc": test["test_auc"], "test_logloss": test["test_logloss"],
            "published_protocol": published,
            "train_loss": self.evaluate.history[-1]["train_loss"],
            "num_embedding_params": num_embedding_params(self.model),
            "inference_bytes": inference_bytes(self.model), "bytes_counted": "exported file",
            "num_embedding_params_dense": run.dataset.schema.num_rows
            * self.model.embedding.width,
            "seconds_per_epoch": seconds,
            "samples_per_second": self.loader.rows / seconds if seconds else None,
            **self._spent(), "peak_memory_bytes": peak_memory_bytes(self.device),
            **provenance(self.device),
        }

    def _spent(self) -> dict[str, float]:
        """Seconds of the whole run so far, evaluation included: by the clock, and of processor time
        (of all threads, without those of a compiler's own processes)."""
        return {"seconds": self.seconds_before + time.monotonic() - self.started,
                "processor_seconds": self.processor_before + time.process_time()
                - self.processor_started}

    def _data(self) -> dict[str, Any]:
        schema, manifest = self.run.dataset.schema, self.run.dataset.manifest
        return {"rows": manifest["rows"], "positives": manifest["positives"],
                "fields": list(schema.fields),
                "field_sizes": dict(zip(schema.fields, schema.sizes, strict=True)),
                "unused_unknown_rows": self.run.dataset.unused_unknown_rows}

    def _content(self, stateful: dict[str, Hook]) -> dict[str, Any]:
        """What a checkpoint holds."""
        state = self.state
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "format": checkpoint.FORMAT,
            "model": self.model.state_dict(),
            "optimizer": checkpoint.optimizer_content(state.optimizer), "rng": rng,
            "counters": {"epoch": state.epoch, "batch": state.batch, "step": state.step,
                         "loss_batches": state.loss_batches, "epoch_seconds": state.epoch_seconds,
                         "stop_reason": state.stop_reason},
            "loss_sum": state.loss_sum,
            "hooks": {name: hook.state_dict() for name, hook in stateful.items()},
            "threads": torch.get_num_threads(), **self._spent(),
        }

    def _restore(self, content: dict[str, Any], stateful: dict[str, Hook]) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it was written on a GPU, and this is none, or the other way round.
        """
        written, here = "cuda" if "cuda" in content["rng"] else "cpu", self.device.type
        if written != here:
            raise ValueError(f"the checkpoint was written with --device {written}, and this is "
                             f"{here}: batches and dropout are drawn otherwise there; go on with "
                             f"--device {written}, or start again with --force")
        if content["threads"] != torch.get_num_threads():
            log.warning("the checkpoint was written with %d threads, now there are %d: the last "
                        "bits may differ", content["threads"], torch.get_num_threads())
        self.model.load_state_dict(content["model"])
        checkpoint.restore_optimizer(self.state.optimizer, content["optimizer"])
        for name, value in content["counters"].items():
            setattr(self.state, name, value)
        self.state.loss_sum = content["loss_sum"].to(self.device)
        for name, hook in stateful.items():
            hook.load_state_dict(content["hooks"][name])
        self.seconds_before = content["seconds"]
        self.processor_before = content["processor_seconds"]
        torch.set_rng_state(content["rng"]["cpu"])
        if here == "cuda":
            torch.cuda.set_rng_state(content["rng"]["cuda"], self.device)


def _by_name(hooks: Sequence[Hook]) -> dict[str, Hook]:
    """The hooks that have a state, as a checkpoint names them.

    Raises:
        ValueError: two of them have the same name.
    """
    named = [hook for hook in hooks if hook.name]
    found = {hook.name: hook for hook in named}
    if len(found) < len(named):
        raise ValueError(f"each hook of a run needs a name of its own in checkpoints, got "
                         f"{sorted(hook.name for hook in named)}")
    return found


def _require_room(model: ClickModel, optimizer: str, table_update: str) -> None:
    """Make sure that the memory holds what parameters need beside themselves; say it where it is
    more than a GiB.

    Raises:
        ValueError: it does not.
    """
    own = sum(each.nbytes for each in model.parameters())
    moments = 2 * own if optimizer == "adam" else 0
    gradient = own if table_update == "dense" else 0
    if own + moments + gradient > GIB:
        log.info("parameters of %.2f GiB; their moments take %.2f GiB more, their gradient %.2f",
                 own / GIB, moments / GIB, gradient / GIB)
    require_memory(moments + gradient, f"training parameters of {own / GIB:.2f} GiB with "
                   f"optimizer={optimizer} and table_update={table_update}")
