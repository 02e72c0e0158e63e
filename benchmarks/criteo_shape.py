"""A model of Criteo's shape for benchmarks: 13 numbers in buckets, 26 categories, 1.09 million rows
of the table, of which few keep anything; and raw rows for it. Values are drawn, not learned."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from data import criteo
from models.serving.artefact import Artefact
from models.serving.compact import CompactRows
from models.serving.model import ServedModel
from models.serving.parts import FirstOrder, Pairs
from models.serving.tables import CompactTable
from models.serving.values import Rows
from models.vocabulary import BUCKET, LOG_SQUARED, FieldInfo, Vocabulary, field_of

ROWS, WIDTH, SHARE = 1_090_000, 24, 0.01
NUMBERS, BUCKETS = 13, 45
# rows of the categories that have more than a few hundred values of 10 rows or more, about
LARGE = (2_000, 3_000, 6_000, 10_000, 12_000, 15_000, 40_000, 60_000, 100_000, 120_000, 150_000,
         180_000, 190_000, 200_000)
SKEW = 3  # value = size * u^3, u uniform: few values are common


def pruned(rows: int, width: int, entries: int, seed: int = 0) -> np.ndarray:
    """A table (rows, width) in which few rows keep much and many keep nothing."""
    rng = np.random.default_rng(seed)
    places = rng.random((rows, width), np.float32) / rng.pareto(1.2, (rows, 1)).astype(np.float32)
    kept = places <= np.partition(places, entries - 1, axis=None)[entries - 1]
    return np.where(kept, rng.normal(size=(rows, width)), 0).astype(np.float32)


def field_sizes(rows: int = ROWS) -> list[int]:
    """Rows of the table of each of 39 fields; they add up to `rows`."""
    categories = [100] * (26 - len(LARGE)) + [size * rows // ROWS for size in LARGE]
    sizes = [BUCKETS] * NUMBERS + categories
    sizes[-1] += rows - sum(sizes)
    return sizes


def artefact(values: str, rows: int = ROWS) -> Artefact:
    """An exported FM."""
    sizes = field_sizes(rows)
    table = pruned(rows, WIDTH, int(SHARE * rows * WIDTH))
    packed, new_ids = CompactRows.pack(table, values)
    weights = np.random.default_rng(1).normal(size=(rows, 1)).astype(np.float32) / 10
    parts = [FirstOrder(Rows.of(weights, values), torch.zeros(1)), Pairs()]
    model = ServedModel(CompactTable(packed, rows, len(sizes)), parts)
    names = [column.name for column in criteo.LAYOUT.columns]
    about = {"run_id": "drawn", "dataset": "criteo", "values": values, "dense": [],
             "raw": {"separator": "\t", "header": False, "columns": names, "label": names[0]}}
    vocabulary = _vocabulary(tuple(sizes), tuple(names[1:]))
    return Artefact(model, vocabulary.renumbered(new_ids), about)


@functools.cache
def _vocabulary(sizes: Sequence[int], names: Sequence[str]) -> Vocabulary:
    """The last id of each field is that of unknown values."""
    fields, first = [], 0
    for size, name in zip(sizes, names, strict=True):
        number = len(fields) < NUMBERS
        info = FieldInfo(name, unknown=first + size - 1,
                         **({"kind": BUCKET, "rule": LOG_SQUARED} if number else {}))
        own = range(size - 1)
        texts = [str(value - 2) if number else text_of(name, value) for value in own]
        fields.append(field_of(info, texts, range(first, first + size - 1), [10] * (size - 1)))
        first += size
    return Vocabulary(tuple(fields))


def text_of(name: str, value: int) -> str:
    """Eight hexadecimal digits, as Criteo's categories are.

    >>> text_of("C1", 7)
    'bf15d6c3'
    """
    return f"{(value * 2_654_435_761 + sum(name.encode()) * 40_503 + 1_800_000_000) % 2**32:08x}"


def write_rows(path: Path, count: int, rows: int = ROWS) -> None:
    """Write raw rows without a label."""
    rng = np.random.default_rng(2)
    columns = []
    for place, size in enumerate(field_sizes(rows)):
        name = criteo.LAYOUT.columns[place + 1].name
        drawn = (size * rng.random(count) ** SKEW).astype(np.int64).tolist()
        if place < NUMBERS:
            columns.append([str(number * number) if number else "" for number in drawn])
        else:
            columns.append([text_of(name, number) for number in drawn])
    lines = ["\t".join(cells) for cells in zip(*columns, strict=True)]
    path.write_text("\n".join(lines) + "\n")
