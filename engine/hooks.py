"""The hooks of every run: evaluation, early stopping, progress, TensorBoard and checkpoints."""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.evaluate import Metrics
from engine.loop import Hook, State
from models.base import ClickModel
from models.build import num_embedding_params
from utils.files import atomic_path
from utils.signals import handling

log = logging.getLogger("pep")

Shown = Callable[[], dict[str, Any]]  # `Hook.shown` of a method's own hooks


class EverySteps(Hook):
    """Call `hook` at every n-th step and at the end of each epoch."""

    def __init__(self, interval: int, hook: Callable[[State], str | None]) -> None:
        self.interval = interval
        self.hook = hook

    def __call__(self, state: State) -> str | None:
        """The hook's reason."""
        return self.hook(state) if state.epoch_done or state.step % self.interval == 0 else None


class EveryEpochs(Hook):
    """Call `hook` at the end of every n-th epoch, and of the last."""

    def __init__(self, interval: int, last: int, hook: Callable[[State], str | None]) -> None:
        self.interval = interval
        self.last = last
        self.hook = hook

    def __call__(self, state: State) -> str | None:
        """The hook's reason."""
        due = state.epoch_done and (state.epoch % self.interval == 0 or state.epoch == self.last)
        return self.hook(state) if due else None


def require_finite(state: State) -> None:
    """Raise FloatingPointError when the loss is not finite."""
    state.mean_loss()


class Evaluate(Hook):
    """Measure validation and test rows, and write the curve. Choices may read only `history`, which
    holds validation alone.

    Args:
        measure: gives what a model scores on the validation and on the test rows.
        curve: JSON-lines file with one line an evaluation; None: nothing is written.
    """

    name = "evaluate"

    def __init__(self, measure: Callable[[ClickModel], tuple[Metrics, dict[str, float]]],
                 curve: Path | None) -> None:
        self.measure = measure
        self.curve = curve
        self.history: list[dict[str, Any]] = []
        self.test_history: list[dict[str, float]] = []

    def __call__(self, state: State) -> None:
        """Add a line to the curve."""
        state.refresh()
        metrics, test = self.measure(state.model)
        self.history.append({
            "epoch": state.epoch, "step": state.step, "train_loss": state.mean_loss(),
            "validation_auc": metrics.auc, "validation_logloss": metrics.logloss,
            "validation_accuracy": metrics.accuracy,
            "num_embedding_params": num_embedding_params(state.model)})
        self.test_history.append(test)
        self._write()

    def _write(self) -> None:
        if self.curve is None:
            return
        lines = [json.dumps({**line, **scores}) + "\n"
                 for line, scores in zip(self.history, self.test_history, strict=True)]
        with atomic_path(self.curve) as temporary:
            temporary.write_text("".join(lines))

    def published_scores(self) -> list[float]:
        """The mean of per-batch test AUCs at each evaluation: for the published patience alone."""
        return [line["test_auc_mean_of_batches"] for line in self.test_history]

    def state_dict(self) -> dict[str, Any]:
        """The curve so far."""
        return {"history": self.history, "test_history": self.test_history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The curve so far, also in its file, which may be lost if it was the last evaluation."""
        self.history, self.test_history = state["history"], state["test_history"]
        if self.history:
            self._write()


class EarlyStop(Hook):
    """Keep the weights of the best validation; stop after `patience` evaluations without a better
    one.

    Args:
        history: that of `Evaluate`, which must come before this hook.
        metric: "auc" (higher is better) or "loss" (validation log-loss, lower is better).
        patience: evaluations.
    """

    name = "early_stop"

    def __init__(self, history: Callable[[], list[dict[str, Any]]], metric: str,
                 patience: int) -> None:
        self.history = history
        self.metric = metric
        self.patience = patience
        self.seen = 0
        self.best: dict[str, Any] | None = None
        self.best_weights: dict[str, torch.Tensor] = {}

    def __call__(self, state: State) -> str | None:
        """A reason when patience has run out."""
        history = self.history()
        if len(history) == self.seen:
            return None
        self.seen = len(history)
        if self.best is None or self._score(history[-1]) > self._score(self.best):
            self.best = {**history[-1], "evaluation": self.seen}
            self.best_weights = {name: value.clone()
                                 for name, value in state.model.state_dict().items()}
        return "early_stop" if self.seen - self.best["evaluation"] >= self.patience else None

    def scores(self) -> list[float]:
        """The metric at each evaluation so far, higher is better."""
        return [self._score(line) for line in self.history()]

    def _score(self, line: dict[str, Any]) -> float:
        return line["validation_auc"] if self.metric == "auc" else -line["validation_logloss"]

    def state_dict(self) -> dict[str, Any]:
        """The best evaluation and its weights."""
        return {"seen": self.seen, "best": self.best, "best_weights": self.best_weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The best evaluation and its weights."""
        self.seen, self.best = state["seen"], state["best"]
        self.best_weights = state["best_weights"]


class PublishedPatience(Hook):
    """Stop as the published code does: after `patience` evaluations without a better test AUC.

    It ends a run but chooses nothing: the weights that are kept are those of the best validation.

    Args:
        scores: the mean of per-batch test AUCs at each evaluation so far.
        patience: evaluations.
    """

    def __init__(self, scores: Callable[[], list[float]], patience: int) -> None:
        self.scores = scores
        self.patience = patience

    def __call__(self, state: State) -> str | None:
        """A reason when patience has run out."""
        scores = self.scores()
        if not scores:
            return None
        waited = len(scores) - 1 - scores.index(max(scores))
        return "published_patience" if waited >= self.patience else None


class TensorBoard(Hook):
    """Write the evaluation curve and the settings for TensorBoard: `tensorboard --logdir tmp/runs`.

    Args:
        folder: whose name is the run's there.
        evaluate: gives the curve.
        first_step: what an interrupted run had written after it is dropped.
        shown: a method's own numbers.
        settings: of the run, shown as its hyper-parameters.
    """

    def __init__(self, folder: Path, evaluate: Evaluate, first_step: int,
                 shown: Sequence[Shown] = (), settings: Mapping[str, Any] | None = None) -> None:
        # a second of imports that --set tensorboard=false saves
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.evaluate = evaluate
        self.of_method = shown
        self.seen = len(evaluate.history)
        self.writer = SummaryWriter(str(folder), purge_step=first_step + 1)
        values = {name: value if isinstance(value, (bool, int, float, str)) else str(value)
                  for name, value in (settings or {}).items()}
        # as `add_hparams` does, which would write them into a run of their own
        for summary in hparams(values, {"validation_auc": None, "test_auc": None}):
            self.writer._get_file_writer().add_summary(summary)

    def __call__(self, state: State) -> None:
        """Add the newest line."""
        if len(self.evaluate.history) > self.seen:
            self.seen = len(self.evaluate.history)
            line = {**self.evaluate.history[-1], **self.evaluate.test_history[-1]}
            for numbers in self.of_method:
                line |= numbers()
            for name, value in line.items():
                if name not in ("epoch", "step"):
                    self.writer.add_scalar(name, value, state.step)
            self.writer.flush()


class Checkpoint(Hook):
    """Save the whole training every `seconds`. When the process is told to end (Ctrl-C or SIGTERM),
    save it and stop.

    This hook comes last, so that the other hooks have acted on a step before it is saved.
    """

    def __init__(self, save: Callable[[State], None], seconds: float) -> None:
        self.save = save
        self.seconds = seconds
        self.last = time.monotonic()
        self.interrupted = False

    def __call__(self, state: State) -> str | None:
        """"interrupted" when the process was told to end."""
        if self.interrupted or time.monotonic() - self.last >= self.seconds:
            state.refresh()
            state.mean_loss()  # a state with a broken loss must not replace a good checkpoint
            self.save(state)
            self.last = time.monotonic()
        return "interrupted" if self.interrupted else None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside the block."""
        def note(number: int, frame: object) -> None:
            self.interrupted = True

        try:
            with handling(note):
                yield
        except ConnectionError:  # torchrun sends SIGTERM when a process is lost
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so that the message is printed
            raise
