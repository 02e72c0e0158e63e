"""A pruned table as one stores it: rows without entries are gone, and of the others only the kept
entries are there, with the columns in which they stand.

Rows are renumbered: those that keep most come first, those that keep nothing last. So a row's place
is arithmetic (see `models.kernels.expand`), rows with nothing cost nothing, and neither starts nor
old numbers are stored. Whoever gives out ids, a vocabulary, takes the new order over.

A row says where its entries stand by a bit for each column, or, where that is shorter, by the
columns' numbers; which of the two follows from its width. So, D up to 256, a table of E entries
takes at most 5 E bytes in float32, 3 E in float16, and some bytes a width for the numbers of rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.expand import PADDING, Kept, expand_rows, has_avx512, offsets_of
from .values import (
    INT8,
    Rows,
    Scales,
    check_type,
    quantised,
    read_scales,
    scales_for,
    small,
)

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")


def column_type(width: int) -> type[np.unsignedinteger]:
    """The type of a column's number."""
    return np.uint8 if width <= 256 else np.uint16


def place_bytes(width: int) -> np.ndarray:
    """(D + 1,) bytes that say which columns a row keeps, by how many it keeps.

    >>> place_bytes(64)[[0, 1, 7, 8, 64]].tolist()
    [0, 1, 7, 8, 8]
    """
    numbers = np.arange(width + 1) * np.dtype(column_type(width)).itemsize
    return np.minimum(numbers, -(-width // 8))


def stored_bytes(kept: np.ndarray, width: int, value_bytes: int = 4, scale_bytes: int = 0) -> int:
    """Bytes of a compact table's tensors in a file.

    Args:
        kept: (N,) entries that each row keeps.
        width: D.
        value_bytes: of an entry.
        scale_bytes: of a row that keeps something; then the table has one number more.

    >>> stored_bytes(np.array([2, 0, 64]), 64)  # 66 values, 2 + 8 for columns, 64 counts of rows
    402
    """
    rows = int(np.count_nonzero(kept))
    table = int(kept.sum()) * value_bytes + int(place_bytes(width)[kept].sum())
    counts = width * count_type(rows)().itemsize
    return table + counts + (scale_bytes * rows + 4 if scale_bytes else 0)


def count_type(rows: int) -> type[np.unsignedinteger]:
    """The type of a number of rows."""
    return np.uint16 if rows < 1 << 16 else np.uint32


@dataclass(frozen=True)
class CompactRows:
    """A compact table as a file holds it.

    Args:
        values: (E,) float32, float16 or int8, row after row.
        places: uint8; of each row the numbers of its columns, or a bit for each.
        counts: (D,) rows that keep 1, 2, .. D entries; the widest rows come first.
        scales: of int8 values.
    """

    values: np.ndarray
    places: np.ndarray
    counts: np.ndarray
    scales: Scales | None = None

    @property
    def width(self) -> int:
        """D."""
        return len(self.counts)

    @property
    def num_rows(self) -> int:
        """R, of rows that keep something."""
        return int(self.counts.sum())

    @classmethod
    def pack(cls, table: np.ndarray, values: str) -> tuple["CompactRows", np.ndarray]:
        """Pack a table (N, D) that is zero where entries are pruned.

        Returns:
            The packed table, and the new number of each row (N,).

        >>> table = np.array([[0, 0], [0, 5], [6, 7]], np.float32)
        >>> packed, new_ids = CompactRows.pack(table, "float32")
        >>> packed.values.tolist(), packed.places.tolist(), new_ids.tolist()
        ([6.0, 7.0, 5.0], [3, 2], [2, 1, 0])
        """
        check_type(values)
        num_rows, width = table.shape
        mask = table != 0
        own = mask.sum(axis=1)
        order = np.argsort(-own, kind="stable")
        new_ids = np.empty(num_rows, np.int64)
        new_ids[order] = np.arange(num_rows)
        order = order[:np.count_nonzero(own)]
        own, mask = own[order], mask[order]
        kept = table[order][mask].astype(np.float32)
        scales = None
        if values == INT8:
            scales = scales_for(np.abs(table[order]).max(axis=1, initial=0))
            stored = quantised(kept, np.repeat(scales.all(), own))
        else:
            stored = small(kept, values)
        counts = np.bincount(own, minlength=width + 1)[1:].astype(count_type(len(order)))
        return cls(stored, _places(mask, own), counts, scales), new_ids

    def widths(self) -> np.ndarray:
        """(R,) entries of each row, falling."""
        return np.repeat(np.arange(self.width, 0, -1), self.counts[::-1])

    def masks(self) -> np.ndarray:
        """(R, ceil(D / 16)) int16, bit j of a row's words: column j is kept.

        Raises:
            ValueError: the file holds too little or too much, or a column is not in the table.
        """
        own, width = self.widths(), self.width
        sizes = place_bytes(width)[own]
        if int(own.sum()) != len(self.values) or int(sizes.sum()) != len(self.places):
            raise ValueError(f"a compact table whose rows keep {int(own.sum())} entries has "
                             f"{len(self.values)} values and {len(self.places)} bytes of columns")
        words = -(-width // 16)
        found = np.zeros((len(own), words * 2), np.uint8)
        column = np.dtype(column_type(width)).itemsize
        by_bits = own * column >= -(-width // 8)
        wide = int(np.count_nonzero(by_bits))  # they come first
        head = int(sizes[:wide].sum())
        found[:wide, :-(-width // 8)] = self.places[:head].reshape(wide, -(-width // 8))
        columns = self.places[head:].view(column_type(width)).astype(np.int64)
        if len(columns) and int(columns.max()) >= width:
            raise ValueError(f"a compact table of {width} columns names column "
                             f"{int(columns.max())}")
        rows = np.repeat(np.arange(wide, len(own)), own[wide:])
        bits = np.left_shift(1, columns % 8).astype(np.uint8)
        np.bitwise_or.at(found, (rows, columns // 8), bits)
        masks = found.view(np.int16)
        if not np.array_equal(BITS[found].sum(axis=(1, 2)), own):
            raise ValueError("a compact table's columns are not as many as its rows keep")
        return masks

    def kept(self) -> Kept:
        """As the lookup reads it."""
        values = np.concatenate([self.values, np.zeros(PADDING, self.values.dtype)])
        masks = self.masks()
        masks = np.concatenate([masks, np.zeros((1, masks.shape[1]), masks.dtype)])
        scales = np.zeros(0, np.float32)
        if self.scales is not None:
            scales = np.append(self.scales.all(), np.float32(0))
        counts = torch.from_numpy(np.append(0, self.counts).astype(np.int64))
        return Kept(torch.from_numpy(values), torch.from_numpy(masks), offsets_of(counts),
                    torch.from_numpy(scales), self.width)

    def dense(self) -> Rows:
        """The R kept rows and a row of zeros, dense in the stored type."""
        rows, masks = self.num_rows, self.masks()
        data = np.zeros((rows + 1, self.width), self.values.dtype)
        bits = BITS[masks.view(np.uint8)].reshape(rows, 16 * masks.shape[1])[:, :self.width]
        data[:rows][bits > 0] = self.values
        scales = self.scales
        if scales is not None:
            scales = Scales(np.append(scales.parts, np.float16(0)), scales.largest)
        return Rows(torch.from_numpy(data), scales)

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """What the file holds."""
        found = {f"{name}.values": self.values, f"{name}.columns": self.places,
                 f"{name}.counts": self.counts}
        if self.scales is not None:
            found[f"{name}.values.scales"] = self.scales.parts
            found[f"{name}.values.scale"] = np.array([self.scales.largest], np.float32)
        return found

    @classmethod
    def read(cls, tensors: dict[str, np.ndarray], name: str) -> "CompactRows":
        """From the tensors of a file."""
        return cls(tensors[f"{name}.values"], tensors[f"{name}.columns"],
                   tensors[f"{name}.counts"], read_scales(tensors, f"{name}.values"))


def _places(mask: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The columns of rows (R, D) that keep `own` (R,) entries, falling."""
    width = mask.shape[1]
    kind = column_type(width)
    by_bits = own * np.dtype(kind).itemsize >= -(-width // 8)
    numbers = np.nonzero(mask[~by_bits])[1].astype(kind)
    bits = np.packbits(mask[by_bits], axis=1, bitorder="little")
    return np.concatenate([bits.reshape(-1), numbers.view(np.uint8)])


class Compact(nn.Module):
    """Looks rows of a compact table up: by mask where the processor has AVX-512, else in dense kept
    rows.

    >>> packed, new_ids = CompactRows.pack(np.array([[0, 0], [0, 5.0]], np.float32), "float32")
    >>> Compact(packed)(torch.tensor([0, 1])).tolist()
    [[0.0, 5.0], [0.0, 0.0]]
    """

    def __init__(self, packed: CompactRows, by_mask: bool | None = None) -> None:
        super().__init__()
        self.packed = packed
        self.by_mask = has_avx512() if by_mask is None else by_mask
        self.kept = packed.kept() if self.by_mask else None
        self.rows = None if self.by_mask else packed.dense()

    def forward(self, ids: Tensor) -> Tensor:
        """ids of any shape, R or more for rows without entries -> float32 (*ids.shape, D)."""
        if self.kept is not None:
            return expand_rows(self.kept, ids)
        assert self.rows is not None
        return self.rows(ids.clamp(max=self.packed.num_rows))
