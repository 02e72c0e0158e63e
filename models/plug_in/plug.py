"""PEP in any PyTorch model: plug it in, train as before, take a snapshot, train the lottery ticket,
unplug.

    plugged = plug(model)                                     # embedding tables get thresholds
    optimizer = torch.optim.Adam(plugged.parameter_groups())  # after plug: thresholds are new
    ...                                                       # the search: your own loop
    cut = snapshot(model, 10_000)                             # 10,000 entries, and initial values
    masked(model, cut)                                        # tables restart under a fixed mask
    ...                                                       # retraining, with a new optimiser
    unplug(model)                                             # plain torch modules again

**PEP needs Adam with coupled weight decay on tables and thresholds.** Far below zero the thresholds
get almost no gradient from the data; the decay raises them. With AdamW, with a decay of 0 or with
an optimiser made before `plug`, nothing is ever pruned, and a warning says so at the first step.
`Plugged.parameter_groups` sets the decay.

**The thresholds are parameters of the model.** A regulariser over `model.parameters()` penalises
them too: s = -15 adds 225 an entry to the loss that it shows. It raises the thresholds as the decay
does, but exclude the names that end in `.thresholds`; a warning says so at the first step.

**A library that reloads its best checkpoint at the end of `fit` resets the thresholds**, and so
undoes the search: switch that off, or call `snapshot` before, in a callback. `snapshot` refuses a
cut that no threshold decides.

The method is that of Liu et al., ICLR 2021, whose code prunes the one table of its own models. Here
a model may have many tables; each has its thresholds, and a budget may span them all.
"""

import math
import numbers
import os
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..embedding.pep import Thresholds
from ..pruned_tables import PrunedTables
from .choice import (
    Only,
    choose,
    refuse_compiled,
    refuse_high_start,
    refuse_hooked,
    refuse_tied,
    refuse_unfit,
    warn_of_zeros,
)
from .compact import CompactTable
from .saved import save_tables
from .snapshot import bare, log, plugged_tables
from .table import PepTable, PluggedTable, TicketTable
from .watch import forget, listed


class Plugged:
    """A view of a plugged model; it holds nothing but the model, so one of a deep copy is
    `Plugged(copy)`.

    Args:
        model: a model with plugged tables.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, model: Any) -> None:
        self.model = bare(model)
        if not plugged_tables(self.model):
            raise ValueError(f"{type(self.model).__name__} has no plugged tables; call plug(model) "
                             f"first")

    @property
    def tables(self) -> dict[str, PluggedTable]:
        """By dotted name; a table that is used at several places goes by the first."""
        return plugged_tables(self.model)

    def num_params(self) -> int:
        """Table entries left, padding rows aside.

        One pass over values and thresholds: 0.2 s for 26 million entries on a core that others use
        too. A loop may ask every hundred steps, and must take its snapshot before fewer are left
        than its budget.
        """
        return sum(table.num_params() for table in self.tables.values())

    def parameter_groups(self, weight_decay: float = 1e-5,
                         rest: float = 0.0) -> list[dict[str, Any]]:
        """Every parameter of the model in one of two groups, for torch.optim.Adam (not AdamW, not
        SparseAdam).

        Args:
            weight_decay: coupled L2 of tables and thresholds, the published 1e-5; it is what moves
                the thresholds.
            rest: of all other parameters (the paper: 1e-5 too).

        Raises:
            TypeError: a decay is not a number.
            ValueError: a decay is negative or not finite, or that of tables with thresholds 0.
        """
        _check_numbers(weight_decay=weight_decay, rest=rest)
        searched = any(isinstance(table, PepTable) for table in self.tables.values())
        finite = math.isfinite(weight_decay) and math.isfinite(rest)
        if not finite or min(weight_decay, rest) < 0 or (searched and not weight_decay):
            raise ValueError(f"weight_decay must be positive while there are thresholds (without "
                             f"it nothing is ever pruned) and rest not negative, both finite, got "
                             f"{weight_decay} and {rest}")
        inside = [*chain.from_iterable(table.parameters() for table in self.tables.values())]
        known = {id(parameter) for parameter in inside}
        outside = [parameter for parameter in self.model.parameters() if id(parameter) not in known]
        groups = [{"params": inside, "weight_decay": weight_decay},
                  {"params": outside, "weight_decay": rest}]
        return [group for group in groups if group["params"]]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the tables, compact, into a new folder, whole or not at all; `load_tables` puts
        them into a fresh model. Everything but the tables is the model's own state dict.

        Raises:
            ValueError: a table still has thresholds.
            FileExistsError: the folder has something in it.
        """
        return save_tables(self.model, folder)

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {table.num_params():,} of {table.num_embeddings:,} x "
                         f"{table.embedding_dim}"
                         for name, table in self.tables.items())


def plug(model: nn.Module, threshold_type: str = "feature_dim", threshold_init: float = -15.0,
         g_type: str = "sigmoid", gk: float = 1.0, only: Only = None,
         allow_high_start: bool = False) -> Plugged:
    """Replace a model's nn.Embedding and nn.EmbeddingBag modules by tables with thresholds.

    Names, all other modules and all parameters stay the same objects. A table's weight becomes the
    parameter `values` of its replacement, whose `weight` is the pruned table. Initialise before:
    the ticket restarts from the values of this moment. Make the optimiser afterwards, over
    `parameter_groups()` (**Adam with coupled decay**, see above); averaged copies and
    DistributedDataParallel too. Modules outside the module tree (in a plain list, say) are not
    found.

    Args:
        model: changed in place; left as it was when an error is raised.
        threshold_type: granularity within each table: `global` (one number a table), `dimension`,
            `feature` or `feature_dim`. The field types are refused: a model's table does not say
            which rows belong to which field.
        threshold_init: s at the start. -15 is the published value for MovieLens; with -150 the
            model stays the same to the bit for many steps.
        g_type: the gate, "sigmoid" or "softplus".
        gk: factor of the gate.
        only: which tables: names, or a function of (name, module). By default all that are wider
            than 1: tables of width 1 hold first-order weights (torchfm's FeaturesLinear), which PEP
            does not prune.
        allow_high_start: also plug a table of which the start prunes more than half.

    Returns:
        A view of the model: its tables, their size and the parameter groups.

    Raises:
        TypeError: not a module, or a setting of the wrong type.
        ValueError: an unknown table or setting; a table that PEP cannot replace (the message says
            why and what to do); or a start that prunes more than half of a table (it names one that
            fits).

    >>> model = nn.ModuleDict({"item": nn.Embedding(50, 4), "bias": nn.Embedding(50, 1)})
    >>> plug(model)
    item: 200 of 50 x 4
    """
    model = bare(model)
    _check_numbers(threshold_init=threshold_init, gk=gk)
    thresholds = Thresholds(threshold_type, float(threshold_init), g_type, float(gk))
    if threshold_type in ("field", "field_dim"):
        raise ValueError(f"threshold_type {threshold_type!r} needs fields, which a model's table "
                         "does not tell; take 'feature_dim', 'feature', 'dimension' or 'global' "
                         "(one threshold for each table)")
    if not (math.isfinite(threshold_init) and math.isfinite(gk) and gk > 0):
        raise ValueError(f"threshold_init must be finite and gk positive, got {threshold_init} and "
                         f"{gk}")
    chosen = choose(model, only)
    for name, module in chosen.items():
        refuse_unfit(name, module)
    refuse_tied(model, chosen)
    refuse_compiled(model, chosen.values())
    refuse_high_start(chosen, thresholds, allow_high_start)
    _put(model, {module: PepTable(module, thresholds) for module in chosen.values()})
    log.info("plugged %s", listed(chosen))
    for name, table in plugged_tables(model).items():
        warn_of_zeros(name, chosen[name])
        cast(PepTable, table).name = name
    return Plugged(model)


@torch.no_grad()
def masked(model: Any, cut: PrunedTables) -> Plugged:
    """Make a plugged model the lottery ticket: its tables restart from mask * V0 under the
    snapshot's fixed mask.

    **Only the tables are rewound.** The paper initialises everything else again; that is yours to
    do: build the model anew, `plug` it and call this with the loaded snapshot, or load an early
    state dict into the other modules. Make a new optimiser: the old one's moments belong to the
    search. The thresholds are gone afterwards, so call `snapshot` first for every budget that you
    want; any of these snapshots may be put in later by another call.

    Args:
        model: a plugged model, or what `plug` returned; left as it was when an error is raised.
        cut: from `snapshot` or `PrunedTables.load`.

    Raises:
        TypeError: `cut` is not PrunedTables.
        ValueError: the model is not plugged, its tables are not the snapshot's, or one is compiled
            by itself or hooked.
    """
    if not isinstance(cut, PrunedTables):
        raise TypeError(f"masked takes PrunedTables, got {type(cut).__name__}; call masked(model, "
                        f"snapshot(model, 1000))")
    tables = Plugged(model).tables
    shapes = {name: (table.num_embeddings, table.embedding_dim) for name, table in tables.items()}
    stored = {name: tuple(table.shape) for name, table in cut.values.items()}
    if shapes != stored:
        raise ValueError(f"the snapshot is of other tables: it has {stored}, the model has "
                         f"{shapes}")
    if not cut.initial:
        raise ValueError("the snapshot has no initial values to restart from; take it with "
                         "snapshot(), or give PrunedTables their `initial`")
    compact = [name for name, table in tables.items() if isinstance(table, CompactTable)]
    if compact:
        raise ValueError(f"the tables {', '.join(compact)} are compact, for inference only; unplug "
                         f"and plug first")
    refuse_compiled(bare(model), tables.values())
    refuse_hooked(tables)
    tickets, initial = {}, {}
    for name, table in tables.items():
        mask = cut.values[name] != 0
        if table.padding_idx is not None:
            mask[table.padding_idx] = True
        tickets[table] = TicketTable(table.plain[0], table.values, mask)
        initial[name] = cut.initial[name].to(table.values.device)
    for name, table in tables.items():
        forget(table)
        table.values.copy_(torch.where(tickets[table].mask, initial[name], 0.0))
        table.values.grad = None
    _put(bare(model), tickets)
    return Plugged(model)


@torch.no_grad()
def unplug(model: Any, compact: bool = False) -> dict[str, nn.Module]:
    """Put the modules back that were there before `plug`, with the tables as they are now as their
    weights.

    Pruned entries are plain zeros then: training goes on with all of them. With `compact`, tables
    that store only what is not zero are put there instead, for inference: the same vectors, no
    gradients, `num_bytes()` says how large. A module that others hold too (feature objects that
    build the next model, say) keeps its weight in any case.

    Args:
        model: a plugged model, or what `plug` returned.
        compact: see above. Calling again without it makes plain modules of them.

    Returns:
        What now stands in the place of the tables, by dotted name.

    Raises:
        ValueError: the model is not plugged, or a table is compiled by itself or hooked.

    >>> from .snapshot import snapshot
    >>> model = nn.ModuleDict({"item": nn.Embedding(50, 4)})
    >>> ticket = masked(plug(model), snapshot(model, 20, allow_magnitude=True))
    >>> [(name, type(table).__name__) for name, table in unplug(model, compact=True).items()]
    [('item', 'CompactTable')]
    """
    tables = Plugged(model).tables
    refuse_compiled(bare(model), tables.values())
    refuse_hooked(tables)
    instead: dict[nn.Module, nn.Module] = {}
    try:
        for table in tables.values():
            if compact and isinstance(table, CompactTable):
                instead[table] = table
                continue
            small = CompactTable(table.plain[0], table.table()) if compact else None
            forget(table)
            plain = table.restore()  # for whoever else holds it, too
            instead[table] = small or plain
    # were memory short for a table, those before it are done, and the next call goes on from there
    finally:
        _put(bare(model), instead)
    return {name: instead[table] for name, table in tables.items()}


def _check_numbers(**given: object) -> None:
    for name, number in given.items():
        if not isinstance(number, numbers.Real) or isinstance(number, bool):
            raise TypeError(f"{name} must be a number, got {number!r}")


def _put(model: nn.Module, instead: dict[Any, Any]) -> None:
    """Put instead[module] wherever the model holds `module`."""
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module in instead:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, instead[module].train(module.training))
