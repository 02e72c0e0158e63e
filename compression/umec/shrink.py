"""A DLRM made physically smaller: without the fields, columns and neurons that have been
removed."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from compression.umec.resources import Layout, Resource
from compression.umec.units import scale_units
from models.dlrm import DLRM, Layers, initial_tables, layers
from models.embedding.per_field import PerField


@torch.no_grad()
def zero(model: DLRM, resource: Resource, kept: Tensor) -> None:
    """Set the columns of removed units to zero, and the neurons that make them; biases stay, nobody
    reads them.

    Args:
        resource: of the model; how its units stand.
        kept: (L, G), True for what stays.
    """
    scale_units(model, resource, kept)
    for layer, count, mask in zip(model.top, resource.counts[1:], kept[1:], strict=False):
        layer.weight.mul_(mask[:count, None])


@torch.no_grad()
def shrink(model: DLRM, layout: Layout, kept: Tensor, seed: int | None = None) -> DLRM:
    """The small model. Its logits are those of the model with the removed units at zero, up to
    rounding.

    Fields that are gone have no table, and the bottom MLP goes with its last output. It reads the
    same ids as before.

    Args:
        layout: of the model.
        kept: (L, G) as for `zero`.
        seed: draw fresh values for all layers and tables, as DLRM starts, instead of taking the
            model's over.

    Raises:
        ValueError: no field is left, or a layer without units.

    >>> from models.dlrm import Shape
    >>> from models.embedding.uniform import Uniform
    >>> from compression.umec.resources import layout_of
    >>> model = DLRM(Uniform(torch.ones(30, 2), 3), 0, Shape((), (4,)))
    >>> kept = torch.tensor([[True, False, True, False], [True, True, False, True]])
    >>> small = shrink(model, layout_of(model, (10, 10, 10)), kept)
    >>> [tuple(layer.weight.shape) for layer in small.top], small.embedding.num_params()
    ([(3, 4), (1, 3)], 40)
    """
    units = [mask[:count] for mask, count in zip(kept.cpu(), layout.counts, strict=True)]
    columns = units[0].repeat_interleave(layout.size)
    if not columns[layout.dense:].any() or not all(mask.any() for mask in units):
        raise ValueError(f"units left by layer: {[int(mask.sum()) for mask in units]}; at least "
                         "one of each and one field must stay")
    device = model.top[0].weight.device
    of_field = columns[layout.dense:].view(len(layout.rows), layout.width)
    lists = [mask.nonzero()[:, 0].tolist() for mask in of_field]
    small = copy.copy(model)
    small._modules = dict(model._modules)  # the parts that are replaced below are the copy's own
    small.embedding = PerField(_initial(model, layout, seed), layout.rows, lists).to(device)
    inputs = [columns, *units[1:]]
    outputs = [*units[1:], torch.ones(1, dtype=torch.bool)]
    small.top = _layers(model.top, inputs, outputs, seed)
    dense = columns[:layout.dense]
    if not dense.any():
        small.bottom, small.num_dense = Layers(), 0
    else:
        whole = [torch.ones(size, dtype=torch.bool) for size in layout.bottom[:-1]]
        small.bottom = _layers(model.bottom, whole, [*whole[1:], dense], None if seed is None
                               else seed + 1)
    return small


def _initial(model: DLRM, layout: Layout, seed: int | None) -> Tensor:
    if seed is None:
        return model.embedding.table().cpu()
    return initial_tables(layout.rows, layout.width, torch.Generator().manual_seed(seed))


def _layers(whole: Layers, inputs: Sequence[Tensor], outputs: Sequence[Tensor],
            seed: int | None) -> Layers:
    """Copies of linear layers without some inputs and outputs; with fresh values when a seed is
    given."""
    device = whole[0].weight.device
    sizes = [int(mask.sum()) for mask in (*inputs, outputs[-1])]
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        layers_left = layers(sizes)
    if seed is None:
        for layer, old, columns, rows in zip(layers_left, whole, inputs, outputs, strict=True):
            layer.weight.copy_(old.weight.cpu()[rows][:, columns])
            layer.bias.copy_(old.bias.cpu()[rows])
    return layers_left.to(device)
