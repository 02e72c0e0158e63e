"""What AFM's statistics cost at the number of ids that Criteo's whole file has: seconds, rows a
second, memory.

    python benchmarks/bench_afm_statistics.py
    python benchmarks/bench_afm_statistics.py --rows 200000 --json tmp/statistics.json

A planted file (`data.synthetic.raw_planted`) of `--rows` rows is made and encoded, every value with
a row of its own, which is not timed. Each field of the table then has as many rows as a file of
full length has values, 33.8 million in all; those that the shorter file does not show have the
frequency 0. The model is a DeepFM of the published size (d 16, 400-400-400).

data: batches of the training rows alone, as a calibration reads them; the bare rate.
frequencies: how often each id occurs.
table: mean and covariance of every field's vectors, by frequency; no pass over the data. Parts of
    which nothing was seen cost next to nothing.
smoothed: the same with 0.5 added to every count, so that every row is read.
forward: the model, on `--layer-rows` rows.
layers: the same with mean and covariance of the two hidden layers behind the first.

Memory is what the process holds at its peak beyond what it held before. On one thread processor
time is measured too.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks  # noqa: F401 - its engine says how torch's threads wait, before torch

# isort: split
import torch
from torch import Tensor

from compression.afm.factor import choose_layers
from compression.afm.statistics import layer_moments, table_moments
from compression.calibration import BATCH
from data import criteo, feature_counts
from data.loader import Loader
from data.raw import ingest
from data.store import Dataset
from data.synthetic import raw_planted
from engine.record import commit, device_name, peak_memory_bytes, reset_peak_memory
from models.build import build_embedding, build_model
from utils.files import write_json

CPU = torch.device("cpu")
VALUES = {"model": "deepfm", "embedding": "uniform", "latent_dim": 16, "mlp_dims": (400, 400, 400),
          "dropout": 0.0}
SEED = 1


def made_rows(rows: int, folder: Path) -> Dataset:
    """A planted file of so many rows, encoded below `folder` without a threshold."""
    path = folder / "train.txt"
    raw_planted.write("criteo", rows, path)
    return ingest.open_raw(replace(criteo.LAYOUT, min_count=1), str(path), folder / "cache", False,
                           "all", "random")


def full_sizes(dataset: Dataset) -> tuple[int, ...]:
    """Rows of each field when the file has its full length."""
    fields = raw_planted.LAYOUTS["criteo"].fields
    return tuple(max(size, field.size) for size,
                 field in zip(dataset.schema.sizes, fields, strict=True))


def starts_of(sizes: Sequence[int]) -> np.ndarray:
    """Number of each field's first row."""
    return np.cumsum((0, *sizes[:-1]))


def measured(part: str, about: dict[str, Any], work: Callable[[], int]) -> dict[str, Any]:
    """Run `work`, which says how many rows it went through, and time it."""
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    started, processor = time.perf_counter(), time.process_time()
    rows = work()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    extra = peak_memory_bytes(CPU) - before
    return {"part": part, "rows": rows, "seconds": seconds, "processor_seconds": processor,
            "rows_per_processor_second": rows / processor, "extra_memory_bytes": extra, **about}


def measure(dataset: Dataset, layer_rows: int) -> list[dict[str, Any]]:
    """A line for each part."""
    sizes = full_sizes(dataset)
    table = build_embedding(sizes, VALUES, SEED)
    model: Any = build_model(sizes, VALUES, SEED, table).eval()
    names = choose_layers(model, None)
    shift = torch.from_numpy((starts_of(sizes) - starts_of(dataset.schema.sizes)).astype(np.int32))
    loader = Loader(*dataset.split("train"), BATCH, SEED)
    about = {"ids": sum(sizes), "ids_seen": dataset.schema.num_rows,
             "threads": torch.get_num_threads(),
             "device": device_name(CPU), "commit": commit()}
    counts = torch.zeros(sum(sizes), dtype=torch.int64)

    def batches(most: int) -> Iterator[Tensor]:
        for number, (ids, _) in enumerate(loader.epoch(0)):
            if number * BATCH >= most:
                return
            yield ids + shift

    def count() -> int:
        seen = feature_counts.count(dataset).split(list(dataset.schema.sizes))
        for start, part in zip(starts_of(sizes), seen, strict=True):
            counts[start:start + len(part)] = part
        return loader.rows

    def statistics(smoothing: float = 0.0) -> int:
        table_moments(table.table(), counts, sizes, smoothing)
        return sum(sizes)

    def forward() -> int:
        with torch.no_grad():
            return sum(len(model(ids)) for ids in batches(layer_rows))

    def layers() -> int:
        return int(layer_moments(model, batches(layer_rows), names)[names[0]].count)

    works = {"data": lambda: sum(len(ids) for ids in batches(loader.rows)), "frequencies": count,
             "table": statistics,
             "smoothed": lambda: statistics(0.5), "forward": forward, "layers": layers}
    return [measured(part, about, work) for part, work in works.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make the data, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000, help="of the planted file")
    options.add_argument("--layer-rows", type=int, default=200_000,
                         help="training rows that go through the model")
    options.add_argument("--scratch", type=Path,
                         help="folder for the raw file and what comes of it; a temporary one")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
        lines = measure(made_rows(chosen.rows, Path(scratch)), chosen.layer_rows)
    print("{device}, {threads} threads, commit {commit}; {ids:,} ids, {ids_seen:,} of them in the "
          "data".format(
        **lines[0]))
    for line in lines:
        print("{part:<12} {rows:>12,} rows {seconds:>8.1f} s {processor_seconds:>8.1f} s of "
              "processor {rows_per_processor_second:>13,.0f} rows/s {0:>8,.0f} MB more".format(
                  line["extra_memory_bytes"] / 1e6, **line))
    if chosen.json:
        write_json(chosen.json, lines)


if __name__ == "__main__":
    main()
