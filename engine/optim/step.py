"""The optimiser and the training step."""

import importlib.util
import logging
import operator
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.optim.cpu.rowwise import RowwiseAdam
from engine.optim.fused import FusedAdamStep, state_of
from engine.optim.gpu.adam import triton_installed
from engine.optim.gpu.rowwise import DeviceRowwiseAdam
from models.base import ClickModel, Inputs, parts_of, tables_by_row

log = logging.getLogger("pep")

# below it, compiling (3 to 20 s) costs more than it saves (1 to 5 ms a step)
COMPILE_FROM_STEPS = 10_000


class Adam(torch.optim.Adam):
    """torch's fused Adam, but for the tables that a `Step` treats by row, whose state it holds all
    the same."""

    rows: RowwiseAdam | DeviceRowwiseAdam | None = None

    def refresh(self) -> None:
        """Bring every row of every table up to date. Whoever looks at parameters between steps
        calls this first."""
        if self.rows is not None:
            self.rows.refresh()

    def state_dict(self) -> dict[str, Any]:
        """Refreshed, so that any form of the update goes on from it."""
        self.refresh()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moments and step counts; the next step finds the tables anew."""
        self.rows = None
        super().load_state_dict(state_dict)


class Sgd(torch.optim.SGD):
    """Plain gradient descent, whose parameters are up to date after every step."""

    def refresh(self) -> None:
        """Nothing is ever taken late."""


Optimizer = Adam | Sgd


def build_optimizer(model: ClickModel, lr: float, l2_regularization: float, weight_decay: float,
                    kind: str = "adam") -> Optimizer:
    """Adam with *coupled* L2: the gradient gets wd * p before the moments, on thresholds and
    untouched rows too.

    This decay is part of PEP: it raises the thresholds from where their data gradient is nil, and
    it empties the rows that no batch touches. Decoupled decay (AdamW) or a sparse Adam is another
    algorithm. An embedding may ask for another decay of a parameter of its own, to show just that.

    Args:
        model: every parameter that is trained goes into exactly one group: the embedding's, those
            of it with another decay, the rest.
        lr: learning rate.
        l2_regularization: wd of the embedding and its thresholds.
        weight_decay: wd of everything else; the published code has one number for both.
        kind: "sgd" for plain gradient descent, as DLRM and UMEC publish it, with the same decay.
    """
    decays = model.embedding.decays
    inside: dict[str, list[nn.Parameter]] = {"coupled": []}
    outside = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("embedding."):
            inside.setdefault(decays.get(name.removeprefix("embedding."), "coupled"),
                              []).append(parameter)
        else:
            outside.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": members, "weight_decay": 0.0 if decay == "none" else l2_regularization,
         "decoupled_weight_decay": decay == "decoupled"} for decay, members in inside.items()]
    groups.append({"params": outside, "weight_decay": weight_decay})
    groups = [group for group in groups if group["params"]]
    if kind == "sgd":
        return Sgd(groups, lr=lr)
    return Adam(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


@dataclass(frozen=True)
class StepForm:
    """How a step is carried out; none of it changes what the step is.

    Args:
        batch_size: rows of a full batch, for which a compiled step is compiled; shorter batches run
            eagerly.
        compiled: compile loss and gradients into one graph.
        update: how tables are read and updated. "whole": as they are, with gradients of their size
            (the definition); "dense", "deferred": by row, see `RowwiseAdam` and, for a GPU,
            `DeviceRowwiseAdam`; "auto": by row where it can be, in the faster way.
    """

    batch_size: int
    compiled: bool = False
    update: str = "auto"


class Step:
    """One optimiser step: loss, gradients, clipping by global norm, Adam. Nothing here waits for a
    GPU.

    The parameters are those that the optimiser holds at the time: a hook may put others in their
    place between steps, and the compiled function is then compiled again by itself.

    Args:
        model: whose parameters the optimiser holds.
        optimizer: of `build_optimizer`.
        grad_clip: largest global norm of the gradients.
        form: how the step is carried out.
        l2_penalty: the published penalty, added to the mean cross entropy: `l2_penalty` times the
            sum of the squares of the batch's embedding vectors (B, F, D), as pruned, divided by B.
            Its gradient reaches V and s alike, and of s it does not vanish at s = 0 as weight
            decay's does. The loss that the step returns is the cross entropy alone.
    """

    as_on_device = False  # do on a CPU what is done on a GPU; for tests

    def __init__(self, model: ClickModel, optimizer: torch.optim.Optimizer, grad_clip: float,
                 form: StepForm,
                 l2_penalty: float = 0.0) -> None:
        self.model = model
        self.optimizer = optimizer
        self.grad_clip = grad_clip
        self.batch_size = form.batch_size
        self.update = form.update
        self.parameters: list[Tensor] = []
        self.rest: list[Tensor] = []
        self.rows: RowwiseAdam | DeviceRowwiseAdam | None = None
        # the optimiser, where its update is compiled with the gradients
        self.fused: Adam | None = None
        self.version = 0  # of what `_see_parameters` found

        def gradients(inputs: tuple[Tensor, ...], labels: Tensor, rest: list[Tensor],
                      opened: dict[str, Tensor]) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
            logits = functional_call(model, opened, inputs) if opened else model(*inputs)
            loss = binary_cross_entropy_with_logits(logits, labels)
            total = loss
            if l2_penalty:
                vectors = _vectors(model, opened, inputs[0])
                total = loss + l2_penalty * vectors.square().sum() / len(labels)
            grads = torch.autograd.grad(total, [*rest, *(value for value in opened.values()
                                                         if value.requires_grad)])
            squares = [(grad * grad).sum() for grad in grads[:len(rest)]]
            return (
                loss.detach(),
                torch.stack(squares).sum() if squares else loss.new_zeros(()),
                grads,
            )

        self.eager = gradients
        self.full = compile_gradients(gradients) if form.compiled else gradients
        self.fused_step = FusedAdamStep(gradients, grad_clip,
                                        compile_gradients) if form.compiled else None

    def __call__(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """ids (B, F), perhaps with numbers (B, M), and labels (B,) -> the batch's mean loss, still
        on the device.

        Raises:
            ValueError: the batch is empty.
            IndexError: an id outside the tables, on a CPU.
            FloatingPointError: a gradient that is not finite, on a CPU; the parameters stay as they
                were.
        """
        self.prepare(inputs, labels)
        return self.take(inputs, labels)

    def prepare(self, inputs: Inputs, labels: Tensor) -> None:
        """What Python has to do before a step; `take` does the rest, on a GPU always with the same
        launches."""
        if not len(labels):
            raise ValueError("the batch is empty: there is no loss to take a step on")
        self._see_parameters(parts_of(inputs)[0].shape[1])
        if isinstance(self.rows, DeviceRowwiseAdam):
            self.rows.count()

    def take(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """The step that was prepared."""
        ids, *numbers = parts_of(inputs)
        rows = self.rows
        if (
            self.fused is not None
            and self.fused_step is not None
            and len(labels) == self.batch_size
        ):
            loss, norm = self.fused_step((ids, *numbers), labels, self.rest, self.fused)
            if not torch.isfinite(norm):
                raise not_finite(loss, norm)
            return loss
        opened: dict[str, Tensor] = {}
        if rows is not None:
            ids, opened = rows.open(ids)
        run = self.full if len(labels) == self.batch_size else self.eager
        loss, squares, grads = run((ids, *numbers), labels, self.rest, opened)
        by_row = dict(zip(rows.tables, grads[len(self.rest):],
                          strict=True)) if rows is not None else {}
        if rows is not None:
            squares = squares + rows.norm_squared(by_row)
        norm = squares.sqrt()
        waits = not (norm.is_cuda or self.as_on_device)
        if not waits:  # seen when the losses are next looked at
            loss = torch.where(torch.isfinite(norm), loss, torch.nan)
        elif not torch.isfinite(norm):
            raise not_finite(loss, norm)
        scale: Any = 1.0
        for parameter, grad in zip(self.rest, grads, strict=False):
            parameter.grad = grad
        for table in rows.tables.values() if rows is not None else ():
            # of somebody's backward(); the optimiser would take a second step with it
            table.parameter.grad = None
        # on a CPU the answer is at hand and a multiplication by 1 is saved
        if not waits or norm > self.grad_clip:
            if rows is not None:
                scale = self.grad_clip / (norm + 1e-6)  # as torch does it
                scale = float(scale) if waits else scale.clamp(max=1.0)
            torch.nn.utils.clip_grads_with_norm_(self.rest, self.grad_clip, norm, foreach=True)
        if self.rest:
            self.optimizer.step()
        if rows is not None:
            rows.close(by_row, scale)
        return loss

    def _see_parameters(self, fields: int) -> None:
        """Part the optimiser's parameters into tables that go by row and the rest, when they are
        others than before."""
        parameters = [parameter for group in self.optimizer.param_groups
                      for parameter in group["params"]]
        same = len(parameters) == len(self.parameters) and all(map(operator.is_, parameters,
                                                                   self.parameters))
        if same and getattr(self.optimizer, "rows", None) is self.rows:
            return
        self.parameters, tables = parameters, {}
        self.version += 1
        decoupled = any(group.get("decoupled_weight_decay")
                        for group in self.optimizer.param_groups)
        if isinstance(self.optimizer, Adam):
            self.optimizer.refresh()
            slow = self.update == "auto" and parameters[0].is_cuda and not triton_installed()
            if self.update != "whole" and not slow:
                tables = tables_by_row(self.model)
            if decoupled:
                tables = {}  # by row, only coupled decay is known
            if self.update == "auto" and tables and _few_rows(tables, fields * self.batch_size):
                tables = {}
            kind = DeviceRowwiseAdam if parameters[0].is_cuda or self.as_on_device else RowwiseAdam
            self.rows = self.optimizer.rows = _rows(self.optimizer, tables, self.update,
                                                    kind) if tables else None
        self.rest = [parameter for parameter in parameters
                     if not any(parameter is table for table in tables.values())]
        whole = self.rows is None and not decoupled and not (self.as_on_device
                                                             or parameters[0].is_cuda)
        self.fused = self.optimizer if whole and isinstance(self.optimizer, Adam) else None


def _vectors(model: ClickModel, opened: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The batch's vectors (B, F, D), as pruned, from tables of which the batch's rows may have been
    gathered."""
    prefix = "embedding."
    tables = {name.removeprefix(prefix): table for name, table in opened.items()
              if name.startswith(prefix)}
    return functional_call(model.embedding, tables, (ids,))


def _few_rows(tables: dict[str, Tensor], ids: int) -> bool:
    """Whether the tables have fewer rows than a batch has ids. A fixed rule: the two ways differ in
    their last bits.

    FM, 4,129 x 64, batches of 1,024 x 7: 1.6 to 2.6 ms whole, 2.3 to 4.0 by row (two busy threads).
    """
    rows = len(next(iter(tables.values())))
    log.info("tables: %s (%d rows, %d ids in a batch)", "whole" if rows <= ids else "by row", rows,
             ids)
    return rows <= ids


def _rows(optimizer: Adam, tables: dict[str, Tensor], form: str,
          kind: type[RowwiseAdam] | type[DeviceRowwiseAdam]) -> RowwiseAdam | DeviceRowwiseAdam:
    found = {}
    for name, table in tables.items():
        for group in optimizer.param_groups:
            if any(table is parameter for parameter in group["params"]):
                found[name] = (table, state_of(optimizer, table), group)
    return kind(found, {name: table for name, table in tables.items() if name not in found}, form)


def not_finite(loss: Tensor, norm: Tensor) -> FloatingPointError:
    """The error of a step that cannot be taken."""
    return FloatingPointError(f"the loss is {float(loss)} and the norm of its gradients "
                              f"{float(norm)}")


def compile_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for one shape. A quarter to a third of the FM step was the hand-over between separate
    graphs."""
    # torch.autograd.grad inside the graph; a test holds that it works
    torch._dynamo.config.trace_autograd_ops = True
    # counted over all models of a process, and a sweep has many
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(function, dynamic=False, fullgraph=True)


def choose_compiled(setting: str, steps: int, device: torch.device) -> bool:
    """Whether to compile the step: the setting, or for `auto` whether a run of `steps` steps earns
    it back.

    The rule is fixed rather than timed, so that the same run makes the same choice, and so the same
    bits, each time.
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
    log.info("step: %s (%d steps planned; compiling pays from %d)", "compiled" if compiled
             else "eager", steps,
             COMPILE_FROM_STEPS)
    return compiled
