"""How long a search on MovieLens-1M to 23,675 parameters and the retraining of that ticket take, FM
with d 64, by the training scripts.

    python benchmarks/bench_search.py --data FOLDER
    python benchmarks/bench_search.py --data FOLDER --jobs 2 --json FILE

Every search is a process of one thread, its retraining the next one; with --jobs 2 two pairs of
them, of two seeds, run at once. All that a user waits for is in the time: starts, imports, loading,
evaluations, checkpoints, TensorBoard and records. A short search and retraining before, which are
not timed, encode the data and compile the numba loops.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.record import commit
from utils.files import write_json

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 23_675
ALIAS = "timed"


def run(script: str, given: Sequence[str]) -> float:
    """Run a training script in one thread; returns its seconds.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    started = time.perf_counter()
    done = subprocess.run([sys.executable, script, *given], cwd=ROOT, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(given)} failed:\n{done.stderr}")
    return time.perf_counter() - started


def search_and_retrain(given: argparse.Namespace, epochs: int | None, out: Path,
                       seed: int) -> dict[str, Any]:
    """One search and its ticket: seconds of both processes, and what their records say.

    Args:
        epochs: of both; None for as many as the scripts' own settings say.
        out: where they go; encoded data go beside it.
    """
    options = ["--seed", str(seed), "--alias", f"{ALIAS}{seed}", "--out", str(out), "--device",
               "cpu", "--cache", str(out.parent / "data"), "--set", f"dataset={given.dataset}",
               *(["--data", given.data] if given.data else []),
               *(["--set", f"max_epochs={epochs}"] if epochs else [])]
    searching = run("train_movielens.py", [*options, "--set", f"candidate_p=[{given.budget}]"])
    retraining = run("train_movielens_retrain.py",
                     [*options, "--set", f"retrain_emb_param={given.budget}", "--jobs", "1"])
    records = [json.loads(path.read_text()) for path in out.glob("runs/*/result.json")]
    return {"seed": seed, "seconds": {"search": searching, "retrain": retraining},
            "runs": [of_record(record) for record in records if record["seed"] == seed]}


def of_record(record: dict[str, Any]) -> dict[str, Any]:
    """Of a run's record, what belongs to its time. `training_seconds` are the steps with their
    batches and hooks, without evaluations: the median epoch times the epochs."""
    names = ("stage", "epochs", "steps", "stop_reason", "seconds", "processor_seconds", "test_auc",
             "num_embedding_params", "threads", "device", "commit")
    return {**{name: record[name] for name in names},
            "training_seconds": record["seconds_per_epoch"] * record["epochs"]}


def bench(given: argparse.Namespace) -> dict[str, Any]:
    """The record."""
    with tempfile.TemporaryDirectory() as scratch:
        # encodes the data and compiles the loops
        search_and_retrain(given, 1, Path(scratch, "short"), 1)
        started = time.perf_counter()
        with ThreadPoolExecutor(given.jobs) as pool:
            done = list(pool.map(partial(search_and_retrain, given, given.epochs,
                                         Path(scratch, "out")), range(1, given.jobs + 1)))
        seconds = time.perf_counter() - started
    return {"dataset": given.dataset, "budget": given.budget, "max_epochs": given.epochs,
            "jobs": given.jobs, "seconds": seconds, "commit": commit(), "of_seeds": done}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--data", help="folder with the MovieLens-1M files")
    options.add_argument("--jobs", type=int, default=1, help="searches at once, each with a seed")
    options.add_argument("--budget", type=int, default=BUDGET, help="parameters of the ticket")
    options.add_argument("--epochs", type=int,
                         help="of the search and of the ticket; the scripts' own when left away")
    options.add_argument("--dataset", default="movielens", choices=("movielens", "planted"))
    options.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    given = options.parse_args(arguments)
    if min(given.jobs, given.budget, given.epochs or 1) < 1:
        options.error(f"--jobs, --budget and --epochs must be at least 1, got {given.jobs}, "
                      f"{given.budget} and {given.epochs}")
    record = bench(given)
    print(f"{record['seconds']:.1f} s for {given.jobs} at once, commit {record['commit']}")
    for one in record["of_seeds"]:
        for ran in one["runs"]:
            print(f"seed {one['seed']}, {ran['stage']}: {one['seconds'][ran['stage']]:.1f} s, of "
                  f"them {ran['training_seconds']:.1f} s of training in {ran['epochs']} epochs; "
                  f"{ran['num_embedding_params']:,} parameters, test AUC {ran['test_auc']:.4f}")
    if given.json:
        write_json(given.json, record)


if __name__ == "__main__":
    main()
