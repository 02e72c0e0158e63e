"""How long a training script takes from its start to the end of the first step.

    python benchmarks/bench_start.py
    python benchmarks/bench_start.py --model deepfm --data FOLDER --json FILE

Every time is of a process of its own: `train_movielens.py` with the model, on data that are encoded
already (synthetic ones without --data), which ends after its first step. The variants take turns.

torch: a process that imports torch and nothing else, which no script can be faster than.
warm: numba finds its compiled loops on the disk, as in every run but the first.
cold: it compiles them, as after an installation.

Seconds by the clock are of a machine without other work; beside them stand the seconds of processor
time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.optim.step import Step
from engine.record import commit, device_name, pick_device
from utils.files import write_json

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("fm", "deepfm", "autoint")
VARIANTS = ("torch", "warm", "cold")
SCRIPT = "train_movielens.py"


def end_after_first_step() -> None:
    """Make the next training step of this process its last: it says when it was done."""
    take = Step.__call__

    def first(self: Step, *batch: Any) -> None:
        take(self, *batch)
        say_and_end()

    Step.__call__ = first  # type: ignore[method-assign, assignment]


def say_and_end() -> None:
    """Print the time and this process's processor time, and end the process."""
    spent = os.times()
    print(json.dumps([time.time(), spent.user + spent.system]), flush=True)
    os._exit(0)


def started(code: str, environment: dict[str, str]) -> tuple[float, float]:
    """Run Python code that calls `say_and_end`: seconds from the start of the process to there, by
    the clock and of processor time.

    Raises:
        RuntimeError: it did not come there; with what it said.
    """
    begun = time.time()
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment},
                          cwd=ROOT, capture_output=True, text=True)
    try:
        ended, spent = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise RuntimeError(f"no step was taken:\n{done.stderr}") from error
    return ended - begun, spent


def code_of(arguments: Sequence[str]) -> str:
    """A training script with these arguments, to the end of its first step."""
    return ("import runpy, sys\n"
            "sys.path.insert(0, '.')\n"
            "from benchmarks import bench_start\n"
            "bench_start.end_after_first_step()\n"
            f"sys.argv = [{SCRIPT!r}, *{list(arguments)!r}]\n"
            f"runpy.run_path({SCRIPT!r}, run_name='__main__')\n")


TORCH_ALONE = ("import json, os, time, torch\n"
               "spent = os.times()\n"
               "print(json.dumps([time.time(), spent.user + spent.system]))\n")


def bench(given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a variant."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        script = code_of(["--model", given.model, "--out", str(folder / "out"), "--cache",
                          str(folder / "data"), "--device", "cpu",
                          *(["--data", given.data] if given.data else
                            ["--set", "dataset=planted"])])
        loops = {"OMP_NUM_THREADS": str(given.threads), "NUMBA_CACHE_DIR": str(folder / "warm")}
        started(script, loops)  # encodes the data and compiles the loops
        for number in range(given.rounds):
            cold = {**loops, "NUMBA_CACHE_DIR": str(folder / f"cold{number}")}
            times["torch"].append(started(TORCH_ALONE, loops))
            times["warm"].append(started(script, loops))
            times["cold"].append(started(script, cold))
    import torch

    origin = {"model": given.model, "device": device_name(pick_device("cpu")),
              "threads": given.threads, "torch": torch.__version__, "commit": commit(),
              "rounds": given.rounds}
    return [{"variant": name, "seconds": statistics.median(clock for clock, _ in found),
             "processor_seconds": statistics.median(spent for _, spent in found),
             "seconds_of_rounds": [clock for clock, _ in found], **origin}
            for name, found in times.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--model", default="fm", choices=MODELS)
    options.add_argument("--data", help="folder with the MovieLens-1M files")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--rounds", type=int, default=3, help="processes of each variant")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    given = options.parse_args(arguments)
    if min(given.threads, given.rounds) < 1:
        options.error(f"--threads and --rounds must be at least 1, got {given.threads} and "
                      f"{given.rounds}")
    rows = bench(given)
    print("{model}, {device}, {threads} threads, torch {torch}, commit {commit}; medians of "
          "{rounds} processes".format(**rows[0]))
    for row in rows:
        print("{variant:<6}{seconds:>8.2f} s{processor_seconds:>8.2f} s of processor time".format(
            **row))
    if given.json:
        write_json(given.json, rows)


if __name__ == "__main__":
    main()
