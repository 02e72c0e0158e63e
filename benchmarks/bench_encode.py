"""How long raw -> encoded takes: row by row in Python into LMDB, and ours.

    python benchmarks/bench_encode.py --rows 5000000
    python benchmarks/bench_encode.py --rows 45840617 --only ours --json
    benchmarks/results/encode_full.json
    python benchmarks/bench_encode.py --only ours --jobs 1 2 1 2 1 2 --rows 1000000

The raw file is made first (not timed) and deleted at the end. Each variant runs in a process of its
own, so that peak memory is its own; the file's bytes are in the page cache for both, as far as they
fit.

lmdb: two passes of Python over the lines, a dictionary a field to count values and another to map
    them, one numpy array a row, written under its number into LMDB in transactions of 100,000: the
    way of the published data loaders. Needs the package lmdb (requirements-dev.txt).
ours: `data.raw.ingest.encode_file`, all cores; split, hashing and the numbers as floats included,
which lmdb does without. With --jobs once for each number of processes that read the text; processor
time is then that of all of them, and peak memory of the first process and of the largest other.
"""

import argparse
import json
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import avazu, criteo
from data.raw import ingest
from data.raw.layout import BUCKET, ID, LABEL, Layout
from data.synthetic import raw_planted
from utils.files import write_json

LAYOUTS = {"criteo": criteo.LAYOUT, "avazu": avazu.LAYOUT}
VARIANTS = ("lmdb", "ours")
TRANSACTION = 100_000


def ours(layout: Layout, path: Path, folder: Path, jobs: int = 1) -> int:
    """Rows encoded."""
    ingest.encode_file(layout, path, folder, {"vocabulary": "all"}, processes=jobs)
    return int(json.loads((folder / "manifest.json").read_text())["rows"])


def row_by_row(layout: Layout, path: Path, folder: Path) -> int:
    """Rows encoded."""
    import lmdb

    counts: list[Counter[str]] = [Counter() for _ in layout.fields]
    for _, values in _rows(layout, path):
        for counter, value in zip(counts, values, strict=True):
            counter[value] += 1
    codes = []
    for counter in counts:
        known = sorted(value for value, count in counter.items() if count >= layout.min_count)
        codes.append({value: code for code, value in enumerate(known)})
    del counts
    rows = 0
    with lmdb.open(str(folder / "rows"), map_size=1 << 40) as database:
        pending = []
        for label, values in _rows(layout, path):
            row = np.zeros(len(values) + 1, np.uint32)
            row[0] = label
            for field, value in enumerate(values):
                row[field + 1] = codes[field].get(value, len(codes[field]))
            pending.append((struct.pack(">I", rows), row.tobytes()))
            rows += 1
            if len(pending) == TRANSACTION:
                _put(database, pending)
                pending = []
        _put(database, pending)
    return rows


def _put(database: Any, pending: list[tuple[bytes, bytes]]) -> None:
    with database.begin(write=True) as transaction:
        for key, value in pending:
            transaction.put(key, value)


def _rows(layout: Layout, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(label, value of each field as text) of each line."""
    fields = [position for position, column in enumerate(layout.columns)
              if column.kind not in (ID, LABEL)]
    label = next(position for position, column in enumerate(layout.columns) if column.kind == LABEL)
    with path.open() as file:
        if layout.has_header:
            next(file)
        for line in file:
            cells = line.rstrip("\n").split(layout.separator)
            yield int(cells[label]), [
                _bucket(cells[position]) if layout.columns[position].kind == BUCKET
                else cells[position]
                for position in fields]


def _bucket(cell: str) -> str:
    if not cell:
        return "NULL"
    value = int(cell)
    return str(math.floor(math.log(value) ** 2)) if value > 2 else str(value - 2)


def run_variant(variant: str, layout: Layout, path: Path, folder: Path,
                jobs: int = 1) -> dict[str, Any]:
    """Encode in this process and measure."""
    # not above, where the processes that read the text would import it too
    import torch

    from engine.record import commit, device_name, peak_memory_bytes

    started, before = time.perf_counter(), _processor_seconds()
    rows = (ours(layout, path, folder, jobs) if variant == "ours"
            else row_by_row(layout, path, folder))
    seconds = time.perf_counter() - started
    others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    stored = sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
    return {"dataset": layout.name, "variant": variant, "rows": rows, "seconds": seconds,
            "processor_seconds": _processor_seconds() - before, "rows_per_second": rows / seconds,
            "peak_memory_bytes": peak_memory_bytes(torch.device("cpu")),
            "jobs": jobs, "peak_memory_of_others_bytes": others if jobs > 1 else 0,
            "raw_bytes": path.stat().st_size,
            "stored_bytes": stored, "cores": os.cpu_count(),
            "device": device_name(torch.device("cpu")),
            "commit": commit()}


def _processor_seconds() -> float:
    """Of this process and those that it has started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def in_own_process(variant: str, layout: Layout, path: Path, scratch: Path,
                   jobs: int = 1) -> dict[str, Any]:
    """`run_variant` in a fresh process."""
    folder = scratch / variant
    folder.mkdir()
    record = scratch / f"{variant}.json"
    subprocess.run([sys.executable, __file__, "--inner", variant, layout.name, str(path),
                    str(folder), str(record), str(jobs)],
                   check=True)
    shutil.rmtree(folder)
    return json.loads(record.read_text())


def table(rows: list[dict[str, Any]]) -> str:
    """One line a variant."""
    slowest = min(row["rows_per_second"] for row in rows)
    lines = [
        f"{'variant':<8}{'jobs':>5}{'rows':>12}{'s':>9}{'cpu s':>9}{'rows/s':>12}"
        f"{'peak GB':>9}{'stored GB':>11}{'':>7}"
    ]
    lines += [
        f"{row['variant']:<8}{row['jobs']:>5}{row['rows']:>12,}{row['seconds']:>9.1f}"
        f"{row['processor_seconds']:>9.1f}"
        f"{row['rows_per_second']:>12,.0f}{row['peak_memory_bytes'] / 1e9:>9.2f}"
        f"{row['stored_bytes'] / 1e9:>11.2f}{row['rows_per_second'] / slowest:>6.1f}x"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make the file, measure, print, write."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--inner"]:
        variant, name, path, folder, record, jobs = given[1:]
        write_json(Path(record), run_variant(variant, LAYOUTS[name], Path(path), Path(folder),
                                             int(jobs)))
        return
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--dataset", default="criteo", choices=tuple(LAYOUTS))
    options.add_argument("--rows", type=int, default=1_000_000, help="of the planted file")
    options.add_argument("--only", choices=VARIANTS, help="both when left away")
    options.add_argument("--jobs", type=int, nargs="+", default=[1], metavar="N",
                         help="processes of ours that read the text, one measurement each")
    options.add_argument("--scratch", type=Path,
                         help="folder for the raw file and what comes of it; a temporary one")
    options.add_argument("--json", type=Path, metavar="FILE",
                         help="write the rows here, e.g. below benchmarks/results")
    chosen = options.parse_args(given)
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
        path = Path(scratch) / "train.txt"
        raw_planted.write(chosen.dataset, chosen.rows, path)
        variants = [chosen.only] if chosen.only else VARIANTS
        rows = []
        for variant in variants:
            rows += [in_own_process(variant, LAYOUTS[chosen.dataset], path, Path(scratch), jobs)
                     for jobs in (chosen.jobs if variant == "ours" else [1])]
    print("{dataset}, {cores} cores, {device}, commit {commit}".format(**rows[0]))
    print(table(rows))
    if chosen.json:
        write_json(chosen.json, rows)


if __name__ == "__main__":
    main()
