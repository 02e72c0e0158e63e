"""A matrix whose entries have few bits, as a file holds it: codes, steps, and which entries there
are.

All entries have one number of bits or none. The rows of a part share their steps: one for each
column, or one for all in a part of fewer than 64 rows (see `models.embedding.quantised`). In
memory it is a dense float32 matrix.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..embedding.quantised import SMALL, Quantiser
from ..kernels.quantise import bytes_of, codes_of, steps_of
from .values import Rows

HEAD = 3  # numbers before the parts: rows, columns, bits


class LevelRows(Rows):
    """Rows (N, W) of levels: entry = (code - 2^(b-1) + 1/2) * step, or 0.

    Args:
        stored: what the file holds, by what follows a tensor's name.

    >>> rows = LevelRows.pack(np.array([[3, 0], [0, 0]]), np.array([[2.0, 2.0], [1.0, 1.0]]),
    ...                       np.array([[True, True], [False, False]]), 2, (2,))
    >>> rows.data.tolist(), sum(array.nbytes for array in rows.tensors("t").values())
    ([[3.0, -3.0], [0.0, 0.0]], 19)
    """

    def __init__(self, stored: dict[str, np.ndarray]) -> None:
        super().__init__(torch.from_numpy(_unpacked(stored)))
        self.stored = stored

    @classmethod
    def pack(cls, codes: np.ndarray, steps: np.ndarray, kept: np.ndarray, bits: int,
             parts: Sequence[int]) -> "LevelRows":
        """Pack a matrix.

        Args:
            codes: (N, W) of 0 .. 2^bits - 1.
            steps: (N, W).
            kept: (N, W) of bool, which entries there are.
            bits: of an entry.
            parts: rows of each part, in order; they add up to N.
        """
        rows, width = codes.shape
        there = kept.any(axis=1)
        every = np.arange(bits)
        flat = codes[kept][:, None].astype(np.int64) >> every & 1
        shared = _step_places(parts, width)
        own = np.zeros(int(shared.max(initial=-1)) + 1, np.uint8)
        own[shared[kept]] = bytes_of(steps[kept])
        stored: dict[str, Any] = {
            "levels": np.array([rows, width, bits, *parts], np.int32), "steps": own,
            "codes": np.packbits(flat.astype(np.uint8), bitorder="little"),
            "rows": np.packbits(there, bitorder="little")}
        if not kept[there].all():
            stored["mask"] = np.packbits(kept[there], axis=1, bitorder="little")
        return cls(stored)

    @classmethod
    def of_quantiser(cls, values: Tensor, quantiser: Quantiser) -> "LevelRows":
        """Of values (N, W) and the quantiser that knows its parts; all entries have one number of
        bits, or none."""
        bound = quantiser.bound.cpu()
        step = quantiser.step.cpu()
        codes = codes_of(values.detach().cpu(), step, bound)
        bits = int(torch.log2(bound.max()).item()) + 1
        return cls.pack(codes.numpy(), step.numpy(), (bound > 0).numpy(), bits, quantiser.parts)

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """What the file holds."""
        return {f"{name}.{part}": array for part, array in self.stored.items()}


def read_rows(tensors: dict[str, np.ndarray], name: str) -> Rows:
    """Rows of any kind, from the tensors of a file."""
    if f"{name}.levels" not in tensors:
        return Rows.read(tensors, name)
    parts = ("levels", "steps", "codes", "rows", "mask")
    return LevelRows({part: tensors[f"{name}.{part}"] for part in parts
                      if f"{name}.{part}" in tensors})


def _step_places(parts: Sequence[int], width: int) -> np.ndarray:
    """(N, W) where the step of each entry stands."""
    found, behind = [], 0
    for rows in parts:
        own = np.arange(width) if rows >= SMALL else np.zeros(width, np.int64)
        found.append(np.broadcast_to(behind + own, (rows, width)))
        behind += int(own[-1]) + 1
    return np.concatenate(found)


def _unpacked(stored: dict[str, np.ndarray]) -> np.ndarray:
    rows, width, bits = (int(number) for number in stored["levels"][:HEAD])
    there = np.unpackbits(stored["rows"], count=rows, bitorder="little").astype(bool)
    kept = np.zeros((rows, width), bool)
    kept[there] = True
    if "mask" in stored:
        kept[there] = np.unpackbits(stored["mask"], axis=1, count=width,
                                    bitorder="little").astype(bool)
    count = int(kept.sum())
    flat = np.unpackbits(stored["codes"], count=count * bits, bitorder="little")
    codes = (flat.reshape(count, bits).astype(np.int64) << np.arange(bits)).sum(axis=1)
    steps = steps_of(stored["steps"])[_step_places(stored["levels"][HEAD:].tolist(), width)[kept]]
    table = np.zeros((rows, width), np.float32)
    table[kept] = ((codes - 2 ** (bits - 1)).astype(np.float32) + np.float32(0.5)) * steps
    return table
