"""How long a table of one's own takes to encode, and to read with other readers.

    python benchmarks/bench_table.py --rows 1000000
    python benchmarks/bench_table.py --rows 1000000 20000000 --json benchmarks/results/table.json

The table has 12 columns: a label, users, items and queries by a Zipf law, a price with cents, a
time of its own in most rows, and small columns with gaps, accents and commas. It is made first (not
timed). Each variant runs in a process of its own, so that peak memory is its own.

csv, parquet: `data.table.encode.open_table`, both passes, split and hashing included.
pyarrow, polars, pandas: the CSV is read to its end in batches of text, and nothing else. polars is
    left out where it is not installed.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.table.encode import open_table
from data.table.options import OwnTable, TableOptions
from data.table.read import Table
from engine.record import commit, device_name, peak_memory_bytes
from utils.files import write_json

VARIANTS = ("csv", "parquet", "pyarrow", "polars", "pandas")
CHUNK = 1_000_000  # rows made or read at a time
CITIES = np.array(["Zürich", "Rome", "Oslo", "", "New York, NY"])


def chunk(rows: int, seed: int) -> pd.DataFrame:
    """Rows whose label follows user, item and hour."""
    rng = np.random.Generator(np.random.PCG64(seed))
    user, item = rng.zipf(1.3, rows) % 50_000, rng.zipf(1.2, rows) % 20_000
    hour = rng.integers(0, 24, rows)
    logits = -1.5 + 0.8 * (user % 7 / 3 - 1) + 0.7 * (item % 5 / 2 - 1) + 0.5 * (hour > 18)
    seconds = 2_592_000 * seed + np.sort(rng.integers(0, 2_592_000, rows))
    return pd.DataFrame({
        "click": (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int8),
        "user": user, "item": item, "price": rng.gamma(2, 20, rows).round(2),
        "city": CITIES[rng.integers(0, len(CITIES), rows)],
        "device": np.array(["ios", "android", "web"])[rng.integers(0, 3, rows)], "hour": hour,
        "age": rng.integers(18, 80, rows),
        "query": np.char.add("q", (rng.zipf(1.4, rows) % 200_000).astype(str)),
        "position": rng.integers(1, 10, rows),
        "time": pd.Timestamp("2026-01-01") + pd.to_timedelta(seconds, unit="s"),
        "campaign": np.char.add("c", rng.integers(0, 300, rows).astype(str))})


def make(folder: Path, rows: int, kind: str) -> Path:
    """Write the table as table.csv or table.parquet."""
    path = folder / f"table.{kind}"
    writer = None
    for number, first in enumerate(range(0, rows, CHUNK)):
        made = chunk(min(CHUNK, rows - first), number)
        if kind == "csv":
            made.to_csv(path, index=False, mode="a" if number else "w", header=not number)
            continue
        table = pa.Table.from_pandas(made, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return path


def read(variant: str, path: Path, scratch: Path) -> int:
    """Rows encoded or read."""
    if variant in ("csv", "parquet"):
        own = OwnTable("table", TableOptions(label="click"))
        return sum(open_table(str(path), scratch / "cache", own).counts)
    names = Table.of(path).columns
    if variant == "pyarrow":
        strings = pa_csv.ConvertOptions(column_types={name: pa.string() for name in names})
        parse = pa_csv.ParseOptions(newlines_in_values=True)
        options = pa_csv.ReadOptions(block_size=1 << 23)
        return sum(batch.num_rows for batch in pa_csv.open_csv(path, options, parse, strings))
    if variant == "polars":
        import polars as pl

        lazy = pl.scan_csv(path, infer_schema=False)
        return sum(len(batch) for batch in lazy.collect_batches(chunk_size=100_000))
    batches = pd.read_csv(path, dtype=str, keep_default_na=False, chunksize=100_000)
    return sum(len(batch) for batch in batches)


def measured(variant: str, path: Path, scratch: Path) -> dict[str, Any]:
    """One variant in this process."""
    started, processor = time.perf_counter(), time.process_time()
    rows = read(variant, path, scratch)
    seconds = time.perf_counter() - started
    return {"variant": variant, "rows": rows, "seconds": seconds, "rows_per_second": rows / seconds,
            "processor_seconds": time.process_time() - processor,
            "peak_memory_bytes": peak_memory_bytes(torch.device("cpu")),
            "file_bytes": path.stat().st_size, "cores": os.cpu_count(), "commit": commit(),
            "device": device_name(torch.device("cpu"))}


def in_own_process(variant: str, path: Path, scratch: Path) -> dict[str, Any]:
    """`measured` in a fresh process."""
    record = scratch / f"{variant}.json"
    subprocess.run([sys.executable, __file__, "--inner", variant, str(path), str(scratch),
                    str(record)], check=True)
    return json.loads(record.read_text())


def of_size(size: int, variants: Sequence[str], scratch: Path | None) -> list[dict[str, Any]]:
    """Every variant on a table of so many rows, which is made here and deleted at the end."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        kinds = {variant: "parquet" if variant == "parquet" else "csv" for variant in variants}
        files = {kind: make(Path(folder), size, kind) for kind in sorted(set(kinds.values()))}
        return [in_own_process(variant, files[kind], Path(folder))
                for variant, kind in kinds.items()]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a variant."""
    lines = [f"{'variant':<9}{'rows':>12}{'s':>8}{'cpu s':>8}{'rows/s':>12}{'peak MB':>9}"]
    lines += [f"{row['variant']:<9}{row['rows']:>12,}{row['seconds']:>8.1f}"
              f"{row['processor_seconds']:>8.1f}{row['rows_per_second']:>12,.0f}"
              f"{row['peak_memory_bytes'] / 1e6:>9.0f}" for row in rows]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make the files, measure, print, write."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--inner"]:
        variant, path, scratch, record = given[1:]
        write_json(Path(record), measured(variant, Path(path), Path(scratch)))
        return
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    options.add_argument("--only", choices=VARIANTS, help="all when left away")
    options.add_argument("--scratch", type=Path, help="folder for the files; a temporary one")
    options.add_argument("--json", type=Path, metavar="FILE",
                         help="write the rows here, e.g. below benchmarks/results")
    chosen = options.parse_args(given)
    variants = [chosen.only] if chosen.only else VARIANTS
    if "polars" in variants and importlib.util.find_spec("polars") is None:
        print("left out: polars is not installed")
        variants = [variant for variant in variants if variant != "polars"]
    rows: list[dict[str, Any]] = []
    for size in chosen.rows:
        rows += of_size(size, variants, chosen.scratch)
    print("{cores} cores, {device}, commit {commit}".format(**rows[0]))
    print(table(rows))
    if chosen.json:
        write_json(chosen.json, rows)


if __name__ == "__main__":
    main()
