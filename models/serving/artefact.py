"""An exported model on disk: a folder that holds all that scoring needs.

    manifest.json       what it is: format, run, schema, metrics, sizes, a checksum of each file
    model.safetensors   the table and the rest of the model
    vocabulary/         for each field: raw value -> row of the table (see `models.vocabulary`)
    model.onnx          where it was asked for

Written by `export.py`, read by `load`. Nothing is pickled.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..new_files import CHECKSUM, MANIFEST, checksum_of, new_folder
from ..vocabulary import Vocabulary
from .model import ServedModel
from .tensor_file import read_tensors, write_tensors

FORMAT = 1  # raise it when a reader of before cannot read what is written now
TENSORS, VOCABULARY = "model.safetensors", "vocabulary"
AGAIN = "export the run again, or copy the folder anew"


@dataclass(frozen=True)
class Artefact:
    """An exported model in memory.

    Args:
        model: ids to logits.
        vocabulary: raw values to ids.
        manifest: what it is.
    """

    model: ServedModel
    vocabulary: Vocabulary
    manifest: dict[str, Any]


def write(artefact: Artefact, folder: Path,
          more: Callable[[Path], None] | None = None) -> dict[str, Any]:
    """Write a new folder, whole or not at all.

    Args:
        folder: must not exist, or be empty.
        more: writes further files into the temporary folder.

    Returns:
        The manifest, with the sizes of all parts and the checksums of all files.

    Raises:
        OSError: see `new_folder`.
    """
    with new_folder(folder) as temporary:
        write_tensors(temporary / TENSORS, artefact.model.tensors())
        artefact.vocabulary.write(temporary / VOCABULARY)
        if more is not None:
            more(temporary)
        files: dict[str, Any] = {str(path.relative_to(temporary)): {"bytes": path.stat().st_size,
                                                    "sha256": _sha256(path)}
                 for path in sorted(temporary.rglob("*")) if path.is_file()}
        own = sum(file["bytes"] for name, file in files.items() if name.startswith(VOCABULARY))
        parts = artefact.model.bytes_by_part()
        sizes = {**parts, "file_header": files[TENSORS]["bytes"] - sum(parts.values()),
                 "vocabulary": own}
        manifest = {"format": FORMAT, **artefact.manifest, "model": artefact.model.shape(),
                    "bytes": sizes, "files": files}
        manifest[CHECKSUM] = checksum_of(manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return manifest


def read(folder: str | os.PathLike[str]) -> Artefact:
    """Read a folder of `write`; every file is checked against its checksum.

    Raises:
        FileNotFoundError: there is no exported model, or a file of it is missing.
        ValueError: it is of a newer format, or damaged.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"the exported model {folder} lacks its file {name}; {AGAIN}")
        if path.stat().st_size != wanted["bytes"] or _sha256(path) != wanted["sha256"]:
            raise ValueError(f"{path} is not as it was exported (its checksum is wrong); {AGAIN}")
    model = ServedModel.make(manifest["model"], read_tensors(folder / TENSORS))
    return Artefact(model, Vocabulary.open(folder / VOCABULARY), manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest alone; raises as `read` does."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"there is no exported model in {folder} (no {MANIFEST}); make one "
                                "with export.py --run ID --out FOLDER")
    try:
        manifest = json.loads(path.read_text())
        version, checksum = int(manifest["format"]), manifest.get(CHECKSUM)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError,
            RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {AGAIN}") from error
    if "tables" in manifest:
        raise ValueError(f"{folder} holds the tables of a plugged model, without the rest of it: "
                         "put them into the model with load_tables(model, folder)")
    if version > FORMAT:
        raise ValueError(f"the exported model {folder} is of format {version}, this version of pep "
                         f"reads up to {FORMAT}; install a newer one, or export the run with this")
    if checksum != checksum_of(manifest):
        raise ValueError(f"{path} is not as it was exported (its checksum is wrong); {AGAIN}")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
