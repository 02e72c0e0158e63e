"""UMEC's resource constraint (Shen et al., ICLR 2021): one round of primal-dual updates after each
training step.

    min over W, s   max over y, z >= 0   loss(W) + sum_l y_l N_l(ceil s_l) + z (R(ceil s) - B)

s_l is the number of units that layer l of the top MLP gives up. N_l(T) is the energy (sum of
squared weights) of the T units of least energy. R is the resource as a fraction of the whole
model's, B the budget. A round follows the published order: shrink the least units (the exact
proximal step of y_l N_l), move s by straight-through gradients, then raise the dual variables y and
z with the new weights and the new s.

The published dynamics (`faithful`) are slow on small data, overshoot z, drift out of the budget
again and get stuck at the bounds of s. The default dynamics differ in six points:

- energies are fractions of the layer's total energy at the start, slopes are of the whole layer;
- y starts at 1, and all rates are scaled by `steps`, the length of the training;
- z never exceeds the value at which the cheapest layer moves at full speed (anti-windup), so that
  no layer is dragged along by another's slope;
- s may leave its upper bound;
- s and z are frozen from the first feasible step on, while y grows until the removed units are
  empty;
- if the model is still over the budget after FORCED of the steps, or a step has gone FAR below it,
  as in a descent of few steps, `project` puts it there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compression.umec.dynamics import Dynamics
from compression.umec.resources import Resource
from compression.umec.units import (
    attainable,
    energies_of,
    project,
    scale_units,
    with_a_field_last,
    without_first,
)
from engine.loop import Hook
from models.dlrm import DLRM

FORCED = 0.7  # share of the steps after which a budget that is not met is enforced
FAR = 0.01  # of the whole resource below a budget, where a step has removed too much
EMPTY = 1e-6  # share of a layer's initial energy below which removed units count as empty
GROWTH = 10  # e-folds of y over a whole training once feasible, while removed units are not empty
SHRINK = 20  # e-folds of a removed unit's weights over a whole training, per unit of y
CLIMB = {"y": 1000, "z": 50}  # factors of the published rates of y and z, divided by the steps
CHECK_EVERY = 50  # steps; reading the device's numbers waits for the device
LOG_EVERY = 200  # steps


@dataclass(frozen=True)
class Rates:
    """Step sizes of one round."""

    s: Tensor  # (L,)
    y: float
    z: float
    growth: float  # of y, once feasible


class ResourceConstraint(Hook):
    """The hook: one round after each training step. There are L layers; layer l has G_l units.

    Args:
        resource: R of the whole model.
        budget: B, a fraction of the whole, at most 1.
        dynamics: rates and limits.
        steps: of the whole training; the default rates are scaled by it.
        passing: larger budgets that the descent saves on its way. While one of them is open, each
            step waits for the device.
        save: called with each of these budgets and the kept units (L, G), at the first step that
            meets it.

    Raises:
        ValueError: the budget is not a fraction, or the limits do not allow it.
    """

    name = "resource_constraint"
    every_step = True

    def __init__(self, resource: Resource, budget: float, dynamics: Dynamics, steps: int,
                 passing: Sequence[float] = (),
                 save: Callable[[float, Tensor], None] | None = None) -> None:
        self.resource = resource
        self.dynamics = dynamics
        self.limits = dynamics.limits(resource.counts, resource.layout.dense_units)
        self.budget = attainable(budget, resource, self.limits, dynamics.keep)
        self.steps = max(steps, 1)
        self.open_budgets = [attainable(each, resource, self.limits, dynamics.keep)
                             for each in passing]
        self.passed: dict[str, int] = {}  # step by budget
        self.save = save
        device = resource.device
        self.counts = torch.tensor(resource.counts, dtype=torch.float64, device=device)
        self.limit = torch.tensor(self.limits, dtype=torch.float64, device=device)
        self.movable = self.limit > 0
        self.multiple = torch.full_like(self.limit, dynamics.punit)
        self.multiple[0] = 1
        self.rates = self._rates()
        # a step may go far below a budget; looking waits for the device
        self.coarse = not dynamics.faithful and bool((self.rates.s > 1).any())
        self.s = self.before = torch.zeros_like(self.limit)  # now, and before the last step
        self.y = torch.full_like(self.limit, 0.0 if dynamics.faithful else 1.0)
        self.z = torch.zeros_like(self.limit[0])
        self.spent = torch.ones_like(self.z)  # R
        self.start = torch.zeros_like(self.limit)  # energy of each layer before the first step
        self.energy = torch.zeros_like(self.limit)  # N, as a fraction of it
        # the z that moves the cheapest layer at full speed
        self.cheapest = torch.zeros_like(self.z)
        self.positions = torch.arange(max(resource.counts), dtype=torch.float64, device=device)
        # (L, G): units are removed in the order of energy * weighing + last
        self.weighing = 1 / resource.savings(resource.valid).float()
        self.last = torch.zeros_like(self.weighing).masked_fill(~resource.valid, torch.inf)
        self.last[0, list(dynamics.keep)] = torch.finfo(torch.float32).max
        self.feasible_at = torch.full((), -1, device=device)  # step; -1: not yet
        self.history: list[dict[str, Any]] = []
        self.begun = self.forced = False

    def _rates(self) -> Rates:
        """The published rates; the default ones are spread over the steps."""
        dynamics, steps = self.dynamics, self.steps
        if dynamics.faithful:
            return Rates(torch.full_like(self.limit, dynamics.slr), dynamics.ylr, dynamics.zlr, 0.0)
        movable = sum(limit > 0 for limit in self.limits)
        return Rates(dynamics.slr / 0.05 * 2 * movable / steps * self.counts,
                     dynamics.ylr * CLIMB["y"] / steps,
                     dynamics.zlr * CLIMB["z"] / steps / (1 - self.budget or 1),
                     GROWTH / steps)

    @torch.no_grad()
    def __call__(self, state: Any) -> str | None:
        """One round. The top MLP is up to date without `refresh`; the tables are read once an
        epoch."""
        if self.budget >= 1:
            return None
        if not self.begun or (self.dynamics.by_embedding and state.epoch_done):
            self._begin(state)
        lr = state.optimizer.param_groups[-1]["lr"]
        self._round(state, 2 * lr if self.dynamics.faithful else SHRINK / self.steps)
        if self.open_budgets:
            spent = float(self.spent)
            self._pass(state, [budget for budget in self.open_budgets if spent <= budget])
        return self._report(state)

    def _round(self, state: Any, strength: float) -> None:
        """Proximal step, step of s, dual ascent; nothing here waits for the device."""
        energies = energies_of(state.model, self.resource)
        removed, orders = self._removed_counts(self.s), self.orders(energies)
        factors = (1 / (1 + strength * self.y)).float()[:, None]
        # by position in the order of removal
        factors = torch.where(self.positions < removed[:, None], factors, 1.0)
        scale_units(state.model, self.resource, factors.scatter(1, orders, factors))
        ordered = energies.gather(1, orders) * (factors * factors)  # the order stays the same
        self.before = self.s
        self._move(ordered, orders, removed)
        if self.coarse and int(self.feasible_at) < 0 and bool((self.s > self.before).any()):
            self._measure(ordered, orders)
            if self._far_below(self.budget):
                self.s = self._projected(energies_of(state.model, self.resource), self.budget,
                                         self.before)
        self._force_when_late(state)
        self._dual_ascent(ordered, orders, state.step)

    def _begin(self, state: Any) -> None:
        """Note the initial energies, and weigh the fields by their vectors' mean square."""
        if not self.begun:
            self.start.copy_(energies_of(state.model, self.resource).sum(1, dtype=torch.float64))
            self.begun = True
        if self.dynamics.by_embedding:
            state.refresh()
            layout = self.resource.layout
            squares = [part.square().mean(0)
                       for part in torch.split(state.model.embedding.table(), list(layout.rows))]
            fields = torch.cat(squares).double().view(-1, layout.size).mean(1)
            # the dense features have no table, and get the mean of the fields
            per_field = torch.cat([fields.mean().expand(layout.dense_units), fields])
            savings = self.resource.savings(self.resource.valid)[0, :len(per_field)]
            self.weighing[0, :len(per_field)] = (per_field / savings).float()

    def _removed_counts(self, s: Tensor) -> Tensor:
        """ceil s, (L,): whole fields, and multiples of punit neurons."""
        whole = (s / self.multiple).ceil() * self.multiple
        return torch.minimum(whole, self.counts if self.dynamics.faithful else self.limit)

    def orders(self, energies: Tensor) -> Tensor:
        """Units (L, G) in the order of removal: the least energy per saved resource first, units to
        keep last."""
        orders = (energies * self.weighing + self.last).argsort(dim=1, stable=True)
        return with_a_field_last(orders, self.resource)

    def _move(self, ordered: Tensor, orders: Tensor, removed: Tensor) -> None:
        """The step of s by straight-through gradients.

        Args:
            ordered: energies (L, G) in the order of removal.
            orders: units (L, G) in that order.
            removed: (L,) units that are removed now.
        """
        # the unit that would go next; at the top, the last one
        position = torch.minimum(removed, self.counts - 1).long()[:, None]
        following = self.y * ordered.gather(1, position)[:, 0]
        slopes = self.resource.slopes(self.counts - removed)
        if not self.resource.uniform:
            own = self.resource.own()[orders[0].gather(0, position[0])] / self.resource.whole
            slopes = torch.cat([slopes[:1] + own, slopes[1:]])
        decay = self.dynamics.sl2wd * self.s / self.counts
        if self.dynamics.faithful:
            self._published_move(following + decay, slopes)
            return
        gain = following * (self.counts / self.start) + decay
        slopes = slopes * self.counts  # of the whole layer at once
        self.cheapest = torch.where(self.s < self.limit, (gain + 1) / slopes, torch.inf).min()
        self.z = torch.minimum(self.z, self.cheapest)
        q = (gain - self.z * slopes).clamp(-1, 1)
        moved = torch.minimum((self.s - self.rates.s * q).clamp(min=0), self.limit)
        self.s = torch.where(self.feasible_at >= 0, self.s, moved)

    def _published_move(self, gain: Tensor, slopes: Tensor) -> None:
        """The step of s as published; `gain` and `slopes` are (L,)."""
        if self.dynamics.zclamp:
            hardest = torch.where(self.movable, (gain + 1e-8) / slopes, 0).max()
            self.z = torch.minimum(self.z, hardest)
        bound = self.limit - 1e-8
        over = self.s >= bound
        q = (gain - self.z * slopes) * self.movable
        q = torch.where(over, q.clamp(min=0), q)
        q = torch.where(self.s <= 0, q.clamp(max=0), q)
        q = q / q.abs().max().clamp(min=1)
        moved = (self.s - self.rates.s * q).clamp(min=0)
        # as published: once over the bound, s never comes back
        self.s = torch.where(over & self.movable, bound, moved)

    def _dual_ascent(self, ordered: Tensor, orders: Tensor, step: int) -> None:
        """Raise y and z with the new weights and the new s."""
        rates, sums = self.rates, self._measure(ordered, orders)
        excess = self.spent - self.budget
        if self.dynamics.faithful:
            self.y = self.y + rates.y * sums
            self.z = (self.z + rates.z * excess).clamp(min=0)
        else:
            feasible = self.feasible_at >= 0
            growing = (self.energy > EMPTY) & feasible
            self.y = self.y + rates.growth * self.y * growing + rates.y * self.energy
            cheapest = self.cheapest.nan_to_num(posinf=0)
            raised = (self.z + rates.z * excess * cheapest).clamp(min=0)
            self.z = torch.where(feasible, self.z, raised)
        self.feasible_at = torch.where((self.feasible_at < 0) & (excess <= 0), step,
                                       self.feasible_at)

    def _measure(self, ordered: Tensor, orders: Tensor) -> Tensor:
        """Note what is spent, and the energies (L,) of removed units, which are returned."""
        removed = self._removed_counts(self.s)
        sums = torch.where(self.positions < removed[:, None], ordered,
                           0.0).sum(1, dtype=torch.float64)
        self.energy = sums / self.start
        self.spent = self._fraction(orders, removed)
        return sums

    def _far_below(self, budget: float) -> bool:
        return float(self.spent) < budget - FAR

    def _fraction(self, orders: Tensor, removed: Tensor) -> Tensor:
        if self.resource.uniform:
            return self.resource.fraction_of_counts(self.counts - removed)
        return self.resource.fraction(without_first(orders, removed) & self.resource.valid)

    def _force_when_late(self, state: Any) -> None:
        """Project s into the budget once, after FORCED of the steps."""
        if self.dynamics.faithful or self.forced or state.step < FORCED * self.steps:
            return
        self.forced = True
        self._pass(state, self.open_budgets)
        if int(self.feasible_at) < 0:
            self.s = self._projected(energies_of(state.model, self.resource), self.budget, self.s)
            self.feasible_at = torch.full_like(self.feasible_at, state.step)

    def _pass(self, state: Any, budgets: Sequence[float]) -> None:
        """Save the model under each of these budgets."""
        for budget in budgets:
            self._save(budget, self.kept(state.model, budget))
            self.passed[f"{budget:.15g}"] = state.step
        self.open_budgets = [budget for budget in self.open_budgets if budget not in budgets]

    def _save(self, budget: float, kept: Tensor) -> None:
        if self.save is not None:
            self.save(budget, kept)

    def finish(self, model: DLRM) -> dict[str, int]:
        """Save under the budgets that are still open (only the faithful dynamics leave any).

        Returns:
            the step at which each larger budget was met.
        """
        for budget in self.open_budgets:
            self._save(budget, self.kept(model, budget))
        return self.passed

    def _projected(self, energies: Tensor, budget: float, s: Tensor) -> Tensor:
        """s (L,) that meets a budget: beyond those of `s`, units go in their order until it
        holds."""
        counts = project(self.resource, budget, energies / self.start[:, None],
                         self.orders(energies), self._removed_counts(s).tolist(), self.limits,
                         self.dynamics.punit)
        return torch.tensor(counts, dtype=torch.float64, device=self.s.device)

    def _report(self, state: Any) -> str | None:
        """Add to the history now and then; say "compressed" when nothing is left to do."""
        if state.step % LOG_EVERY == 0 or state.epoch_done:
            self.history.append({"step": state.step, "resource": float(self.spent),
                                 "z": float(self.z), "s": self.s.tolist(), "y": self.y.tolist(),
                                 "energy": self.energy.tolist()})
        if self.dynamics.faithful or state.step % CHECK_EVERY:
            return None
        done = (self.feasible_at >= 0) & (self.energy < EMPTY).all()
        return "compressed" if bool(done) else None

    def shown(self) -> dict[str, Any]:
        """For a progress bar and TensorBoard."""
        removed = self._removed_counts(self.s).tolist()
        left = [int(count - gone)
                for count, gone in zip(self.resource.counts, removed, strict=True)]
        what = "fields" if self.resource.layout.groups == "field" else "columns"
        return {"resource": round(float(self.spent), 4), "budget": self.budget, what: left[0],
                "neurons": sum(left[1:])}

    @torch.no_grad()
    def kept(self, model: DLRM, budget: float | None = None) -> Tensor:
        """The units that stay, a mask (L, G).

        Args:
            model: as it is now.
            budget: a larger budget that is passed on the way; None for the last one. The faithful
                dynamics may exceed it, the default ones never do.
        """
        if self.budget >= 1:
            return self.resource.valid
        energies = energies_of(model, self.resource)
        if self.dynamics.faithful:
            removed = self._removed_counts(self.s)
        else:
            budget = budget or self.budget
            passed = self.coarse and budget > self.budget and self._far_below(budget)
            removed = self._projected(energies, budget, self.before if passed else self.s)
        return without_first(self.orders(energies), removed) & self.resource.valid

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"s": self.s, "y": self.y, "z": self.z, "spent": self.spent, "start": self.start,
                "energy": self.energy, "weighing": self.weighing, "feasible_at": self.feasible_at,
                "budget": self.budget, "history": self.history, "passed": self.passed}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """From the checkpoint.

        Raises:
            ValueError: it is of another budget, whose prices mean nothing here.
        """
        if content["budget"] != self.budget:
            raise ValueError(f"the checkpoint was written under budget {content['budget']}, this "
                             f"run has {self.budget}; go on with the same one, or start again with "
                             f"--force")
        self.history, self.begun = content["history"], bool(content["start"].any())
        self.passed = content["passed"]
        self.open_budgets = [budget for budget in self.open_budgets
                             if f"{budget:.15g}" not in self.passed]
        for name, value in content.items():
            if isinstance(value, Tensor):
                getattr(self, name).copy_(value)
