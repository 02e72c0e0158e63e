"""The upper level of a bilevel search: after each step on training rows, one step of another
parameter on validation rows."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits

from data.loader import Loader
from engine.loop import Hook, State


def _gradient(model: nn.Module, name: str, parameter: Tensor, inputs: Any,
              labels: Tensor) -> Tensor:
    loss = binary_cross_entropy_with_logits(functional_call(model, {name: parameter}, inputs),
                                            labels)
    return torch.autograd.grad(loss, [parameter])[0]


class Bilevel(Hook):
    """After each training step, take an Adam step of one buffer on the loss of one validation batch
    (first-order DARTS, Liu et al. 2019: the weights are constants in that step).

    Args:
        buffer: name in the model. It is a float buffer, so that the training's own optimiser does
            not move it.
        validation: gives the batches, epoch after epoch.
        lr: of its Adam.
        grad_clip: largest global norm of its gradient.
    """

    name = "bilevel"
    every_step = True

    def __init__(self, buffer: str, validation: Loader, lr: float, grad_clip: float) -> None:
        self.buffer = buffer
        self.validation = validation
        self.lr = lr
        self.grad_clip = grad_clip
        self.optimizer: torch.optim.Adam | None = None
        self.loaded: dict[str, Any] | None = None
        self.batches: Iterator[tuple[Any, Tensor]] = iter(())
        self.position = -1  # index of the batch that `batches` gave last

    def __call__(self, state: State) -> None:
        """Take one step."""
        state.refresh()
        parameter = self._parameter(state.model)
        inputs, labels = self._batch(state.step - 1)
        parameter.grad = _gradient(state.model, self.buffer, parameter, inputs, labels)
        torch.nn.utils.clip_grad_norm_([parameter], self.grad_clip)
        assert self.optimizer is not None
        self.optimizer.step()

    def _parameter(self, model: nn.Module) -> nn.Parameter:
        """The buffer as a parameter, in the same memory."""
        buffer = model.get_buffer(self.buffer)
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam([nn.Parameter(buffer)], lr=self.lr, fused=True)
            if self.loaded is not None:
                self.optimizer.load_state_dict(self.loaded)
        (parameter,) = self.optimizer.param_groups[0]["params"]
        if parameter.data_ptr() != buffer.data_ptr():
            raise RuntimeError(f"the buffer {self.buffer} has moved to other memory")
        return parameter

    def _batch(self, index: int) -> tuple[Any, Tensor]:
        """The batch of a training step, counted from 0: epochs of the validation rows one after the
        other, each in its own order."""
        if index != self.position + 1 or index % self.validation.batches == 0:
            epoch, batch = divmod(index, self.validation.batches)
            self.batches = self.validation.epoch(epoch, batch)
        self.position = index
        return next(self.batches)

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments and step count."""
        if self.optimizer is None:
            return {"state": {}}
        return {"state": self.optimizer.state_dict()["state"].get(0, {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Used when the optimiser is made, at the first step."""
        moments = state["state"]
        groups = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=self.lr,
                                  fused=True).state_dict()["param_groups"]
        self.loaded = {"state": {0: moments} if moments else {}, "param_groups": groups}
