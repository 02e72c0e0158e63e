"""One training from settings to result: the only place that knows both data and models."""

import hashlib
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.loader import Loader
from data.registry import DATASETS, WITH_DENSE
from data.store import Dataset
from engine import checkpoint, record
from engine.evaluate import Split, measure, measure_test, with_base_rate
from engine.hooks import (
    Checkpoint,
    EarlyStop,
    Evaluate,
    EveryEpochs,
    EverySteps,
    Progress,
    PublishedPatience,
    TensorBoard,
    require_finite,
)
from engine.loop import Hook, State, fit
from engine.optim.step import Optimizer, Step, build_optimizer
from engine.record import peak_memory_bytes, pick_device, provenance, reset_peak_memory
from engine.settings import PUBLISHED_PATIENCE, Settings, identity
from models.base import ClickModel
from models.build import READ_DENSE, inference_bytes, num_embedding_params
from utils.files import require_writable, sha256_of, write_json

log = logging.getLogger("pep")

WEIGHTS = "model.safetensors"  # of a run's folder: what it has trained
ALGORITHM_VERSION = 1  # raise it when the same settings would give other results


class Interrupted(Exception):
    """The process was asked to end; a checkpoint has been written."""


class Unfinished(Exception):
    """A run that is not finished, at a place where nothing may be run."""


@dataclass(frozen=True)
class RunContext:
    """Where a run reads and writes, and on which device. Nothing here changes a result's identity.

    At a `dry` place nothing is trained: a run that is not finished raises `Unfinished` instead.
    """

    out: Path = Path("tmp")
    cache: Path = field(default_factory=record.cache_folder)
    data: str | None = None
    device: str = "auto"
    alias: str | None = None
    force: bool = False
    overwrite: bool = False
    dry: bool = False


@dataclass
class Run:
    """One training with everything that it needs.

    Args:
        stage: "search", "train" or "retrain"; each draws its own random numbers from the seed.
        extra: further things that the result depends on (the mask of a ticket, say).
    """

    settings: Settings
    seed: int
    context: RunContext
    dataset: Dataset
    stage: str
    extra: dict[str, Any]

    @property
    def run_id(self) -> str:
        """Hash of everything that the result depends on."""
        return sha256_of(f"v{ALGORITHM_VERSION}", identity(self.settings), self.dataset.hash,
                         str(self.seed),
                         json.dumps(self.extra, sort_keys=True))[:12]

    @property
    def folder(self) -> Path:
        """tmp/runs/<run id>."""
        return self.context.out / "runs" / self.run_id

    def finished(self) -> dict[str, Any] | None:
        """The result, when there is a whole one and --force is off."""
        path = self.folder / "result.json"
        if self.context.force or not path.exists():
            return None
        try:
            result = json.loads(path.read_text())
            log.info("run %s is finished: %s", self.run_id, self.folder)
            return result
        except ValueError as error:
            raise ValueError(
                f"{path} is corrupt ({error}); delete it, or run again with --force"
            ) from error


def derive(seed: int, purpose: str) -> int:
    """A generator seed for one purpose, so that no two purposes share random numbers.

    >>> derive(1, "order") == derive(1, "order"), derive(1, "order") == derive(1, "table")
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{purpose}:{seed}".encode()).digest()[:6], "little")


def open_data(settings: Settings, context: RunContext) -> tuple[Dataset, torch.device]:
    """Check the device and the output folder, then open the data set."""
    device = pick_device(context.device)
    require_writable(context.out)
    data = settings.data
    opener = DATASETS[data.dataset]
    if settings.model.model in READ_DENSE:
        opener = WITH_DENSE.get(data.dataset, opener)
    return opener(context.data, context.cache, data.with_ids, data.vocabulary, data.split), device


def execute(run: Run, model: ClickModel, hooks_for: Callable[["Trainer"], list[Hook]],
            finish: Callable[["Trainer"], dict[str, Any]], keep_best: bool) -> dict[str, Any]:
    """Train `model`, resuming where a killed run was, and write the result.

    Args:
        hooks_for: the method's own hooks, called every `log_interval` steps, those with a true
            `every_step` after each; those with `content` and `restore` travel with the checkpoint;
            `shown` gives numbers to show.
        finish: what the method does after training; its record is merged into the result.
        keep_best: early stopping on validation, and the result from its best weights, which are
            kept in model.safetensors; otherwise the last ones, which are not.
    """
    if run.context.dry:
        raise Unfinished(f"run {run.run_id} ({run.stage}) is not finished")
    with checkpoint.only_one(run.folder):
        for part in run.folder.glob(".*.part*"):  # left by a process that was killed while it wrote
            part.unlink()
        trainer = Trainer(run, model)
        own = hooks_for(trainer)
        try:
            reason = trainer.train(own, keep_best)
        except FloatingPointError as error:
            raise FloatingPointError(f"run {run.run_id}: {error}") from error
        if reason == "interrupted":
            raise Interrupted(f"interrupted at step {trainer.state.step}; the same command goes on "
                              f"from there")
        if keep_best:
            trainer.state.refresh()  # no late step may be taken on the weights that are put back
            model.load_state_dict(trainer.stopper.best_weights)
            checkpoint.save_checkpoint(run.folder / WEIGHTS, {"model": model.state_dict()})
        result = with_base_rate({**trainer.result(reason), **finish(trainer)}, run.dataset)
        # so that it is the same now as when it is read back
        result = json.loads(json.dumps(result))
        write_json(run.folder / "result.json", result)
        (run.folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return result


class Trainer:
    """The things on the table during one training."""

    def __init__(self, run: Run, model: ClickModel) -> None:
        train, self.run = run.settings.train, run
        self.device = pick_device(run.context.device)
        reset_peak_memory(self.device)
        self.model = model.to(self.device)
        self.loader = Loader(*run.dataset.split("train"), train.batch_size,
                             derive(run.seed, f"{run.stage}:order"), self.device,
                             self._numbers("train"))
        self.validation = Split(*run.dataset.split("validation"), self.device,
                                self._numbers("validation"))
        self.test = Split(*run.dataset.split("test"), self.device, self._numbers("test"))
        self.state = State(model, self._optimizer(), torch.zeros((), device=self.device))
        self.evaluate = Evaluate(lambda m: measure(m, self.validation),
                                 lambda m: measure_test(m, self.test, train.batch_size),
                                 run.folder / "curve.jsonl")
        published = train.early_stop_metric == PUBLISHED_PATIENCE
        self.stopper = EarlyStop(lambda: self.evaluate.history, "auc" if published
                                 else train.early_stop_metric,
                                 sys.maxsize if published else train.early_stop)
        self.patience: str | None = None  # the metric whose patience may end this run
        self.compiled = False
        self.seconds_before = 0.0  # of the process that was killed
        self.processor_before: float | None = 0.0  # None: its checkpoint is older than this number
        self.started, self.processor_started = time.monotonic(), time.process_time()

    def shuffled_validation(self) -> Loader:
        """Validation rows in batches, for a method that also learns from them."""
        return Loader(*self.run.dataset.split("validation"), self.loader.batch_size,
                      derive(self.run.seed, f"{self.run.stage}:validation order"), self.device,
                      self._numbers("validation"))

    def _numbers(self, split: str) -> np.ndarray | None:
        """(rows, M) for a model that reads them."""
        return self.run.dataset.numbers(split) if self.model.num_dense else None

    def _optimizer(self) -> Optimizer:
        train = self.run.settings.train
        return build_optimizer(self.model, train.lr, train.l2_regularization, train.decay_of_others,
                               train.optimizer)

    def train(self, own: list[Hook], keep_best: bool) -> str:
        """Assemble the hooks and fit; returns the reason to stop."""
        run, train = self.run, self.run.settings.train
        stateful = {"evaluate": self.evaluate, "stopper": self.stopper}
        stateful |= {f"own{i}": hook for i,
                     hook in enumerate(hook for hook in own if hasattr(hook, "content"))}
        torch.manual_seed(derive(run.seed, f"{run.stage}:dropout"))
        path = run.folder / "checkpoint.safetensors"
        if path.exists() and not run.context.force:
            self._restore(checkpoint.load_checkpoint(path, checkpoint.OF_TRAINING), stateful)
            log.info("resuming run %s at epoch %d, batch %d", run.run_id, self.state.epoch,
                     self.state.batch)
        step = Step(self.model, self.state.optimizer, train.grad_clip, train.l2_penalty,
                    train.table_update)
        title = f"{run.stage} {run.settings.model.model}/{run.settings.model.embedding}"
        shown = [hook.shown for hook in own if hasattr(hook, "shown")]
        progress = Progress(title, self.loader.batches, train.max_epochs,
                            lambda: self.evaluate.history, shown)
        saver = Checkpoint(lambda state: checkpoint.save_checkpoint(path, self._content(stateful)),
                           train.checkpoint_seconds)
        hooks: list[Hook] = [
            EverySteps(train.log_interval, require_finite),
            *(
                hook if getattr(hook, "every_step", False) else EverySteps(train.log_interval, hook)
                for hook in own
            ),
            EveryEpochs(train.eval_interval, train.max_epochs, self.evaluate),
        ]
        if keep_best:
            self.patience = train.early_stop_metric
            hooks.append(self.stopper)
        if self.patience == PUBLISHED_PATIENCE:
            hooks.append(PublishedPatience(self.evaluate.published_scores, train.early_stop))
        if train.tensorboard:
            hooks.append(TensorBoard(run.folder / "tensorboard", self.evaluate, self.state.step,
                                     shown))
        with saver.listening():
            try:
                return fit(self.state, self.loader, step, [*hooks, progress, saver],
                           train.max_epochs)
            finally:
                progress.close()

    def result(self, reason: str) -> dict[str, Any]:
        """The record of a finished training, measured on the model as it is now."""
        run = self.run
        self.state.refresh()
        if not self.evaluate.history:
            self.evaluate(self.state)
        validation, test = measure(self.model, self.validation), measure_test(self.model, self.test,
                                                                             self.loader.batch_size)
        history, tests = self.evaluate.history, self.evaluate.test_history
        seconds = statistics.median(self.state.epoch_seconds) if self.state.epoch_seconds else None
        width = self.model.embedding.width if self.model.embedding is not None else 0
        return {
            "run_id": run.run_id, "stage": run.stage, "seed": run.seed,
            "settings": run.settings.flat(),
            "identity": {"settings": json.loads(identity(run.settings)), "extra": run.extra,
                         "algorithm_version": ALGORITHM_VERSION},
            "manifest": run.dataset.hash, "data": self._data(), "stop_reason": reason,
            "epochs": self.state.epoch, "steps": self.state.step,
            "selected_epoch": self.stopper.best["epoch"] if self.stopper.best else self.state.epoch,
            "validation_auc": validation.auc, "validation_logloss": validation.logloss,
            "validation_accuracy": validation.accuracy, "test_accuracy": test["test_accuracy"],
            "test_auc": test["test_auc"], "test_logloss": test["test_logloss"],
            "published_protocol": {"best_test_auc": max(line["test_auc_mean_of_batches"]
                                                        for line in tests),
                                   "best_test_logloss": min(line["test_logloss"] for line in tests),
                                   "patience": self.patience},
            "train_loss": history[-1]["train_loss"],
            "num_embedding_params": num_embedding_params(self.model),
            "inference_bytes": inference_bytes(self.model),
            "num_embedding_params_dense": run.dataset.schema.num_rows * width,
            "seconds_per_epoch": seconds, "samples_per_second": self.loader.rows / seconds
            if seconds else None,
            **self._spent(), "peak_memory_bytes": peak_memory_bytes(self.device),
            "compiled": self.compiled,
            **provenance(self.device),
        }

    def _spent(self) -> dict[str, float | None]:
        """Of the whole run so far, evaluation included. Where other processes take turns, the
        clock's seconds measure them too, and only the processor's (of all threads; not of a
        compiler's own processes) measure the run.
        """
        before, own = self.processor_before, time.process_time() - self.processor_started
        return {"seconds": self.seconds_before + time.monotonic() - self.started,
                "processor_seconds": before + own if before is not None else None}

    def _data(self) -> dict[str, Any]:
        schema, manifest = self.run.dataset.schema, self.run.dataset.manifest
        return {"rows": manifest["rows"], "positives": manifest["positives"],
                "fields": list(schema.fields),
                "field_sizes": dict(zip(schema.fields, schema.sizes, strict=True)),
                "unused_unknown_rows": self.run.dataset.unused_unknown_rows}

    def _content(self, stateful: dict[str, Any]) -> dict[str, Any]:
        state = self.state
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "model": self.model.state_dict(),
            "optimizer": checkpoint.optimizer_content(state.optimizer), "rng": rng,
            "counters": {"epoch": state.epoch, "batch": state.batch, "step": state.step,
                         "loss_batches": state.loss_batches, "epoch_seconds": state.epoch_seconds,
                         "stop_reason": state.stop_reason},
            "loss_sum": state.loss_sum,
            "hooks": {name: hook.content() for name, hook in stateful.items()},
            "compiled": self.compiled, "threads": torch.get_num_threads(), **self._spent(),
        }

    def _restore(self, content: dict[str, Any], stateful: dict[str, Any]) -> None:
        if content["threads"] != torch.get_num_threads():
            log.warning("the checkpoint was written with %d threads, now there are %d: the last "
                        "bits may differ",
                        content["threads"], torch.get_num_threads())
        self.model.load_state_dict(content["model"])
        # the state that was loaded may have come with other parameters
        self.state.optimizer = self._optimizer()
        checkpoint.restore_optimizer(self.state.optimizer, content["optimizer"])
        for name, value in content["counters"].items():
            setattr(self.state, name, value)
        self.state.loss_sum = content["loss_sum"].to(self.device)
        for name, hook in stateful.items():
            if name in content["hooks"]:  # a checkpoint may be older than a hook
                hook.restore(content["hooks"][name])
        self.compiled, self.seconds_before = content["compiled"], content["seconds"]
        self.processor_before = content.get("processor_seconds")
        torch.set_rng_state(content["rng"]["cpu"])
        if "cuda" in content["rng"]:
            torch.cuda.set_rng_state(content["rng"]["cuda"], self.device)
