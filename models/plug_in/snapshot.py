"""Pruned tables of a plugged model at a budget, and the values that they started from; as a file,
an .npz."""

import json
import logging
import numbers
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import evidence as plug_evidence
from .table import PepTable, PluggedTable
from .watch import listed

log = logging.getLogger("pep")


def bare(model: Any) -> nn.Module:
    """The module itself, out of a `Plugged` or what torch.compile made of it.

    Raises:
        TypeError: there is none.
        ValueError: it is in DistributedDataParallel.
    """
    model = getattr(model, "model", model) if not isinstance(model, nn.Module) else model
    if not isinstance(model, nn.Module):
        raise TypeError(f"a torch.nn.Module is expected, got {type(model).__name__}")
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError("DistributedDataParallel brings into step the parameters of when it was "
                         "made, and no others; pass its .module, and wrap that anew after plug, "
                         "masked and unplug")
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


@dataclass(frozen=True)
class Snapshot:
    """Pruned tables and V0, on the CPU.

    Args:
        tables: by name, (N, D), zero where an entry is pruned, and in the padding row.
        initial: by name, (N, D), the values at plug time.
        meta: how far the thresholds had moved, and what they decided: see `plug_evidence.evidence`.

    Raises:
        ValueError: the two are not of the same names and shapes.

    >>> Snapshot({"user": torch.tensor([[0.0, 3.0]])}, {"user": torch.ones(1, 2)}).num_params()
    1
    """

    tables: dict[str, Tensor]
    initial: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pruned, initial = ({name: tuple(table.shape) for name, table in part.items()}
                           for part in (self.tables, self.initial))
        if pruned != initial:
            raise ValueError(f"pruned and initial tables must be of the same names and shapes, got "
                             f"{pruned} and {initial}")

    def num_params(self) -> int:
        """Entries that are left in all tables together."""
        return sum(int(torch.count_nonzero(table)) for table in self.tables.values())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all: under a temporary name, which then becomes `path`;
        no pickle.

        Tables in bfloat16, which NumPy lacks, are written in float32: the same values.
        """
        path = Path(path)
        arrays: dict[str, Any] = {"names": np.array(list(self.tables), dtype=np.str_),
                                  "meta": np.array(json.dumps(self.meta))}
        for number, name in enumerate(self.tables):
            arrays[f"table_{number}"] = _array(self.tables[name])
            arrays[f"initial_{number}"] = _array(self.initial[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.",
                                         delete=False) as file:
            temporary = Path(file.name)
            try:
                np.savez_compressed(file, **arrays)
                file.flush()
                os.fsync(file.fileno())  # the rename must not reach the disk before the bytes do
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Snapshot":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not such a file, or corrupt.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = [str(name) for name in arrays["names"]]
                tables, initial = ({name: torch.from_numpy(arrays[f"{kind}_{number}"])
                                    for number, name in enumerate(names)}
                                   for kind in ("table", "initial"))
                meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}  # as once
            return cls(tables, initial, meta)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile,
                AttributeError, RuntimeError,
                IndexError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole snapshot ({error}); take it again with "
                             f"snapshot(...)") from error


@torch.no_grad()
def snapshot(model: Any, budget: int | Mapping[str, int] | None = None,
             allow_magnitude: bool = False) -> Snapshot:
    """The pruned tables of a plugged model at a budget, with the values that they started from;
    changes nothing.

    Kept are the entries with the largest margins |V| - g(s), of equal ones the first. A padding row
    is no part of it. Where no threshold acts these would be the largest |V|, plain magnitude
    pruning, and that is refused; `plug_evidence` says what counts. The log (level INFO) and `meta`
    of what is returned say how far the thresholds have moved.

    Args:
        model: a plugged model, or what `plug` returned.
        budget: entries to keep: a number for all tables together, numbers by table name (any of its
            names; a table without a number keeps what it has), or None for what the thresholds have
            left so far.
        allow_magnitude: take the cut where no threshold acts, too.

    Raises:
        ValueError: no threshold acts (see above; the message names the causes); the budget is below
            1, more than the tables hold or than the thresholds have left, or for an unknown table
            or twice for one; nothing is left; the model is not plugged or no longer searched; its
            values are not finite.
        TypeError: the budget is not a whole number.

    >>> from .plug import plug
    >>> model = nn.Sequential(nn.Embedding.from_pretrained(torch.tensor([[1.0, -2.0], [3.0, 0.5]]), freeze=False))
    >>> plugged = plug(model, threshold_init=-150.0)
    >>> snapshot(model, 2, allow_magnitude=True).tables["0"].tolist()  # nothing is trained here
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
    meta = _judged(tables, margins, kept, isinstance(budget, Mapping), allow_magnitude)
    pruned = {name: torch.where(kept[name], table.table().cpu(), 0.0)
              for name, table in tables.items()}
    initial = {name: table.initial.to("cpu", copy=True) for name, table in tables.items()}
    return Snapshot(pruned, initial, meta)


def _judged(tables: Mapping[str, PepTable], margins: Mapping[str, Tensor],
            kept: Mapping[str, Tensor], apart: bool, allow_magnitude: bool) -> dict[str, Any]:
    """What the thresholds have decided, said in the log; a ValueError if that is nothing."""
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
    log.info("snapshot: %s", plug_evidence.said(found))
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


def _array(table: Tensor) -> np.ndarray[Any, Any]:
    return (table.float() if table.dtype == torch.bfloat16 else table).numpy()


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


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
