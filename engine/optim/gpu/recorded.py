"""A step's calls, recorded once in a CUDA graph and replayed as one.

A step makes a hundred small calls or more, each of which takes the CPU longer to make than the GPU
to carry out.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

FIRST = 3  # steps taken call by call before the recording: libraries set themselves up in them
RATES = ("lr", "betas", "eps", "weight_decay")

Function = Callable[[tuple[Tensor, ...], Tensor], Tensor]


class RecordedStep:
    """A step on a GPU: the first ones call by call, the others replayed.

    A graph has the addresses and numbers that it was recorded with, so it is recorded anew where a
    tensor of the model lies elsewhere or a rate is another one. With rates that change at every
    step nothing is recorded. A batch that is shorter than others were, as an epoch's last, is taken
    call by call. What else Python decides in a step (an attribute of a module, say) is as it was
    when the step was recorded.

    Args:
        model: whose parameters and buffers the function reads.
        optimizer: whose rates it reads.
        function: (inputs, labels) -> the loss; it must not wait for the device.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer,
                 function: Function) -> None:
        self.model = model
        self.optimizer = optimizer
        self.function = function
        self.tensors: list[tuple[dict[str, Any], str]] = []  # where each is held, and its key
        for module in model.modules():
            for owner in (module._parameters, module._buffers):
                self.tensors += [(owner, name) for name in owner if owner[name] is not None]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.recorded: list[Any] = []  # addresses and rates
        self.seen = 0  # steps with these
        self.batch: list[Tensor] = []  # from which the graph reads
        self.loss = torch.empty(())  # to which it writes

    def __call__(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """What the function returns."""
        parts, current = [*inputs, labels], self._addresses_and_rates()
        if current != self.recorded or len(labels) > len(self.batch[-1]):
            self.recorded, self.seen, self.graph = current, 0, None
            self.batch = [torch.empty_like(part) for part in parts]
        self.seen += 1
        if self.seen <= FIRST or len(labels) < len(self.batch[-1]):
            return self.function(inputs, labels)
        if self.graph is None:
            self.graph = self._record()
        torch._foreach_copy_(self.batch, parts)
        self.graph.replay()
        return self.loss.clone()

    def _addresses_and_rates(self) -> list[Any]:
        rates = [[group.get(rate) for rate in RATES] for group in self.optimizer.param_groups]
        return [[owner[name].data_ptr() for owner, name in self.tensors], rates,
                self.model.training]

    def _record(self) -> torch.cuda.CUDAGraph:
        graph, groups = torch.cuda.CUDAGraph(), self.optimizer.param_groups
        try:
            for group in groups:
                group["capturable"] = True  # torch refuses to record Adam without
            with torch.cuda.graph(graph):
                *inputs, labels = self.batch
                self.loss = self.function(tuple(inputs), labels)
        finally:
            for group in groups:
                group["capturable"] = False
        return graph
