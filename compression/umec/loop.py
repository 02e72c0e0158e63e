"""A round of `compression.umec.constraint` as numba loops, for a CPU.

The definition is `ResourceConstraint._with_tensors`.

A round is some seventy operations on vectors of three numbers; between two steps of training, when
nothing of them is left in the caches, each costs torch ten times what it costs in a loop. The order
of the units is that of the round before, nearly, so it is put right by insertion.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from compression.umec.columns import add_up, multiply
from compression.umec.dynamics import Dynamics
from compression.umec.resources import Resource
from models.kernels.jit import njit


class Units(NamedTuple):
    """What does not change: L layers of up to G units, what units cost, and the dynamics."""

    counts: np.ndarray  # (L,) int64
    limits: np.ndarray  # (L,) int64, units that may go
    sizes: np.ndarray  # (L,) columns of a unit
    weighing: np.ndarray  # (L, G) float32
    last: np.ndarray  # (L, G) float32
    by_weight: float
    by_bias: float
    of_unit: np.ndarray  # (G_1,)
    own: np.ndarray  # (G_1,)
    bottom: float
    by_field: float
    dense_units: int
    field_units: int  # units of a field
    whole: float
    budget: float
    punit: int
    faithful: bool
    zclamp: bool
    sl2wd: float


class Standing(NamedTuple):
    """What a round changes, in place."""

    s: np.ndarray  # (L,)
    y: np.ndarray  # (L,)
    energy: np.ndarray  # (L,)
    start: np.ndarray  # (L,)
    z: np.ndarray  # ()
    spent: np.ndarray  # ()
    cheapest: np.ndarray  # ()
    feasible_at: np.ndarray  # () int64
    energies: np.ndarray  # (L, G) float32, by unit
    orders: np.ndarray  # (L, G) int64; the first counts[l] of each layer are in use


class Rates(NamedTuple):
    """Of one round."""

    y: float
    z: float
    growth: float
    empty: float


def units_of(resource: Resource, limits: Sequence[int], weighing: Tensor, last: Tensor,
             budget: float,
             dynamics: Dynamics) -> Units:
    """The constants of a constraint; `weighing` and `last` are looked into, not copied."""
    layout = resource.layout
    return Units(np.array(resource.counts), np.array(limits), resource.sizes.numpy(),
                 weighing.numpy(), last.numpy(),
                 resource.by_weight, resource.by_bias, resource.of_unit.numpy(),
                 resource.own().numpy(),
                 float(resource.bottom), resource.by_field, layout.dense_units,
                 layout.width // layout.size,
                 resource.whole, budget, dynamics.punit, dynamics.faithful, dynamics.zclamp,
                 dynamics.sl2wd)


@njit(nogil=True, error_model="numpy")
def _sort(order, prices):
    """Put an order of units right: by price, equal ones by number."""
    for place in range(1, order.size):
        unit = order[place]
        before = place - 1
        while before >= 0 and (prices[order[before]] > prices[unit]
                               or (prices[order[before]] == prices[unit] and order[before] > unit)):
            order[before + 1] = order[before]
            before -= 1
        order[before + 1] = unit


@njit(nogil=True, error_model="numpy")
def removed_of(units, s):
    """ceil s, (L,): to whole fields, to multiples of punit neurons."""
    removed = np.empty(s.size, np.int64)
    for layer in range(s.size):
        grain = units.punit if layer else 1
        most = units.counts[layer] if units.faithful else units.limits[layer]
        removed[layer] = min(np.int64(np.ceil(s[layer] / grain)) * grain, most)
    return removed


@njit(nogil=True, error_model="numpy")
def shrink(weights, units, now, strength):
    """The proximal step on the least units, (outputs, inputs) of each layer; brings energies and
    orders up to date."""
    removed = removed_of(units, now.s)
    for layer in range(len(weights)):
        count = units.counts[layer]
        energies, order = now.energies[layer, :count], now.orders[layer, :count]
        add_up(weights[layer], energies)
        _sort(order, energies * units.weighing[layer, :count] + units.last[layer, :count])
        if removed[layer]:
            factors = np.ones(count, np.float32)
            factor = np.float32(1 / (1 + strength * now.y[layer]))
            for unit in order[:removed[layer]]:
                factors[unit] = factor
                energies[unit] *= factor * factor
            multiply(weights[layer], factors)


@njit(nogil=True, error_model="numpy")
def _slopes(units, now, removed):
    """-dR/ds, (L,): what the next unit of each layer saves."""
    left = (units.counts - removed) * units.sizes
    slopes = np.empty(left.size)
    for layer in range(left.size):
        outputs = left[layer + 1] if layer + 1 < left.size else 1.0
        slopes[layer] = units.by_weight * units.sizes[layer] * outputs
        slopes[layer] += units.by_weight * left[layer - 1] + units.by_bias if layer else 0.0
    slopes[0] += units.own[now.orders[0, min(removed[0], units.counts[0] - 1)]]
    return slopes / units.whole


@njit(nogil=True, error_model="numpy")
def move(units, now, pace):
    """The step of s by straight-through gradients."""
    layers = now.s.size
    removed = removed_of(units, now.s)
    slopes = _slopes(units, now, removed)
    gain = np.empty(layers)
    for layer in range(layers):
        place = min(removed[layer], units.counts[layer] - 1)
        gain[layer] = now.y[layer] * now.energies[layer, now.orders[layer, place]]
    decay = units.sl2wd * now.s / units.counts
    if units.faithful:
        _published_move(units, now, pace, gain + decay, slopes)
        return
    gain = gain * (units.counts / now.start) + decay
    slopes *= units.counts  # of the whole layer at once
    now.cheapest[()] = np.inf
    for layer in range(layers):
        if now.s[layer] < units.limits[layer]:
            now.cheapest[()] = min(now.cheapest[()], (gain[layer] + 1) / slopes[layer])
    now.z[()] = min(now.z[()], now.cheapest[()])
    if now.feasible_at[()] < 0:
        for layer in range(layers):
            q = min(max(gain[layer] - now.z[()] * slopes[layer], -1.0), 1.0)
            now.s[layer] = min(max(now.s[layer] - pace[layer] * q, 0.0), units.limits[layer])


@njit(nogil=True, error_model="numpy")
def _published_move(units, now, pace, gain, slopes):
    if units.zclamp:
        hardest = 0.0
        for layer in range(gain.size):
            if units.limits[layer] > 0:
                hardest = max(hardest, (gain[layer] + 1e-8) / slopes[layer])
        now.z[()] = min(now.z[()], hardest)
    q = (gain - now.z[()] * slopes) * (units.limits > 0)
    for layer in range(q.size):
        if now.s[layer] >= units.limits[layer] - 1e-8:
            q[layer] = max(q[layer], 0.0)
        if now.s[layer] <= 0:
            q[layer] = min(q[layer], 0.0)
    q /= max(np.abs(q).max(), 1.0)
    for layer in range(q.size):
        if now.s[layer] >= units.limits[layer] - 1e-8 and units.limits[layer] > 0:
            now.s[layer] = units.limits[layer] - 1e-8  # as published: once over, s never comes back
        else:
            now.s[layer] = max(now.s[layer] - pace[layer] * q[layer], 0.0)


@njit(nogil=True, error_model="numpy")
def _fraction(units, now, removed):
    left = (units.counts - removed) * units.sizes
    total = 0.0
    for layer in range(left.size):
        outputs = left[layer + 1] if layer + 1 < left.size else 1.0
        total += outputs * (units.by_weight * left[layer] + units.by_bias)
    kept = np.zeros(units.counts[0], np.bool_)
    for unit in now.orders[0, removed[0]:units.counts[0]]:
        kept[unit] = True
        total += units.of_unit[unit]
    if kept[:units.dense_units].any():
        total += units.bottom
    if units.by_field:
        for first in range(units.dense_units, kept.size, units.field_units):
            if kept[first:first + units.field_units].any():
                total += units.by_field
    return total / units.whole


@njit(nogil=True, error_model="numpy")
def raise_prices(units, now, rates, step):
    """Dual ascent with the new weights and the new s."""
    removed = removed_of(units, now.s)
    now.spent[()] = _fraction(units, now, removed)
    excess = now.spent[()] - units.budget
    feasible = now.feasible_at[()] >= 0
    for layer in range(now.s.size):
        total = 0.0
        for unit in now.orders[layer, :removed[layer]]:
            total += now.energies[layer, unit]
        now.energy[layer] = total / now.start[layer]
        grows = not units.faithful and feasible and now.energy[layer] > rates.empty
        now.y[layer] += grows * rates.growth * now.y[layer] + rates.y * (total if units.faithful
                                                                         else now.energy[layer])
    if units.faithful:
        now.z[()] = max(now.z[()] + rates.z * excess, 0.0)
    elif not feasible:
        cheapest = now.cheapest[()] if now.cheapest[()] < np.inf else 0.0
        now.z[()] = max(now.z[()] + rates.z * excess * cheapest, 0.0)
    if not feasible and excess <= 0:
        now.feasible_at[()] = step
