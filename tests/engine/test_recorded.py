"""When a step is recorded, replayed or taken call by call; with a graph that only counts. What a
real graph computes is in test_on_cuda.py."""

import contextlib

import pytest
import torch
from torch import nn

from engine.optim.gpu.recorded import FIRST, RecordedStep


class Counter:
    """In the place of a CUDA graph."""

    def __init__(self):
        self.replays = 0

    def replay(self):
        self.replays += 1


@pytest.fixture
def step(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Counter)
    monkeypatch.setattr(torch.cuda, "graph", contextlib.nullcontext)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters())
    calls = []

    def function(inputs, labels):
        calls.append((len(labels), optimizer.param_groups[0]["capturable"]))
        return labels.sum()

    made = RecordedStep(model, optimizer, function)
    made.calls = calls
    return made


def take(step, times, rows=4):
    """Losses of so many steps; what is held is read, as a real graph would."""
    return [float(step((torch.zeros(rows, 2),), torch.full((rows,), float(number))))
            for number in range(times)]


def test_the_first_steps_are_taken_call_by_call_and_the_next_one_is_recorded(step):
    assert take(step, FIRST) == [0.0, 4.0, 8.0]
    assert step.graph is None
    take(step, 5)
    assert step.graph.replays == 5
    assert [capturable for _, capturable in step.calls] == [False] * FIRST + [True]
    assert torch.equal(step.batch[-1], torch.full((4,), 4.0))  # the last batch was copied in


def test_a_shorter_batch_is_taken_call_by_call_and_a_longer_one_recorded_anew(step):
    take(step, FIRST + 1)
    graph = step.graph
    assert take(step, 1, rows=2) == [0.0]
    assert (step.graph, graph.replays) == (graph, 1)
    take(step, FIRST, rows=6)
    assert step.graph is None
    take(step, 2, rows=6)
    assert step.graph is not graph
    assert (step.graph.replays, [rows for rows, _ in step.calls][-1]) == (2, 6)


def test_a_loss_is_no_part_of_the_graph(step):
    take(step, FIRST + 1)
    first = step((torch.zeros(4, 2),), torch.ones(4))
    assert first.data_ptr() != step.loss.data_ptr()


@pytest.mark.parametrize("change", [
    lambda step: step.optimizer.param_groups[0].update(lr=0.5),
    lambda step: step.model.eval(),
    lambda step: setattr(step.optimizer.param_groups[0]["params"][0], "data", torch.ones(1, 3))])
def test_another_rate_or_place_of_a_parameter_is_recorded_anew(step, change):
    take(step, FIRST + 2)
    graph = step.graph
    change(step)
    take(step, FIRST)
    assert graph.replays == 2
    take(step, 1)
    assert step.graph is not graph
    assert step.graph.replays == 1
