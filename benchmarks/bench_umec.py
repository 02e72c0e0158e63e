"""What UMEC's step costs beside a plain training step, at the published sizes, side by side in one
process.

    python benchmarks/bench_umec.py --json benchmarks/results/umec_cpu.json

Two equal DLRMs (top MLP 432-512-256-1, bottom 13-512-256-64-16, batches of 128, plain gradient
descent) take turns, a round of steps each, one of them with the hook; so other work on the machine
hits both alike. The median over rounds of the ratio of two neighbours is reported, on a CPU of
processor time, which other processes do not stretch by waiting.
Denormals are flushed, as our scripts do. Tables are small by default: larger ones make the plain
step longer and the hook no longer.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks  # noqa: F401 - its engine says how torch's threads wait, before torch

# isort: split
import torch

from compression.umec.constraint import ResourceConstraint
from compression.umec.dynamics import Dynamics
from compression.umec.resources import Resource, layout_of
from engine.loop import State
from engine.optim.step import Step, build_optimizer
from engine.record import commit, device_name, pick_device, wait_for
from models.dlrm import DLRM, Shape, initial_tables
from models.embedding.uniform import Uniform
from utils.files import write_json

FIELDS, NUMBERS, WIDTH, BATCH = 26, 13, 16, 128
SHAPE = Shape((512, 256, 64), (512, 256))


class Side:
    """One of the two trainings."""

    def __init__(self, rows: int, device: torch.device, dynamics: Dynamics | None,
                 kind: str) -> None:
        torch.manual_seed(1)
        sizes = [rows] * FIELDS
        table = initial_tables(sizes, WIDTH, torch.Generator().manual_seed(1))
        model = DLRM(Uniform(table, FIELDS), NUMBERS, SHAPE).to(device)
        optimizer = build_optimizer(model, 0.1, 0.0, 0.0, "sgd")
        self.step = Step(model, optimizer, 100.0)
        self.state = State(model, optimizer, torch.zeros((), device=device))
        self.hook = None
        if dynamics is not None:
            resource = Resource(layout_of(model, sizes), kind, device)
            self.hook = ResourceConstraint(resource, 0.5, dynamics, steps=100_000)
        ids = torch.randint(rows, (BATCH, FIELDS)) + rows * torch.arange(FIELDS)
        self.batch = (ids.int().to(device), torch.rand(BATCH, NUMBERS).to(device))
        self.labels = torch.randint(2, (BATCH,)).float().to(device)

    def round(self, steps: int) -> float:
        """Seconds a step."""
        clock = time.perf_counter if self.labels.is_cuda else time.process_time
        started = clock()
        for _ in range(steps):
            self.step(self.batch, self.labels)
            self.state.step += 1
            if self.hook is not None:
                self.hook(self.state)
        wait_for(self.labels.device)
        return (clock() - started) / steps


def measure(rounds: int, steps: int, rows: int, device: torch.device) -> dict[str, Any]:
    """Milliseconds a step, and what the hook adds, in per cent."""
    sides = {"plain": Side(rows, device, None, ""),
             "robust": Side(rows, device, Dynamics(), "flops_top"),
             "faithful": Side(rows, device, Dynamics(faithful=True), "flops_top"),
             "robust, params_all": Side(rows, device, Dynamics(), "params_all"),
             "robust, half removed": Side(rows, device, Dynamics(), "flops_top")}
    half = sides["robust, half removed"].hook
    half.s.copy_(half.counts / 2)  # where a descent spends most of its steps
    half.feasible_at.fill_(0)
    for side in sides.values():
        side.round(steps)  # not timed
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side.round(steps))
    ratios = {name: [one / plain for one, plain in zip(each, times["plain"], strict=True)]
              for name, each in times.items() if name != "plain"}
    return {"milliseconds": {name: round(1e3 * statistics.median(each), 3) for name,
                             each in times.items()},
            "overhead_percent": {name: round(100 * (statistics.median(each) - 1), 1) for name,
                                 each in ratios.items()},
            "overhead_quartiles": {name: [round(100 * (cut - 1), 1)
                                          for cut in statistics.quantiles(each)[::2]]
                                   for name, each in ratios.items()},
            "rounds": rounds, "steps": steps, "rows_of_a_field": rows,
            "threads": torch.get_num_threads(),
            "device": device_name(device), "commit": commit()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--rounds", type=int, default=100, help="at least 2")
    options.add_argument("--steps", type=int, default=10, help="of a round")
    options.add_argument("--rows", type=int, default=50, help="of each field's table")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    chosen = options.parse_args(arguments)
    torch.set_flush_denormal(True)
    result = measure(chosen.rounds, chosen.steps, chosen.rows, pick_device(chosen.device))
    for name, each in result["milliseconds"].items():
        more = f"  {result['overhead_percent'][name]:+.1f} %" if name != "plain" else ""
        print(f"{name:<22}{each:8.3f} ms a step{more}")
    if chosen.json:
        write_json(chosen.json, result)


if __name__ == "__main__":
    main()
