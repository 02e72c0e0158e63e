"""Other ways to choose what a smaller DLRM keeps: scores of units, and budgets without a
descent."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from compression.umec.dynamics import Dynamics
from compression.umec.resources import Resource
from compression.umec.units import (
    attainable,
    energies_of,
    orders_of,
    project,
    scale_units,
    without_first,
)
from engine.loop import Hook
from models.dlrm import DLRM

BATCHES = 50  # over which Taylor's importance is added up


def taylor(model: DLRM, resource: Resource, batches: Sequence[tuple[Any, Tensor]]) -> Tensor:
    """Squared first-order change of the loss when a unit goes, (L, G), summed over batches
    (Molchanov et al. 2019).

    Of a unit with weights w and gradients g in one batch: (sum of g w) ** 2.
    """
    scores = torch.zeros(resource.valid.shape, dtype=torch.float64, device=resource.device)
    weights = [layer.weight for layer in model.top]
    for inputs, labels in batches:
        logits = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        grads = torch.autograd.grad(binary_cross_entropy_with_logits(logits, labels), weights)
        for row, weight, grad, count in zip(scores, weights, grads, resource.counts, strict=True):
            row[:count] += (weight * grad).detach().sum(0).double().view(count, -1).sum(1) ** 2
    return scores


def by_price(resource: Resource, budget: float, scores: Tensor, dynamics: Dynamics) -> Tensor:
    """What stays, (L, G): the least score for what it saves goes first, until the budget holds.

    Args:
        scores: (L, G); made comparable as shares of the layer's sum.
    """
    shares = scores / scores.sum(1, keepdim=True).clamp(min=1e-30)
    orders = orders_of(shares, resource, dynamics.keep)
    limits = dynamics.limits(resource.counts, resource.layout.dense_units)
    budget = attainable(budget, resource, limits, dynamics.keep)
    counts = project(resource, budget, shares, orders, [0] * len(shares), limits, dynamics.punit)
    return without_first(orders, torch.tensor(counts, device=resource.device)) & resource.valid


def by_ratio(resource: Resource, budget: float, scores: Tensor, dynamics: Dynamics,
             neurons_only: bool = False) -> Tensor:
    """What stays, (L, G), when every layer gives up the same share of its units, to the nearest
    multiple of punit neurons: the least that meets the budget.

    Args:
        neurons_only: keep all fields (widths as one would set them by hand), as long as the budget
            can be met so.
    """
    limits = dynamics.limits(resource.counts, resource.layout.dense_units)
    attainable(budget, resource, limits, dynamics.keep)
    orders = orders_of(scores, resource, dynamics.keep)
    steps = [1, *(dynamics.punit for _ in limits[1:])]

    def left(ratio: float, most: Sequence[int]) -> Tensor:
        removed = [min(round(ratio * count / step) * step, limit)
                   for count, step, limit in zip(resource.counts, steps, most, strict=True)]
        return without_first(orders, torch.tensor(removed, device=resource.device)) & resource.valid

    open_limits = [0, *limits[1:]] if neurons_only else list(limits)
    if float(resource.fraction(left(1.0, open_limits))) > budget:
        open_limits = list(limits)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if float(resource.fraction(left(middle, open_limits))) > budget:
            low = middle
        else:
            high = middle
    return left(high, open_limits)


def of_counts(model: DLRM, resource: Resource, like: Tensor, keep: Sequence[int] = ()) -> Tensor:
    """What stays by magnitude when every layer keeps as many units as in `like` (L, G)."""
    orders = orders_of(energies_of(model, resource), resource, keep)
    removed = resource.valid.sum(1) - like.sum(1)
    return without_first(orders, removed) & resource.valid


class GroupLasso(Hook):
    """A hook: after each step the proximal step of strength * sum over units of ||w_unit||, which
    empties weak units.

    Args:
        strength: lambda; how far a step of size 1 pulls the norm of each unit towards zero.
        resource: of the model; how its units stand.
    """

    name = "group_lasso"
    every_step = True

    def __init__(self, strength: float, resource: Resource) -> None:
        if not strength > 0:
            raise ValueError(f"the strength of group LASSO must be positive, got {strength}")
        self.strength = strength
        self.resource = resource

    @torch.no_grad()
    def __call__(self, state: Any) -> None:
        """Shrink every norm by lr * strength, down to zero. The top MLP is up to date without
        `refresh`."""
        lr = state.optimizer.param_groups[-1]["lr"]
        norms = energies_of(state.model, self.resource).sqrt().clamp(min=1e-30)
        scale_units(state.model, self.resource, (1 - lr * self.strength / norms).clamp(min=0))


def choose(method: str, model: DLRM, resource: Resource, budget: float, dynamics: Dynamics,
           batches: Callable[[], Sequence[tuple[Any, Tensor]]], seed: int) -> Tensor:
    """What a baseline keeps of a trained model within a budget, (L, G).

    magnitude, taylor, group-lasso (of a model trained with it): by score and price; random and
    uniform: the same share of every layer, any units or those of least energy for what they save;
    handmade: all fields, narrower layers.

    Args:
        dynamics: whose limits hold here too.
        batches: of training rows, for Taylor's importance.
        seed: of random.
    """
    if method == "taylor":
        return by_price(resource, budget, taylor(model, resource, batches()), dynamics)
    scores = energies_of(model, resource)
    if method in ("uniform", "handmade"):
        return by_ratio(resource, budget, scores, dynamics, method == "handmade")
    if method == "random":
        drawn = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed),
                           dtype=torch.float64)
        # what a unit saves must not count: scores are divided by it
        drawn = drawn.to(scores.device) * resource.savings(resource.valid)
        return by_ratio(resource, budget, drawn, dynamics)
    return by_price(resource, budget, scores, dynamics)
