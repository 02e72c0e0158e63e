"""How long a lookup takes in a packed table, beside a dense float32 one.

    python benchmarks/bench_packed.py tmp/runs/ID/table.packed
    python benchmarks/bench_packed.py tmp/runs/ID/table.packed --json benchmarks/results/packed.json

Microseconds a call, on one thread: the median of many. Ids are drawn within their fields by a power
law, so that few rows are common, as in data.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.record import commit, device_name
from models import packed_table
from models.kernels.packed import unpack_rows_plain
from utils.files import write_json

BATCHES = (1, 1024, 16_384)
SKEW = 2  # row = size * u^2, u uniform


def ids_of(sizes: Sequence[int], rows: int, generator: np.random.Generator) -> Tensor:
    """(rows, F) int32."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    own = (np.array(sizes) * generator.random((rows, len(sizes))) ** SKEW).astype(np.int32)
    return torch.from_numpy(own + starts.astype(np.int32))


def microseconds(call: Callable[[], Any], seconds: float) -> float:
    """Of one call, the median of at least 5 in about so many seconds."""
    for _ in range(3):
        call()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1e6 * float(np.median(times))


def measure(path: Path, batches: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """A record for each batch size and way."""
    packed = packed_table.load(path)
    dense = packed.lookup(torch.arange(packed.num_rows)[:, None])[:, 0].contiguous()
    records = []
    for rows in batches:
        ids = ids_of(packed.field_sizes, rows, np.random.default_rng(rows))
        ways: dict[str, Callable[[], Tensor]] = {
            "dense": lambda ids=ids: torch.nn.functional.embedding(ids, dense),
            "packed": lambda ids=ids: packed.lookup(ids),
            "packed, torch alone": lambda ids=ids: unpack_rows_plain(packed.padded, packed.slots,
                                                                     ids)}
        for way, call in ways.items():
            if not torch.equal(call(), ways["dense"]()):
                raise ArithmeticError(f"{way} gives other vectors than the dense table")
            records.append({"way": way, "batch": rows, "fields": len(packed.field_sizes),
                            "width": packed.width, "rows": packed.num_rows,
                            "table_bytes": path.stat().st_size,
                            "microseconds": microseconds(call, seconds),
                            "device": device_name(torch.device("cpu")), "commit": commit()})
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, and write the records where asked."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("table", type=Path, help="a packed table")
    options.add_argument("--batch", type=int, nargs="+", default=BATCHES, help="rows of a batch")
    options.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    options.add_argument("--json", type=Path, help="file for the records")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    records = measure(given.table, given.batch, given.seconds)
    for record in records:
        [dense] = [each["microseconds"] for each in records
                   if each["way"] == "dense" and each["batch"] == record["batch"]]
        print(f"{record['batch']:>6} x {record['fields']}  {record['way']:<20} "
              f"{record['microseconds']:>10.1f} us  {record['microseconds'] / dense:>6.1f} x")
    if given.json:
        write_json(given.json, records)


if __name__ == "__main__":
    main()
