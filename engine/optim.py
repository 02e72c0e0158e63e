"""The optimiser and the training step."""

import importlib.util
import logging
import shutil
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

log = logging.getLogger("pep")

COMPILE_FROM_STEPS = 10_000  # below it, compiling (3 to 20 s) costs more than it saves (1 to 5 ms a step)


def build_optimizer(model: nn.Module, lr: float, l2_regularization: float, l2_penalty: float) -> torch.optim.Optimizer:
    """Fused Adam with *coupled* L2: the gradient gets wd * p before the moments, on thresholds and untouched rows too.

    This decay is part of PEP: it raises the thresholds from where their data gradient is nil, and it empties the rows
    that no batch touches. Decoupled decay (AdamW) or a sparse Adam is another algorithm.

    Args:
        model: every parameter goes into exactly one of two groups.
        lr: learning rate.
        l2_regularization: wd of the embedding and its thresholds.
        l2_penalty: wd of everything else.
    """
    inside = [p for name, p in model.named_parameters() if name.startswith("embedding.")]
    outside = [p for name, p in model.named_parameters() if not name.startswith("embedding.")]
    groups = [{"params": inside, "weight_decay": l2_regularization}, {"params": outside, "weight_decay": l2_penalty}]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.999), eps=1e-8,
                            fused=True)


class Step:
    """One optimiser step: loss, gradients, clipping by global norm, Adam. Nothing here waits for a GPU.

    The parameters are those that the optimiser holds at the time: a hook may put others in their place between steps,
    and the compiled function is then compiled again by itself.

    Args:
        compiled: compile loss, gradients and their norm into one graph for batches of `batch_size`; shorter batches run
            the same function eagerly.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, grad_clip: float, compiled: bool,
                 batch_size: int) -> None:
        self.optimizer = optimizer
        self.grad_clip = grad_clip
        self.batch_size = batch_size

        def gradients(ids: Tensor, labels: Tensor,
                      parameters: list[Tensor]) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
            loss = binary_cross_entropy_with_logits(model(ids), labels)
            grads = torch.autograd.grad(loss, parameters)
            norm = torch.stack([(grad * grad).sum() for grad in grads]).sum().sqrt()
            return loss.detach(), norm, grads

        self.eager = gradients
        self.full = _compile(gradients) if compiled else gradients

    def __call__(self, ids: Tensor, labels: Tensor) -> Tensor:
        """ids (B, F), labels (B,) -> the batch's mean loss, detached, still on the device."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        loss, norm, grads = (self.full if len(labels) == self.batch_size else self.eager)(ids, labels, parameters)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        if norm.is_cuda or norm > self.grad_clip:  # on a CPU the answer is at hand and a multiplication by 1 is saved
            torch.nn.utils.clip_grads_with_norm_(parameters, self.grad_clip, norm, foreach=True)
        self.optimizer.step()
        return loss


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for one shape. A quarter to a third of the FM step was the hand-over between separate graphs."""
    torch._dynamo.config.trace_autograd_ops = True  # torch.autograd.grad inside the graph; a test holds that it works
    torch._dynamo.config.recompile_limit = 64  # counted over all models of a process, and a sweep has many
    return torch.compile(function, dynamic=False, fullgraph=True)


def choose_compiled(setting: str, steps: int, device: torch.device) -> bool:
    """Whether to compile the step: the setting, or for `auto` whether a run of `steps` steps earns it back.

    The rule is fixed rather than timed, so that the same run makes the same choice, and so the same bits, each time.
    """
    if setting != "auto":
        return setting == "on"
    if device.type == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        log.info("step: eager (no C++ compiler found, so the step cannot be compiled)")
        return False
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        log.info("step: eager (triton is not installed, so the step cannot be compiled)")
        return False
    compiled = steps >= COMPILE_FROM_STEPS
    log.info("step: %s (%d steps planned; compiling pays from %d)", "compiled" if compiled else "eager", steps,
             COMPILE_FROM_STEPS)
    return compiled
