"""UMEC's resource constraint (Shen et al., ICLR 2021): after each step, one of primal-dual descent on what is left out.

    min over W, s   max over y, z >= 0   loss(W) + sum_l y_l N_l(ceil s_l) + z (R(ceil s) - B)

s_l counts the units that layer l of the top MLP gives up, N_l(T) is the energy (sum of squared weights) of its T least
units, R the resource as a fraction of the whole model's, B the budget. In the published order: shrink the least units
(the exact proximal step of y_l N_l), move s by straight-through gradients, raise y and z with the new weights and s.

The published dynamics (`faithful`) are slow on little data, wind z up, leave the budget by chatter and stick at bounds.
The robust ones, by default, differ in this: energies are fractions of their layer's mean at the start, and slopes are
of the layer's whole; y starts at 1; all rates are per `steps`, the length of the training; z never exceeds what moves
the cheapest layer at full speed (anti-windup), so that no layer is dragged along by another's slope; s may leave its
upper bound; s and z stand still from the first feasible step on, while y grows on until the removed units are empty; a
training still over budget after FORCED of its steps is put there by `project`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.dlrm import DLRM
from transforms.resources import Resource
from transforms.units import attainable, energies_of, project, scale_units, without_first

FORCED = 0.7  # share of the steps after which s no longer waits for z
EMPTY = 1e-6  # of a layer's energy at the start: what is removed weighs nothing
GROWTH = 10  # e-folds of y over a whole training, from the first feasible step on, while removed units are not empty
SHRINK = 20  # e-folds of a removed unit's weights over a whole training, per unit of y
CLIMB = {"y": 1000, "z": 50}  # what the published rates of y and z are multiplied by, over the steps
LOOK = 50  # steps between looks at the device's numbers
LOG = 200  # steps between lines of the history


@dataclass(frozen=True)
class Dynamics:
    """Rates by their published names, and what may be removed.

    Args:
        slr, ylr, zlr: of s, y and z. The robust dynamics scale them by the training's length.
        sl2wd: decay of s.
        zclamp: faithful only: z at most what holds the hardest layer still.
        punit: neurons are removed in multiples of it.
        min_keep: units that every layer keeps at least.
        keep: units of the first layer that stay.
        joint: neurons too; else fields alone.
        faithful: the published dynamics; the budget may be exceeded.
        by_embedding: units of the first layer are ordered by energy times the mean square of what they multiply, and no
            longer by energy alone, which says little where a model has been trained briefly: its vectors grow first.
    """

    slr: float = 0.05
    ylr: float = 0.1
    zlr: float = 2.0
    sl2wd: float = 0.0
    zclamp: bool = False
    punit: int = 1
    min_keep: int = 1
    keep: tuple[int, ...] = ()
    joint: bool = True
    faithful: bool = False
    by_embedding: bool = False

    def limits(self, counts: Sequence[int]) -> list[int]:
        """Units that each layer may give up.

        Raises:
            ValueError: a unit to keep does not exist, or a layer has not so many.
        """
        wrong = [unit for unit in self.keep if not 0 <= unit < counts[0]]
        if wrong or self.min_keep < 1 or self.punit < 1:
            raise ValueError(f"units to keep are 0 .. {counts[0] - 1}, min_keep and punit at least 1; got units "
                             f"{wrong}, min_keep {self.min_keep}, punit {self.punit}")
        if self.joint and len(counts) < 2:
            raise ValueError("a top MLP of one layer has no neurons to remove; compress its fields alone (--mode "
                             "fields), or train with hidden layers (arch_mlp_top)")
        low = max(self.min_keep, len(set(self.keep)))
        return [max(counts[0] - low, 0),
                *(max(count - max(self.min_keep, self.punit), 0) * self.joint for count in counts[1:])]


class ResourceConstraint:
    """The hook. L layers; layer l has G_l units.

    Args:
        resource: R, for a whole model.
        budget: B, a fraction of the whole, above what the limits leave and at most 1.
        dynamics: rates and limits.
        steps: of the whole training; what the robust rates are measured by.

    Raises:
        ValueError: the budget cannot be met, or is no such fraction.
    """

    every_step = True

    def __init__(self, resource: Resource, budget: float, dynamics: Dynamics, steps: int) -> None:
        self.resource = resource
        self.dynamics = dynamics
        self.limits = dynamics.limits(resource.counts)
        self.budget = attainable(budget, resource, self.limits, dynamics.keep)
        self.steps = max(steps, 1)
        device = resource.device
        self.ceiling = torch.tensor(resource.counts, dtype=torch.float64, device=device)
        self.limit = torch.tensor(self.limits, dtype=torch.float64, device=device)
        self.open = self.limit > 0
        self.grain = torch.tensor([1, *(dynamics.punit for _ in self.limits[1:])], dtype=torch.float64, device=device)
        self.pace = dynamics.slr / 0.05 * 2 * sum(limit > 0 for limit in self.limits) / self.steps * self.ceiling
        self.s = torch.zeros_like(self.limit)
        self.y = torch.full_like(self.limit, 0.0 if dynamics.faithful else 1.0)
        self.z = torch.zeros_like(self.limit[0])
        self.spent = torch.ones_like(self.z)
        self.start = torch.zeros_like(self.limit)  # energy of each layer before the first step
        self.energy = torch.zeros_like(self.limit)  # N, as a share of it
        self.cheapest = torch.zeros_like(self.z)
        self.places = torch.arange(max(resource.counts), device=device)
        self.weighing = 1 / resource.savings(resource.valid).float()  # (L, G) a unit's price is its energy times this
        self.last = torch.zeros_like(self.weighing).masked_fill(~resource.valid, torch.inf)
        self.last[0, list(dynamics.keep)] = torch.finfo(torch.float32).max
        self.feasible_at = torch.full((), -1, device=device)
        self.history: list[dict[str, Any]] = []
        self.begun = self.forced = False

    @torch.no_grad()
    def __call__(self, state: Any) -> str | None:
        """One round. The top MLP is up to date without `refresh`; the tables are looked at once an epoch."""
        if self.budget >= 1:
            return None
        energies = energies_of(state.model, self.resource)
        if not self.begun or (self.dynamics.by_embedding and state.epoch_done):
            self._begin(state, energies)
        removed, orders = self._removed_counts(self.s), self.orders(energies)
        lr = state.optimizer.param_groups[-1]["lr"]
        strength = 2 * lr * self.y if self.dynamics.faithful else SHRINK / self.steps * self.y
        factors = 1 / (1 + strength)
        kept = without_first(orders, removed)
        factors = factors.float()[:, None]
        scale_units(state.model, self.resource, torch.where(kept, 1.0, factors))  # the proximal step
        ordered = (energies * torch.where(kept, 1.0, factors * factors)).gather(1, orders)  # left in their order by it
        self._move(ordered, orders, removed)
        if not (self.dynamics.faithful or self.forced) and state.step >= FORCED * self.steps:
            self._force(state.model, state.step)
        self._raise_prices(ordered, orders, state.step)
        return self._look(state)

    def _begin(self, state: Any, energies: Tensor) -> None:
        if not self.begun:
            self.start, self.begun = energies.sum(1, dtype=torch.float64), True
        if self.dynamics.by_embedding:
            state.refresh()
            layout = self.resource.layout
            squares = [part.square().mean(0) for part in torch.split(state.model.embedding.table(), list(layout.rows))]
            fields = torch.cat(squares).double().view(-1, layout.size).mean(1)
            everyone = torch.cat([fields.mean().expand(layout.dense_units), fields])  # the numbers have no table
            savings = self.resource.savings(self.resource.valid)[0, :len(everyone)]
            self.weighing[0, :len(everyone)] = (everyone / savings).float()

    def _removed_counts(self, s: Tensor) -> Tensor:
        """ceil s, (L,): to whole fields, to multiples of punit neurons."""
        most = self.ceiling if self.dynamics.faithful else self.limit
        return torch.minimum((s / self.grain).ceil() * self.grain, most)

    def orders(self, energies: Tensor) -> Tensor:
        """Units (L, G) from the least energy for what they would save on; those to keep come last."""
        return (energies * self.weighing + self.last).argsort(dim=1, stable=True)

    def _move(self, ordered: Tensor, orders: Tensor, removed: Tensor) -> None:
        """The step of s by straight-through gradients. `ordered`: energies in the order of removal, (L, G)."""
        dynamics = self.dynamics
        place = torch.minimum(removed, self.ceiling - 1).long()[:, None]
        following = ordered.gather(1, place)[:, 0].double()  # of the unit that would go next; at the top, of the last
        slopes = self.resource.slopes(self.ceiling - removed)
        if not self.resource.uniform:
            own = self.resource.own()[orders[0].gather(0, place[0])] / self.resource.whole
            slopes = torch.cat([slopes[:1] + own, slopes[1:]])
        if dynamics.faithful:
            gain = self.y * following + dynamics.sl2wd * self.s / self.ceiling
            if dynamics.zclamp:
                self.z = torch.minimum(self.z, torch.where(self.open, (gain + 1e-8) / slopes, 0).max())
            most = self.limit - 1e-8
            q = (gain - self.z * slopes) * self.open
            over = self.s >= most
            q = torch.where(over, q.clamp(min=0), q)
            q = torch.where(self.s <= 0, q.clamp(max=0), q)
            q = q / q.abs().max().clamp(min=1)
            moved = (self.s - dynamics.slr * q).clamp(min=0)
            self.s = torch.where(over & self.open, most, moved)  # as published: once over, s never comes back
            return
        gain = self.y * following * self.ceiling / self.start
        if dynamics.sl2wd:
            gain = gain + dynamics.sl2wd * self.s / self.ceiling
        slopes = slopes * self.ceiling  # of the whole layer at once
        movable = self.open & (self.s < self.limit)
        self.cheapest = torch.where(movable, (gain + 1) / slopes, torch.inf).min()
        self.z = torch.minimum(self.z, self.cheapest)
        q = ((gain - self.z * slopes) * self.open).clamp(-1, 1)
        moved = (self.s - self.pace * q).clamp(min=0).minimum(self.limit)
        self.s = torch.where(self.feasible_at >= 0, self.s, moved)

    def _raise_prices(self, ordered: Tensor, orders: Tensor, step: int) -> None:
        """Dual ascent with the new weights and the new s."""
        dynamics, removed = self.dynamics, self._removed_counts(self.s)
        sums = (ordered * (self.places < removed[:, None])).sum(1, dtype=torch.float64)
        self.energy = sums / self.start
        self.spent = self._fraction(orders, removed)
        excess = self.spent - self.budget
        if dynamics.faithful:
            self.y = self.y + dynamics.ylr * sums
            self.z = (self.z + dynamics.zlr * excess).clamp(min=0)
        else:
            feasible = self.feasible_at >= 0
            growth = GROWTH / self.steps * self.y * ((self.energy > EMPTY) & feasible)
            self.y = self.y + dynamics.ylr * CLIMB["y"] / self.steps * self.energy + growth
            rate = dynamics.zlr * CLIMB["z"] / self.steps / (1 - self.budget)
            raised = (self.z + rate * excess * self.cheapest.nan_to_num(posinf=0)).clamp(min=0)
            self.z = torch.where(feasible, self.z, raised)
        self.feasible_at = torch.where((self.feasible_at < 0) & (excess <= 0), step, self.feasible_at)

    def _fraction(self, orders: Tensor, removed: Tensor) -> Tensor:
        if self.resource.uniform:
            return self.resource.fraction_of_counts(self.ceiling - removed)
        return self.resource.fraction(without_first(orders, removed) & self.resource.valid)

    def _force(self, model: DLRM, step: int) -> None:
        self.forced = True
        if int(self.feasible_at) < 0:
            self.s = self._projected(energies_of(model, self.resource))
            self.feasible_at.fill_(step)

    def _projected(self, energies: Tensor) -> Tensor:
        counts = project(self.resource, self.budget, energies / self.start[:, None], self.orders(energies),
                         self._removed_counts(self.s).tolist(), self.limits, self.dynamics.punit)
        return torch.tensor(counts, dtype=torch.float64, device=self.s.device)

    def _look(self, state: Any) -> str | None:
        """Now and then: a line of the history, and whether there is anything left to do."""
        if state.step % LOG == 0 or state.epoch_done:
            self.history.append({"step": state.step, "resource": float(self.spent), "z": float(self.z),
                                 "s": self.s.tolist(), "y": self.y.tolist(), "energy": self.energy.tolist()})
        if self.dynamics.faithful or state.step % LOOK:
            return None
        return "compressed" if bool((self.feasible_at >= 0) & (self.energy < EMPTY).all()) else None

    def shown(self) -> dict[str, Any]:
        """For a progress bar and TensorBoard."""
        removed = self._removed_counts(self.s).tolist()
        left = [int(count - gone) for count, gone in zip(self.resource.counts, removed, strict=True)]
        what = "fields" if self.resource.layout.groups == "field" else "columns"
        return {"resource": round(float(self.spent), 4), "budget": self.budget, what: left[0], "neurons": sum(left[1:])}

    @torch.no_grad()
    def kept(self, model: DLRM) -> Tensor:
        """What stays at the end, (L, G); within the budget unless faithful."""
        if self.budget >= 1:
            return self.resource.valid
        energies = energies_of(model, self.resource)
        removed = self._removed_counts(self.s) if self.dynamics.faithful else self._projected(energies)
        return without_first(self.orders(energies), removed) & self.resource.valid

    def content(self) -> dict[str, Any]:
        """For the checkpoint."""
        tensors = {name: getattr(self, name) for name in ("s", "y", "z", "spent", "start", "energy", "weighing",
                                                          "feasible_at")}
        return {**tensors, "budget": self.budget, "history": self.history}

    def restore(self, content: dict[str, Any]) -> None:
        """From the checkpoint.

        Raises:
            ValueError: it is of another budget, whose prices mean nothing here.
        """
        if content["budget"] != self.budget:
            raise ValueError(f"the checkpoint was written under budget {content['budget']}, this run has "
                             f"{self.budget}; go on with the same one, or start again with --force")
        self.history, self.begun = content["history"], bool(content["start"].any())
        for name, value in content.items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(self.s.device))
