"""What a terminal shows while something runs: one bar, log lines above it, and plain lines where
the output goes to a file or a pipe."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from engine.loop import Hook, State
from models.build import num_embedding_params

log = logging.getLogger("pep")

# a bar and the time left before anything else: both stay at 80 columns
BAR = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
BESIDE_DESCRIPTION = 36  # columns of a bar of ten, the percentage and the time left
REFRESH = 1.0  # seconds


class LogHandler(logging.Handler):
    """Write log records to standard error, above a bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


@dataclass(frozen=True)
class Report:
    """How far a run has come.

    Args:
        share: of the steps that are planned; a run that stops early ends below 1.
        auc: on validation rows, as last measured; None before that.
        evaluation: the line on an evaluation that has just been made, else "".
    """

    share: float
    auc: float | None = None
    evaluation: str = ""


def fitting(parts: Sequence[str], columns: int) -> str:
    """As many of the parts, from the first on, as fit into so many columns.

    >>> fitting(["AUC 0.84", "epoch 3", "loss 0.4"], 18)
    ', AUC 0.84, epoch 3'
    """
    text = ""
    for part in parts:
        if len(text) + len(part) > columns:
            break
        text += f", {part}"
    return text


class Progress(Hook):
    """Shows a run's progress: a bar on a terminal, a line an evaluation elsewhere. A run that is
    one of several shows nothing itself but reports to the one bar over all of them.

    Args:
        title: of the run.
        batches: of an epoch.
        max_epochs: that are planned.
        history: the evaluations so far.
        shown: a method's own numbers.
        report: where a run of several reports to.
    """

    def __init__(self, title: str, batches: int, max_epochs: int,
                 history: Callable[[], list[dict[str, Any]]],
                 shown: Sequence[Callable[[], dict[str, Any]]] = (),
                 report: Callable[[Report], None] | None = None) -> None:
        self.title = title
        self.total = batches * max_epochs
        self.max_epochs = max_epochs
        self.history = history
        self.of_method = shown
        self.report = report
        self.evaluations = len(history())
        self.next_look = 0.0
        self.bar = tqdm(total=self.total, desc=title, bar_format=BAR, smoothing=0.05,
                        disable=None if report is None else True, mininterval=0.5,
                        dynamic_ncols=True, file=sys.stderr)

    def __call__(self, state: State) -> None:
        """Move the bar. Its numbers are read once a second, as reading them waits for the
        device."""
        line = self._evaluation(state)
        if self.report is None and self.bar.disable:
            if line:
                log.info("%s: %s", self.title, line)
            return
        self.bar.n = state.step
        if not line and time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + REFRESH
        if self.report is not None:
            self.report(Report(state.step / self.total, self._auc(), line))
            return
        columns = (self.bar.ncols or 80) - BESIDE_DESCRIPTION - len(self.title)
        self.bar.set_postfix_str(fitting(self._numbers(state), columns)[2:], refresh=False)
        self.bar.refresh()

    def _auc(self) -> float | None:
        history = self.history()
        return history[-1]["validation_auc"] if history else None

    def _numbers(self, state: State) -> list[str]:
        """What stands behind the bar, the most important first."""
        state.refresh()
        auc = self._auc()
        numbers = [f"AUC {auc:.4f}"] if auc is not None else []
        numbers += [f"epoch {state.epoch}", f"{num_embedding_params(state.model):,} parameters",
                    f"loss {state.mean_loss():.4f}"]
        for own in self.of_method:
            numbers += [f"{name} {value}" for name, value in own().items()]
        return numbers

    def _evaluation(self, state: State) -> str:
        """The line on an evaluation that was made after this step, or ""."""
        history = self.history()
        if len(history) == self.evaluations:
            return ""
        self.evaluations = len(history)
        last = history[-1]
        return (f"epoch {state.epoch} of at most {self.max_epochs}, "
                f"loss {last['train_loss']:.4f}, validation AUC {last['validation_auc']:.4f}, "
                f"{last['num_embedding_params']:,} parameters")

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
