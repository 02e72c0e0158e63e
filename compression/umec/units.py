"""Units of a DLRM's top MLP: their energies, their order, and how many must go for a budget.

Quantities by unit are matrices (L, G): a row for each layer, as in
`compression.umec.resources.Resource`. The columns of a unit are neighbours in the layer's weight.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compression.umec.resources import Resource
from models.dlrm import DLRM


@torch.no_grad()
def energies_of(model: DLRM, resource: Resource) -> Tensor:
    """Sum of the squared weights of each unit, (L, G); 0 where there is no unit."""
    found = torch.zeros(resource.valid.shape, device=resource.device)
    for row, layer, count in zip(found, model.top, resource.counts, strict=True):
        columns = torch.linalg.vecdot(layer.weight, layer.weight, dim=0)
        row[:count] = columns.view(count, -1).sum(1)
    return found


@torch.no_grad()
def scale_units(model: DLRM, resource: Resource, scale: Tensor) -> None:
    """Multiply the columns of each unit by its entry of `scale` (L, G), in place."""
    for row, layer, count in zip(scale.float(), model.top, resource.counts, strict=True):
        layer.weight.view(len(layer.weight), count, -1).mul_(row[:count, None])


def without_first(orders: Tensor, removed: Tensor) -> Tensor:
    """What stays, (L, G), when the first `removed` (L,) units of each order (L, G) go.

    >>> without_first(torch.tensor([[2, 0, 1]]), torch.tensor([2])).tolist()
    [[False, True, False]]
    """
    stays = torch.arange(orders.shape[1], device=orders.device) >= removed[:, None]
    return torch.empty_like(stays).scatter_(1, orders, stays)


def with_a_field_last(orders: Tensor, resource: Resource) -> Tensor:
    """The orders (L, G), but of the first layer's units the last one is of a field, which a model
    cannot do without, and not of the branch of the dense features. No device is waited for."""
    first, count = resource.layout.dense_units, resource.counts[0]
    if not first:
        return orders
    own, places = orders[0, :count], torch.arange(count, device=orders.device)
    last = (places * (own >= first)).argmax()
    moved = torch.where(places >= last, places + 1, places)
    moved[-1] = last
    orders = orders.clone()
    orders[0, :count] = own[moved]
    return orders


def orders_of(scores: Tensor, resource: Resource, keep: Sequence[int] = ()) -> Tensor:
    """Units of each layer from the least score (L, G) for what one saves on; those to keep come
    last, then no units."""
    prices = (scores / resource.savings(resource.valid)).masked_fill(~resource.valid, torch.inf)
    prices[0, list(keep)] = torch.finfo(prices.dtype).max
    return with_a_field_last(prices.argsort(dim=1, stable=True), resource)


def attainable(budget: float, resource: Resource, limits: Sequence[int],
               keep: Sequence[int] = ()) -> float:
    """The budget, if it is a fraction that the limits allow.

    Args:
        limits: units that each layer may give up, (L,).
        keep: units of the first layer that stay.

    Raises:
        ValueError: it is no number, not in 0 .. 1, or below what is spent when each layer has given
            up all it may.
    """
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget <= 1:
        raise ValueError(f"a budget is a fraction of the whole model's {resource.kind}, above 0 "
                         f"and at most 1; got {budget!r}")
    savings = resource.savings(resource.valid)
    orders = orders_of(1 - savings, resource, keep)  # what saves most goes first
    floor = float(
        resource.fraction(
            without_first(orders, torch.tensor(limits, device=resource.device)) & resource.valid
        )
    )
    if budget < floor:
        raise ValueError(f"budget {budget} cannot be met: with as few units as may be kept the "
                         f"model still spends {floor:.4f} of its {resource.kind}. Take a larger "
                         "budget, a smaller min_keep, fewer fields to keep, or remove neurons too")
    return float(budget)


def project(resource: Resource, budget: float, shares: Tensor, orders: Tensor,
            removed: Sequence[float],
            limits: Sequence[int], step: int = 1) -> list[int]:
    """How many units of each layer go, at least `removed`: the least share for what it saves first,
    until R <= B.

    Args:
        shares: (L, G), comparable between layers.
        orders: (L, G), in which each layer gives up its units.
        limits: at most so many of each layer.
        step: neurons go in multiples of it.

    Raises:
        ValueError: the limits do not allow it.
    """
    counts = [int(count) for count in removed]
    steps = [1, *(step for _ in counts[1:])]
    kept = without_first(orders, torch.tensor(counts, device=resource.device)) & resource.valid
    while float(resource.fraction(kept)) > budget:
        savings = resource.savings(kept)
        best, best_price = -1, math.inf
        for number, (count, each, limit) in enumerate(zip(counts, steps, limits, strict=True)):
            following = orders[number, count:count + each]
            if count + each <= limit:
                price = float(shares[number, following].sum() / savings[number, following].sum())
                if best < 0 or price < best_price:
                    best, best_price = number, price
        if best < 0:
            raise ValueError(f"budget {budget} cannot be met: every layer has given up all it may")
        kept[best, orders[best, counts[best]:counts[best] + steps[best]]] = False
        counts[best] += steps[best]
    return counts
