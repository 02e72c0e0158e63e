"""A trained model with its table and chosen linear layers factored: the same names, fewer
parameters.

Nothing here knows a model's kind. A table is the model's `embedding` (or any nn.Embedding that is
called with ids (B, F), by its dotted name), a layer any nn.Linear inside an nn.Sequential or a
DLRM's MLPs. Every function returns a new model.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from compression.afm.low_rank import Factor, check_rank
from compression.afm.statistics import linear_at, require_evaluation
from models.base import Inputs, called
from models.dlrm import Layers
from models.embedding.low_rank import LowRank, fields_by_rank
from models.embedding.uniform import Uniform

ACTS: dict[str, Callable[[], nn.Module] | None] = {"none": None, "relu": nn.ReLU}
CHUNK = 1 << 16  # table rows that are projected at a time


class ThinPair(nn.Sequential):
    """A linear layer in two thin ones, with an activation of its own between them if wished:
    lift(act(project(x)))."""

    def __init__(self, project: nn.Linear, lift: nn.Linear,
                 act: Callable[[], nn.Module] | None) -> None:
        super().__init__(project, *([act()] if act else []), lift)

    @property
    def project(self) -> nn.Linear:
        """n -> k."""
        return cast(nn.Linear, self[0])

    @property
    def lift(self) -> nn.Linear:
        """k -> m."""
        return cast(nn.Linear, self[-1])


def mlp_layers(model: nn.Module) -> dict[str, int]:
    """The linear layers inside the model's MLPs by dotted name, each with its number in its own,
    from 1.

    >>> top = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> mlp_layers(nn.ModuleDict({"top": top}))
    {'top.0': 1, 'top.2': 2}
    """
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, (nn.Sequential, Layers)) and not isinstance(module, ThinPair):
            layers = [name for name, child in module.named_children()
                      if isinstance(child, (nn.Linear, ThinPair))]
            found |= {f"{path}.{name}".lstrip("."): number for number, name in enumerate(layers, 1)
                      if isinstance(module.get_submodule(name), nn.Linear)}
    return found


def choose_layers(model: nn.Module, wanted: Sequence[str] | None) -> list[str]:
    """Dotted names of the layers to factor, in the order of the model.

    Args:
        wanted: names, or numbers that hold in every MLP; None for the published choice: all but
            each MLP's first, which shrinks by being fused with the table, and an output of one
            number.

    Raises:
        ValueError: no such layer; those that are there are listed.
    """
    layers = mlp_layers(model)
    if wanted is None:
        return [name for name, number in layers.items() if number > 1
                and linear_at(model, name).out_features > 1]
    for one in wanted:
        if one not in layers and one not in map(str, layers.values()):
            there = ", ".join(f"{number} ({name})" for name, number in layers.items())
            raise ValueError(f"there is no layer {one!r} to factor; the model has "
                             f"{there or 'no MLP'}")
    return [name for name, number in layers.items() if name in wanted or str(number) in wanted]


def factor_layer(model: nn.Module, name: str, factor: Factor, act: str = "none",
                 least: Callable[[nn.Module, nn.Linear], Tensor] | None = None) -> nn.Module:
    """Put two thin layers in the place of one: A = U^T W, b_A = U^T (b - mean), then B = U, b_B =
    mean.

    The published form, b_A = U^T b and b_B = (I - U U^T) mean, is the same map; this one is better
    conditioned. With an activation between them it is another function, and needs training.

    Args:
        factor: of the layer's outputs.
        act: name in ACTS.
        least: function-preserving start with "relu": given the dense model and A, the smallest
            value of each coordinate of A x + b_A over the calibration data. What is missing to 0 is
            added to b_A and taken from b_B again, so that the ReLU does nothing there yet.

    Raises:
        ValueError: no such layer, a factor of another width, or a start that is asked for without
            "relu".
    """
    layer = linear_at(model, name)
    check_rank(factor.rank, layer.out_features, least=1)
    if act not in ACTS or (least is not None and act != "relu"):
        raise ValueError(f"act must be one of {', '.join(ACTS)}, and 'relu' for a start that keeps "
                         f"the function; got {act!r}")
    basis, mean = factor.basis.to(layer.weight.device), factor.mean.to(layer.weight.device)
    if len(mean) != layer.out_features:
        raise ValueError(f"the layer {name} gives out {layer.out_features} numbers, the factor is "
                         f"of {len(mean)}")
    weight, bias = layer.weight.detach().double(), _bias(layer)
    project = _linear(basis @ weight, basis @ (bias - mean), layer)
    low = torch.zeros_like(basis[:, 0])
    if least is not None:
        low = least(model, project).to(basis).clamp(max=0)
    project = _linear(basis @ weight, basis @ (bias - mean) - low, layer)
    return replaced(model, name,
                    ThinPair(project, _linear(basis.T, mean + basis.T @ low, layer), ACTS[act]))


def svd_layer(model: nn.Module, name: str, rank: int, act: str = "none") -> nn.Module:
    """A baseline: W ~ (P_k S_k^1/2) (S_k^1/2 Q_k^T), the bias stays with the second layer."""
    layer = linear_at(model, name)
    check_rank(rank, min(layer.weight.shape), least=1)
    left, values, right = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    root = values[:rank].sqrt()
    project = _linear(root[:, None] * right[:rank], torch.zeros_like(root), layer)
    return replaced(model, name,
                    ThinPair(project, _linear(left[:, :rank] * root, _bias(layer), layer),
                             ACTS[act]))


@torch.no_grad()
def factor_table(model: nn.Module, factors: Sequence[Factor], field_sizes: Sequence[int],
                 path: str = "embedding") -> nn.Module:
    """Put a narrow table, (E - 1 mean^T) U_k of each field, in the place of the model's; whoever
    reads it gets e_hat.

    Any embedding will do that can say its `table()`, a pruned one too, and any nn.Embedding without
    padding.

    Raises:
        ValueError: the factors or fields do not fit the table.
    """
    module = dict(model.named_modules()).get(path)
    if module is None or not (isinstance(module, nn.Embedding) or hasattr(module, "table")):
        raise ValueError(f"there is no table {path!r} in {type(model).__name__}")
    if getattr(module, "padding_idx", None) is not None:
        raise ValueError(f"the table {path} has a padding row, which must stay zero; a factored "
                         "one would give its mean")
    table: Tensor = (module.weight if isinstance(module, nn.Embedding) else module.table()).detach()
    if sum(field_sizes) != len(table) or len(factors) != len(field_sizes):
        raise ValueError(f"the table has {len(table)} rows; {len(factors)} factors and fields of "
                         f"{sum(field_sizes)} rows were given")
    factors = [Factor(factor.basis.to(table.device), factor.mean.to(table.device))
               for factor in factors]
    starts = [0, *accumulate(field_sizes)]
    codes = []
    for rank, fields in fields_by_rank([factor.rank for factor in factors]).items():
        rows = torch.empty((sum(field_sizes[f] for f in fields), rank), dtype=table.dtype,
                           device=table.device)
        place = 0
        for field in fields:
            for chunk in table[starts[field]:starts[field + 1]].split(CHUNK):
                rows[place:place + len(chunk)] = factors[field].encode(chunk)
                place += len(chunk)
        codes.append(Uniform(rows, len(fields)))
    low = LowRank(codes, [factor.basis.to(table.dtype) for factor in factors],
                  torch.stack([factor.mean for factor in factors]).to(table.dtype), field_sizes,
                  fused=False)
    return replaced(model, path, low.to(table.device))


@dataclass(frozen=True)
class Reader:
    """A linear layer whose inputs from `start` on are an embedding's deep input."""

    name: str
    start: int


def probe(model: nn.Module, field_sizes: Sequence[int], rows: int = 16) -> Inputs:
    """A batch to try a model with, where the model is: ids (rows, F) drawn evenly, and dense
    features (rows, M) if read."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.tensor([0, *accumulate(field_sizes[:-1])])
    ids = torch.stack([torch.randint(size, (rows,), generator=generator) for size in field_sizes],
                      1) + starts
    device, count = next(model.parameters()).device, getattr(model, "num_dense", 0)
    return (ids.to(device),
            torch.randn(rows, count, generator=generator).to(device)) if count else ids.to(device)


@torch.no_grad()
def deep_readers(model: Any, inputs: Inputs) -> list[Reader]:
    """The linear layers that read the embedding's deep input as it is, alone or beside other
    inputs.

    Found by watching one forward pass, so that it holds for any model that calls
    `embedding.deep_input`; empty where something stands between (FM, or a model of products of
    vectors).
    """
    require_evaluation(model)
    if not hasattr(getattr(model, "embedding", None), "deep_input"):
        return []
    given: list[Tensor] = []
    readers: dict[str, Reader] = {}
    ask = model.embedding.deep_input

    def keep(*arguments: Any) -> Tensor:
        given.append(ask(*arguments))
        return given[-1]

    def watch(name: str):
        def look(module: Any, inputs: tuple[Tensor, ...]) -> None:
            width = given[-1].shape[1] if given else 0
            for start in {0, module.in_features - width} if 0 < width <= module.in_features else ():
                if inputs[0].dim() == 2 and torch.equal(inputs[0][:, start:start + width],
                                                        given[-1]):
                    readers[name] = Reader(name, start)
        return look

    handles = [module.register_forward_pre_hook(watch(name)) for name,
               module in model.named_modules()
               if isinstance(module, nn.Linear)]
    model.embedding.deep_input = keep
    try:
        called(model, inputs)
    finally:
        del model.embedding.deep_input
        for handle in handles:
            handle.remove()
    return list(readers.values())


@torch.no_grad()
def fuse(model: Any, inputs: Inputs) -> Any:
    """Let the first deep layers read the codes: W'_f = W_f U_f, b' = b + sum of W_f mean_f; other
    inputs stay.

    Args:
        model: with a factored table that is not fused, in evaluation mode.
        inputs: ids (B, F), or these and dense features, to try it with; the fused model must give
            the same logits.

    Raises:
        ValueError: no layer reads the table's vectors unchanged, or something else reads them too.
    """
    readers = deep_readers(model, inputs)
    if not readers:
        raise ValueError(f"nothing can be fused: no linear layer of {type(model).__name__} reads "
                         "the table's vectors as they are; leave the table unfused (--no-fuse)")
    wanted, fused = called(model, inputs), copy.deepcopy(model)
    low: LowRank = fused.embedding
    fused.embedding = LowRank(list(low.codes), low.all_bases(), low.means.detach(), low.field_sizes,
                              fused=True).to(low.means.device)
    order, width = fused.embedding.deep_order(), low.width
    for reader in readers:
        layer = linear_at(fused, reader.name)
        weight, stop = layer.weight.double(), reader.start + low.num_fields * width
        by_field = weight[:, reader.start:stop].unflatten(1, (low.num_fields, width))  # (h, F, D)
        narrow = [by_field[:, field] @ low.all_bases()[field].double().T for field in order]
        bias = _bias(layer) + torch.einsum("hfd,fd->h", by_field, low.means.double())
        columns = torch.cat([weight[:, :reader.start], *narrow, weight[:, stop:]], 1)
        fused.set_submodule(reader.name, _linear(columns, bias, layer))
    fused.train(model.training)
    lookups: list[bool] = []
    handle = fused.embedding.register_forward_hook(lambda *_: lookups.append(True))
    try:
        got = called(fused, inputs)
    except RuntimeError as error:
        raise ValueError(f"the table cannot be fused: something besides {readers[0].name} reads "
                         f"the deep input ({error}); leave it unfused (--no-fuse)") from error
    finally:
        handle.remove()
    if not lookups:
        fused.embedding.stop_reconstructing()
    scale = 1 + float(wanted.abs().max())
    if not torch.allclose(got, wanted, rtol=0, atol=scale * 1e4 * torch.finfo(wanted.dtype).eps):
        raise ValueError("the table cannot be fused: something else reads the deep input too; "
                         "leave it unfused (--no-fuse)")
    return fused


def _bias(layer: nn.Linear) -> Tensor:
    if layer.bias is None:
        return torch.zeros(layer.out_features, dtype=torch.float64, device=layer.weight.device)
    return layer.bias.detach().double()


def _linear(weight: Tensor, bias: Tensor, like: nn.Linear) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0]).to(like.weight)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return linear


def replaced(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """A copy of the model with `module` at a dotted name; what it replaces is not copied."""
    old = model.get_submodule(name)
    copied = copy.deepcopy(model, {id(old): module})
    return copied.train(model.training)
