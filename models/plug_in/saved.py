"""The tables of a plugged model on disk, and put into a fresh model whose dense tables never
exist.

    plugged.save("tables")                              # after the retraining
    own = tuple(f"{name}." for name in plugged.tables)  # everything but the tables is yours
    rest = {key: value for key, value in model.state_dict().items() if not key.startswith(own)}

    with torch.device("meta"):                          # another process: no memory for tables
        model = Model()
    model.load_state_dict(rest, strict=False, assign=True)
    load_tables(model, "tables")                        # compact tables in their places

A folder holds `manifest.json`, with checksums of both files, and `tables.safetensors`.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..new_files import CHECKSUM, MANIFEST, checksum_of, new_folder, require_free
from ..serving.tensor_file import read_tensors, write_tensors
from .compact import CompactTable, places_of, smallest_integer
from .snapshot import bare, plugged_tables
from .table import PepTable, PluggedTable

FORMAT = 2  # 1 has other numbers for each width, and a place for each row in the table's order
TENSORS = "tables.safetensors"


@torch.no_grad()
def save_tables(model: Any, folder: str | os.PathLike[str]) -> Path:
    """Write the tables of a plugged model, compact; see `Plugged.save`."""
    folder = Path(folder)
    require_free(folder)
    tables = plugged_tables(bare(model))
    searched = [name for name, table in tables.items() if isinstance(table, PepTable)]
    if searched:
        raise ValueError(f"{', '.join(searched)} have thresholds: a search's tables are not what "
                         "is served; call masked(model, snapshot(model, ...)) and retrain, or "
                         "unplug(model, compact=True), first")
    tensors: dict[str, np.ndarray] = {}
    described = {}
    for number, (name, table) in enumerate(tables.items()):
        compact = table if isinstance(table, CompactTable) else CompactTable(
            table.shell(), table.table().detach())
        stored, kind = _stored(compact, str(number))
        tensors |= stored
        described[name] = {"rows": table.num_embeddings, "width": table.embedding_dim,
                           "type": kind}
    with new_folder(folder) as temporary:
        write_tensors(temporary / TENSORS, tensors)
        manifest = {"format": FORMAT, "tables": described, "sha256": _sha256(temporary / TENSORS)}
        manifest[CHECKSUM] = checksum_of(manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return folder


def load_tables(model: nn.Module, folder: str | os.PathLike[str]) -> dict[str, CompactTable]:
    """Put saved tables into the places of a model's nn.Embedding and nn.EmbeddingBag modules.

    The dense tables are never made: those of the model may be on the meta device. Others say on
    which device and in which type the compact ones are; in place of one on the meta device comes
    one on the CPU, in the saved type.

    Args:
        model: of the class that was plugged; changed in place, or left as it was on an error.
        folder: from `Plugged.save`.

    Returns:
        The tables by name.

    Raises:
        FileNotFoundError: there are no tables in the folder.
        ValueError: they are damaged or of a newer format, or the model has no such modules.
    """
    folder = Path(folder)
    described = _read_manifest(folder)
    tensors = read_tensors(folder / TENSORS)
    model = bare(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    made: dict[str, CompactTable] = {}
    for number, (name, about) in enumerate(described.items()):
        plain = modules.get(name)
        if not isinstance(plain, nn.Embedding | nn.EmbeddingBag):
            there = [other for other, module in modules.items()
                     if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
            raise ValueError(f"the model has no nn.Embedding or nn.EmbeddingBag {name!r} to put a "
                             f"saved table into; it has {', '.join(there) or 'none'}")
        size = (about["rows"], about["width"])
        if (plain.num_embeddings, plain.embedding_dim) != size:
            raise ValueError(f"{name}: the saved table is of {size}, the model's of "
                             f"{(plain.num_embeddings, plain.embedding_dim)}; build the model as "
                             "it was")
        table = _read(plain, tensors, str(number), about["type"])
        made[name] = table if plain.weight.is_meta else table.to(plain.weight)
    places = {id(modules[name]): table for name, table in made.items()}
    for name, module in modules.items():
        if id(module) in places:
            model.set_submodule(name, places[id(module)])
    return made


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The tables' names and sizes, of a folder that is whole."""
    if not (folder / MANIFEST).is_file() or not (folder / TENSORS).is_file():
        raise FileNotFoundError(f"there are no saved tables in {folder} ({MANIFEST} and {TENSORS})"
                                "; write them with Plugged(model).save(folder)")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        version, tables, checksum = (manifest[key] for key in ("format", "tables", "sha256"))
        newer = int(version) > FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / MANIFEST} cannot be read ({error}); save the tables "
                         "again") from error
    if newer:
        raise ValueError(f"{folder} is of format {version}, this version of pep reads up to "
                         f"{FORMAT}; install a newer one")
    # folders of earlier versions have no checksum of the manifest itself
    if manifest.get(CHECKSUM, own := checksum_of(manifest)) != own:
        raise ValueError(f"{folder / MANIFEST} is not as it was saved (its checksum is wrong); "
                         "save the tables again, or copy the folder anew")
    if _sha256(folder / TENSORS) != checksum:
        raise ValueError(f"{folder / TENSORS} is not as it was saved (its checksum is wrong); save "
                         "the tables again, or copy the folder anew")
    return tables


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_BUFFERS = ("masks", "offsets")


def _stored(table: CompactTable, name: str) -> tuple[dict[str, np.ndarray], str]:
    """Its buffers as numpy has them, and the type of its entries."""
    entries, places = table.entries.cpu(), table.places.cpu()
    kept = torch.argsort(places, stable=True)[:table.masks.shape[0] - 1]
    kind = str(entries.dtype).removeprefix("torch.")
    found = {f"{name}.{buffer}": getattr(table, buffer).cpu().numpy() for buffer in _BUFFERS}
    # which rows have entries: fewer numbers than all rows' places
    found[f"{name}.rows"] = kept.to(smallest_integer(table.num_embeddings)).numpy()
    # of any type, bfloat16 too, which numpy has not
    found[f"{name}.entries"] = entries.view(torch.uint8).numpy()
    return found, kind


def _read(plain: nn.Embedding | nn.EmbeddingBag, tensors: dict[str, np.ndarray], name: str,
          kind: str) -> CompactTable:
    table = CompactTable.__new__(CompactTable)
    PluggedTable.__init__(table, plain)
    table.plain = (table.shell(),)
    if f"{name}.firsts" in tensors:  # of format 1: by width the first row, and where it begins
        first, begin = tensors[f"{name}.firsts"], tensors[f"{name}.begins"]
        tensors = {**tensors, f"{name}.offsets": begin - first * np.arange(len(first))}
    if f"{name}.places" in tensors:
        places = _owned(tensors[f"{name}.places"])
    else:
        rows = torch.from_numpy(np.array(tensors[f"{name}.rows"])).long()
        places = places_of(rows, plain.num_embeddings)
    table.register_buffer("places", places)
    for buffer in _BUFFERS:
        table.register_buffer(buffer, _owned(tensors[f"{name}.{buffer}"]))
    table.register_buffer("entries", _owned(tensors[f"{name}.entries"]).view(getattr(torch, kind)))
    return table.train(plain.training)


def _owned(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
