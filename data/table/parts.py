"""Which rows of a table are for training, validation and test."""

import numpy as np

from data import split as splits
from data.table.options import COLUMN, FILES, SPLIT_SEED, TIME
from data.table.read import parts_of_column
from data.table.spool import Spooled


def part_of_rows(spooled: Spooled, kind: str, rest: str, split: str) -> np.ndarray:
    """(rows,) uint8, the position in SPLITS of each row's part.

    Raises:
        ValueError: a time is missing, a value of the column is no part, or a part has no row.
    """
    part = np.empty(spooled.rows, np.uint8)
    if kind == FILES:
        first = 0
        for name, rows in spooled.files:
            part[first:first + rows] = splits.SPLITS.index(str(name))
            first += rows
    elif kind == COLUMN:
        part[:] = _by_column(spooled, rest)
    elif kind == TIME:
        _by_time(part, np.concatenate(spooled.order), rest)
    else:
        if kind + ":" == splits.IDS and spooled.bad_lines:
            raise ValueError(f"{split}: {spooled.bad_lines} lines of the table cannot be used, so "
                             "that row numbers are not certain; mend them first")
        seed = int(rest) if kind == splits.RANDOM and rest else SPLIT_SEED
        name = split if kind + ":" == splits.IDS else splits.RANDOM
        for position, rows_of in enumerate(splits.split_indices(name, spooled.rows, seed)):
            part[rows_of] = position
    for position, name in enumerate(splits.SPLITS):
        if not (part == position).any():
            raise ValueError(f"split {split!r}: {name} has no row; each of train, validation and "
                             "test needs some")
    return part


def _by_column(spooled: Spooled, column: str) -> np.ndarray:
    assert spooled.order_values is not None
    texts = spooled.order_values.packed
    values = {number: texts.get(number) for number in range(len(texts))}
    known = parts_of_column(values)
    wrong = [value or "nothing" for number, value in values.items()
             if number not in known and spooled.order_values.counts[number]]
    if wrong:
        raise ValueError(f"split column {column!r} has the value {wrong[0][:40]!r}; its values "
                         "must be train, validation (or valid, val, dev) and test")
    table = np.zeros(len(texts), np.uint8)
    table[list(known)] = list(known.values())
    return table[np.concatenate(spooled.order)]


def _by_time(part: np.ndarray, times: np.ndarray, column: str) -> None:
    gaps = np.isnan(times)
    if gaps.any():
        raise ValueError(f"split by time: {np.count_nonzero(gaps):,} rows have no {column!r} (the "
                         f"first is row {np.argmax(gaps) + 1:,}); fill it in, or leave them out")
    if len(times) < 10:
        raise ValueError(f"{len(times)} rows are too few to split 80/10/10; at least 10 are needed")
    order = np.argsort(times, kind="stable")
    held_out = len(times) // 10
    part[order] = 0
    part[order[-2 * held_out:]] = 1
    part[order[-held_out:]] = 2
