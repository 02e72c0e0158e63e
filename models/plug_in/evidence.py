"""Whether a cut is PEP's: how far the thresholds have moved, and what they have decided.

A cut at a budget keeps the entries with the largest |V| - g(s). If g(s) is negligible beside |V|,
or the same for all entries, these have the largest |V|: plain magnitude pruning. Two numbers show
what the search has done, as shares of what the cut removes:

- *pruned*: entries that are below their threshold now and were not at the start. They were trained
  as zeros, which magnitude pruning does not do, even with one threshold for all (`global`).
- *differing*: entries that are kept although magnitude pruning would keep others, of larger |V|.

If no threshold has moved, or if both numbers are at most 1 %, no threshold acts.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..kernels.threshold import GATES
from .table import PepTable
from .watch import listed

ACTING_SHARE = 0.01
CAUSES = ("Usual causes: an optimiser that is not torch.optim.Adam over plugged.parameter_groups() "
          "made after plug() (AdamW, a decay of 0); too few steps for this start; a library that "
          "reloads its best checkpoint at the end of fit() and so undoes the search")


def evidence(tables: Mapping[str, PepTable], margins: Mapping[str, Tensor],
             kept: Mapping[str, Tensor], separate: bool) -> dict[str, Any]:
    """What the search has done to a cut, as plain numbers.

    Args:
        tables: by name.
        margins: |V| - g(s) of each, (N, D), on the CPU, -inf in the padding row.
        kept: masks of the same shapes.
        separate: each table has a budget of its own, and magnitude is compared within each.

    Returns:
        `kept`, `removed`, `pruned` and `differing`: entries of all tables together; `thresholds`:
        by table, the `start` of s and its `lowest`, `mean` and `highest` value now; `taken_back`:
        by table, the means of s before and after a load_state_dict that lowered it, while the mean
        is still below the first of them.
    """
    count = dict.fromkeys(("kept", "removed", "pruned", "differing"), 0)
    thresholds, back = {}, {}
    sizes = {}  # |V|, -inf in the padding row
    for name, table in tables.items():
        s, settings, mean = table.thresholds.detach(), table.settings, table.mean_threshold()
        there = margins[name] > -torch.inf
        sizes[name] = torch.where(there, table.values.detach().abs().cpu(), -torch.inf)
        start = settings.scale * GATES[settings.gate](s.new_full((1,), settings.init)).cpu()
        pruned = there & (margins[name] <= 0) & (table.initial.cpu().abs() > start)
        count["kept"] += int(kept[name].sum())
        count["removed"] += int((there & ~kept[name]).sum())
        count["pruned"] += int(pruned.sum())
        thresholds[name] = {"start": settings.init, "lowest": float(s.min()), "mean": mean,
                            "highest": float(s.max())}
        if table.taken_back and mean < table.taken_back[0]:
            back[name] = list(table.taken_back)
    groups = [[name] for name in tables] if separate else [list(tables)]
    for names in groups:
        count["differing"] += _differing([sizes[name] for name in names],
                                         [kept[name] for name in names])
    return {**count, "thresholds": thresholds, "taken_back": back}


def acts(found: Mapping[str, Any], moved: bool) -> bool:
    """Whether any threshold does: see above."""
    return moved and max(found["pruned"], found["differing"]) > ACTING_SHARE * found["removed"]


def in_words(found: Mapping[str, Any]) -> str:
    """The evidence in words."""
    each = [f"{name} {s['start']:.4g} -> {s['mean']:.4g} ({s['lowest']:.4g} .. {s['highest']:.4g})"
            for name, s in found["thresholds"].items()]
    return (f"of the {found['removed']:,} entries that the cut removes the search has pruned "
            f"{found['pruned']:,}, and of the {found['kept']:,} that it keeps "
            f"{found['differing']:,} are not those of plain magnitude pruning; thresholds at the "
            f"start -> on average now: {listed(each)}")


def taken_back(found: Mapping[str, Any]) -> str:
    """What load_state_dict has undone, in words, or nothing."""
    each = [f"{name} {before:.4g} -> {after:.4g}"
            for name, (before, after) in found["taken_back"].items()]
    if not each:
        return ""
    return (f"load_state_dict has taken thresholds back (on average: {listed(each)}), as libraries "
            f"do that reload their best checkpoint at the end of fit(): switch that off, or call "
            f"snapshot() before")


def refusal(found: Mapping[str, Any]) -> str:
    """Why a cut is refused."""
    would = "be plain magnitude pruning and not PEP" if found["removed"] else "cut nothing"
    return (f"no threshold acts, so this would {would}: {in_words(found)}. "
            f"{taken_back(found) or CAUSES}. To take the cut as it is, call "
            f"snapshot(..., allow_magnitude=True)")


def _differing(sizes: list[Tensor], kept: list[Tensor]) -> int:
    """Entries that are kept though they are smaller than all that magnitude keeps."""
    size = torch.cat([part.flatten() for part in sizes])
    keep = torch.cat([part.flatten() for part in kept])
    count = int(keep.sum())
    if not count:
        return 0
    last = size.kthvalue(len(size) - count + 1).values  # the smallest that magnitude keeps
    return int((size[keep] < last).sum())
