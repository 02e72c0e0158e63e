"""The hook that saves pruned tables at their budgets."""

import logging
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine import snapshots
from engine.loop import Hook, State
from models.embedding.pep import Pep

log = logging.getLogger("pep")


class SaveAtBudgets(Hook):
    """Save the pruned table whenever the non-zero count falls to the next budget; stop when all are
    met.

    An exact budget is cut from the table of the last count above it. An as-reached one is the table
    at the step that reached it. `finish` cuts the budgets that were not met from the last table.

    Args:
        embedding: the PEP embedding that is searched.
        targets: non-zero counts, falling.
        exact: whether budgets are cut to the very count.
        save: takes (name, table, meta) and writes the snapshot.
        there: lists the snapshots on disk, which a resumed search checks against those that it
            had saved; None: no check.
    """

    name = "save_at_budgets"

    def __init__(self, embedding: Pep, targets: tuple[int, ...], exact: bool,
                 save: Callable[[str, np.ndarray, dict[str, Any]], None],
                 there: Callable[[], Collection[str]] | None = None) -> None:
        self.embedding = embedding
        self.targets = targets
        self.open = list(targets)
        self.saved: list[str] = []
        self.there = there
        self.exact = exact
        self.save = save
        # other functions of the same results where the table is cut over processes
        self.cut_to: Callable[[np.ndarray, np.ndarray, int], np.ndarray] = snapshots.cut_to
        self.count: Callable[[np.ndarray], int] = np.count_nonzero
        # by budget that `finish` cut: see there
        self.differing: dict[int, int] = {}
        # V and s at the last count above the next budget; as-reached budgets are never cut
        self.above: dict[str, Tensor] = {}
        if exact:
            self.above = {name: value.clone() for name, value in self._values().items()}

    def __call__(self, state: State) -> str | None:
        """Count, save what was crossed; "budgets_met" when no budget is open."""
        state.refresh()
        count = self.embedding.num_params()
        met = [target for target in self.open if count <= target]
        self.open = self.open[len(met):]
        meta = {"epoch": state.epoch, "step": state.step}
        if self.exact:
            for target in met:
                self._save(str(target), self._cut_by_margin(target, **self.above),
                           {**meta, "source": "cut", "budgets": [target]})
        elif met:
            table = self.embedding.table().cpu().numpy()
            self._save(str(count), table, {**meta, "source": "reached", "budgets": met})
        if not self.open:
            return "budgets_met"
        if self.exact:
            for name, value in self._values().items():
                self.above[name].copy_(value)  # new memory would cost several times as much
        return None

    def finish(self, state: State) -> list[int]:
        """Cut the budgets that were not reached from the last table, with a |V|-only cut beside
        each; list them.

        Their snapshots say `cut_from`, the entries that the last table had left, and `differing`,
        how many of the entries kept the |V|-only cut would not keep: where these are few, the
        thresholds decided nothing.
        """
        state.refresh()
        if self.open and not self.exact:
            log.warning("budgets that the search did not reach, and of which there is no snapshot: "
                        "%s", self.open)
            return self.open
        weight = self.embedding.weight.detach().cpu().numpy()
        left = self.embedding.num_params() if self.open else 0
        for target in self.open:
            by_magnitude = self.cut_to(weight, np.abs(weight), target)
            by_margin = self._cut_by_margin(target, **self._values())
            differing = int(self.count((by_margin != 0) & (by_magnitude == 0)))
            self.differing[target] = differing
            meta = {"epoch": state.epoch, "step": state.step, "cut_from": left}
            self._save(str(target), by_margin, {**meta, "source": "cut_last",
                                                "differing": differing, "budgets": [target]})
            self._save(f"{target}{snapshots.MAGNITUDE}", by_magnitude,
                       {**meta, "source": "cut_last_magnitude"})
        return self.open

    def _values(self) -> dict[str, Tensor]:
        """V (N, D) and s, not copied."""
        return {"weight": self.embedding.weight.detach(),
                "thresholds": self.embedding.thresholds.detach()}

    @torch.no_grad()
    def _cut_by_margin(self, target: int, weight: Tensor, thresholds: Tensor) -> np.ndarray:
        margins = self.embedding.margins_of(weight, thresholds)
        values = torch.sign(weight) * margins
        return self.cut_to(values.cpu().numpy(), margins.cpu().numpy(), target)

    def _save(self, name: str, table: np.ndarray, meta: dict[str, Any]) -> None:
        self.save(name, table, {**meta, "num_embedding_params": int(self.count(table))})
        self.saved.append(name)

    def state_dict(self) -> dict[str, Any]:
        """The open budgets, the names of saved snapshots, and V and s at the last count above the
        next budget."""
        return {"open": self.open, "saved": self.saved, "above": self.above}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint.

        Raises:
            FileNotFoundError: snapshots that the search had saved are gone.
        """
        self.open = state["open"]
        # checkpoints of earlier versions do not say; those of exact budgets have their names
        met = [str(target) for target in self.targets if target not in self.open]
        self.saved = state.get("saved", met if self.exact else [])
        there = self.saved if self.there is None else self.there()
        if gone := [name for name in self.saved if name not in there]:
            raise FileNotFoundError(f"the search had saved the snapshots {', '.join(gone)} before "
                                    f"it was stopped, and they are gone; search again with "
                                    f"--force")
        device = self.embedding.weight.device
        self.above = {name: value.to(device) for name, value in state["above"].items()}
