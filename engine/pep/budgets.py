"""The hook that saves pruned tables at their budgets."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from engine import snapshots
from engine.loop import State

log = logging.getLogger("pep")


class SaveAtBudgets:
    """Save the pruned table whenever the non-zero count falls to the next budget; stop when all are
    met.

    Exact budgets are cut from the table of the last count above the target; as-reached ones hold
    what the step landed on. Unmet ones are cut from the last table by `finish`.

    Args:
        embedding: the PEP embedding that is searched.
        targets: non-zero counts, falling.
        exact: cut to the very count.
        save: takes (name, table, meta) and writes the snapshot.
    """

    def __init__(self, embedding: Any, targets: tuple[int, ...], exact: bool,
                 save: Callable[[str, np.ndarray, dict[str, Any]], None]) -> None:
        self.embedding = embedding
        self.open = list(targets)
        self.exact = exact
        self.save = save
        self.differing: dict[int, int] = {}  # of the budgets cut by `finish`: see there
        self.above: dict[str, torch.Tensor] = {}  # V and s at the last count above the next target
        self._keep()

    def __call__(self, state: State) -> str | None:
        """Count, save what was crossed; a reason when no budget is open."""
        state.refresh()
        count = self.embedding.num_params()
        met = [target for target in self.open if count <= target]
        self.open = self.open[len(met):]
        where = {"epoch": state.epoch, "step": state.step}
        if self.exact:
            for target in met:
                self._cut(target, self.above, {**where, "source": "cut"})
        elif met:
            table = self.embedding.table().cpu().numpy()
            self._save(str(count), table, {**where, "source": "reached", "budgets": met})
        if not self.open:
            return "budgets_met"
        self._keep()
        return None

    def finish(self, state: State) -> list[int]:
        """Cut the budgets that were not reached from the last table, with a |V|-only cut beside
        each; list them.

        Their snapshots say `cut_from`, the entries that the last table had left, and `differing`,
        how many of the entries kept the |V|-only cut would not keep: where these are few, the
        thresholds decided nothing.
        """
        state.refresh()
        if self.exact:
            left = self.embedding.num_params()
            for target in self.open:
                meta = {"epoch": state.epoch, "step": state.step, "cut_from": left}
                weight = self.embedding.weight.detach().cpu().numpy()
                by_magnitude = snapshots.cut_to(weight, np.abs(weight), target)
                by_margin = self._cut_by_margin(target, self.embedding.parts())
                differing = int(np.count_nonzero((by_margin != 0) & (by_magnitude == 0)))
                self.differing[target] = differing
                self._save(str(target), by_margin,
                           {**meta, "source": "cut_last", "differing": differing,
                                                    "budgets": [target]})
                self._save(f"{target}{snapshots.MAGNITUDE}", by_magnitude,
                           {**meta, "source": "cut_last_magnitude"})
        elif self.open:
            log.warning("budgets that the search did not reach, and of which there is no snapshot: "
                        "%s", self.open)
        return self.open

    def _keep(self) -> None:
        """Copy V and s over the last copy: fresh memory costs several times as much as the
        copying."""
        # as-reached budgets are never cut
        for name, value in self.embedding.parts().items() if self.exact else ():
            fits = name in self.above and self.above[name].shape == value.shape
            self.above[name] = self.above[name].copy_(value) if fits else value.clone()

    def _cut(self, target: int, parts: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        self._save(str(target), self._cut_by_margin(target, parts), {**meta, "budgets": [target]})

    @torch.no_grad()
    def _cut_by_margin(self, target: int, parts: dict[str, torch.Tensor]) -> np.ndarray:
        margins = self.embedding.margins_of(**parts)
        values = torch.sign(parts["weight"]) * margins
        return snapshots.cut_to(values.cpu().numpy(), margins.cpu().numpy(), target)

    def _save(self, name: str, table: np.ndarray, meta: dict[str, Any]) -> None:
        self.save(name, table, {**meta, "num_embedding_params": int(np.count_nonzero(table))})

    def content(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"open": self.open, "above": self.above}

    def restore(self, content: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.open = content["open"]
        device = self.embedding.weight.device
        self.above = {name: value.to(device) for name, value in content["above"].items()}
