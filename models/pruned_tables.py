"""Pruned tables at a budget, with the values that they started from; one file format, an .npz.

The scripts, `compress.py` and `plug` share this class. A file holds the tables' names and, by
number, `table_0`, `initial_0`, ...; `meta` is JSON. Nothing is pickled. Of the initial values it
holds those that a ticket restarts from, unless all are asked for.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from .new_files import new_file
from .npz import read_npz, write_npz

EMBEDDING = "embedding"  # name of the only table of the scripts' own models
CORRUPT = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError,
           IndexError)  # what a file of other arrays raises


@dataclass(frozen=True)
class PrunedTables:
    """The pruned tables of a model, on the CPU.

    Args:
        values: by name, (N, D), zero where an entry is pruned, and in a padding row.
        initial: by name, (N, D), the values that a ticket restarts from; empty where they are kept
            elsewhere (the scripts keep them once for all budgets of a search).
        meta: how the tables came about, in plain numbers and words.
        padding: by name, the padding row of a table that has one; a ticket keeps its initial
            values too.

    Raises:
        ValueError: values and initial values differ in names or shapes.

    >>> cut = PrunedTables({"user": torch.tensor([[0.0, 3.0]])}, {"user": torch.ones(1, 2)})
    >>> cut.num_params(), cut.masks["user"].tolist(), cut
    (1, [[False, True]], PrunedTables(entries left: user 1 of 2))
    """

    values: dict[str, Tensor]
    initial: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    padding: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pruned, initial = _shapes(self.values), _shapes(self.initial)
        if initial and pruned != initial:
            raise ValueError(f"pruned and initial tables must be of the same names and shapes, got "
                             f"{pruned} and {initial}")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {int(torch.count_nonzero(table)):,} of {table.numel():,}"
                          for name, table in self.values.items())
        return f"PrunedTables(entries left: {sizes})"

    @property
    def masks(self) -> dict[str, Tensor]:
        """By name, (N, D) of bool: True where an entry is kept."""
        return {name: table != 0 for name, table in self.values.items()}

    @property
    def table(self) -> np.ndarray[Any, Any]:
        """The only table (N, D) of the scripts' own models."""
        return self.values[EMBEDDING].numpy()

    def num_params(self) -> int:
        """Entries that are left in all tables together."""
        return sum(int(torch.count_nonzero(table)) for table in self.values.values())

    def save(self, path: str | os.PathLike[str], all_initial: bool = False,
             **more: np.ndarray) -> Path:
        """Write the file, whole or not at all: under a temporary name, which then becomes `path`.

        Args:
            all_initial: write the initial values of pruned entries too. A ticket does not need
                them, and they take most of the file; when it is read, they are 0.
            more: further arrays that the file holds.
        """
        path = Path(path)
        with new_file(path) as file:
            self.write(file, all_initial, **more)
        return path

    def write(self, file: IO[bytes], all_initial: bool = False, /, **more: np.ndarray) -> None:
        """Write the tables, and further arrays, into an open file; see `save`.

        Tables in bfloat16, which NumPy lacks, are written in float32: the same values.
        """
        arrays: dict[str, Any] = {"names": np.array(list(self.values), dtype=np.str_),
                                  "meta": np.array(json.dumps(self.meta)), **more}
        for number, name in enumerate(self.values):
            arrays[f"table_{number}"] = _array(self.values[name])
            if self.initial and all_initial:
                arrays[f"initial_{number}"] = _array(self.initial[name])
            elif self.initial:
                own = _restarted(self.values[name], self.padding.get(name))
                arrays[f"initial_kept_{number}"] = _array(self.initial[name][own])
            if name in self.padding:
                arrays[f"padding_{number}"] = np.array(self.padding[name])
        write_npz(file, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "PrunedTables":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such file, or corrupt.
        """
        return cls.load_with_more(path)[0]

    @classmethod
    def load_with_more(cls, path: str | os.PathLike[str], folder: Path | None = None
                       ) -> tuple["PrunedTables", dict[str, np.ndarray]]:
        """The tables and the further arrays of a file; raises as `load` does.

        Args:
            folder: where large tables are put into files, as by `read_npz`.
        """
        try:
            arrays = read_npz(path, folder=folder)
            meta = json.loads(str(arrays.pop("meta")))
            values, initial, padding = {}, {}, {}
            if "names" not in arrays:  # an older file of the scripts
                return cls({EMBEDDING: torch.from_numpy(arrays.pop("table"))}, {}, meta), arrays
            for number, name in enumerate(arrays.pop("names")):
                table = values[str(name)] = torch.from_numpy(arrays.pop(f"table_{number}"))
                if f"padding_{number}" in arrays:
                    padding[str(name)] = int(arrays.pop(f"padding_{number}"))
                if f"initial_{number}" in arrays:
                    initial[str(name)] = torch.from_numpy(arrays.pop(f"initial_{number}"))
                elif f"initial_kept_{number}" in arrays:
                    kept = torch.from_numpy(arrays.pop(f"initial_kept_{number}"))
                    own = _restarted(table, padding.get(str(name)))
                    initial[str(name)] = _filled(own, kept)
            return cls(values, initial, meta, padding), arrays
        except FileNotFoundError:
            raise
        except CORRUPT as error:
            raise ValueError(f"{path} is not a whole file of pruned tables ({error}); make it "
                             "again") from error


def _shapes(tables: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(table.shape) for name, table in tables.items()}


def _restarted(table: Tensor, padding: int | None) -> Tensor:
    """(N, D) of bool: the entries of a ticket."""
    own = table != 0
    if padding is not None:
        own[padding] = True
    return own


def _filled(own: Tensor, kept: Tensor) -> Tensor:
    """A table of the values `kept` where `own` is true, and 0 elsewhere."""
    if kept.numel() != int(own.sum()):
        raise ValueError(f"{int(own.sum())} entries are kept, and there are {kept.numel()} initial "
                         "values")
    return torch.zeros(own.shape, dtype=kept.dtype, device=kept.device).masked_scatter_(own, kept)


def _array(table: Tensor) -> np.ndarray[Any, Any]:
    return (table.float() if table.dtype == torch.bfloat16 else table).numpy()
