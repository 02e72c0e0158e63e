"""UMEC's resource constraint (Shen et al., ICLR 2021): after each step, one of primal-dual descent
on what is left out.

    min over W, s   max over y, z >= 0   loss(W) + sum_l y_l N_l(ceil s_l) + z (R(ceil s) - B)

s_l counts the units that layer l of the top MLP gives up, N_l(T) is the energy (sum of squared
weights) of its T least units, R the resource as a fraction of the whole model's, B the budget. In
the published order: shrink the least units (the exact proximal step of y_l N_l), move s by
straight-through gradients, raise y and z with the new weights and s.

The published dynamics (`faithful`) are slow on little data, wind z up, leave the budget by chatter
and stick at bounds.
The robust ones, by default, differ in this: energies are fractions of their layer's mean at the
start, and slopes are of the layer's whole; y starts at 1; all rates are per `steps`, the length of
the training; z never exceeds what moves the cheapest layer at full speed (anti-windup), so that no
layer is dragged along by another's slope; s may leave its upper bound; s and z stand still from the
first feasible step on, while y grows on until the removed units are empty; a training still over
budget after FORCED of its steps is put there by `project`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compression.umec import loop as umec_loop
from compression.umec.dynamics import Dynamics
from compression.umec.resources import Resource
from compression.umec.units import attainable, energies_of, project, scale_units, without_first
from engine.loop import Hook
from models.dlrm import DLRM

FORCED = 0.7  # share of the steps after which s no longer waits for z
EMPTY = 1e-6  # of a layer's energy at the start: what is removed weighs nothing
# e-folds of y over a whole training, from the first feasible step on, while removed units are not
# empty
GROWTH = 10
SHRINK = 20  # e-folds of a removed unit's weights over a whole training, per unit of y
# what the published rates of y and z are multiplied by, over the steps
CLIMB = {"y": 1000, "z": 50}
LOOK = 50  # steps between looks at the device's numbers
LOG = 200  # steps between lines of the history


class ResourceConstraint(Hook):
    """The hook. L layers; layer l has G_l units.

    Args:
        resource: R, for a whole model.
        budget: B, a fraction of the whole, above what the limits leave and at most 1.
        dynamics: rates and limits.
        steps: of the whole training; what the robust rates are measured by.
        passing: larger budgets that are met on the way; the device is waited for as long as one is
            open.
        save: called with each of them and with what stays (L, G), at the first step that is within
            it.

    Raises:
        ValueError: the budget cannot be met, or is no such fraction.
    """

    name = "resource_constraint"
    every_step = True
    as_on_device = False  # do on a CPU what is done on a GPU; for tests

    def __init__(self, resource: Resource, budget: float, dynamics: Dynamics, steps: int,
                 passing: Sequence[float] = (), save: Callable[[float, Tensor], None]
                 | None = None) -> None:
        self.resource = resource
        self.dynamics = dynamics
        self.limits = dynamics.limits(resource.counts)
        self.budget = attainable(budget, resource, self.limits, dynamics.keep)
        self.steps = max(steps, 1)
        self.open_budgets = [attainable(each, resource, self.limits, dynamics.keep)
                             for each in passing]
        self.passed: dict[str, int] = {}  # step by budget
        self.save = save or (lambda budget, kept: None)
        device = resource.device
        self.ceiling = torch.tensor(resource.counts, dtype=torch.float64, device=device)
        self.top_place = self.ceiling - 1
        self.limit = torch.tensor(self.limits, dtype=torch.float64, device=device)
        self.open = self.limit > 0
        self.grain = torch.tensor([1, *(dynamics.punit for _ in self.limits[1:])],
                                  dtype=torch.float64, device=device)
        self.pace, self.rates = self._rates()
        self.floor = torch.zeros_like(self.limit)
        self.s = torch.zeros_like(self.limit)
        self.y = torch.full_like(self.limit, 0.0 if dynamics.faithful else 1.0)
        self.z = torch.zeros_like(self.limit[0])
        self.spent = torch.ones_like(self.z)
        self.start = torch.zeros_like(self.limit)  # energy of each layer before the first step
        self.energy = torch.zeros_like(self.limit)  # N, as a share of it
        self.cheapest = torch.zeros_like(self.z)
        self.places = torch.arange(max(resource.counts), dtype=torch.float64, device=device)
        # (L, G) a unit's price is its energy times this
        self.weighing = 1 / resource.savings(resource.valid).float()
        self.last = torch.zeros_like(self.weighing).masked_fill(~resource.valid, torch.inf)
        self.last[0, list(dynamics.keep)] = torch.finfo(torch.float32).max
        self.feasible_at = torch.full((), -1, device=device)
        self.history: list[dict[str, Any]] = []
        self.begun = self.forced = False
        if not self.s.is_cuda:
            self.units = umec_loop.units_of(resource, self.limits, self.weighing, self.last,
                                            self.budget, dynamics)
            names = ("s", "y", "energy", "start", "z", "spent", "cheapest", "feasible_at")
            self.now = umec_loop.Standing(**{name: getattr(self, name).numpy() for name in names},
                                          energies=np.zeros(self.last.shape, np.float32),
                                          orders=np.tile(np.arange(len(self.places)),
                                                         (len(self.limits), 1)))

    def _rates(self) -> tuple[Tensor, umec_loop.Rates]:
        """Of s, (L,), and of all else; the robust ones are spread over the steps."""
        dynamics = self.dynamics
        if dynamics.faithful:
            return torch.full_like(self.limit, dynamics.slr), umec_loop.Rates(dynamics.ylr,
                                                                              dynamics.zlr, 0.0,
                                                                              0.0)
        movable = sum(limit > 0 for limit in self.limits)
        return dynamics.slr / 0.05 * 2 * movable / self.steps * self.ceiling, umec_loop.Rates(
            dynamics.ylr * CLIMB["y"] / self.steps, dynamics.zlr * CLIMB["z"] / self.steps
            / (1 - self.budget or 1),
            GROWTH / self.steps, EMPTY)

    @torch.no_grad()
    def __call__(self, state: Any) -> str | None:
        """One round. The top MLP is up to date without `refresh`; the tables are looked at once an
        epoch."""
        if self.budget >= 1:
            return None
        if not self.begun or (self.dynamics.by_embedding and state.epoch_done):
            self._begin(state)
        lr = state.optimizer.param_groups[-1]["lr"]
        strength = 2 * lr if self.dynamics.faithful else SHRINK / self.steps
        if self.s.is_cuda or self.as_on_device:
            self._with_tensors(state, strength)
        else:
            self._with_loops(state, strength)
        if self.open_budgets:
            spent = float(self.spent)
            self._pass(state, [budget for budget in self.open_budgets if spent <= budget])
        return self._look(state)

    def _with_loops(self, state: Any, strength: float) -> None:
        """`_with_tensors`, on a CPU."""
        weights = tuple(layer.weight.detach().numpy() for layer in state.model.top)
        umec_loop.shrink(weights, self.units, self.now, strength)
        umec_loop.move(self.units, self.now, self.pace.numpy())
        self._force_when_late(state)
        umec_loop.raise_prices(self.units, self.now, self.rates, state.step)

    def _with_tensors(self, state: Any, strength: float) -> None:
        """A round, on any device, without waiting for it."""
        energies = energies_of(state.model, self.resource)
        removed, orders = self._removed_counts(self.s), self.orders(energies)
        factors = (1 / (1 + strength * self.y)).float()[:, None]
        # by place in the order of removal
        factors = torch.where(self.places < removed[:, None], factors, 1.0)
        # the proximal step
        scale_units(state.model, self.resource, factors.scatter(1, orders, factors))
        ordered = energies.gather(1, orders) * (factors * factors)  # left in their order by it
        self._move(ordered, orders, removed)
        self._force_when_late(state)
        self._raise_prices(ordered, orders, state.step)

    def _begin(self, state: Any) -> None:
        if not self.begun:
            self.start.copy_(energies_of(state.model, self.resource).sum(1, dtype=torch.float64))
            self.begun = True
        if self.dynamics.by_embedding:
            state.refresh()
            layout = self.resource.layout
            squares = [part.square().mean(0)
                       for part in torch.split(state.model.embedding.table(), list(layout.rows))]
            fields = torch.cat(squares).double().view(-1, layout.size).mean(1)
            # the numbers have no table
            everyone = torch.cat([fields.mean().expand(layout.dense_units), fields])
            savings = self.resource.savings(self.resource.valid)[0, :len(everyone)]
            self.weighing[0, :len(everyone)] = (everyone / savings).float()

    def _removed_counts(self, s: Tensor) -> Tensor:
        """ceil s, (L,): to whole fields, to multiples of punit neurons."""
        whole = s.ceil() if self.dynamics.punit == 1 else (s / self.grain).ceil() * self.grain
        return torch.minimum(whole, self.ceiling if self.dynamics.faithful else self.limit)

    def orders(self, energies: Tensor) -> Tensor:
        """Units (L, G) from the least energy for what they would save on; those to keep come
        last."""
        return (energies * self.weighing + self.last).argsort(dim=1, stable=True)

    def _move(self, ordered: Tensor, orders: Tensor, removed: Tensor) -> None:
        """The step of s by straight-through gradients. `ordered`: energies in the order of removal,
        (L, G)."""
        dynamics = self.dynamics
        place = torch.minimum(removed, self.top_place).long()[:, None]
        # of the unit that would go next; at the top, of the last
        following = ordered.gather(1, place)[:, 0]
        slopes = self.resource.slopes(self.ceiling - removed)
        if not self.resource.uniform:
            own = self.resource.own()[orders[0].gather(0, place[0])] / self.resource.whole
            slopes = torch.cat([slopes[:1] + own, slopes[1:]])
        if dynamics.faithful:
            gain = self.y * following + dynamics.sl2wd * self.s / self.ceiling
            if dynamics.zclamp:
                self.z = torch.minimum(self.z, torch.where(self.open, (gain + 1e-8) / slopes,
                                                           0).max())
            most = self.limit - 1e-8
            q = (gain - self.z * slopes) * self.open
            over = self.s >= most
            q = torch.where(over, q.clamp(min=0), q)
            q = torch.where(self.s <= 0, q.clamp(max=0), q)
            q = q / q.abs().max().clamp(min=1)
            moved = (self.s - self.pace * q).clamp(min=0)
            # as published: once over, s never comes back
            self.s = torch.where(over & self.open, most, moved)
            return
        gain = self.y * following * (self.ceiling / self.start)
        if dynamics.sl2wd:
            gain = gain + dynamics.sl2wd * self.s / self.ceiling
        slopes = slopes * self.ceiling  # of the whole layer at once
        self.cheapest = torch.where(self.s < self.limit, (gain + 1) / slopes, torch.inf).min()
        self.z = torch.minimum(self.z, self.cheapest)
        q = torch.addcmul(gain, self.z, slopes, value=-1).clamp(-1, 1)
        moved = torch.addcmul(self.s, self.pace, q, value=-1).clamp(self.floor, self.limit)
        self.s = torch.where(self.feasible_at >= 0, self.s, moved)

    def _raise_prices(self, ordered: Tensor, orders: Tensor, step: int) -> None:
        """Dual ascent with the new weights and the new s."""
        dynamics, removed = self.dynamics, self._removed_counts(self.s)
        sums = torch.where(self.places < removed[:, None], ordered, 0.0).sum(1, dtype=torch.float64)
        self.energy = sums / self.start
        self.spent = self._fraction(orders, removed)
        excess = self.spent - self.budget
        if dynamics.faithful:
            self.y = self.y + self.rates.y * sums
            self.z = (self.z + self.rates.z * excess).clamp(min=0)
        else:
            feasible = self.feasible_at >= 0
            grown = torch.add(self.y, self.y * ((self.energy > EMPTY) & feasible),
                              alpha=self.rates.growth)
            self.y = torch.add(grown, self.energy, alpha=self.rates.y)
            cheapest = self.cheapest.nan_to_num(posinf=0)
            raised = torch.addcmul(self.z, excess, cheapest, value=self.rates.z).clamp(min=0)
            self.z = torch.where(feasible, self.z, raised)
        self.feasible_at = torch.where((self.feasible_at < 0) & (excess <= 0), step,
                                       self.feasible_at)

    def _fraction(self, orders: Tensor, removed: Tensor) -> Tensor:
        if self.resource.uniform:
            return self.resource.fraction_of_counts(self.ceiling - removed)
        return self.resource.fraction(without_first(orders, removed) & self.resource.valid)

    def _force_when_late(self, state: Any) -> None:
        if self.dynamics.faithful or self.forced or state.step < FORCED * self.steps:
            return
        self.forced = True
        self._pass(state, self.open_budgets)
        if int(self.feasible_at) < 0:
            self.s.copy_(self._projected(energies_of(state.model, self.resource), self.budget))
            self.feasible_at.fill_(state.step)

    def _pass(self, state: Any, budgets: Sequence[float]) -> None:
        """Have the model saved under these budgets."""
        for budget in budgets:
            self.save(budget, self.kept(state.model, budget))
            self.passed[f"{budget:g}"] = state.step
        self.open_budgets = [budget for budget in self.open_budgets if budget not in budgets]

    def finish(self, model: DLRM) -> dict[str, int]:
        """Save what is open still, which happens to the faithful dynamics alone; the step of each
        larger budget."""
        for budget in self.open_budgets:
            self.save(budget, self.kept(model, budget))
        return self.passed

    def _projected(self, energies: Tensor, budget: float) -> Tensor:
        counts = project(self.resource, budget, energies / self.start[:, None],
                         self.orders(energies),
                         self._removed_counts(self.s).tolist(), self.limits, self.dynamics.punit)
        return torch.tensor(counts, dtype=torch.float64, device=self.s.device)

    def _look(self, state: Any) -> str | None:
        """Now and then: a line of the history, and whether there is anything left to do."""
        if state.step % LOG == 0 or state.epoch_done:
            self.history.append({"step": state.step, "resource": float(self.spent),
                                 "z": float(self.z),
                                 "s": self.s.tolist(), "y": self.y.tolist(),
                                 "energy": self.energy.tolist()})
        if self.dynamics.faithful or state.step % LOOK:
            return None
        return "compressed" if bool((self.feasible_at >= 0) & (self.energy < EMPTY).all()) else None

    def shown(self) -> dict[str, Any]:
        """For a progress bar and TensorBoard."""
        removed = self._removed_counts(self.s).tolist()
        left = [int(count - gone) for count,
                gone in zip(self.resource.counts, removed, strict=True)]
        what = "fields" if self.resource.layout.groups == "field" else "columns"
        return {"resource": round(float(self.spent), 4), "budget": self.budget, what: left[0],
                "neurons": sum(left[1:])}

    @torch.no_grad()
    def kept(self, model: DLRM, budget: float | None = None) -> Tensor:
        """What stays, (L, G), at the end, or on the way under a larger budget; within it unless
        faithful."""
        if self.budget >= 1:
            return self.resource.valid
        energies = energies_of(model, self.resource)
        faithful = self.dynamics.faithful
        removed = self._removed_counts(self.s) if faithful else self._projected(energies, budget
                                                                                or self.budget)
        return without_first(self.orders(energies), removed) & self.resource.valid

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        tensors = {name: getattr(self, name)
                   for name in ("s", "y", "z", "spent", "start", "energy", "weighing",
                                                          "feasible_at")}
        return {**tensors, "budget": self.budget, "history": self.history, "passed": self.passed}

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
                             if f"{budget:g}" not in self.passed]
        for name, value in content.items():
            if isinstance(value, Tensor):
                getattr(self, name).copy_(value)
