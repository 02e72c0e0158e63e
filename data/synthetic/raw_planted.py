"""Made files in the raw formats of Criteo and Avazu, of full size and with labels from a teacher
that is known.

The files at Kaggle may not be passed on. These have their format, number of rows, numbers of
distinct values, long tails and empty cells, so that what reads the real ones can be run at full
size; and as in `data.synthetic.planted` a teacher factorisation machine with a planted width for
each field draws the labels, so that it is known what can be learned.

A cell depends on seed, row and field alone: neither the number of rows nor that of threads changes
a row. A field has `head` popular values, of which number r (from 0) is drawn about in proportion to
1 / (r + flat), and a tail of values of one row each: row i holds tail value
(factor * i + offset) mod `full_rows` if there is one of that number. So a file of full length holds
each tail value once, and a shorter one its share of them. The teacher has one vector for a whole
tail: nobody can learn more from values that are seen once.
"""

import argparse
import hashlib
import itertools
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.synthetic.raw_draws import DECIMAL, FIELD, HEX, HOUR, NUMBER, fill, scores, spreads
from utils.files import atomic_path, require_writable
from utils.text import unknown

SEED = 20_210_503  # of teacher, rows and labels
CHUNK = 20_000  # rows that a thread fills at a time, about 5 MB
LONGEST = 400  # bytes; no line of either format is longer
PAIRS, FIRST_ORDER = 1.1, 0.75  # standard deviations of the two parts of the teacher's logits
# rows from all over the file, by which the teacher's logits are centred and scaled
SAMPLE = 1 << 15


@dataclass(frozen=True)
class Field:
    """One column, id and label aside.

    Args:
        name: of the column.
        kind: NUMBER (a quantity), HEX (8 digits), DECIMAL (a category with a number for a name) or
            HOUR (YYMMDDHH).
        width: coordinates of the teacher's vectors in use, from 0 to WIDEST.
        size: distinct cells at full length, the empty one among them. A NUMBER has no fixed values;
            0.
        head: popular values among them.
        flat: 1 makes the head's popularity Zipf's law, more makes it more even.
        missing: share of empty cells.
        lowest: of a NUMBER, the least; of a DECIMAL, the most popular value.
        step: from one DECIMAL to the next.
        mean: of ln(NUMBER - lowest).
        deviation: of the same.
    """

    name: str
    kind: int
    width: int
    size: int = 0
    head: int = 0
    flat: float = 1.0
    missing: float = 0.0
    lowest: int = 0
    step: int = 0
    mean: float = 0.0
    deviation: float = 0.0

    @property
    def tail(self) -> int:
        """Values of one row each."""
        return max(self.size - self.head - (self.missing > 0), 0)


@dataclass(frozen=True)
class RawLayout:
    """A raw file.

    Args:
        full_rows: rows of the real one.
        positives: about this share of the labels is 1.
        separator: one character.
        with_ids: a line starts with an id, and the file with a header.
        fields: in the order of the columns, which follow the label.
    """

    full_rows: int
    positives: float
    separator: str
    with_ids: bool
    fields: tuple[Field, ...]


def _numbers(*rows: tuple[str, int, float, float, float, int]) -> tuple[Field, ...]:
    return tuple(Field(name, NUMBER, width, missing=missing, mean=mean, deviation=deviation,
                       lowest=lowest)
                 for name, width, missing, mean, deviation, lowest in rows)


def _hexes(*rows: tuple[str, int, int, int, float]) -> tuple[Field, ...]:
    return tuple(Field(name, HEX, width, size, head, missing=missing) for name, width, size, head,
                 missing in rows)


def _decimals(*rows: tuple[str, int, int, int, int, int]) -> tuple[Field, ...]:
    return tuple(Field(name, DECIMAL, width, size, head, lowest=lowest, step=step)
                 for name, width, size, head, lowest, step in rows)


# Criteo's heads are as large as its fields are at 10 rows a value, those of Avazu are chosen: with
# one unknown value a field they should add up to the paper's 1,086,810 and 645,394 features. The
# heads of the longest fields are about 1 % larger, because their last values are seen some 15
# times, and now and then fewer than 10. Counted over all rows drawn with the default seed:
# 1,086,938 and 645,364, and as many distinct values as `size` says in every field.
LAYOUTS = {
    "criteo": RawLayout(45_840_617, 0.256, "\t", False, (
        *_numbers(  # name, width, missing, mean, deviation, lowest
            ("I1", 1, .45, 0.41, 1.87, 0), ("I2", 2, 0, 1.95, 2.31, -3),
            ("I3", 0, .21, 2.08, 2.66, 0),
            ("I4", 1, .22, 1.61, 1.42, 0), ("I5", 4, .03, 7.82, 2.60, 0),
            ("I6", 2, .22, 3.69, 2.07, 0),
            ("I7", 1, .04, 1.25, 2.28, 0), ("I8", 0, 0, 2.08, 1.91, 0),
            ("I9", 4, .04, 3.71, 1.72, 0),
            ("I10", 0, .45, -0.22, 0.73, 0), ("I11", 1, .04, 0.41, 1.39, 0),
            ("I12", 0, .76, -0.36, 1.90, 0),
            ("I13", 8, .22, 1.79, 1.97, 0)),
        *_hexes(  # name, width, size, head, missing
            ("C1", 4, 1460, 1457, 0), ("C2", 8, 583, 554, 0), ("C3", 4, 10_131_227, 196_000, .034),
            ("C4", 1, 2_202_608, 138_799, .034), ("C5", 2, 305, 305, 0), ("C6", 1, 24, 17, .12),
            ("C7", 2, 12_517, 11_969, 0), ("C8", 0, 633, 633, 0), ("C9", 0, 3, 3, 0),
            ("C10", 0, 93_145, 42_645, 0), ("C11", 8, 5683, 5177, 0),
            ("C12", 0, 8_351_593, 194_000, .034),
            ("C13", 2, 3194, 3174, 0), ("C14", 1, 27, 26, 0), ("C15", 1, 14_992, 11_421, 0),
            ("C16", 8, 5_461_306, 181_340, .034), ("C17", 1, 10, 10, 0), ("C18", 4, 5652, 4653, 0),
            ("C19", 0, 2173, 2030, .44), ("C20", 0, 4, 3, .44),
            ("C21", 2, 7_046_547, 190_380, .034),
            ("C22", 0, 18, 16, .76), ("C23", 2, 15, 15, 0), ("C24", 8, 286_181, 59_695, .034),
            ("C25", 0, 105, 84, .44), ("C26", 4, 142_572, 45_569, .44)))),
    "avazu": RawLayout(40_428_967, 0.170, ",", True, (
        Field("hour", HOUR, 0, 240, 240),
        # name, width, size, head, lowest, step
        *_decimals(("C1", 1, 7, 7, 1001, 1), ("banner_pos", 2, 7, 7, 0, 1)),
        *_hexes(
            ("site_id", 8, 4737, 2900, 0), ("site_domain", 4, 7745, 3300, 0),
            ("site_category", 1, 26, 22, 0),
            ("app_id", 4, 8552, 3900, 0), ("app_domain", 2, 559, 240, 0),
            ("app_category", 0, 36, 28, 0),
            ("device_id", 0, 2_686_408, 150_000, 0)),
        Field("device_ip", HEX, 2, 6_729_486, 478_340, flat=5000),
        Field("device_model", HEX, 8, 8251, 6000),
        *_decimals(
            ("device_type", 0, 5, 5, 0, 1), ("device_conn_type", 1, 4, 4, 0, 1),
            ("C14", 8, 2626, 2420, 375, 9),
            ("C15", 0, 8, 8, 120, 60), ("C16", 1, 9, 9, 20, 30), ("C17", 4, 435, 420, 112, 6),
            ("C18", 2, 4, 4, 0, 1),
            ("C19", 0, 68, 68, 33, 28), ("C20", 1, 172, 170, -1, 1000), ("C21", 4, 60, 60, 1, 4)))),
}


@dataclass(frozen=True)
class Plan:
    """What the kernels need.

    Args:
        fields: (F,) of raw_draws.FIELD.
        weights: (3,) of the logit: constant, of the pairs, of the first order.
        keys: (2,) uint64, of labels and ids.
    """

    fields: np.ndarray
    weights: np.ndarray
    keys: np.ndarray


def planted_widths(name: str) -> dict[str, int]:
    """Field -> coordinates of the teacher's vectors in use, which is the rank of the field's
    interactions.

    >>> planted_widths("criteo")["C3"], planted_widths("avazu")["device_id"]
    (4, 0)
    """
    return {field.name: field.width for field in _layout(name).fields}


def teacher_logits(name: str, start: int, rows: int, seed: int = SEED) -> np.ndarray:
    """The teacher's own logits (rows,) float64 of the rows from `start` on, of which the labels are
    tosses.

    Raises:
        ValueError: the data set is not known, or has no such rows.

    >>> bool((teacher_logits("avazu", 5, 3) == teacher_logits("avazu", 0, 8)[5:]).all())
    True
    """
    layout = _layout(name)
    if start < 0 or not 1 <= rows <= layout.full_rows - start:
        raise ValueError(f"{name} has rows 0 to {layout.full_rows - 1}, got start {start} and "
                         f"{rows} rows")
    plan = _plan(layout, seed)
    parts = scores(plan.fields, np.arange(start, start + rows), layout.full_rows)
    return plan.weights[0] + parts @ plan.weights[1:]


def write(name: str, rows: int, path: Path, seed: int = SEED, values: int | None = None) -> None:
    """Write the first `rows` rows of a data set, whole or not at all; `values` is the most that a
    category has of them, beside the gap.

    Raises:
        ValueError: the data set is not known, has not so many rows, or is to have fewer than 2
            values.
        OSError: the file cannot be written there.
    """
    layout = _layout(name, values)
    if not 1 <= rows <= layout.full_rows:
        raise ValueError(f"rows must be from 1 to {layout.full_rows}, as many as {name} has; got "
                         f"{rows}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; --out must name the file")
    require_writable(path.parent)
    plan, workers = _plan(layout, seed), os.cpu_count() or 1
    with (atomic_path(path) as temporary, temporary.open("wb") as file,
          ThreadPoolExecutor(workers) as pool,
          tqdm(total=rows, desc=f"writing {path.name}", unit="rows", unit_scale=True,
               disable=None) as bar):
        if layout.with_ids:
            file.write((layout.separator.join(["id", "click", *planted_widths(name)])
                        + "\n").encode())
        jobs = (partial(_lines, layout, plan, start, min(start + CHUNK, rows))
                for start in range(0, rows, CHUNK))
        for lines in _in_order(pool, jobs, ahead=workers + 2):
            file.write(lines.data)
            bar.update(min(CHUNK, rows - bar.n))


def main() -> None:
    """`python -m data.synthetic.planted criteo --rows N --out FILE [--seed S]`.

    Bad input is one line and exit code 2.
    """
    options = argparse.ArgumentParser("python -m data.synthetic.planted", description=(
        "Write a file in the raw format of Criteo or Avazu, with labels from a teacher that is "
        "known."))
    options.add_argument("name", help=" or ".join(LAYOUTS))
    full = ", ".join(f"{name} {layout.full_rows}" for name, layout in LAYOUTS.items())
    options.add_argument("--rows", type=int, required=True,
                         help=f"how many; at full length: {full}")
    options.add_argument("--out", type=Path, required=True,
                         help="the file, say data/criteo/train.txt")
    options.add_argument("--seed", type=int, default=SEED,
                         help="of teacher, rows and labels (default: %(default)s)")
    options.add_argument("--values", type=int,
                         help="most of a category beside the gap, to learn from a short file")
    chosen = options.parse_args()
    try:
        write(chosen.name, chosen.rows, chosen.out, chosen.seed, chosen.values)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"stopped; {chosen.out} is as it was", file=sys.stderr)
        sys.exit(130)
    print(f"{chosen.out}: {chosen.rows:,} rows, {chosen.out.stat().st_size:,} bytes")


def _layout(name: str, values: int | None = None) -> RawLayout:
    if name not in LAYOUTS:
        raise ValueError(unknown("data set", name, LAYOUTS))
    if values is not None and values < 2:
        raise ValueError(f"a category needs 2 values or more, got {values}")
    layout = LAYOUTS[name]
    if values is None:
        return layout
    # without a tail
    fewer = (replace(field, head=min(field.head, values), size=0)
             if field.kind in (HEX, DECIMAL) else field for field in layout.fields)
    return replace(layout, fields=tuple(fewer))


@lru_cache(maxsize=4)
def _plan(layout: RawLayout, seed: int) -> Plan:
    """Parameters and keys of all fields, and a teacher whose logits have the standard deviations
    and share of positives that they should, by a sample over the full length (so that a short file
    has the same teacher)."""
    fields = np.array([_parameters(field, layout.full_rows, position, seed)
                       for position, field in enumerate(layout.fields)], FIELD)
    parts = scores(fields, np.arange(SAMPLE) * layout.full_rows // SAMPLE, layout.full_rows)
    scales = np.array([PAIRS, FIRST_ORDER]) / parts.std(axis=0)
    constant = _constant(parts @ scales, layout.positives)
    keys = np.array([_key(seed, stream, 0) for stream in ("labels", "ids")], np.uint64)
    return Plan(fields, np.array([constant, *scales]), keys)


def _parameters(field: Field, full_rows: int, position: int, seed: int) -> tuple[float, ...]:
    """In the order of FIELD."""
    factors = (_key(seed, f"factor {attempt}", position) % full_rows
               for attempt in itertools.count())
    factor = next(factor for factor in factors if spreads(factor, full_rows))
    return (
        field.kind, field.width, field.head, field.tail, field.flat, field.lowest, field.step,
        field.mean,
        field.deviation, field.missing / (1 - field.tail / full_rows),
        math.log((field.head + field.flat) / field.flat),
        factor, _key(seed, "offset", position) % full_rows, _key(seed, "cells", position),
        _key(seed, "vectors", position), _key(0, "digits", position) >> 32,
    )


def _key(seed: int, stream: str, position: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {stream} {position}".encode(),
                                          digest_size=8).digest())


def _constant(logits: np.ndarray, positives: float) -> float:
    """What to add to the logits so that their mean probability is `positives`."""
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        too_many = (1 / (1 + np.exp(-logits - middle))).mean() > positives
        low, high = (low, middle) if too_many else (middle, high)
    return low


def _lines(layout: RawLayout, plan: Plan, start: int, stop: int) -> np.ndarray:
    text = np.empty((stop - start) * LONGEST, np.uint8)
    used = fill(text, plan.fields, plan.weights, plan.keys, start, stop, layout.full_rows,
                ord(layout.separator),
                layout.with_ids)
    return text[:used]


def _in_order(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], np.ndarray]],
              ahead: int) -> Iterator[np.ndarray]:
    """Results of the jobs in their order, with at most `ahead` of them in memory."""
    pending: deque[Future[np.ndarray]] = deque()
    for job in jobs:
        pending.append(pool.submit(job))
        if len(pending) == ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
