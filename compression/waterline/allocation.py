"""The water line: how many bits every entry of a table gets, found from a number of bytes.

By reverse water-filling (rate-distortion theory of independent Gaussian components) an entry should
get 1/2 log2(what its noise costs) bits less a level that is the same for all. What noise costs is
about c_i h_fj s2_fj: how often row i is seen, how much the loss feels column j of its field, and
the column's mean square. Rounded, the bits are the sum of a whole number of the row, its class, and
one of the column: b = class + column, cut to 0 .. 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from compression.waterline.rotation import of_fields
from models.embedding.quantised import MOST, SMALL
from models.options import Sizes
from models.packed_table import CLASSES, UNSEEN, entry_bits, fixed_bytes, row_order

COLUMNS = (-16, 15)  # what a column's number is cut to
BISECTIONS = 60


@dataclass(frozen=True)
class Allocation:
    """Bits of a table (N, D) of F fields.

    Args:
        field_sizes: rows of each field, in order.
        classes: (N,) int8, of CLASSES or UNSEEN.
        columns: (F, D) int8, one number a column of a field.
        most: bits of an entry at most.
        rung: where it is not 0, an entry has this many bits or none.
    """

    field_sizes: Sizes
    classes: np.ndarray
    columns: np.ndarray
    most: int = MOST
    rung: int = 0

    def bits(self) -> np.ndarray:
        """(N, D) uint8, 0 .. 8."""
        fields = np.repeat(np.arange(len(self.field_sizes)), self.field_sizes)
        return entry_bits(self.classes[:, None], self.columns[fields], self.most, self.rung)

    def order(self) -> np.ndarray:
        """(N,) where each row stands in the packed table."""
        return row_order(self.classes, self.field_sizes)

    def stored_bytes(self) -> int:
        """Of everything that is stored: header, class counts, column numbers, steps and codes."""
        fields, width = self.columns.shape
        rows = histogram(self.classes, self.field_sizes)  # (F, classes)
        bits = entry_bits(np.array(CLASSES)[None, :, None], self.columns[:, None], self.most,
                          self.rung).astype(np.int64)  # (F, classes, D)
        entries = int((bits * rows[:, :, None]).sum())
        there = np.where(rows[:, :, None] > 0, bits, 0)
        steps = sum(number_of_steps(own, size >= SMALL)
                    for own, size in zip(there, self.field_sizes, strict=True))
        return fixed_bytes(fields, width, max(self.field_sizes)) + steps + -(-entries // 8)


def histogram(classes: np.ndarray, field_sizes: Sizes) -> np.ndarray:
    """(F, classes): rows of each class in each field."""
    found = [np.bincount(own[own != UNSEEN].astype(np.int64) - CLASSES[0], minlength=len(CLASSES))
             for own in (classes[rows] for rows in of_fields(field_sizes))]
    return np.stack(found)


def number_of_steps(bits: np.ndarray, by_column: bool) -> int:
    """Different (bits, column), or different bits, above 0.

    >>> bits = np.array([[2, 0, 2], [1, 0, 2]])
    >>> number_of_steps(bits, True), number_of_steps(bits, False)
    (3, 2)
    """
    if not by_column:
        return len(np.unique(bits[bits > 0]))
    column = np.broadcast_to(np.arange(bits.shape[1]), bits.shape)
    return len(np.unique((bits.astype(np.int64) * bits.shape[1] + column)[bits > 0]))


@dataclass(frozen=True)
class Level:
    """What the bits of a table depend on, but for the level.

    Args:
        field_sizes: rows of each field, in order.
        classes: (N,), see `row_classes`.
        worth: (F, D), 1/2 log2(h s2) of each column.
        most, rung: as of `Allocation`.
    """

    field_sizes: Sizes
    classes: np.ndarray
    worth: np.ndarray
    most: int = MOST
    rung: int = 0

    def at(self, level: float) -> Allocation:
        """The bits at a level."""
        columns = np.clip(np.floor(self.worth - level + 0.5), *COLUMNS).astype(np.int8)
        return Allocation(self.field_sizes, self.classes, columns, self.most, self.rung)


def row_classes(table: np.ndarray, counts: np.ndarray, sensitivity: np.ndarray,
                field_sizes: Sizes, energy: bool = True) -> np.ndarray:
    """The class of each row: 1/2 log2(c_i sqrt(e_i)), rounded and cut to CLASSES; UNSEEN where c_i
    is 0.

    e_i is the row's own weighted energy over the mean of its field; its root halves the noise that
    the energy of a single row has.

    Args:
        table: (N, D).
        counts: (N,), how often each row occurs in training.
        sensitivity: h (F, D).
        field_sizes: rows of each field, in order.
        energy: False leaves e_i away.

    Raises:
        ValueError: the shapes do not belong to one table, or no row was seen.
    """
    _check(table, counts, sensitivity, field_sizes)
    own = np.ones(len(table))
    for field, rows in enumerate(of_fields(field_sizes)):
        weighted = (table[rows].astype(np.float64) ** 2) @ sensitivity[field]
        seen = counts[rows] > 0
        mean = weighted[seen].mean() if seen.any() else 0.0
        if energy and mean > 0:
            own[rows] = weighted / mean
    with np.errstate(divide="ignore"):
        worth = np.rint(np.log2(counts * np.sqrt(own)) / 2)
    classes = np.clip(worth, CLASSES[0], CLASSES[-1])
    return np.where(counts > 0, classes, UNSEEN).astype(np.int8)


def column_worth(table: np.ndarray, counts: np.ndarray, sensitivity: np.ndarray,
                 field_sizes: Sizes) -> np.ndarray:
    """1/2 log2(h_fj s2_fj) of each column, (F, D), s2 the mean square over the field's rows that
    were seen; minus infinity where that is 0."""
    _check(table, counts, sensitivity, field_sizes)
    energy = np.zeros_like(sensitivity)
    for field, rows in enumerate(of_fields(field_sizes)):
        seen = table[rows][counts[rows] > 0].astype(np.float64)
        if len(seen):
            energy[field] = (seen ** 2).mean(axis=0)
    with np.errstate(divide="ignore"):
        return np.log2(sensitivity * energy) / 2


def allocate(level: Level, budget: int) -> Allocation:
    """The bits at the lowest level at which everything stored fits a budget, by bisection; bytes
    that are then left go to the next columns that fit.

    Args:
        budget: bytes.

    Raises:
        ValueError: the budget is below what is stored for no bits at all, or at 8 bits for every
            entry there would still be bytes left.
    """
    finite = level.worth[np.isfinite(level.worth)]
    if not len(finite):
        raise ValueError("every column of the table is zero, or no column moves the loss: there is "
                         "nothing to give bits to")
    span = MOST + len(CLASSES) + 2
    low, high = float(finite.min()) - span, float(finite.max()) + span
    most, least = (level.at(each).stored_bytes() for each in (low, high))
    if budget < least:
        raise ValueError(f"a budget of {budget:,} bytes is below the fixed cost of {least:,} bytes "
                         f"(header, class boundaries and column numbers of "
                         f"{level.worth.shape[0]} fields x {level.worth.shape[1]} columns); give "
                         f"more, or train a narrower table")
    if budget > most:
        raise ValueError(f"with {level.rung or level.most} bits for every entry the table takes "
                         f"{most:,} bytes, so a budget of {budget:,} has nothing to share out; "
                         f"give at most that")
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if level.at(middle).stored_bytes() > budget:
            low = middle
        else:
            high = middle
    return _filled(level, high, budget)


def _filled(level: Level, at: float, budget: int) -> Allocation:
    """The allocation at a level, with one more bit for the columns that are next and still fit: the
    next one alone may be a column of the largest field, and leave hundreds of bytes."""
    found = level.at(at)
    wanted = level.worth - at + 0.5
    with np.errstate(invalid="ignore"):  # of columns that are worth nothing, which come last
        missing = np.floor(wanted) - wanted
    for place in np.argsort(missing, axis=None):
        columns = found.columns.copy()
        field, column = np.unravel_index(place, columns.shape)
        if not np.isfinite(wanted[field, column]) or columns[field, column] == COLUMNS[1]:
            continue
        columns[field, column] += 1
        more = replace(found, columns=columns)
        if more.stored_bytes() <= budget:
            found = more
    return found


def _check(table: np.ndarray, counts: np.ndarray, sensitivity: np.ndarray,
           field_sizes: Sequence[int]) -> None:
    rows, width = table.shape
    if counts.shape != (rows,) or sum(field_sizes) != rows:
        raise ValueError(f"the table has {rows} rows, the counts are of shape {counts.shape} and "
                         f"the fields have {sum(field_sizes)} rows in all; give those of one data "
                         f"set")
    if sensitivity.shape != (len(field_sizes), width):
        raise ValueError(f"the sensitivities must be of shape ({len(field_sizes)}, {width}), got "
                         f"{sensitivity.shape}")
    if not (counts > 0).any():
        raise ValueError("no row occurs in training: all counts are 0")
