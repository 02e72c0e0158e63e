"""The step as a CUDA graph: its kernels, a hundred or more, are recorded once and launched as one.

Never run on a GPU: the tests record torch's operations on a CPU instead.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from engine.optim.step import Step
from models.base import Inputs, parts_of

log = logging.getLogger("pep")

WARM = 3  # steps before the recording, which allocate moments, kernels and workspaces
Recorded = Callable[[], Tensor]  # replays a step; its loss is at the same address each time


class CudaGraphStep:
    """A `Step` whose full batches are replayed from a recording. The bits are those of the step
    itself.

    Python runs once for the recording. What differs from step to step is read from tensors: the
    batch, which is copied to the recording's inputs; the step's index and its rates
    (`engine.optim.gpu.rowwise`). When anything else changes that Python depends on (the parameters,
    lr or another setting of the optimiser, a shape), a new recording is made. The last, shorter
    batch of an epoch is not replayed.

    A step that waits for the device cannot be recorded. It is then taken kernel by kernel, and the
    log says so.

    Args:
        step: on a CUDA device.
        record: calls a function without taking its step, and returns what takes it.
    """

    def __init__(self, step: Step, record: Callable[[Callable[[], Tensor]], Recorded]
                 | None = None) -> None:
        self.step = step
        self.record = record or _cuda_graph
        self.can = True
        self.key: Any = None  # what Python depends on
        self.warm = 0
        self.inputs: Inputs = torch.empty(0)  # from which the recording reads a batch
        self.labels = torch.empty(0)
        self.play: Recorded | None = None

    def __call__(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """As `Step`. The loss is a copy, because the next step overwrites the recording's."""
        self.step.prepare(inputs, labels)
        if not self.can or len(labels) != self.step.batch_size:
            return self.step.take(inputs, labels)
        batch = (*parts_of(inputs), labels)
        key = (self.step.version, _settings(self.step.optimizer),
               [(part.shape, part.dtype) for part in batch])
        if key != self.key:
            self.key, self.play, self.warm = key, None, 0
        if self.play is None and self.warm < WARM:
            self.warm += 1
            return self._before_recording(inputs, labels, last=self.warm == WARM)
        if self.play is None:
            if isinstance(inputs, tuple):
                self.inputs = inputs[0].clone(), inputs[1].clone()
            else:
                self.inputs = inputs.clone()
            self.labels = labels.clone()
            self.play = self._recorded()
        if self.play is None:
            return self.step.take(inputs, labels)
        for place, part in zip((*parts_of(self.inputs), self.labels), batch, strict=True):
            place.copy_(part)
        return self.play().clone()

    def _before_recording(self, inputs: Inputs, labels: Tensor, last: bool) -> Tensor:
        """A step on a stream of its own, as a recording needs it. The last one finds out whether
        the step waits."""
        if not labels.is_cuda:
            return self.step.take(inputs, labels)
        beside = torch.cuda.Stream(labels.device)
        beside.wait_stream(torch.cuda.current_stream(labels.device))
        with torch.cuda.stream(beside), _waits(last) as waits:
            loss = self.step.take(inputs, labels)
        torch.cuda.current_stream(labels.device).wait_stream(beside)
        if waits:
            self.can = False
            log.info("step: launched kernel by kernel (it cannot be a CUDA graph: %s)", waits[0])
        return loss

    def _recorded(self) -> Recorded | None:
        try:
            with _capturable(self.step.optimizer):
                play = self.record(lambda: self.step.take(self.inputs, self.labels))
        except RuntimeError as error:
            self.can = False
            log.warning("step: launched kernel by kernel (recording a CUDA graph failed: %s)",
                        str(error).split("\n")[0])
            # ends the failed recording for torch's random number generator
            self.record(lambda: torch.zeros((), device=self.labels.device))
            return None
        log.info("step: one CUDA graph")
        return play


def maybe_cuda_graph(step: Step, setting: str, device: torch.device) -> Step | CudaGraphStep:
    """The step as a graph where the setting and the device allow it.

    Args:
        setting: "on", "off", or "auto", which is on for CUDA.

    Raises:
        ValueError: "on" for another device.
    """
    if setting == "on" and device.type != "cuda":
        raise ValueError(f"cuda_graph=on needs a CUDA device, and this run is on {device.type}. "
                         f"Leave it at auto")
    return CudaGraphStep(step) if setting != "off" and device.type == "cuda" else step


def _cuda_graph(function: Callable[[], Tensor]) -> Recorded:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            loss = function()
    finally:
        torch.cuda.set_stream(stream)  # where the capture failed, torch stays on its own

    def play() -> Tensor:
        graph.replay()
        return loss

    return play


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The settings of the optimiser's groups, which are constants in a recording."""
    return [{name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups]


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let torch's Adam be recorded. The flag is set back, so that it is in no checkpoint."""
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    try:
        for group in groups:
            group["capturable"] = True
        yield
    finally:
        for group, flag in zip(groups, before, strict=True):
            group["capturable"] = flag


@contextmanager
def _waits(look: bool) -> Iterator[list[str]]:
    """Lines of code that made the CPU wait for the device inside the context. The list is filled
    when it ends, if `look`."""
    found: list[str] = []
    if not look:
        yield found
        return
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    found += [f"{one.filename}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]
