"""How many rows a model scores in a second."""

import statistics
import time

import torch
from torch import Tensor, nn

from engine.record import wait_for
from models.base import Inputs, as_inputs

WARM = 3  # calls before the clock runs


@torch.no_grad()
def samples_per_second(model: nn.Module, inputs: Inputs, batch: int, seconds: float) -> float:
    """Rows a second in evaluation mode, batches of one size: the median over at least 5 calls in
    about `seconds`.

    On one thread of a processor it is its time that counts, not the clock's: long calls would
    otherwise be interrupted by other processes more often than short ones, and a small model look
    faster than it is.

    Args:
        inputs: ids (rows, F), or these and dense features, on the model's device; repeated where
            they are fewer than a batch.
    """
    given = tuple(part.repeat(-(-batch // len(part)), 1)[:batch] for part in as_inputs(inputs))
    was_training = model.training
    model.eval()
    times: list[float] = []
    try:
        for _ in range(WARM):
            _timed(model, given)
        while len(times) < 5 or sum(times) < seconds:
            times.append(_timed(model, given))
    finally:
        model.train(was_training)
    return batch / statistics.median(times)


def _timed(model: nn.Module, given: tuple[Tensor, ...]) -> float:
    on_cpu = given[0].device.type == "cpu"
    clock = time.process_time if on_cpu and torch.get_num_threads() == 1 else time.perf_counter
    wait_for(given[0].device)
    started = clock()
    model(*given)
    wait_for(given[0].device)
    return clock() - started
