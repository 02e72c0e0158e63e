"""What a factored model is made of: its shape in words, a model of that shape, and what it
costs."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compression.afm.factor import ACTS, ThinPair, factor_layer, factor_table, fuse, probe
from compression.afm.low_rank import Factor
from compression.afm.statistics import linear_at
from models.autoint import SelfAttention
from models.base import Inputs, called
from models.embedding.low_rank import LowRank
from models.embedding.tensor_train import TensorTrain, tensor_train_of


def structure_of(model: Any) -> dict[str, Any]:
    """The shape of a factored model, for its record: ranks of the table, ranks of layers by name,
    activation."""
    structure: dict[str, Any] = {"layers": {}, "act": "none"}
    table = getattr(model, "embedding", None)
    if isinstance(table, LowRank):
        structure |= {"ranks": list(table.ranks), "fused": table.fused}
    if isinstance(table, TensorTrain):
        structure["tensor_train"] = max(table.ranks)
    for name, module in model.named_modules():
        if isinstance(module, ThinPair):
            structure["layers"][name] = module.project.out_features
            structure["act"] = next(act for act, make in ACTS.items()
                               if len(module) == (2 if make is None else 3))
    return structure


def empty_like(model: Any, structure: dict[str, Any], field_sizes: Sequence[int]) -> Any:
    """A model of a recorded shape, to load a state dict into; its values mean nothing.

    Args:
        model: a dense one of the same settings.
        structure: from `structure_of`.

    Raises:
        ValueError: the shape is not one of this model.
    """
    small = copy.deepcopy(model).eval()
    if "ranks" in structure:
        width = small.embedding.width
        small = factor_table(small, [_nothing(rank, width) for rank in structure["ranks"]],
                            field_sizes)
        small = fuse(small, probe(small, field_sizes)) if structure["fused"] else small
    if "tensor_train" in structure:
        small.embedding = tensor_train_of(small.embedding.table(), structure["tensor_train"],
                                         len(field_sizes))
    for name, rank in structure["layers"].items():
        width = linear_at(small, name).out_features
        small = factor_layer(small, name, _nothing(rank, width), structure["act"])
    return small.train(model.training)


def _nothing(rank: int, width: int) -> Factor:
    return Factor(torch.zeros(rank, width, dtype=torch.float64),
                  torch.zeros(width, dtype=torch.float64))


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """Stored parameters of each direct child (embedding, linear, mlp, ...), those of width 1 tables
    included."""
    return {name: sum(parameter.numel() for parameter in child.parameters())
            for name, child in model.named_children() if any(True for _ in child.parameters())}


def multiply_adds(model: nn.Module, inputs: Inputs) -> dict[str, int]:
    """Multiplications with an addition of one row's forward pass, by the direct child that does
    them.

    Counted are linear layers (n x m a vector), attention's query, key and value among them,
    reconstructions (k_f x D a field) and tensor trains; products of activations with each other
    (FM, attention) and element-wise work are the same in both models and are not.

    Args:
        inputs: of one row: ids (1, F), or these and dense features.
    """
    counts: dict[str, int] = {}

    def watch(name: str):
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            part = name.split(".")[0]
            counts[part] = counts.get(part, 0) + _work(module, inputs[0])
        return note

    kinds = (nn.Linear, SelfAttention, LowRank, TensorTrain)
    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()
               if isinstance(module, kinds)]
    was_training = model.training
    try:
        with torch.no_grad():
            called(model.eval(), inputs)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return counts


def _work(module: nn.Module, given: Tensor) -> int:
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features * (given.numel() // module.in_features)
    if isinstance(module, SelfAttention):  # its way out is a linear layer of its own
        return module.layer.in_proj_weight.numel() * (given.numel() // module.layer.embed_dim)
    if isinstance(module, LowRank):
        return sum(module.ranks) * module.width
    assert isinstance(module, TensorTrain)
    matrices = [low * high for low, high in zip(module.ranks, module.ranks[1:], strict=False)]
    return given.shape[1] * (sum(matrices) + module.ranks[-1] * module.width)
