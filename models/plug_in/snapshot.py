"""The pruned tables of a plugged model at a budget."""

import logging
import numbers
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..pruned_tables import PrunedTables
from . import evidence as plug_evidence
from .table import PepTable, PluggedTable
from .watch import listed

log = logging.getLogger("pep")


def bare(given: Any) -> nn.Module:
    """The module itself, of a `Plugged` or of what torch.compile returned.

    Raises:
        TypeError: it is no module.
        ValueError: it is wrapped in DistributedDataParallel.
    """
    model = given
    if not isinstance(model, nn.Module):
        model = getattr(model, "model", None)
    if not isinstance(model, nn.Module):
        raise TypeError(f"a torch.nn.Module is expected, got {type(given).__name__}")
    model = model._modules.get("_orig_mod") or model  # of torch.compile
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError("DistributedDataParallel synchronises the parameters of when it was made, "
                         "and no others; pass its .module, and wrap that again after plug, masked "
                         "and unplug")
    return model


def plugged_tables(model: Any) -> dict[str, PluggedTable]:
    """The plugged tables of a model by dotted name; one that is used at several places goes by its
    first."""
    return {name: table for name, table in bare(model).named_modules()
            if isinstance(table, PluggedTable)}


def searched_tables(model: Any) -> dict[str, PepTable]:
    """The same, all of them with thresholds.

    Raises:
        ValueError: there are none, or some have a fixed mask or are compact.
    """
    tables = plugged_tables(model)
    found = {name: table for name, table in tables.items() if isinstance(table, PepTable)}
    if not found or len(found) < len(tables):
        state, call = (("has a fixed mask or is compact already", "unplug(model), plug(model)")
                       if tables else
                       ("is not plugged", "plug(model)"))
        raise ValueError(f"the model {state}, so there are no thresholds to prune by; call {call} "
                         f"and train first")
    return found


@torch.no_grad()
def snapshot(model: Any, budget: int | Mapping[str, int] | None = None,
             allow_magnitude: bool = False) -> PrunedTables:
    """The pruned tables of a plugged model at a budget, with the values that they started from; the
    model is not changed.

    Kept are the entries with the largest margins |V| - g(s); of equal margins, the first. A padding
    row does not count. Where no threshold acts these are the entries with the largest |V|, plain
    magnitude pruning, and that is refused; `models.plug_in.evidence` says what counts. `meta` and
    the log (level INFO) say how far the thresholds have moved.

    Args:
        model: a plugged model, or what `plug` returned.
        budget: entries to keep: a number for all tables together, numbers by table name (any of its
            names; a table without a number keeps what it has), or None for what the thresholds have
            left so far.
        allow_magnitude: return the cut even where no threshold acts.

    Raises:
        ValueError: no threshold acts (the message names the causes); the budget is below 1, more
            than the tables hold or than the thresholds have left, for an unknown table, or given
            twice for one; nothing is left; the model is not plugged or no longer searched; its
            values are not finite.
        TypeError: the budget is not a whole number.

    >>> from .plug import plug
    >>> table = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    >>> model = nn.Sequential(nn.Embedding.from_pretrained(table, freeze=False))
    >>> plugged = plug(model, threshold_init=-150.0)
    >>> snapshot(model, 2, allow_magnitude=True).values["0"].tolist()  # nothing is trained here
    [[0.0, -2.0], [3.0, 0.0]]
    """
    tables = searched_tables(model)
    if isinstance(budget, Mapping):
        budget = _by_first_name(model, budget)
    elif budget is not None:
        _check_number("budget", budget)
    margins = {name: table.margins().cpu() for name, table in tables.items()}
    bad = [name for name in tables if not torch.isfinite(tables[name].values).all()
           or margins[name].isnan().any()]
    if bad:
        raise ValueError(f"values or thresholds of {', '.join(bad)} are not finite: the training "
                         f"has diverged")
    if not any((part > 0).any() for part in margins.values()):
        raise ValueError("the thresholds have left no entry at all; take the snapshot earlier in "
                         "the training, or start it from a lower threshold_init")
    if isinstance(budget, Mapping):
        kept = {name: part > 0 for name, part in margins.items()}
        for name, number in budget.items():
            kept |= _largest({name: margins[name]}, number, f"the table {name}")
    elif budget is not None:
        kept = _largest(margins, budget, "the tables together")
    else:
        kept = {name: part > 0 for name, part in margins.items()}
    meta = _checked(tables, margins, kept, isinstance(budget, Mapping), allow_magnitude)
    pruned = {name: torch.where(kept[name], table.table().cpu(), 0.0)
              for name, table in tables.items()}
    initial = {name: table.initial.to("cpu", copy=True) for name, table in tables.items()}
    padding = {name: table.padding_idx for name, table in tables.items()
               if table.padding_idx is not None}
    return PrunedTables(pruned, initial, meta, padding)


def _checked(tables: Mapping[str, PepTable], margins: Mapping[str, Tensor],
            kept: Mapping[str, Tensor], apart: bool, allow_magnitude: bool) -> dict[str, Any]:
    """Log what the thresholds have decided, and refuse a cut that none of them decides."""
    found = plug_evidence.evidence(tables, margins, kept, apart)
    still = [name for name, table in tables.items() if not table.has_moved()]
    if not plug_evidence.acts(found, moved=len(still) < len(tables)):
        if not allow_magnitude:
            raise ValueError(plug_evidence.refusal(found))
        log.warning("no threshold acts, so this cut is plain magnitude pruning and not PEP, as "
                    "allow_magnitude lets it be")
    elif still:
        log.warning("the thresholds of %s stand where they started: is each of these tables used?",
                    listed(still))
    if undone := plug_evidence.taken_back(found):
        log.warning("%s", undone)
    log.info("snapshot: %s", plug_evidence.in_words(found))
    return found


def _by_first_name(model: Any, budget: Mapping[str, int]) -> dict[str, int]:
    """The numbers, checked, by the names that `plugged_tables` gives."""
    first = {id(table): name for name, table in plugged_tables(model).items()}
    modules = bare(model).named_modules(remove_duplicate=False)
    names = {name: first[id(module)] for name, module in modules if id(module) in first}
    found: dict[str, int] = {}
    for name, number in budget.items():
        if name not in names:
            raise ValueError(f"unknown table {name!r} in the budget; the plugged ones are: "
                             f"{', '.join(names)}")
        _check_number(name, number)
        if names[name] in found:
            raise ValueError(f"the budget has two numbers for the table {names[name]}, by two of "
                             f"its names")
        found[names[name]] = number
    return found


def _check_number(name: str, number: object) -> None:
    if not isinstance(number, numbers.Integral) or isinstance(number, bool):
        raise TypeError(f"{name}: a whole number of entries to keep is expected, got {number!r}")
    if number < 1:
        raise ValueError(f"{name}: at least 1 entry must be kept, got {number}")


def _largest(margins: Mapping[str, Tensor], count: int, whose: str) -> dict[str, Tensor]:
    """Masks of the `count` largest margins of all together."""
    flat = torch.cat([part.flatten() for part in margins.values()])
    size, left = int((flat > -torch.inf).sum()), int((flat > 0).sum())
    if count > size:
        raise ValueError(f"cannot keep {count} entries: {whose} have {size}")
    if count > left:
        raise ValueError(f"cannot keep {count} entries: the thresholds have left {left} of {size} "
                         f"in {whose}; ask for at most {left}, or take the snapshot earlier in the "
                         f"training")
    # where the margins are, whatever the default device
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[flat.sort(descending=True, stable=True).indices[:count]] = True
    parts = mask.split([part.numel() for part in margins.values()])
    return {name: part.view_as(margins[name]) for name, part in zip(margins, parts, strict=True)}

