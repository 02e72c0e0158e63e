"""The optimiser, and the training step that takes it."""

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

from engine.optim.cpu import rowwise as cpu
from engine.optim.fused import FusedAdamStep, state_of
from engine.optim.gpu import rowwise as gpu
from engine.optim.gpu.adam import triton_installed
from models.base import ClickModel, Inputs, parts_of, tables_by_row

log = logging.getLogger("pep")

# with fewer steps, compiling (3 to 20 s) costs more than it saves (1 to 5 ms a step)
COMPILE_FROM_STEPS = 10_000

Rowwise = cpu.RowwiseAdam | gpu.RowwiseAdam


class Adam(torch.optim.Adam):
    """torch's fused Adam. A `Step` may update tables by row instead; their state is here all the
    same."""

    rows: Rowwise | None = None

    def refresh(self) -> None:
        """Bring every row of every table up to date, before parameters are read between steps."""
        if self.rows is not None:
            self.rows.refresh()

    def state_dict(self) -> dict[str, Any]:
        """Of refreshed tables, so that any form of the update can go on from it."""
        self.refresh()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moments and step counts. The next step looks for the tables again."""
        self.rows = None
        super().load_state_dict(state_dict)


class Sgd(torch.optim.SGD):
    """Plain gradient descent, whose parameters are up to date after every step."""

    def refresh(self) -> None:
        """No step is taken late."""


Optimizer = Adam | Sgd


def build_optimizer(model: ClickModel, lr: float, l2_regularization: float, weight_decay: float,
                    kind: str = "adam") -> Optimizer:
    """Adam with *coupled* L2: wd * p is added to the gradient before the moments, also for
    thresholds and for rows without data.

    This decay is part of PEP: it raises the thresholds where they get no gradient from the loss,
    and it empties the rows that no batch has. Decoupled decay (AdamW) or a sparse Adam is another
    algorithm. An embedding can name another decay for a parameter of its own, to show just that.

    Args:
        model: each parameter with `requires_grad` goes into one group: the embedding's, those of
            its parameters with another decay, the rest.
        lr: learning rate.
        l2_regularization: wd of the embedding and its thresholds.
        weight_decay: wd of everything else; the published code has one number for both.
        kind: "adam", or "sgd" for plain gradient descent with the same decay, as DLRM and UMEC are
            published.
    """
    decays = model.embedding.decays
    inside: dict[str, list[nn.Parameter]] = {"coupled": []}
    outside = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("embedding."):
            decay = decays.get(name.removeprefix("embedding."), "coupled")
            inside.setdefault(decay, []).append(parameter)
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
    """How a step is computed; none of it changes what the step is.

    Args:
        batch_size: rows of a full batch, for which a compiled step is compiled; shorter batches run
            eagerly.
        compiled: compile loss and gradients into one graph.
        update: how tables are read and updated. "dense": with gradients of the table's size (the
            definition); "streamed" and "lazy": row by row, see `RowwiseAdam`; "auto": "lazy" where
            the table has more rows than a batch has ids, else "dense".
    """

    batch_size: int
    compiled: bool = False
    update: str = "auto"


class Step:
    """One optimiser step: loss, gradients, clipping by global norm, Adam. Nothing here waits for a
    GPU.

    Args:
        model: whose parameters the optimiser holds.
        optimizer: of `build_optimizer`.
        grad_clip: largest global norm of the gradients.
        form: how the step is computed.
        l2_penalty: the published penalty, added to the mean cross entropy: `l2_penalty` times the
            sum of the squares of the batch's embedding vectors (B, F, D), as pruned, divided by B.
            Its gradient reaches V and s, and unlike weight decay's it does not vanish at s = 0. The
            loss that the step returns is the cross entropy alone.
    """

    as_on_device = False  # do on a CPU what is done on a GPU; for tests

    def __init__(self, model: ClickModel, optimizer: torch.optim.Optimizer, grad_clip: float,
                 form: StepForm, l2_penalty: float = 0.0) -> None:
        self.model = model
        self.optimizer = optimizer
        self.adam = optimizer if isinstance(optimizer, Adam) else None
        self.grad_clip = grad_clip
        self.batch_size = form.batch_size
        self.update = form.update
        self.parameters: list[Tensor] = []
        self.rest: list[Tensor] = []  # parameters that are not updated by row
        self.rows: Rowwise | None = None
        self.fused: Adam | None = None  # the optimiser, if it is compiled with the gradients
        self.version = 0  # how often `_find_tables` has found other parameters

        def gradients(inputs: tuple[Tensor, ...], labels: Tensor, rest: list[Tensor],
                      gathered: dict[str, Tensor]) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
            logits = functional_call(model, gathered, inputs) if gathered else model(*inputs)
            loss = binary_cross_entropy_with_logits(logits, labels)
            total = loss
            if l2_penalty:
                vectors = _vectors(model, gathered, inputs[0])
                total = loss + l2_penalty * vectors.square().sum() / len(labels)
            small = [value for value in gathered.values() if value.requires_grad]
            grads = torch.autograd.grad(total, [*rest, *small])
            squares = [(grad * grad).sum() for grad in grads[:len(rest)]]
            square_sum = torch.stack(squares).sum() if squares else loss.new_zeros(())
            return loss.detach(), square_sum, grads

        self.eager = gradients
        self.full, self.fused_step = gradients, None
        if form.compiled:
            self.full = compile_gradients(gradients)
            self.fused_step = FusedAdamStep(gradients, grad_clip, compile_gradients)

    def __call__(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """ids (B, F), or these and dense features (B, M), and labels (B,) -> the batch's mean loss,
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
        """What Python has to do before a step. `take` does the rest, on a GPU always with the same
        kernels."""
        if not len(labels):
            raise ValueError("the batch is empty: there is no loss to take a step on")
        self._find_tables(parts_of(inputs)[0].shape[1])
        if isinstance(self.rows, gpu.RowwiseAdam):
            self.rows.count()

    def take(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """The step that was prepared."""
        ids, *dense_features = parts_of(inputs)
        full = len(labels) == self.batch_size
        if self.fused is not None and self.fused_step is not None and full:
            loss, norm = self.fused_step((ids, *dense_features), labels, self.rest, self.fused)
            if not torch.isfinite(norm):
                raise not_finite(loss, norm)
            return loss
        rows, gathered = self.rows, dict[str, Tensor]()
        if rows is not None:
            ids, gathered = rows.gather(ids)
        run = self.full if full else self.eager
        loss, squares, grads = run((ids, *dense_features), labels, self.rest, gathered)
        of_rows: dict[str, Tensor] = {}
        if rows is not None:
            of_rows = dict(zip(rows.tables, grads[len(self.rest):], strict=True))
            squares = squares + rows.norm_squared(of_rows)
        norm = squares.sqrt()
        on_cpu = not (norm.is_cuda or self.as_on_device)
        if not on_cpu:  # an error would wait; it is raised when the losses are read
            loss = torch.where(torch.isfinite(norm), loss, torch.nan)
        elif not torch.isfinite(norm):
            raise not_finite(loss, norm)
        for parameter, grad in zip(self.rest, grads, strict=False):
            parameter.grad = grad
        scale: Any = 1.0
        # on a CPU the norm is known, and a multiplication by 1 can be left out
        if not on_cpu or norm > self.grad_clip:
            scale = self.grad_clip / (norm + 1e-6)  # as torch does it
            scale = float(scale) if on_cpu else scale.clamp(max=1.0)
            torch.nn.utils.clip_grads_with_norm_(self.rest, self.grad_clip, norm, foreach=True)
        if rows is not None:
            for table in rows.tables.values():
                # of a backward() elsewhere; the optimiser would take a second step with it
                table.parameter.grad = None
        if self.rest:
            self.optimizer.step()
        if rows is not None:
            rows.apply(of_rows, scale)
        return loss

    def _find_tables(self, fields: int) -> None:
        """Split the optimiser's parameters into tables that are updated by row and the rest, if
        they are not those of the last step."""
        parameters = [parameter for group in self.optimizer.param_groups
                      for parameter in group["params"]]
        same = (len(parameters) == len(self.parameters)
                and all(map(operator.is_, parameters, self.parameters)))
        if same and (self.adam is None or self.adam.rows is self.rows):
            return
        self.parameters = parameters
        self.version += 1
        on_device = parameters[0].is_cuda or self.as_on_device
        # by row, only coupled decay is known
        decoupled = any(group.get("decoupled_weight_decay")
                        for group in self.optimizer.param_groups)
        tables: dict[str, Tensor] = {}
        if self.adam is not None:
            self.adam.refresh()
            if not decoupled:
                tables = self._tables_by_row(fields * self.batch_size)
            kind = gpu.RowwiseAdam if on_device else cpu.RowwiseAdam
            form = "lazy" if self.update == "auto" else self.update
            self.rows = self.adam.rows = _rowwise(self.adam, tables, form, kind) if tables else None
        self.rest = [parameter for parameter in parameters
                     if not any(parameter is table for table in tables.values())]
        self.fused = None if tables or decoupled or on_device else self.adam

    def _tables_by_row(self, ids: int) -> dict[str, Tensor]:
        """The tables that are updated by row.

        The rule is fixed, as the two ways differ in their last bits. FM, 4,129 x 64, batches of
        1,024 x 7: 1.6 to 2.6 ms dense, 2.3 to 4.0 by row (two busy threads).

        Args:
            ids: in a full batch.
        """
        if self.update == "dense":
            return {}
        tables = tables_by_row(self.model)
        if self.update != "auto" or not tables:
            return tables
        if self.parameters[0].is_cuda and not triton_installed():
            return {}
        rows = len(next(iter(tables.values())))
        log.info("tables: %s (%d rows, %d ids in a batch)", "dense" if rows <= ids else "by row",
                 rows, ids)
        return tables if rows > ids else {}


def _vectors(model: ClickModel, gathered: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The batch's vectors (B, F, D), as pruned, from gathered tables where there are some."""
    prefix = "embedding."
    tables = {name.removeprefix(prefix): table for name, table in gathered.items()
              if name.startswith(prefix)}
    return functional_call(model.embedding, tables, (ids,))


def _rowwise(optimizer: Adam, tables: dict[str, Tensor], form: str,
             kind: type[cpu.RowwiseAdam] | type[gpu.RowwiseAdam]) -> Rowwise:
    """Tables that the optimiser holds are updated; the others are only gathered."""
    group_of = {parameter: group for group in optimizer.param_groups
                for parameter in group["params"]}
    updated = {name: (table, state_of(optimizer, table), group_of[table])
               for name, table in tables.items() if table in group_of}
    fixed = {name: table for name, table in tables.items() if name not in updated}
    return kind(updated, fixed, form)


def not_finite(loss: Tensor, norm: Tensor) -> FloatingPointError:
    """The error of a step that cannot be taken."""
    return FloatingPointError(f"the loss is {float(loss)} and the norm of its gradients "
                              f"{float(norm)}")


def compile_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for one shape, forward and backward pass into one graph: with two graphs the FM step
    takes a third longer."""
    torch._dynamo.config.trace_autograd_ops = True  # for torch.autograd.grad inside the graph
    # the limit counts over all models of a process
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(function, dynamic=False, fullgraph=True)


def choose_compiled(setting: str, steps: int, device: torch.device) -> bool:
    """Whether to compile the step: the setting, or for `auto` whether it pays in a run of `steps`
    steps.

    The rule is fixed rather than timed, so that the same run has the same bits each time.
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
             else "eager", steps, COMPILE_FROM_STEPS)
    return compiled
