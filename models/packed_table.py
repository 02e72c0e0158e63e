"""A table of few bits an entry as one file: codes, steps, and what says where they belong.

The rows of a field are sorted by their class, so that neither classes nor offsets are stored, only
how many rows each class has. Whoever gives out ids (a vocabulary) takes the order over: see
`row_order`. The file, little-endian:

    header     20 bytes: magic, version, most, rung, bytes of a count, F, D, bytes of codes, CRC-32
    counts     (F, 18) of 2 bytes (4 where a field has 65,536 rows or more): rows of each class, and
               rows that are all zero because training never saw them
    columns    (F, D) of 1 byte: the column's number
    steps      1 byte each, 2^(k / 8): one for each (field, bits, column) that occurs in a field of
               64 rows or more, one for each (field, bits) in a smaller one, in this order
    codes      rows one after the other, bits of an entry = class + column cut to 0 .. most
"""

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from .embedding.quantised import MOST, SMALL, step_groups
from .kernels.packed import Slots, unpack_rows
from .kernels.quantise import steps_of
from .new_files import new_file

CLASSES = range(-2, 15)  # of rows
UNSEEN = -128  # the class of a row that no training row has: all its entries are zero
MAGIC, VERSION = b"PEPW", 1
HEADER = struct.Struct("<4sBBBBHHII")
WIDE = 1 << 16  # rows of a field from which a count takes 4 bytes


def count_bytes(largest: int) -> int:
    """Bytes of one count of a table whose largest field has so many rows."""
    return 2 if largest < WIDE else 4


def fixed_bytes(fields: int, width: int, largest: int) -> int:
    """Bytes of a packed table without steps and codes.

    >>> fixed_bytes(7, 64, 3439)
    720
    """
    return HEADER.size + fields * (len(CLASSES) + 1) * count_bytes(largest) + fields * width


def entry_bits(classes: np.ndarray, columns: np.ndarray, most: int = MOST,
               rung: int = 0) -> np.ndarray:
    """Bits of entries from the numbers of their rows and columns, which are broadcast; uint8.

    Args:
        classes: whole numbers; UNSEEN gives 0 bits.
        columns: whole numbers.
        most: bits at most.
        rung: where it is not 0, an entry has this many bits or none.

    >>> entry_bits(np.array([[0], [3]]), np.array([-1, 2, 9])).tolist()
    [[0, 2, 8], [2, 5, 8]]
    """
    total = classes.astype(np.int64) + columns.astype(np.int64)
    bits = np.where(total > 0, rung, 0) if rung else np.clip(total, 0, most)
    return np.where(classes == UNSEEN, 0, bits).astype(np.uint8)


def row_order(classes: np.ndarray, field_sizes: tuple[int, ...]) -> np.ndarray:
    """Where each row stands in the packed table, (N,) int64: within its field by class, rows of one
    class in their old order, rows that were never seen last.

    >>> row_order(np.array([3, -128, 0, 3, 1]), (4, 1)).tolist()
    [1, 3, 0, 2, 4]
    """
    own = np.where(classes == UNSEEN, CLASSES[-1] + 1, classes.astype(np.int64))
    fields = np.repeat(np.arange(len(field_sizes)), field_sizes)
    order = np.lexsort((own, fields))
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


@dataclass(frozen=True)
class PackedTable:
    """Codes and steps of a table (N, D) of F fields, in the order of `row_order`.

    Args:
        counts: (F, 18) rows of each class, and of none.
        columns: (F, D) int8.
        steps: (G,) uint8.
        codes: uint8.
        most, rung: as of `entry_bits`.
    """

    counts: np.ndarray
    columns: np.ndarray
    steps: np.ndarray
    codes: np.ndarray
    most: int = MOST
    rung: int = 0

    @property
    def field_sizes(self) -> tuple[int, ...]:
        """Rows of each field."""
        return tuple(self.counts.sum(axis=1).tolist())

    @property
    def num_rows(self) -> int:
        """N."""
        return int(self.counts.sum())

    @property
    def width(self) -> int:
        """D."""
        return self.columns.shape[1]

    def lookup(self, ids: Tensor) -> Tensor:
        """ids (B, F), rows of the packed table -> vectors (B, F, D).

        Raises:
            IndexError: an id that is not in 0 .. N-1.
        """
        return unpack_rows(self.padded, self.slots, ids)

    @cached_property
    def padded(self) -> np.ndarray:
        """The codes with room behind them, as the lookup reads them."""
        return np.pad(self.codes, (0, 8))

    @cached_property
    def slots(self) -> Slots:
        """Where rows lie and what their bits mean."""
        rows = self.counts.reshape(-1).astype(np.int64)
        bits = _slot_bits(self.counts, self.columns, self.most, self.rung)
        flat = bits.reshape(-1, self.width)
        width = flat.sum(axis=1, dtype=np.int64)
        ends = np.cumsum(rows * width)
        groups = _slot_groups(self.counts, bits)
        values = np.append(steps_of(self.steps), np.float32(1))  # no group reads the last
        return Slots(np.concatenate([[0], np.cumsum(rows)]), ends - rows * width, width, flat,
                     values[groups.reshape(-1, self.width)])

    def to_bytes(self) -> bytes:
        """The file."""
        size = count_bytes(max(self.field_sizes))
        body = b"".join([self.counts.astype(f"<u{size}").tobytes(), self.columns.tobytes(),
                         self.steps.tobytes(), self.codes.tobytes()])
        fields = (MAGIC, VERSION, self.most, self.rung, size, *self.columns.shape, len(self.codes))
        head = HEADER.pack(*fields, 0)
        return HEADER.pack(*fields, zlib.crc32(head + body)) + body

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with new_file(path) as file:
            file.write(self.to_bytes())


def load(path: Path) -> PackedTable:
    """Read a file of `PackedTable.save`; raises as `from_bytes` does, and names the file."""
    try:
        return from_bytes(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_bytes(data: bytes) -> PackedTable:
    """A packed table from its file's content.

    Raises:
        ValueError: it is no packed table, of another version, cut short, or its checksum is wrong.
    """
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise ValueError("this is no packed table, or one that was cut within its first "
                         f"{HEADER.size} bytes; pack the table again")
    _, version, most, rung, size, fields, width, code_bytes, checksum = HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"the packed table is of version {version}, this code reads {VERSION}; "
                         "pack it again with this code, or read it with that one")
    head = HEADER.pack(*HEADER.unpack_from(data)[:-1], 0)
    if zlib.crc32(head + data[HEADER.size:]) != checksum:
        raise ValueError("the packed table is cut short or has changed bits (its checksum is "
                         "wrong); copy or pack it again")
    body, slots = memoryview(data)[HEADER.size:], len(CLASSES) + 1
    ends = np.cumsum([fields * slots * size, fields * width]).tolist()
    counts = np.frombuffer(body[:ends[0]], f"<u{size}").reshape(fields, slots).astype(np.int64)
    columns = np.frombuffer(body[ends[0]:ends[1]], np.int8).reshape(fields, width)
    behind = len(body) - code_bytes
    return PackedTable(counts, columns, np.frombuffer(body[ends[1]:behind], np.uint8),
                       np.frombuffer(body[behind:], np.uint8), most, rung)


def pack(codes: np.ndarray, steps: np.ndarray, classes: np.ndarray, columns: np.ndarray,
         field_sizes: tuple[int, ...], most: int = MOST, rung: int = 0) -> PackedTable:
    """Pack the codes of a table.

    Args:
        codes: (N, D) of 0 .. 2^bits - 1, in the order of the data set's ids.
        steps: (G,) uint8, in the order of `step_groups`.
        classes: (N,) of CLASSES or UNSEEN.
        columns: (F, D) int8.
        field_sizes: rows of each field, in order.
        most, rung: as of `entry_bits`.

    Raises:
        ValueError: a code has more bits than its entry, or there are too few or too many steps.
    """
    order = np.argsort(row_order(classes, field_sizes))
    fields = np.repeat(np.arange(len(field_sizes)), field_sizes)
    bits = entry_bits(classes[:, None], columns[fields], most, rung)
    if (codes >> bits).any():
        raise ValueError("a code has more bits than its entry; give the codes of this allocation")
    if (groups := int(step_groups(bits, field_sizes).max(initial=-1)) + 1) != len(steps):
        raise ValueError(f"this allocation has {groups} steps, got {len(steps)}")
    own = np.where(classes == UNSEEN, CLASSES[-1] + 1, classes.astype(np.int64)) - CLASSES[0]
    counts = np.zeros((len(field_sizes), len(CLASSES) + 1), np.int64)
    np.add.at(counts, (fields, own), 1)
    return PackedTable(counts, columns.astype(np.int8), steps.astype(np.uint8),
                       _stream(codes[order].reshape(-1), bits[order].reshape(-1)), most, rung)


def _stream(codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Codes one after the other, lowest bits first."""
    places = np.arange(MOST)
    every = (codes[:, None].astype(np.int64) >> places) & 1
    return np.packbits(every[places < bits[:, None]].astype(np.uint8), bitorder="little")


def _slot_bits(counts: np.ndarray, columns: np.ndarray, most: int, rung: int) -> np.ndarray:
    """(F, 18, D): bits of the rows of each class, and 0 of those of none."""
    classes = np.array([*CLASSES, UNSEEN])
    return entry_bits(classes[None, :, None], columns[:, None], most, rung)


def _slot_groups(counts: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """(F, 18, D): the step of each entry, in the order in which steps are stored; -1 for none."""
    groups, used = np.full(bits.shape, -1, np.int64), 0
    for field, own in enumerate(bits):
        there = np.where(counts[field][:, None] > 0, own, 0).astype(np.int64)
        large = counts[field].sum() >= SMALL
        keys = there * bits.shape[2] + (np.arange(bits.shape[2]) if large else 0)
        found, places = np.unique(keys[there > 0], return_inverse=True)
        groups[field][there > 0] = used + places
        used += len(found)
    return groups
