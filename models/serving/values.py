"""Numbers as an exported model stores them: float32, float16, or int8 with a scale for each row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.eager import runs_on_numba
from . import FLOAT32, INT8, TYPES

_NONE = np.zeros(0, np.float32)
LEVELS = 127  # of int8, on either side of 0


def check_type(values: str) -> None:
    """Raise a ValueError unless `values` is one of TYPES."""
    if values not in TYPES:
        raise ValueError(f"values must be one of {', '.join(TYPES)}, got {values!r}")


def small(array: np.ndarray, values: str) -> np.ndarray:
    """An array that all rows share, or of one number a row: float16 unless float32 is asked for,
    as int8 would need scales of its own.

    Raises:
        ValueError: a number is too large for float16.
    """
    array = np.ascontiguousarray(array, np.float32)
    if values == FLOAT32:
        return array
    largest = float(np.abs(array).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise ValueError(f"a value of {largest:.4g} does not fit float16 (65,504 at most); export "
                         f"with values={FLOAT32}")
    return array.astype(np.float16)


@dataclass(frozen=True)
class Scales:
    """One scale for each row, stored as float16 parts of the largest.

    Args:
        parts: (R,) float16, 0 to 1.
        largest: a float32 number.
    """

    parts: np.ndarray
    largest: float

    def all(self) -> np.ndarray:
        """(R,) float32."""
        return self.parts.astype(np.float32) * np.float32(self.largest)


def scales_for(peaks: np.ndarray) -> Scales:
    """The scales of rows whose largest entries are `peaks` (R,), rounded up so that all fit.

    >>> scales_for(np.array([127.0, 0.0])).all().tolist()
    [1.0, 0.0]
    """
    peak = max(float(peaks.max(initial=0)), float(np.finfo(np.float32).tiny))
    largest = np.float32(peak / LEVELS)
    exact = (peaks / LEVELS / largest).astype(np.float32)
    parts = exact.astype(np.float16)
    below = parts.astype(np.float32) < exact
    parts[below] = np.nextafter(parts[below], np.float16(np.inf))
    return Scales(parts, float(largest))


def quantised(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """int8 levels of values and the scale of each, broadcast.

    >>> quantised(np.array([0.5, -1.0]), np.array([0.01])).tolist()
    [50, -100]
    """
    safe = np.where(scales > 0, scales, 1)
    return np.clip(np.rint(values / safe), -LEVELS, LEVELS).astype(np.int8)


class Rows(nn.Module):
    """A matrix (N, W) of stored rows that are looked up.

    Args:
        data: (N, W) float32, float16 or int8.
        scales: (N,) float32 of int8 data; None for the others.

    >>> rows = Rows.of(np.array([[1.0, -0.5]], np.float32), "int8")
    >>> rows(torch.tensor([0])).round(decimals=1).tolist()
    [[1.0, -0.5]]
    """

    data: Tensor
    scales: Tensor | None

    def __init__(self, data: Tensor, scales: Scales | None = None) -> None:
        super().__init__()
        self.register_buffer("data", data)
        self.stored_scales = scales
        self.register_buffer("scales", None if scales is None else torch.from_numpy(scales.all()))

    @classmethod
    def of(cls, matrix: np.ndarray, values: str) -> "Rows":
        """Store a float32 matrix in a type of TYPES; a matrix of one column is float16 at least."""
        if values != INT8 or matrix.shape[1] < 2:
            return cls(torch.from_numpy(small(matrix, values)))
        scales = scales_for(np.abs(matrix).max(axis=1, initial=0))
        return cls(torch.from_numpy(quantised(matrix, scales.all()[:, None])), scales)

    @property
    def num_rows(self) -> int:
        """N."""
        return self.data.shape[0]

    @property
    def width(self) -> int:
        """W."""
        return self.data.shape[1]

    def forward(self, ids: Tensor) -> Tensor:
        """ids of any shape -> float32 (*ids.shape, W)."""
        if self.data.dtype != torch.float32 and runs_on_numba(ids=ids):
            return self._widened(ids)
        found = nn.functional.embedding(ids, self.data).float()
        if self.scales is not None:
            found = found * self.scales[ids][..., None]
        return found

    def _widened(self, ids: Tensor) -> Tensor:
        """The same by a loop; raises an IndexError as torch does."""
        from ..kernels.widen import widen

        if self.width == 0 or self.num_rows == 0:
            return nn.functional.embedding(ids, self.data).float()
        own = ids.contiguous() if ids.dtype == torch.int32 else ids.long().contiguous()
        values = self.data.numpy().reshape(-1)
        values = values.view(np.uint16) if values.dtype == np.float16 else values
        scales = _NONE if self.scales is None else self.scales.numpy()
        out = torch.empty((*ids.shape, self.width), dtype=torch.float32, device="cpu")
        if widen(values, scales, own.data_ptr(), own.dtype == torch.int64, own.numel(),
                 out.data_ptr(), self.width) < 0:
            raise IndexError(f"ids must be in 0 .. {self.num_rows - 1}, got {int(own.min())} .. "
                             f"{int(own.max())}")
        return out

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """What the file holds."""
        found = {name: self.data.numpy()}
        if self.stored_scales is not None:
            found[f"{name}.scales"] = self.stored_scales.parts
            found[f"{name}.scale"] = np.array([self.stored_scales.largest], np.float32)
        return found

    @classmethod
    def read(cls, tensors: dict[str, np.ndarray], name: str) -> "Rows":
        """From the tensors of a file."""
        return cls(torch.from_numpy(tensors[name]), read_scales(tensors, name))


def read_scales(tensors: dict[str, Any], name: str) -> Scales | None:
    """The scales that stand beside an int8 tensor; None where there are none."""
    if f"{name}.scales" not in tensors:
        return None
    return Scales(tensors[f"{name}.scales"], float(tensors[f"{name}.scale"][0]))
