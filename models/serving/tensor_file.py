"""Files in the safetensors format, read as memory maps and written, with numpy alone: the installed
package asks for no more than torch and numpy.

A file is 8 bytes (the length of the header, little-endian), a JSON header that says of each tensor
its type, shape and place, and the tensors one behind the other.
"""

import json
from pathlib import Path

import numpy as np

NAMES = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "U8": np.uint8, "U16": np.uint16,
         "I16": np.int16, "U32": np.uint32, "I32": np.int32, "I64": np.int64, "BOOL": np.bool_}
_OF_TYPE = {np.dtype(kind): name for name, kind in NAMES.items()}
ALIGNED = 8  # bytes; where the tensors start


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a file; wide types come first, so that all tensors are aligned."""
    order = sorted(tensors, key=lambda name: -tensors[name].itemsize)
    header, at = {}, 0
    for name in order:
        array = tensors[name]
        header[name] = {"dtype": _OF_TYPE[array.dtype], "shape": list(array.shape),
                        "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name]).data)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as copy-on-write memory maps.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or cut short.
    """
    try:
        whole = np.memmap(path, np.uint8, mode="c")
        length = int.from_bytes(whole[:8].tobytes(), "little")
        if length > len(whole) - 8:
            raise ValueError("it is cut short")
        header = json.loads(whole[8:8 + length].tobytes())
        header.pop("__metadata__", None)
        body = whole[8 + length:]
        return {name: _array(body, entry) for name, entry in header.items()}
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is no whole file of tensors ({error}); make it again") from error


def _array(body: np.ndarray, entry: dict) -> np.ndarray:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(body):
        raise ValueError("it is cut short")
    return body[start:end].view(NAMES[entry["dtype"]]).reshape(entry["shape"]).view(np.ndarray)
