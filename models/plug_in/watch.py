"""Notice, at an optimiser's first step, that it cannot move plugged thresholds as PEP needs.

The user's loop, or a library's, makes the optimiser; where `Plugged.parameter_groups` is not asked,
nobody else could say that AdamW or a decay of 0 was taken. torch calls the hook before each step of
any optimiser; after the first one it is a look-up in a set. Nothing is added to a model's forward.
"""

import functools
import logging
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

log = logging.getLogger("pep")
SAMPLE = 10_000  # thresholds that are looked at
NAMED = 4  # tables that a message names
FEWEST = 8  # thresholds of a table that can be told to be alike

DO = "make torch.optim.Adam over plugged.parameter_groups()"
NO_DECAY = ("%s has a weight_decay of 0 for the thresholds of %s: PEP's thresholds rise by decay, "
            f"so hardly anything will be pruned; {DO}")
DECOUPLED = ("%s decouples the weight decay from the gradient, which hardly moves the thresholds "
             f"of %s, so hardly anything will be pruned; {DO}")
UNSCALED = ("%s does not scale its steps as Adam does, so the decay hardly moves the thresholds "
            f"of %s, and hardly anything will be pruned; {DO}")
NOT_HELD = ("%s trains the values but not the thresholds of %s: was it made before plug()? Unless "
            f"another optimiser has them, nothing will be pruned; {DO} after plug()")
PENALISED = ("the loss that %s minimises penalises the thresholds of %s, as a regulariser does "
             "that walks over model.parameters(). That raises them as weight decay does, but the "
             "loss shown contains their squares: let the regulariser pass over names that end in "
             "'.thresholds', and leave the decay to the optimiser")

_tables: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by id, as they were made
_seen: WeakSet[Optimizer] = WeakSet()


def watch(table: nn.Module) -> None:
    """Look at whatever optimiser steps next.

    Args:
        table: with parameters `values` and `thresholds`, and a `name`.
    """
    _install()
    _tables[id(table)] = table
    _seen.clear()


def forget(table: nn.Module) -> None:
    """Its thresholds are gone; an optimiser need not hold them any more."""
    _tables.pop(id(table), None)


@functools.cache
def _install() -> None:
    register_optimizer_step_pre_hook(_look)


def _look(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if torch.compiler.is_compiling() or optimizer in _seen:  # a compiled step is not looked at
        return
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return  # looking waits for the device, which a graph in the making may not
    _seen.add(optimizer)
    groups: dict[int, dict[str, Any]] = {}
    for each in optimizer.param_groups:
        groups |= dict.fromkeys(map(id, each["params"]), each)
    found: dict[str, list[str]] = {}
    for table in list(_tables.values()):
        group = groups.get(id(table.thresholds))
        causes = []
        if group is not None:
            causes = _causes(optimizer, group, penalised(table))
        elif id(table.values) in groups:
            causes = [NOT_HELD]
        for cause in causes:
            found.setdefault(cause, []).append(table.name)
    for cause, names in found.items():
        log.warning(cause, type(optimizer).__name__, listed(names))


def _causes(optimizer: Optimizer, group: dict[str, Any], by_loss: bool) -> list[str]:
    """What is wrong with the group that has the thresholds."""
    causes = [PENALISED] if by_loss else []
    if isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay", False):
        causes += [DECOUPLED]
    elif isinstance(optimizer, (torch.optim.SGD, torch.optim.ASGD, torch.optim.Adadelta)):
        causes += [UNSCALED]
    # an optimiser without decay of its own never reads the key
    elif not by_loss and not ("weight_decay" in optimizer.defaults and group.get("weight_decay")):
        causes += [NO_DECAY]
    return causes


@torch.no_grad()
def penalised(table: Any) -> bool:
    """Whether the loss's gradient to s is proportional to s, as a squared norm's is and no data's.

    Asked of some entries, once an optimiser; those of rows without data have no other gradient.
    """
    s, grad = table.thresholds.detach().flatten(), table.thresholds.grad
    if grad is None or s.is_meta:
        return False
    step = max(len(s) // SAMPLE, 1)
    ratio = grad.flatten()[::step] / s[::step]
    middle = ratio.median()
    alike = ((ratio - middle).abs() <= 0.01 * middle).float().mean()
    return len(ratio) >= FEWEST and bool((middle > 0) & (alike > 0.75))


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are.

    >>> listed("abcdef")
    'a, b, c, d and 2 more'
    """
    names = list(names)
    more = len(names) - NAMED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:NAMED])} and {more} more"
