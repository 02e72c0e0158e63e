"""The optimiser and the training step."""

import contextlib
import inspect
import logging
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.optim.cpu import rowwise as cpu
from engine.optim.gpu import rowwise as gpu
from engine.optim.gpu.adam import triton_installed
from engine.optim.gpu.recorded import RecordedStep
from models.base import ClickModel, Inputs, as_inputs, row_indexed_tables
from models.embedding.base import Arrays
from models.kernels.eager import widened

log = logging.getLogger("pep")

UPDATES = ("auto", "dense", "streamed", "lazy")
Rowwise = cpu.RowwiseAdam | gpu.RowwiseAdam


# torch wraps these, and the wrappers import its compiler at their first call: seconds of a run's
# start, for nothing in a step that is not compiled
_add_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
_state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
_load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class Adam(torch.optim.Adam):
    """torch's fused Adam, but for the tables that a `Step` updates row by row.

    It holds their state all the same.
    """

    rows: Rowwise | None = None
    add_param_group = _add_group
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))

    def refresh(self) -> None:
        """Bring every row of every table up to date. Call it before looking at parameters."""
        if self.rows is not None:
            self.rows.refresh()

    def state_dict(self) -> dict[str, Any]:
        """Refreshed, so that any form of the update goes on from it."""
        self.refresh()
        return _state_dict(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moments and step counts; the next step finds the tables anew."""
        self.rows = None
        _load_state_dict(self, state_dict)


class Sgd(torch.optim.SGD):
    """Plain gradient descent, whose parameters are up to date after every step."""

    add_param_group = _add_group
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
    state_dict, load_state_dict = _state_dict, _load_state_dict

    def refresh(self) -> None:
        """No row is ever late."""


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

    Raises:
        ValueError: a parameter is not contiguous.
    """
    decays = model.embedding.decays
    inside: dict[str, list[nn.Parameter]] = {"coupled": []}
    outside = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if not parameter.is_contiguous():  # the fused Adam walks through memory
            raise ValueError(f"the parameter {name} must be contiguous, or moments that come back "
                             f"from a checkpoint would be another entry's")
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


class Step:
    """One optimiser step: loss, gradients, clipping by global norm, Adam.

    Nothing here waits for a GPU, which replays the step from a recording where tables are updated
    row by row. The parameters are those that the optimiser holds at the time: a hook may put others
    in their place between steps.

    Args:
        model: whose parameters the optimiser holds.
        optimizer: of `build_optimizer`.
        grad_clip: largest global norm of the gradients.
        l2_penalty: the published penalty, added to the mean cross entropy: `l2_penalty` times the
            sum of the squares of the batch's embedding vectors (B, F, D), as pruned, divided by B.
            Its gradient reaches V and s alike, and that of s does not vanish at s = 0 as weight
            decay's does. The loss that the step returns is the cross entropy alone.
        update: how tables are updated; none of it changes what the step is. "dense": with gradients
            of their size, by torch's Adam (the definition); "streamed", "lazy": row by row, see
            `RowwiseAdam` of `cpu.rowwise` and `gpu.rowwise`; "auto": streamed on a GPU and for
            tables with fewer rows than a batch has ids, lazy for larger ones on a CPU.
        precision: of matrix products, "float32" or "bfloat16" (torch's autocast); parameters,
            gradients and moments are float32 in both.
    """

    as_on_device = False  # do on a CPU what is done on a GPU; for tests

    def __init__(self, model: ClickModel, optimizer: torch.optim.Optimizer, grad_clip: float,
                 l2_penalty: float = 0.0, update: str = "auto",
                 precision: str = "float32") -> None:
        if update not in UPDATES:
            raise ValueError(f"unknown update {update!r}; known: {', '.join(UPDATES)}")
        self.model = model
        self.optimizer = optimizer
        self.adam = optimizer if isinstance(optimizer, Adam) else None
        self.grad_clip = grad_clip
        self.l2_penalty = l2_penalty
        self.update = update
        self.precision = precision
        self.parameters: list[Tensor] = []
        self.rest: list[Tensor] = []  # those that are updated as they are
        self.names: list[str] = []  # of these, in the model
        self.rows: Rowwise | None = None  # updates the others
        self.places: dict[str, tuple[dict[str, Any], str]] = {}
        self.recorded: RecordedStep | None = None

    def __call__(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """ids (B, F), perhaps with dense features (B, M), and labels (B,) -> the batch's mean loss,
        still on the device.

        Raises:
            ValueError: the batch is empty.
            IndexError: an id outside the tables, on a CPU.
            FloatingPointError: a gradient that is not finite, on a CPU; the parameters stay as they
                were.
        """
        if not len(labels):
            raise ValueError("the batch is empty: there is no loss to take a step on")
        ids, *dense = as_inputs(inputs)
        self._see_parameters(ids.numel())
        if isinstance(self.rows, gpu.RowwiseAdam):
            self.rows.count()
            take = self.recorded or self._step_on_device
            return take((ids, *dense), labels)
        if self.rows is None:
            loss, grads = self._gradients((ids, *dense), labels, {})
            self._move(loss, grads, {})
            return loss
        local, arrays = self.rows.gather_arrays(ids)
        if not self.l2_penalty and not dense:
            found = self.model.by_hand(arrays, local, labels.numpy())
            if found is not None:
                return self._move_by_hand(*found)
        ids, gathered = self.rows.as_tensors(local, arrays)
        return self._step_on_rows((ids, *dense), labels, gathered)

    def _step_on_device(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """All of a step that a GPU does."""
        assert isinstance(self.rows, gpu.RowwiseAdam)
        ids, gathered = self.rows.gather(inputs[0])
        return self._step_on_rows((ids, *inputs[1:]), labels, gathered)

    def _step_on_rows(self, inputs: tuple[Tensor, ...], labels: Tensor,
                      gathered: dict[str, Tensor]) -> Tensor:
        assert self.rows is not None
        loss, grads = self._gradients(inputs, labels, gathered)
        own = dict(zip(self.rows.tables, grads[len(self.rest):], strict=True))
        self._move(loss, grads[:len(self.rest)], own)
        return loss

    @property
    def waits(self) -> bool:
        """Whether a number may be looked at between two operations: on a CPU."""
        return not (self.as_on_device or self.parameters[0].is_cuda)

    def _gradients(self, inputs: tuple[Tensor, ...], labels: Tensor,
                   gathered: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss, and the gradients of `rest` and of the gathered rows that are learned."""
        with self._in_place(gathered):
            with torch.autocast(labels.device.type, torch.bfloat16, self.precision == "bfloat16"):
                logits = self.model(*inputs)
            loss = binary_cross_entropy_with_logits(widened(logits), labels)
            total = loss
            if self.l2_penalty:
                vectors = self.model.embedding(inputs[0])
                total = loss + self.l2_penalty * vectors.square().sum() / len(labels)
        learned = [rows for rows in gathered.values() if rows.requires_grad]
        return loss.detach(), torch.autograd.grad(total, [*self.rest, *learned])

    @contextlib.contextmanager
    def _in_place(self, gathered: dict[str, Tensor]) -> Iterator[None]:
        """The model with the gathered rows of its tables in the place of the tables."""
        whole = {name: owner[key] for name, (owner, key) in self.places.items()}
        try:
            for name, rows in gathered.items():
                owner, key = self.places[name]
                owner[key] = rows
            yield
        finally:
            for name, (owner, key) in self.places.items():
                owner[key] = whole[name]

    def _move(self, loss: Tensor, grads: tuple[Tensor, ...], own: dict[str, Any]) -> None:
        """Clip the gradients and take the step with them.

        Args:
            grads: of `rest`.
            own: of the gathered rows, by table.
        """
        flat = [grad.reshape(-1) for grad in grads]
        squares: Any = sum(torch.dot(grad, grad) for grad in flat)
        if self.rows is not None:
            squares = squares + self.rows.norm_squared(own)
        if self.waits:
            scale = self._scale(float(loss), math.sqrt(squares))  # the only number waited for
        else:
            norm = squares.sqrt()
            loss.copy_(torch.where(torch.isfinite(norm), loss, torch.nan))  # seen when looked at
            scale = (self.grad_clip / (norm + 1e-6)).clamp(max=1.0)
        self._apply(grads, own, scale)

    def _apply(self, grads: Sequence[Tensor], own: dict[str, Any], scale: Any) -> None:
        """Take the step with the gradients of `_move` times a scale, a number or a tensor ()."""
        if isinstance(self.rows, cpu.RowwiseAdam):
            self.rows.apply(own, grads, scale)
            return
        for parameter, grad in zip(self.rest, grads, strict=True):
            parameter.grad = grad if self.waits and scale == 1 else grad.mul_(scale)
        if self.rest:
            self.optimizer.step()
        if self.rows is not None:
            self.rows.apply(own, torch.as_tensor(scale))

    def _move_by_hand(self, value: float, found: Arrays) -> Tensor:
        """Take the step with a loss and gradients by name, see `ClickModel.by_hand`; returns the
        loss."""
        assert isinstance(self.rows, cpu.RowwiseAdam)
        rest = [found[name] for name in self.names]
        own = {name: found[name] for name in self.rows.tables}
        squares = np.float32(self.rows.norm_squared(own))
        for grad in rest:
            squares += np.dot(grad.reshape(-1), grad.reshape(-1))
        self.rows.apply(own, rest, self._scale(value, math.sqrt(squares)))
        return torch.tensor(value, dtype=torch.float32)

    def _scale(self, loss: float, norm: float) -> float:
        """What the gradients are multiplied by, as torch clips them."""
        if not math.isfinite(norm):
            raise FloatingPointError(f"the loss is {loss} and the norm of its gradients {norm}")
        return self.grad_clip / (norm + 1e-6) if norm > self.grad_clip else 1.0

    def _see_parameters(self, ids: int) -> None:
        """Part the optimiser's parameters into row by row and the rest, when they are others than
        before."""
        parameters: list[Tensor] = []
        for group in self.optimizer.param_groups:
            parameters += group["params"]
        same = len(parameters) == len(self.parameters) and all(map(operator.is_, parameters,
                                                                   self.parameters))
        if same and (self.adam is None or self.adam.rows is self.rows):
            return
        if self.adam is not None:
            self.adam.refresh()
        self.parameters, self.rows = parameters, None
        tables = self._row_indexed_tables()
        self.places = {name: _place(self.model, name) for name in tables}
        self.rest = [parameter for parameter in parameters
                     if not any(parameter is table for table in tables.values())]
        named = {id(parameter): name for name, parameter in self.model.named_parameters()}
        self.names = [named[id(parameter)] for parameter in self.rest]
        if tables and self.adam is not None:
            self.rows = self.adam.rows = self._rowwise(self.adam, tables, ids)
        self.recorded = None
        if parameters[0].is_cuda and isinstance(self.rows, gpu.RowwiseAdam):
            self.recorded = RecordedStep(self.model, self.optimizer, self._step_on_device)

    def _row_indexed_tables(self) -> dict[str, Tensor]:
        """Tables that are updated row by row: with Adam and coupled decay alone."""
        decoupled = any(group.get("decoupled_weight_decay")
                        for group in self.optimizer.param_groups)
        slow = self.update == "auto" and self.parameters[0].is_cuda and not triton_installed()
        if self.adam is None or self.update == "dense" or decoupled or slow:
            return {}
        return row_indexed_tables(self.model)

    def _rowwise(self, optimizer: Adam, tables: dict[str, Tensor],
                 ids: int) -> Rowwise:
        groups: dict[int, dict[str, Any]] = {}
        for group in optimizer.param_groups:
            groups |= {id(parameter): group for parameter in group["params"]}

        def of(parameter: Tensor) -> tuple[Tensor, dict, dict]:
            return parameter, state_of(optimizer, parameter), groups[id(parameter)]

        learned = {name: of(table) for name, table in tables.items() if id(table) in groups}
        fixed = {name: table for name, table in tables.items() if name not in learned}
        form, count = self.update, len(next(iter(tables.values())))
        if form == "auto":
            # a GPU goes through 10 million rows faster than it finds those that are due
            form = "streamed" if count <= ids or not self.waits else "lazy"
            log.info("tables are updated %s (%d rows, %d ids in a batch)", form, count, ids)
        if not self.waits:
            return gpu.RowwiseAdam(learned, fixed, form)
        return cpu.RowwiseAdam(learned, fixed, form, [of(parameter) for parameter in self.rest])


def _place(model: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """The dictionary of parameters or buffers that holds what is called so, and its key there."""
    path, _, key = name.rpartition(".")
    module = model.get_submodule(path)
    return module._parameters if key in module._parameters else module._buffers, key


def state_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What Adam keeps of a parameter, made where it has seen no step yet."""
    state = optimizer.state[parameter]
    if not state:
        state |= {"step": torch.zeros((), device=parameter.device),
                  "exp_avg": torch.zeros_like(parameter),
                  "exp_avg_sq": torch.zeros_like(parameter)}
    return state
