"""Named arrays in one .npz file: with a checksum, without pickle, within the available memory, or
unpacked into files."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from .memory import array_in_file, available_memory

LARGE = 1 << 24  # bytes
PART = 1 << 20  # bytes that are unpacked at a time
DIGEST = "digest"  # among the arrays of a file: over all others; older files have none
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}

Arrays = dict[str, np.ndarray[Any, Any]]


def digest_of(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Hex digest over names, types, shapes and values.

    >>> one, other = {"a": np.zeros(2)}, {"a": np.zeros((2, 1))}
    >>> digest_of(one) == digest_of(dict(one)), digest_of(one) == digest_of(other)
    (True, False)
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        if array.size:  # an empty one has no view as bytes
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write_npz(file: IO[bytes], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write the arrays, compressed, and their checksum."""
    with_digest: dict[str, Any] = {**arrays, DIGEST: np.array(digest_of(arrays))}
    np.savez_compressed(file, **with_digest)


def read_npz(path: str | os.PathLike[str], most: int | None = None,
             folder: Path | None = None) -> Arrays:
    """The arrays of a file, by name; nothing in it is run, whoever made it.

    Args:
        most: bytes that the arrays may take; without it, what memory is available.
        folder: for arrays of LARGE bytes and more: each in a file there, and not in memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, is damaged or changed, has arrays of Python objects, or
            takes too much memory.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "a.npz"
    >>> with path.open("wb") as file:
    ...     write_npz(file, {"a": np.arange(3)})
    >>> read_npz(path)
    {'a': array([0, 1, 2])}
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(archive, available_memory() if most is None else most, folder)
        found = arrays.pop(DIGEST, None)
        if found is not None and str(found) != digest_of(arrays):
            raise ValueError("its arrays are not those that were written: another checksum")
    except FileNotFoundError:
        raise
    except Exception as error:  # damage may show in any way
        raise ValueError(f"{path} cannot be read ({error})") from error
    return arrays


def _arrays(archive: zipfile.ZipFile, most: int, folder: Path | None) -> Arrays:
    members = archive.infolist()
    # zipfile unpacks no more than that
    need = sum(member.file_size for member in members if folder is None or not _is_large(member))
    if need > most:
        raise ValueError(f"its arrays take {need:,} bytes, and {most:,} can be had")
    arrays: Arrays = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in arrays or name == member.filename:
            raise ValueError(f"its member {member.filename!r} is no array of a name of its own")
        with archive.open(member) as file:
            shape, by_column, dtype = _plain_header(file, member.file_size)
            if folder is not None and _is_large(member) and not by_column:
                arrays[name] = array_in_file(shape, dtype, folder)
                into = arrays[name].reshape(-1).view(np.uint8)
                for start in range(0, into.size, PART):
                    part = file.read(PART)
                    into[start:start + len(part)] = np.frombuffer(part, np.uint8)
                continue
        with archive.open(member) as file:
            arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _is_large(member: zipfile.ZipInfo) -> bool:
    return member.file_size >= LARGE


def _plain_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored by column, and type; refuses an array of objects, and one whose
    header names another size than its bytes have."""
    shape, by_column, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    need = dtype.itemsize
    for count in shape:
        need *= count
    if need != size - file.tell():
        raise ValueError(f"an array of shape {shape} and type {dtype} has {size - file.tell():,} "
                         f"bytes in it")
    return shape, by_column, dtype
