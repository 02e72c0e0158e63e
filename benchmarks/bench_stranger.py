"""How long a stranger takes from a CSV that nobody prepared to a table of kept sizes with raw
values: the three commands of docs/own-data.md, timed one by one.

    python benchmarks/bench_stranger.py --rows 1000000
    python benchmarks/bench_stranger.py --rows 100000 --epochs 5    # whether they work at all
    python benchmarks/bench_stranger.py --json benchmarks/results/stranger.json

The CSV is that of bench_table.py, with 12 columns; it is made first (not timed).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_table import make
from engine.record import commit, device_name
from utils.files import write_json

ROOT = Path(__file__).resolve().parent.parent
KIB = 1024  # the unit of ru_maxrss, in bytes


def timed(what: str, words: Sequence[str]) -> dict[str, Any]:
    """Run a command; its seconds, processor seconds of all its processes, and the peak memory of
    the largest of them, in bytes.

    Raises:
        RuntimeError: it fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{what} failed: python {' '.join(words)}")
    return {"what": what, "seconds": time.perf_counter() - started,
            "processor_seconds": used.ru_utime + used.ru_stime,
            "peak_memory_bytes": used.ru_maxrss * KIB}


def run_all(path: Path, scratch: Path, epochs: int | None) -> list[dict[str, Any]]:
    """The three commands on a CSV, and how large the table of sizes is."""
    places = ["--out", str(scratch / "out"), "--cache", str(scratch / "cache")]
    more = ["--set", f"max_epochs={epochs}"] if epochs else []
    data = ["--data", str(path)]
    steps = [timed("search", ["train_table.py", *data, "--label", "click", *places, *more]),
             timed("retrain", ["train_table_retrain.py", *data, *places, *more])]
    results = [json.loads(file.read_text())
               for file in (scratch / "out").glob("runs/*/result.json")]
    tickets = sorted((result["num_embedding_params"], result["run_id"]) for result in results
                     if result["stage"] == "retrain")
    _, run_id = tickets[len(tickets) // 2]
    steps.append(timed("sizes", ["-m", "studies.sizes", run_id, *places]))
    [written] = (scratch / "out" / "sizes").glob("*.csv")
    with written.open() as file:
        lines = sum(1 for _ in file) - 1
    return [*steps, {"what": "tickets", "number": len(tickets)},
            {"what": "lines of the table of sizes", "number": lines}]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make the CSV, time the commands, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--epochs", type=int, help="at most, of both trainings")
    options.add_argument("--scratch", type=Path, help="folder for the files; a temporary one")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    given = options.parse_args(arguments)
    # made in a process of its own: a command's peak memory is never below that of the process
    # which starts it
    with (tempfile.TemporaryDirectory(dir=given.scratch) as scratch,
          ProcessPoolExecutor(1, get_context("spawn")) as maker):
        path = maker.submit(make, Path(scratch), given.rows, "csv").result()
        steps = run_all(path, Path(scratch), given.epochs)
    for step in steps:
        if "seconds" in step:
            print(f"{step['what']:<8} {step['seconds']:>8.1f} s {step['processor_seconds']:>8.1f} "
                  f"processor s {step['peak_memory_bytes'] / 1e6:>7.0f} MB")
        else:
            print(f"{step['what']}: {step['number']:,}")
    if given.json:
        write_json(given.json, {"rows": given.rows, "epochs": given.epochs, "steps": steps,
                                "cores": os.cpu_count(), "commit": commit(),
                                "device": device_name(torch.device("cpu"))})


if __name__ == "__main__":
    main()
