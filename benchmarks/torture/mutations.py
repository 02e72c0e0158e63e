"""Ways in which a file of others may be wrong: bytes that changed on the way, contents that were
rewritten, and what was made to do harm."""

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Random = np.random.Generator
Mutation = Callable[[bytes, Random], bytes]
BOMB_BYTES = 1 << 28  # that a packed bomb unpacks to
_bombs: dict[str, bytes] = {}  # by the name of the array


class Payload:
    """What unpickles to a call that leaves a mark; nothing here ever unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


# ---- bytes


def flip_bits(content: bytes, rng: Random) -> bytes:
    """One to eight bits turned."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(content: bytes, rng: Random) -> bytes:
    """The beginning alone, or the end alone."""
    at = int(rng.integers(len(content)))
    return content[:at] if rng.random() < 0.8 else content[at:]


def append(content: bytes, rng: Random) -> bytes:
    """Something behind the end."""
    return content + rng.bytes(int(rng.integers(1, 2000)))


def overwrite(content: bytes, rng: Random) -> bytes:
    """A block of zeros or noise in the place of as many bytes, as a lost sector leaves."""
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 600))
    block = bytes(length) if rng.random() < 0.5 else rng.bytes(length)
    return (content[:start] + block)[:len(content)] + content[start + length:]


def shift(content: bytes, rng: Random) -> bytes:
    """A few bytes put in, left out or doubled."""
    at, length = int(rng.integers(len(content))), int(rng.integers(1, 40))
    put = [rng.bytes(length), content[at:at + length] * 2, b""][rng.integers(3)]
    return content[:at] + put + content[at + (length if not put else 0):]


def other_kind(content: bytes, rng: Random) -> bytes:
    """Nothing, noise, a page of a web server, deep brackets."""
    return [b"", rng.bytes(500), b"<!DOCTYPE html><html>404</html>", b"[" * 100_000,
            b'{"a":' * 100_000, b"\0" * 4096, b"9" * 10_000][rng.integers(7)]


BYTES: tuple[Mutation, ...] = (flip_bits, flip_bits, cut, append, overwrite, shift, other_kind)


# ---- contents


def in_json(content: bytes, rng: Random) -> bytes:
    """A value of a JSON object, at any depth, is another one, or gone, or another's."""
    value = json.loads(content)
    inner = value
    while True:
        name = rng.choice(sorted(inner)) if isinstance(inner, dict) else int(
            rng.integers(len(inner)))
        if not (isinstance(inner[name], (dict, list)) and inner[name]) or rng.random() < 0.3:
            break
        inner = inner[name]
    if rng.random() < 0.2 and isinstance(inner, dict):
        del inner[name]
    else:
        inner[name] = _other(inner[name], rng)
    return json.dumps(value).encode()


def _other(value: Any, rng: Random) -> Any:
    near = {bool: not value if isinstance(value, bool) else None}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        near[type(value)] = value + 1 if isinstance(value, int) else value * 1.001 + 1e-3
    elif isinstance(value, str):
        near[str] = value + "x"
    choices = [near.get(type(value), []), None, {}, float("nan"), float("inf"), 10**30, -1,
               "../../../etc/passwd", [[[]]], "\ud800", [1] * 1000]
    return choices[0] if rng.random() < 0.5 else choices[rng.integers(len(choices))]


def in_arrays(content: bytes, rng: Random) -> bytes:
    """An .npz whose arrays are swapped, of another type or shape, hold NaN, or are gone."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    names = [name for name in arrays if arrays[name].size]
    name, other = rng.choice(names, 2, replace=len(names) < 2)
    array = arrays[name]
    kind = rng.integers(7)
    if kind == 0:
        arrays[name], arrays[other] = arrays[other], array
    elif kind == 1:
        others = ["<f2", "<i4", "<U9", "<c8", ">f8"] if array.dtype.kind != "U" else ["S9", "<U9"]
        dtype = rng.choice(others)
        arrays[name] = array.astype(dtype)
    elif kind == 2:
        arrays[name] = np.flip(array.T)
    elif kind == 3:
        del arrays[name]
    elif kind == 4:
        arrays[str(rng.choice(["../escape", "/etc/x", "more"]))] = array
    elif kind == 5:
        arrays[name] = _with_one_changed(array, rng)
    else:
        arrays[name] = array.reshape(-1)[:array.size // 2]
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def _with_one_changed(array: np.ndarray, rng: Random) -> np.ndarray:
    changed = array.copy().reshape(-1)
    at = rng.integers(changed.size)
    if changed.dtype.kind == "f":
        changed[at] = rng.choice([np.nan, np.inf, changed[at] + 1])
    elif changed.dtype.kind in "iub":
        changed[at] = changed[at] ^ 1
    else:
        changed[at] = "x"
    return changed.reshape(array.shape)


def huge_array(content: bytes, rng: Random) -> bytes:
    """An .npz of which one array says that it is far larger than any memory."""
    return _with_member(content, rng, _npy_header((1 << int(rng.integers(33, 45)), 4)) + b"\0" * 64)


def pickled(content: bytes, rng: Random, mark: Path = Path("unpickled")) -> bytes:
    """An .npz with an array of objects, or a pickle instead of the file."""
    # numpy pickles what it is given; nothing here unpickles it
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(mark)], object), allow_pickle=True)
    if rng.random() < 0.3 or not content.startswith(b"PK"):
        return objects.getvalue()[rng.choice([0, 128]):]
    return _with_member(content, rng, objects.getvalue())


def bomb(content: bytes, rng: Random) -> bytes:
    """An .npz of which one array, of zeros, unpacks to a thousand times its bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        chosen = str(rng.choice(file.namelist()))
    if chosen not in _bombs:
        made = io.BytesIO()
        with (zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
              archive.open(chosen, "w") as member):
            member.write(_npy_header((BOMB_BYTES // 16, 4)))
            for _ in range(BOMB_BYTES >> 20):
                member.write(bytes(1 << 20))
        _bombs[chosen] = made.getvalue()
    return _bombs[chosen]


def _npy_header(shape: tuple[int, ...]) -> bytes:
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f4", "fortran_order": False,
                                                "shape": shape})
    return made.getvalue()


def _with_member(content: bytes, rng: Random, member: bytes) -> bytes:
    """An .npz of which one member has other bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            new.writestr(name, member if name == chosen else old.read(name))
    return made.getvalue()


def in_tensors(content: bytes, rng: Random) -> bytes:
    """A safetensors file whose header says another thing than the bytes were written for."""
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8:8 + size]), bytearray(content[8 + size:])
    names = [name for name in header if name != "__metadata__"]
    one, other = rng.choice(names, 2)
    kind = rng.integers(8 if "content" in header.get("__metadata__", {}) else 6)
    if kind == 0:
        header[one], header[other] = header[other], header[one]
    elif kind == 1:
        header[one]["dtype"] = str(rng.choice(["I32", "F16", "I64", "BF16", "F99", "U8"]))
    elif kind == 2:
        header[one]["shape"] = [[1 << 40], [-1], [], [2, 2], header[one]["shape"][::-1]][
            rng.integers(5)]
    elif kind == 3:
        header[one]["data_offsets"] = [[0, 1 << 50], [8, 0], header[other]["data_offsets"]][
            rng.integers(3)]
    elif kind == 4:
        header.pop(str(rng.choice(list(header))))
    elif kind == 5:
        start, end = header[one]["data_offsets"]
        put = struct.pack("<f", float(rng.choice([np.nan, np.inf, 0.5])))
        if end - start >= 4:
            data[start:start + 4] = put
    elif kind == 6:
        text = header["__metadata__"]["content"].encode()
        header["__metadata__"]["content"] = in_json(text, rng).decode()
    else:
        header["__metadata__"]["content"] = "[" * 100_000
    packed = json.dumps(header).encode()
    claimed = len(packed) if rng.random() < 0.95 else 1 << int(rng.integers(20, 62))
    return struct.pack("<Q", claimed) + packed + bytes(data)


def in_npy(content: bytes, rng: Random) -> bytes:
    """A .npy whose numbers or whose header are others."""
    array = np.load(io.BytesIO(content))
    kind = rng.integers(5)
    if kind == 0:
        array = _with_one_changed(array, rng)
    elif kind == 1:
        array.reshape(-1)[rng.integers(array.size)] = rng.choice([1 << 30, -1])
    elif kind == 2:
        array = array.astype(rng.choice(["<f8", "<i8", ">i4", "<U3"]))
    elif kind == 3:
        array = array[::-1]
    else:
        return _npy_header((1 << 40, 4)) + content[128:]
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def in_csv(content: bytes, rng: Random) -> bytes:
    """A table of which one cell is another's, or one line is gone or there twice."""
    lines = content.decode().splitlines(keepends=True)
    at, other = (int(number) for number in rng.integers(1, len(lines), 2))
    kind = rng.integers(3)
    if kind == 0:
        lines[at:at + 1] = []
    elif kind == 1:
        lines.insert(at, lines[other])
    else:
        one, two = lines[at].split(","), lines[other].split(",")
        cell = int(rng.integers(min(len(one), len(two))))
        one[cell] = two[cell]
        lines[at] = ",".join(one)
    return "".join(lines).encode()


BY_FORM: dict[str, tuple[Mutation, ...]] = {
    "json": (*BYTES, in_json, in_json, in_json, pickled),
    "npz": (*BYTES, in_arrays, in_arrays, in_arrays, huge_array, pickled, bomb),
    "safetensors": (*BYTES, in_tensors, in_tensors, in_tensors, pickled),
    "npy": (*BYTES, in_npy, in_npy, in_npy, pickled),
    "csv": (*BYTES, in_csv, in_csv), "bytes": (*BYTES, pickled)}
