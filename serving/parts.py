"""Of which parts each model's logit is the sum, and how its layers are exported.

A new model is a function and a line in PARTS.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.autoint import AutoInt
from models.base import ClickModel
from models.deepfm import DeepFM
from models.dlrm import DLRM
from models.fm import FM
from models.kernels.dropout import Dropout
from models.linear import FirstOrder as Weights
from models.linear import Linear
from models.serving.parts import (
    RELU,
    Attention,
    Deep,
    FirstOrder,
    InteractingAttention,
    Interaction,
    Pairs,
    Part,
    Stack,
)
from models.serving.values import Rows


def served_parts(model: ClickModel, new_ids: np.ndarray, values: str) -> list[Part]:
    """The parts of a model.

    Args:
        model: on the CPU, in evaluation mode.
        new_ids: (N,) the exported row of each row.
        values: the type of first-order weights; layers stay float32.

    Raises:
        ValueError: the model is of no known kind, or has a layer of none.
    """
    if type(model) not in PARTS:
        raise ValueError(f"there is no exported form of {type(model).__name__}; add one to "
                         "serving/parts.py")
    return PARTS[type(model)](model, new_ids, values)


def _first_order(weights: Weights, new_ids: np.ndarray, values: str) -> FirstOrder:
    old = weights.weight.detach().cpu().numpy()
    moved = np.empty_like(old)
    moved[new_ids] = old
    return FirstOrder(Rows.of(moved, values), weights.layer.bias.detach().float())


def _linear(model: Linear, new_ids: np.ndarray, values: str) -> list[Part]:
    return [_first_order(model.linear, new_ids, values)]


def _fm(model: FM, new_ids: np.ndarray, values: str) -> list[Part]:
    return [_first_order(model.linear, new_ids, values), Pairs()]


def _deepfm(model: DeepFM, new_ids: np.ndarray, values: str) -> list[Part]:
    return [_first_order(model.linear, new_ids, values), Pairs(), Deep(stack_of(model.mlp))]


def _autoint(model: AutoInt, new_ids: np.ndarray, values: str) -> list[Part]:
    parts: list[Part] = [_attention(model)]
    if model.mlp is not None:
        parts.append(Deep(stack_of(model.mlp)))
    if model.linear is not None:
        parts.append(_first_order(model.linear, new_ids, values))
    return parts


def _attention(model: AutoInt) -> Attention:
    layers: dict[str, Stack] = {}
    first: Any = model.attention[0]
    each: Any
    if model.project is None:
        for depth, each in enumerate(model.attention):
            layers[f"in.{depth}"] = stack_of(each.mixing)
            if each.residual is not None:
                layers[f"residual.{depth}"] = stack_of(each.residual)
        layers["output"] = stack_of(model.output)
        return InteractingAttention(layers, first.heads)
    layers["project"] = stack_of(model.project)
    for depth, each in enumerate(model.attention):
        own = each.layer
        layers[f"in.{depth}"] = Stack([_values(own.in_proj_weight, own.in_proj_bias)])
        layers[f"out.{depth}"] = stack_of(own.out_proj)
    if model.residual is not None:
        layers["residual"] = stack_of(model.residual)
    layers["output"] = stack_of(model.output)
    return Attention(layers, first.layer.num_heads)


def _dlrm(model: DLRM, new_ids: np.ndarray, values: str) -> list[Part]:
    return [Interaction(_with_relus(model.bottom), _with_relus(model.top),
                        model.interaction == "dot")]


def _with_relus(layers: nn.ModuleList) -> Stack:
    steps: list[Any] = []
    for layer in layers:
        steps += [RELU] if steps else []
        steps += _steps(layer)
    return Stack(steps)


def stack_of(module: nn.Module) -> Stack:
    """Linear layers, batch norms, ReLUs and dropouts as a stack; norms are folded into the layer
    before them.

    Raises:
        ValueError: there is another module, or a norm without a linear layer before it.
    """
    steps: list[Any] = []
    for step in _steps(module):
        if isinstance(step, nn.BatchNorm1d):
            if not steps or isinstance(steps[-1], str):
                raise ValueError("a batch norm can be exported behind a linear layer alone")
            weight, bias = steps[-1]
            steps[-1] = _folded(weight, bias, step)
        else:
            steps.append(step)
    return Stack(steps)


def _steps(module: nn.Module) -> Iterator[Any]:
    if isinstance(module, nn.Linear):
        bias = module.bias if module.bias is not None else torch.zeros(module.out_features)
        yield _values(module.weight, bias)
    elif isinstance(module, nn.ReLU):
        yield RELU
    elif isinstance(module, nn.BatchNorm1d):
        yield module
    elif isinstance(module, nn.Dropout | Dropout | nn.Identity):
        return
    elif list(module.children()):
        for child in module.children():
            yield from _steps(child)
    else:
        raise ValueError(f"a layer of kind {type(module).__name__} cannot be exported; add it to "
                         "serving/parts.py")


def _values(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return weight.detach().float().clone(), bias.detach().float().clone()


def _folded(weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """A linear layer and the batch norm behind it as one layer."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    factor = norm.weight.detach().double() / (variance.double() + norm.eps).sqrt()
    shifted = (bias.double() - mean.double()) * factor + norm.bias.detach().double()
    return (weight.double() * factor[:, None]).float(), shifted.float()


PARTS: dict[type, Callable[[Any, np.ndarray, str], list[Part]]] = {
    Linear: _linear, FM: _fm, DeepFM: _deepfm, AutoInt: _autoint, DLRM: _dlrm}
