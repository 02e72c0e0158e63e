"""The first pass over a table: each text becomes the number under which it first came in its
column, each number stays one, and both go to the disk."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from data.table.count import TextCounter
from data.table.options import NONE, TableOptions, slot_names
from data.table.read import FIRST_ROWS, Table, has_fractions, strings_of, texts_of, values_of
from models.vocabulary import Packed, date_part, numbers_of, seconds_of

MOST_LABELS = 10_000  # distinct values after which a column is surely no label
MEMORY = "the table in memory"


@dataclass(frozen=True)
class FieldPlan:
    """How one field is read.

    Args:
        place: among the table's fields.
        rule: of its buckets, or "none" where its values are categories as they stand.
        part: of a date.
        separator, slot, slots: of a column with several values in a cell, which of its fields this
            is, and how many there are.
    """

    name: str
    column: str
    place: int = 0
    rule: str = NONE
    part: str | None = None
    separator: str | None = None
    slot: int = 0
    slots: int = 1


@dataclass
class Spooled:
    """Rows of a table as numbers, on the disk.

    Args:
        file: of blocks, each text numbers (T, n) int32, numbers (M, n) float64 and label numbers
            (n,) int32.
        texts, numbers: the fields of each kind, T and M of them.
        sizes: n of each block.
        counters: one a field of texts; slots of one column share it.
        labels: the label's values.
        files: rows of each part of the split, where the files are it.
        order: (rows,) seconds or numbers of the column that makes the split.
        order_values: the distinct values of a column that names the part.
        widest: of columns with several values in a cell, the most that a cell has.
        bad_lines: that were left out.
    """

    file: Path
    texts: list[FieldPlan]
    numbers: list[FieldPlan]
    counters: list[TextCounter]
    labels: TextCounter
    sizes: list[int] = field(default_factory=list)
    files: list[tuple[str | None, int]] = field(default_factory=list)
    order: list[np.ndarray] = field(default_factory=list)
    order_values: TextCounter | None = None
    widest: dict[str, int] = field(default_factory=dict)
    bad_lines: int = 0

    @property
    def rows(self) -> int:
        """Usable rows."""
        return sum(self.sizes)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (text numbers (T, n), numbers (M, n), label numbers (n,)) in order."""
        texts, numbers = len(self.texts), len(self.numbers)
        with self.file.open("rb") as stream:
            for rows in self.sizes:
                yield (np.fromfile(stream, np.int32, texts * rows).reshape(texts, rows),
                       np.fromfile(stream, np.float64, numbers * rows).reshape(numbers, rows),
                       np.fromfile(stream, np.int32, rows))


def plans_of(table: Table, options: TableOptions, used: set[str],
             first: Sequence[pa.RecordBatch]) -> list[FieldPlan]:
    """The fields in the order of the columns; those of a date in the order of its parts, and slots
    in theirs.

    Args:
        used: columns that make the split.
        first: the first FIRST_ROWS, or more, which tell columns of numbers with a fraction.
    """
    named = {*options.fields, *options.dense, *options.dates}
    left_out = {options.label, *options.ignore, *used, ""} - named
    chosen = {*options.fields, *options.dense, *options.dates, *options.multi}
    plans: list[FieldPlan] = []
    for column in table.columns:
        if column in left_out or (options.fields and column not in chosen):
            continue
        if column in options.dates:
            plans += [FieldPlan(f"{column}.{part}", column, len(plans) + place, part=part)
                      for place, part in enumerate(options.dates[column])]
            continue
        if column in options.multi:
            separator, most = options.multi[column]
            plans += [FieldPlan(name, column, len(plans) + slot, separator=separator, slot=slot,
                                slots=most)
                      for slot, name in enumerate(slot_names(column, most))]
            continue
        rule = options.rule_of(column, has_fractions(batch.column(column) for batch in first))
        plans.append(FieldPlan(column, column, len(plans), rule))
    return plans


def spool(table: Table, options: TableOptions, split: tuple[str, str], target: Path,
          pool: ThreadPoolExecutor) -> Spooled:
    """Read a table once and write its rows to `target`.

    Args:
        split: its kind and the column that makes it, see `data.table.parts.kind_of`.

    Raises:
        ValueError: the table cannot be read, has no row or no field, or a column of numbers or
            times has another value.
    """
    kind, by = split
    used = {by} if kind in ("time", "column") else set()
    columns = [column for column in table.columns if column and column not in options.ignore]
    batches = table.batches(columns)
    first = list(_first_rows(batches))
    if not first:
        raise ValueError("the table has no row behind its header; give a file with rows")
    plans = plans_of(table, options, used, [batch for _, batch in first])
    if not plans:
        raise ValueError("no column is left for a field; name some in fields, or ignore fewer")
    texts = [plan for plan in plans if plan.rule == NONE]
    numbers = [plan for plan in plans if plan.rule != NONE]
    counters: list[TextCounter] = []
    for plan in texts:
        counters.append(counters[-1] if plan.slot else TextCounter(plan.column))
    spooled = Spooled(target, texts, numbers, counters,
                      TextCounter(options.label, MOST_LABELS),
                      order_values=TextCounter(by) if kind == "column" else None)
    with target.open("wb") as out, tqdm(desc="reading", unit="rows", unit_scale=True,
                                        disable=None) as bar:
        for part, batch in itertools.chain(first, batches):
            if not batch.num_rows:
                continue
            for array in _rows(batch, spooled, options.label, pool):
                # not `tofile`, which takes a disk that is full at its end for a success
                out.write(np.ascontiguousarray(array).data)
            if kind == "time":
                spooled.order.append(_numbers(batch, FieldPlan(by, by, part="time"), spooled.rows))
            elif spooled.order_values is not None:
                spooled.order.append(spooled.order_values.add(_texts(batch.column(by), by)))
            spooled.sizes.append(batch.num_rows)
            spooled.files.append((part, batch.num_rows))
            bar.update(batch.num_rows)
    spooled.bad_lines = sum(bad.count for bad in table.bad)
    return spooled


def _first_rows(batches: Iterator[tuple[str | None, pa.RecordBatch]]
                ) -> Iterator[tuple[str | None, pa.RecordBatch]]:
    """Batches that have rows, until FIRST_ROWS are reached."""
    rows = 0
    for part, batch in batches:
        if batch.num_rows:
            yield part, batch
        rows += batch.num_rows
        if rows >= FIRST_ROWS:
            return


def _rows(batch: pa.RecordBatch, spooled: Spooled, label: str,
          pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
    """The arrays of a block."""
    texts = [pool.submit(_number_texts, batch, plan, counter, spooled)
             for plan, counter in zip(spooled.texts, spooled.counters, strict=True)
             if not plan.slot]
    numbers = [pool.submit(_numbers, batch, plan, spooled.rows) for plan in spooled.numbers]
    for job in [*texts, *numbers]:
        yield job.result()
    answers = _texts(batch.column(label), label)
    try:
        yield spooled.labels.add(answers)
    except ValueError:
        raise ValueError(f"the label {label!r} has more than {MOST_LABELS:,} distinct values, such "
                         f"as {spooled.labels.packed.get(1)!r}; a label has two: name another "
                         "column, or the values that count as 1 with positive") from None


def _number_texts(batch: pa.RecordBatch, plan: FieldPlan, counter: TextCounter,
                  spooled: Spooled) -> np.ndarray:
    """(n,) int32 numbers of a field; (slots, n) of a column with several values in a cell."""
    column = batch.column(plan.column)
    if plan.separator is not None:
        return _number_slots(column, plan, counter, spooled)
    texts = _texts(column, plan.column)
    return counter.add(texts if plan.part is None else date_part(texts, plan.part, plan.column))


def _texts(column: pa.Array, name: str) -> Packed:
    try:
        return texts_of(column)
    except pa.ArrowInvalid as error:
        raise ValueError(f"column {name!r} is of bytes that are no text ({error}); turn them into "
                         "text, or put the column into ignore") from error


def _number_slots(column: pa.Array, plan: FieldPlan, counter: TextCounter,
                  spooled: Spooled) -> np.ndarray:
    """(slots, n) int32: the values of each cell in their order, and 0, the gap, behind them."""
    cells = pc.split_pattern(strings_of(column), pattern=plan.separator)
    lengths = pc.list_value_length(cells).to_numpy()
    longest = int(lengths.max(initial=0))
    if longest > plan.slots:
        row = spooled.rows + int(lengths.argmax()) + 1
        raise ValueError(f"column {plan.column!r} has {longest} values in row {row:,}, more than "
                         f"{plan.slots}; allow more: multi={{{plan.column!r}: "
                         f"[{plan.separator!r}, {longest}]}}")
    spooled.widest[plan.column] = max(spooled.widest.get(plan.column, 1), longest)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    numbers = np.zeros((plan.slots, len(lengths)), np.int32)
    numbers[slots, rows] = counter.add(texts_of(cells.flatten()))
    return numbers


def _numbers(batch: pa.RecordBatch, plan: FieldPlan, before: int) -> np.ndarray:
    """(n,) float64 of a column of numbers, or seconds of one of times; `before` rows precede."""
    column = batch.column(plan.column)
    try:
        if plan.part == "time":
            values = values_of(column)
            return seconds_of(values if isinstance(values, np.ndarray) else texts_of(column),
                              plan.column)
        return numbers_of(values_of(column), plan.column)
    except ValueError as error:
        hint = "" if plan.part == "time" else (
            f". To take its values as categories: bucket={{{plan.column!r}: 'none'}}")
        raise ValueError(f"{error} (in the rows {before + 1:,} to {before + batch.num_rows:,})"
                         f"{hint}") from error
