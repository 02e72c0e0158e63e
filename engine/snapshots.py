"""Pruned tables at their budgets: `<alias folder>/<number of parameters>.npz`, with the initial
table beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.distributed import launch
from models.pruned_tables import EMBEDDING, PrunedTables
from utils.files import atomic_path, read_record, sha256_of, write_record

INITIAL = "initial"
OF_SEARCHES = ("cut", "reached", "cut_last", "cut_last_magnitude")  # sources; see engine/pep
BITS = 1 << 20  # of a mask that are packed at a time; whole bytes
MAGNITUDE = ".magnitude"  # suffix of the |V|-only cut beside a budget that the search did not reach


def cut_to(values: np.ndarray, margins: np.ndarray, count: int) -> np.ndarray:
    """Keep exactly the `count` entries with the largest margins (ties: the lower index) and zero
    the others.

    Args:
        values: (N, D).
        margins: (N, D), |V| - g(s) for PEP, |V| for plain magnitude pruning.

    Raises:
        ValueError: `count` is more than the entries.

    >>> cut_to(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5, 5], [5, 9]]), 2).tolist()
    [[1.0, 0.0], [0.0, 4.0]]
    """
    if count > margins.size:
        raise ValueError(f"cannot keep {count} of {margins.size} entries")
    kept = np.argsort(-margins.ravel(), kind="stable")[:count]
    table = np.zeros(values.size, values.dtype)
    table[kept] = values.ravel()[kept]
    return table.reshape(values.shape)


def mask_hash(pruned: PrunedTables) -> str:
    """Identity of a table's mask; part of the run ids of its tickets."""
    flat = pruned.table.reshape(-1)
    bits = b"".join(np.packbits(flat[start:start + BITS] != 0).tobytes()
                    for start in range(0, len(flat), BITS))
    return sha256_of(bits, str(pruned.table.shape))[:16]


def pruned_table(table: np.ndarray, meta: dict[str, Any]) -> PrunedTables:
    """A table (N, D) of the scripts' own models, zero where an entry is pruned."""
    return PrunedTables({EMBEDDING: torch.from_numpy(table)}, meta=meta)


def save(folder: Path, name: str, table: np.ndarray, meta: dict[str, Any],
         **more: np.ndarray) -> Path:
    """Write folder/name.npz, whole or not at all."""
    path = folder / f"{name}.npz"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        pruned_table(table, meta).write(file, False, **more)
    return path


def read(path: Path) -> tuple[PrunedTables, dict[str, np.ndarray]]:
    """A snapshot and the further arrays of its file.

    Where several processes share the run, large tables are not in their memory but in files.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: the file is corrupt, or its table is not what its record says.
    """
    try:
        pruned, more = PrunedTables.load_with_more(path, launch.folder_of_tables(path.parent))
        pruned.values[EMBEDDING]  # the file of another model has none of this name
        count, recorded = pruned.num_params(), pruned.meta.get("num_embedding_params")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the snapshot {path} is not there; run the search again with "
                                f"--force") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"the snapshot {path} is corrupt ({error}); run the search again with "
                         f"--force") from error
    if recorded not in (None, count):
        raise ValueError(f"the snapshot {path} is corrupt: it holds {count} parameters, its record "
                         f"says {recorded}; run the search again with --force")
    return pruned, more


def names(folder: Path) -> list[str]:
    """Names of the budget snapshots in a folder, most parameters first; the |V|-only cuts come
    last."""
    found = [path.stem for path in folder.glob("*.npz")
             if path.stem.removesuffix(MAGNITUDE).isdigit()]
    return sorted(found, key=lambda name: (MAGNITUDE in name, -int(name.removesuffix(MAGNITUDE))))


def resolve(folder: Path, wanted: int | str) -> list[str]:
    """Snapshot names for `retrain_emb_param`: a count, a budget (as_reached files bear other
    numbers), or `all`.

    Raises:
        FileNotFoundError: no such snapshot; the existing ones are listed.
    """
    existing = names(folder)
    if not existing:
        raise FileNotFoundError(f"there are no snapshots in {folder}; run the search with this "
                                f"alias first, or, if it has run and reached no budget, for larger "
                                f"budgets or more epochs")
    if wanted == "all":
        return [name for name in existing if MAGNITUDE not in name]
    if str(wanted) in existing:
        return [str(wanted)]
    for name in existing:
        if wanted in read(folder / f"{name}.npz")[0].meta.get("budgets", []):
            return [name]
    raise FileNotFoundError(f"there is no snapshot {wanted!r} in {folder}; there are: "
                            f"{', '.join(existing)}")


def claim(folder: Path, search: dict[str, Any], overwrite: bool, empty: bool = False) -> None:
    """Make an alias folder belong to one search, recorded in its search.json.

    Args:
        search: what is recorded, with its run_id.
        overwrite: take the folder over from another search.
        empty: delete the snapshots of an earlier run of this search.

    Raises:
        FileExistsError: it belongs to another search and `overwrite` is off.
    """
    owner = owner_of(folder)
    same = owner is not None and owner["run_id"] == search["run_id"]
    if same and not empty:
        return
    if owner is not None:
        if not overwrite:
            require_own(folder, search["run_id"])
        for path in folder.glob("*.npz"):
            path.unlink()
    write_record(folder / "search.json", search)


def require_own(folder: Path, run_id: str) -> None:
    """Raise FileExistsError where an alias folder belongs to another search."""
    owner = owner_of(folder)
    if owner is not None and owner["run_id"] != run_id:
        raise FileExistsError(f"{folder} belongs to another search (run {owner['run_id']}, "
                              f"{owner['settings']['dataset']}, seed {owner['seed']}); choose "
                              f"another --alias, or give --overwrite to replace its snapshots")


def owner_of(folder: Path) -> dict[str, Any] | None:
    """The record of the search that a folder belongs to, or None for a new folder.

    Raises:
        ValueError: search.json is corrupt.
    """
    path = folder / "search.json"
    if not path.exists():
        return None
    try:
        owner = read_record(path)
        owner["run_id"], owner["settings"]["dataset"], owner["seed"], owner["manifest"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is corrupt ({error}); choose another --alias or delete the folder"
        ) from error
    return owner
