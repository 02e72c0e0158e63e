"""Eight short FM tickets on MovieLens-1M: one after the other on all threads, or one a core.

    python benchmarks/bench_jobs.py --data FOLDER

Both ways take turns, a round each, so that other work on the machine hits them alike. The start of
the processes, with their imports, is part of the time.
"""

import argparse
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# isort: skip - the engine says how torch's threads wait, before torch
from engine import jobs, stages
from engine.run import RunContext
from engine.settings import parse
from studies.published import PRESETS

SHORT = {**PRESETS["movielens"], "rewind": "all", "tensorboard": False}
ROUNDS = 2


def main() -> None:
    """Search briefly, then time both ways of retraining."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", help="folder with the MovieLens-1M files")
    options.add_argument("--epochs", type=int, default=8, help="of a ticket")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        context = RunContext(out=Path(folder), data=given.data, device="cpu", force=True)
        stages.train(parse({**SHORT, "max_epochs": 1, "eval_interval": 1}), 1, context)
        settings = parse({**SHORT, "max_epochs": given.epochs, "eval_interval": given.epochs})
        tickets = [jobs.Job(name, partial(stages.retrain, settings, 1, only=name))
                   for name in stages.tickets(settings, 1, context)]
        times: dict[int, list[float]] = {1: [], jobs.cores(): []}
        for _ in range(ROUNDS):
            for at_once, seconds in times.items():
                started = time.perf_counter()
                jobs.run_all(tickets, context, at_once)
                seconds.append(time.perf_counter() - started)
                print(f"{at_once} at a time: {seconds[-1]:.1f} s", flush=True)
    medians = {at_once: statistics.median(seconds) for at_once, seconds in times.items()}
    print(f"{jobs.cores()} at a time, medians of {ROUNDS} rounds: "
          f"{medians[1] / medians[jobs.cores()]:.2f} times as fast as one after the other")


if __name__ == "__main__":
    main()
