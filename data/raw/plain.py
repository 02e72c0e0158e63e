"""The definition of raw -> encoded, one line and one dictionary at a time. Slow, and meant to be
obviously right."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.raw.layout import BUCKET, DECIMAL, HEX, ID, KIND_NAMES, LABEL, MAX_DIGITS, Layout

_PATTERNS = {
    ID: rf"\d{{1,{MAX_DIGITS[ID]}}}", LABEL: r"[01]", BUCKET: rf"(-?\d{{1,{MAX_DIGITS[BUCKET]}}})?",
    DECIMAL: rf"(-?\d{{1,{MAX_DIGITS[DECIMAL]}}})?", HEX: rf"([0-9a-f]{{{MAX_DIGITS[HEX]}}})?",
}
Value = int | str | None  # a bucket or number, hexadecimal digits, or nothing


@dataclass
class PlainRows:
    """Rows of a file: `values[i]` holds a value a field, `dense[i]` one a BUCKET column; why
    other lines are bad."""

    values: list[list[Value]]
    dense: list[list[float]]
    labels: list[int]
    bad: dict[int, str]  # line number from 1 -> why


def read_plain(content: bytes, layout: Layout) -> PlainRows:
    """Read a whole file, its header (if it has one) already known to be right."""
    rows = PlainRows([], [], [], {})
    lines = content.removesuffix(b"\n").split(b"\n")
    for number, raw in enumerate(lines, start=1):
        if layout.has_header and number == 1:
            continue
        line = raw.decode("latin-1").removesuffix("\r")
        cells = cells_of(line, layout)
        why = complaint(cells, layout)
        if why:
            rows.bad[number] = why
            continue
        values: list[Value] = []
        dense: list[float] = []
        for cell, column in zip(cells, layout.columns, strict=True):
            if column.kind == LABEL:
                rows.labels.append(int(cell))
            elif column.kind == BUCKET:
                values.append(bucket(int(cell)) if cell else None)
                dense.append(math.log(max(int(cell), 0) + 1) if cell else 0.0)
            elif column.kind == DECIMAL:
                values.append(int(cell) if cell else None)
            elif column.kind == HEX:
                values.append(cell or None)
        rows.values.append(values)
        rows.dense.append(dense)
    return rows


def cells_of(line: str, layout: Layout) -> list[str]:
    """The cells of a line; a separator behind the last one is no further cell.

    >>> from data.avazu import LAYOUT
    >>> len(cells_of(24 * ",", LAYOUT)), len(cells_of(25 * ",", LAYOUT))
    (24, 26)
    """
    cells = line.split(layout.separator)
    return cells[:-1] if len(cells) == len(layout.columns) + 1 and not cells[-1] else cells


def fits(cell: str, kind: int) -> bool:
    """Whether a cell is as published in a column of this kind.

    >>> fits("260", DECIMAL), fits("260.0", DECIMAL)
    (True, False)
    """
    return re.fullmatch(_PATTERNS[kind], cell, re.ASCII) is not None


def complaint(cells: Sequence[str], layout: Layout) -> str | None:
    """Why a line's cells cannot be used, or None.

    >>> from data.criteo import LAYOUT
    >>> complaint(["0"], LAYOUT)
    'expected 40 columns, got 1'
    """
    if len(cells) != len(layout.columns):
        return f"expected {len(layout.columns)} columns, got {len(cells)}"
    for cell, column in zip(cells, layout.columns, strict=True):
        if not fits(cell, column.kind):
            return f"column {column.name}: expected {KIND_NAMES[column.kind]}, got {cell[:20]!r}"
    return None


def bucket(value: int) -> int:
    """floor(ln(v)^2) for v > 2, else v - 2.

    >>> bucket(-1), bucket(2), bucket(3), bucket(1000)
    (-3, 0, 1, 47)
    """
    return math.floor(math.log(value) ** 2) if value > 2 else value - 2


def encode_plain(values: list[list[Value]], min_count: int) -> tuple[np.ndarray, list[int]]:
    """Global ids (rows, F) and the field sizes.

    In each field the values seen at least `min_count` times get codes by falling count, then by
    value (nothing before everything else); all others share the last code.
    """
    fields = list(zip(*values, strict=True))
    ids = np.empty((len(values), len(fields)), np.int32)
    sizes: list[int] = []
    for position, column in enumerate(fields):
        counts = Counter(column)
        known = [value for value, count in counts.items() if count >= min_count]
        known.sort(key=lambda value: (-counts[value], value is not None, value))
        codes = {value: code for code, value in enumerate(known)}
        ids[:, position] = [codes.get(value, len(known)) + sum(sizes) for value in column]
        sizes.append(len(known) + 1)
    return ids, sizes
