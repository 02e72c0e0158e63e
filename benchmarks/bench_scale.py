"""How a training step's time grows with the table: published style, ours streamed and lazy, the
uniform base model.

    python benchmarks/bench_scale.py --json benchmarks/results/scale.json
    python benchmarks/bench_scale.py --model deepfm --rows 1086810 --variant naive --variant lazy
    --variant uniform
    python benchmarks/bench_scale.py --processes 1 2 4 --rows 200000 --rows 1086810

Fields are as large as Criteo's beside each other, scaled to `--rows`; a value's share in a batch
falls as one over its rank, so 1,024 x 39 ids hold some 11,000 distinct rows of 1,086,810 (the first
10,000 lines of Criteo: 5,300 to 8,500).

naive: the published way, eager: whole table thresholded, dense gradients, unfused Adam, non-zeros
    counted at each step.
streamed, lazy: ours, with the search's own hook, which counts every `log_interval` steps (see
    `engine.optim.cpu.rowwise`); a search is lazy.
uniform: lazy, around the base model's table.

Each variant runs in processes of its own, in turns, forwards and backwards, for its peak of memory;
the median over them is reported. Steps are timed from the 15,001st of Adam's count, when the visits
of the rows have long become even: every row is visited at least every 32 steps, so that after twice
as many nothing is fresh any more. No row has decayed to nothing by then, which would make ours
faster. Loading is not in it.

With --processes, the search's step in so many processes under torchrun, each with one thread,
beside one process without lanes (0): a step's processor time and the peak of memory of the busiest
rank, and the bytes that all ranks send.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks  # noqa: F401 - its engine says how torch's threads wait, before torch

# isort: split
import torch
from torch import Tensor

from benchmarks.published import Published, PublishedStep
from data.synthetic.raw_planted import LAYOUTS
from engine.loop import State
from engine.optim.step import Step, build_optimizer
from engine.pep.budgets import SaveAtBudgets
from engine.record import (
    commit,
    device_name,
    peak_memory_bytes,
    pick_device,
    reset_peak_memory,
    wait_for,
)
from engine.settings import parse
from models.build import build_embedding, build_model
from models.embedding.base import initial_table
from studies.published import PRESETS
from utils.files import write_json

MODELS = ("fm", "deepfm", "autoint")
VARIANTS = ("naive", "streamed", "lazy", "uniform")
ROWS = (100_000, 1_086_810, 10_000_000)
SEEN = 15_000  # steps that Adam has counted before the first one here
BATCHES = 24  # different ones, in turns
NUMBER_SIZE = 100  # rows of a field of numbers, about
STEPS = 200  # that are timed; a search counts after every 100
SEED = 1
LANES = 4


def field_sizes(rows: int) -> tuple[int, ...]:
    """The sizes of Criteo's fields (values seen often enough to have a row), scaled so that they
    sum to `rows`."""
    heads = np.array([field.head + 1 if field.head else NUMBER_SIZE
                      for field in LAYOUTS["criteo"].fields])
    sizes = np.maximum((heads / heads.sum() * rows).astype(int), 3)
    sizes[sizes.argmax()] += rows - sizes.sum()
    return tuple(int(size) for size in sizes)


def batches(sizes: tuple[int, ...], batch_size: int,
            device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """(values counted from 0 in each field (B, F) int32, labels (B,)); BATCHES of them, always the
    same."""
    rng = np.random.default_rng(SEED)
    made = []
    for _ in range(BATCHES):
        shares = rng.random((batch_size, len(sizes)))
        codes = np.minimum((np.array(sizes) + 1.0) ** shares - 1,
                           np.array(sizes) - 1).astype(np.int32)
        labels = (rng.random(batch_size) < 0.25).astype(np.float32)
        made.append((torch.from_numpy(codes).to(device), torch.from_numpy(labels).to(device)))
    return made


def measure(model: str, variant: str, rows: int, steps: int,
            device: torch.device) -> dict[str, Any]:
    """Time `steps` steps of one variant in this process; of the naive one, 4."""
    embedding = "uniform" if variant == "uniform" else "pep"
    settings = parse({**PRESETS["criteo"], "model": model, "embedding": embedding,
                      "threshold_init": -15.0})
    sizes, batch_size = field_sizes(rows), settings.train.batch_size
    offsets = torch.tensor(np.cumsum((0, *sizes[:-1])), dtype=torch.int32, device=device)
    made = batches(sizes, batch_size, device)
    distinct = statistics.mean(len(torch.unique(codes + offsets)) for codes, _ in made)
    reset_peak_memory(device)
    if variant == "naive":
        step, warm, steps, describe = _naive(settings.flat(), sizes, device), 2, min(steps, 4), dict
    else:
        step, warm, describe = _ours(settings, sizes, variant, device)
        made = [(codes + offsets, labels) for codes, labels in made]
    for number in range(warm):
        step(*made[number % BATCHES])
    wait_for(device)
    started, processor = time.perf_counter(), time.process_time()
    for number in range(steps):
        step(*made[number % BATCHES])
    wait_for(device)
    seconds = (time.perf_counter() - started) / steps
    return {"ms_per_step": 1e3 * seconds,
            "processor_ms_per_step": 1e3 * (time.process_time() - processor) / steps,
            "samples_per_second": batch_size / seconds,
            "peak_memory_bytes": peak_memory_bytes(device), "distinct_rows": round(distinct),
            **describe()}


def _naive(values: dict[str, Any], sizes: tuple[int, ...],
           device: torch.device) -> Callable[[Tensor, Tensor], Any]:
    generator = torch.Generator().manual_seed(SEED)
    initial = initial_table(sum(sizes), values["latent_dim"], generator)
    torch.set_flush_denormal(False)
    return PublishedStep(Published(values, initial, sizes).to(device).train(), values)


def _seen(optimizer: Any, model: Any, device: torch.device) -> None:
    """Let Adam have counted SEEN steps."""
    for parameter in model.parameters():
        optimizer.state[parameter] = {"step": torch.tensor(float(SEEN), device=device),
                                      "exp_avg": torch.zeros_like(parameter),
                                      "exp_avg_sq": torch.zeros_like(parameter)}


def _ours(settings: Any, sizes: tuple[int, ...], variant: str,
          device: torch.device) -> tuple[Callable[[Tensor, Tensor], Any], int,
                                         Callable[[], dict[str, Any]]]:
    torch.set_flush_denormal(True)
    values, train = settings.flat(), settings.train
    model = build_model(sizes, values, SEED,
                        build_embedding(sizes, values, SEED)).to(device).train()
    optimizer = build_optimizer(model, train.lr, train.l2_regularization, train.decay_of_others)
    _seen(optimizer, model, device)
    step = Step(model, optimizer, train.grad_clip,
                update="streamed" if variant == "streamed" else "lazy")
    state = State(model, optimizer, torch.zeros((), device=device))
    saver = None
    if settings.model.embedding == "pep":  # a budget that is never reached
        saver = SaveAtBudgets(model.embedding, (1,), True, lambda name, table, meta: None)

    def advance(ids: Tensor, labels: Tensor) -> None:
        state.loss_sum = state.loss_sum + step(ids, labels)
        state.step += 1
        if saver is not None and state.step % train.log_interval == 0:
            saver(state)

    def describe() -> dict[str, Any]:
        rows = step.rows
        if rows is None:
            return {"interval": None}
        entries = sum(table.parameter.numel() for table in rows.tables.values())
        visited = entries / rows.interval
        # lazily, the batch's rows are visited beside those whose turn it is
        if rows.interval > 1:
            visited += 2 * rows.entries_gathered()
        return {"interval": rows.interval, "element_steps": entries,
                "bytes_moved": int(24 * visited)}  # value and two moments, read and written

    return advance, 80, describe


def measure_rank(model: str, rows: int, steps: int) -> dict[str, Any]:
    """What one of several processes spends on a step of a search; of the busiest."""
    from engine.distributed import launch
    from engine.distributed.lanes import LaneStep, lane_sizes
    from engine.distributed.shards import Shards
    from engine.distributed.world import World

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    settings = parse({**PRESETS["criteo"], "model": model, "embedding": "pep", "lanes": LANES,
                      "threshold_init": -15.0})
    sizes, train, values = field_sizes(rows), settings.train, settings.flat()
    world = World(LANES)
    offsets = torch.tensor(np.cumsum((0, *sizes[:-1])), dtype=torch.int32)
    lanes = lane_sizes(train.batch_size, LANES)
    own = slice(world.own.start, world.own.stop)
    made = [list(zip((codes + offsets).split(lanes)[own], labels.split(lanes)[own], strict=True))
            for codes, labels in batches(sizes, train.batch_size, torch.device("cpu"))]
    reset_peak_memory(torch.device("cpu"))
    scratch = Path(tempfile.gettempdir())
    embedding = build_embedding(sizes, values, SEED, folder=launch.folder_of_tables(scratch))
    built = build_model(sizes, values, SEED, embedding).train()
    shards = Shards(built, world, scratch)
    optimizer = build_optimizer(built, train.lr, train.l2_regularization, train.decay_of_others)
    _seen(optimizer, built, torch.device("cpu"))
    step = LaneStep(shards, built, SEED, optimizer, train.grad_clip)
    saver = SaveAtBudgets(built.embedding, (1,), True, lambda name, table, meta: None)
    state = State(built, optimizer, torch.zeros(()))
    for number in range(80 + steps):
        if number == 80:
            world.wait()
            sent, started = world.bytes_sent, time.perf_counter()
            processor = time.process_time()
        step(made[number % BATCHES], torch.tensor(train.batch_size))
        state.step += 1
        if state.step % train.log_interval == 0:
            saver(state)
    spent = [1e3 * (time.perf_counter() - started) / steps,
             1e3 * (time.process_time() - processor) / steps,
             float(peak_memory_bytes(torch.device("cpu")) or 0), (world.bytes_sent - sent) / steps]
    everyone = world.gather(torch.tensor(spent, dtype=torch.float64))
    most, total = everyone.max(0).values.tolist(), everyone.sum(0).tolist()
    return {"rank": world.rank, "ms_per_step": most[0], "processor_ms_per_step": most[1],
            "peak_memory_bytes": int(most[2]), "bytes_per_step": total[3]}


def of_processes(given: argparse.Namespace, rows: int, origin: dict[str, Any]
                 ) -> list[dict[str, Any]]:
    """One row a number of processes; 0 is one process without lanes."""
    made = []
    for count in (0, *given.processes):
        found = [_one_world(given, count, rows) for _ in range(given.rounds)]
        made.append({"model": "fm", "variant": "processes", "processes": count, "num_rows": rows,
                     "lanes": LANES if count else 0, **origin, "threads": 1,
                     **{name: statistics.median(one[name] for one in found)
                        for name in ("ms_per_step", "processor_ms_per_step", "peak_memory_bytes",
                                     "bytes_per_step")}})
        print("{num_rows:>12,} rows, {processes} processes: {processor_ms_per_step:.1f} processor "
              "ms, {ms_per_step:.1f} ms, {0:.0f} MB, {1:.3f} MB sent".format(
                  made[-1]["peak_memory_bytes"] / 1e6, made[-1]["bytes_per_step"] / 1e6,
                  **made[-1]))
    return made


def _one_world(given: argparse.Namespace, count: int, rows: int) -> dict[str, Any]:
    tail = [__file__, "--child", "fm", "ranks" if count else "lazy", str(rows), "--steps",
            str(given.steps), "--device", "cpu", "--threads", "1"]
    head = [sys.executable]
    if count:
        head += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    done = subprocess.run([*head, *tail], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(tail)} ended with code "
                           f"{done.returncode}:\n{done.stderr[-2000:]}")
    return {"bytes_per_step": 0.0, **json.loads(done.stdout.splitlines()[-1])}


def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy of 1 GB moves, read and written, on all threads."""
    source = torch.ones(1 << 28, device=device)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        target.copy_(source)
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return 2 * source.nbytes / min(seconds)


def in_a_process_of_its_own(given: argparse.Namespace, model: str, variant: str,
                            rows: int) -> dict[str, Any]:
    """What `measure` gives, in a fresh process."""
    command = [sys.executable, __file__, "--child", model, variant, str(rows), "--steps",
               str(given.steps),
               "--device", given.device]
    command += ["--threads", str(given.threads)] if given.threads else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code "
                           f"{done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def bench(given: argparse.Namespace, model: str, rows: int,
          origin: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a variant."""
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in given.variant}
    for number in range(given.rounds):
        for variant in given.variant if number % 2 else reversed(given.variant):
            results[variant].append(in_a_process_of_its_own(given, model, variant, rows))
            print(f"{model} {rows:,} {variant}: {results[variant][-1]['ms_per_step']:.2f} ms",
                  file=sys.stderr)
    made = []
    for variant, found in results.items():
        middle = statistics.median(one["ms_per_step"] for one in found)
        made.append({**found[-1], "model": model, "variant": variant, "num_rows": rows,
                     "ms_per_step": middle,
                     "samples_per_second": 1e3 * PRESETS["criteo"]["batch_size"] / middle,
                     "peak_memory_bytes": max(one["peak_memory_bytes"] for one in found),
                     "ms_per_step_of_rounds": [one["ms_per_step"] for one in found], **origin})
    return made


def table(made: Sequence[dict[str, Any]]) -> str:
    """One line a model, table and variant."""
    lines = [
        f"{'model':<9}{'rows':>12} "
        f"{'variant':<10}{'ms/step':>10}{'against naive':>15}{'over uniform':>14}"
        f"{'samples/s':>11}{'peak GB':>9}{'GB moved':>10}{'of copy':>9}"
    ]
    times = {(row["model"], row["num_rows"], row["variant"]): row["ms_per_step"] for row in made}
    for row in made:
        place, ms = (row["model"], row["num_rows"]), row["ms_per_step"]
        naive, uniform = times.get((*place, "naive")), times.get((*place, "uniform"))
        moved = row.get("bytes_moved")
        rate = moved / ms * 1e3 / row["copy_bytes_per_second"] if moved else None
        lines.append(
            f"{row['model']:<9}{row['num_rows']:>12,} {row['variant']:<10}{ms:>10.2f}"
            + _cell(naive and naive / ms, ".1f", 14, "x")
            + _cell(uniform and ms / uniform, ".2f", 13, "x")
            + f"{row['samples_per_second']:>11,.0f}{row['peak_memory_bytes'] / 1e9:>9.2f}"
            + _cell(moved and moved / 1e9, ".3f", 10, "")
            + _cell(rate and 100 * rate, ".0f", 8, "%")
        )
    return "\n".join(lines)


def _cell(value: float | None, form: str, width: int, unit: str) -> str:
    return f"{value:>{width}{form}}{unit}" if value else " " * (width + len(unit))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--model", action="append", choices=MODELS,
                         help="may be repeated; fm when left away")
    options.add_argument("--rows", action="append", type=int,
                         help=f"may be repeated; {ROWS} when left away")
    options.add_argument("--variant", action="append", choices=VARIANTS,
                         help="may be repeated; all when left away")
    options.add_argument("--processes", type=int, nargs="+",
                         help="the search's step of fm in so many processes, and nothing else")
    options.add_argument("--rounds", type=int, default=3, help="processes of each variant")
    options.add_argument("--steps", type=int, default=STEPS, help="that are timed in each process")
    options.add_argument("--threads", type=int,
                         help="CPU threads; torch's own choice when left away")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--json", type=Path, metavar="FILE",
                         help="write the rows here, e.g. below benchmarks/results")
    options.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args(arguments)
    if min(given.rounds, given.steps) < 1 or min(given.rows or ROWS) < 10 * NUMBER_SIZE:
        options.error(f"--rounds and --steps must be at least 1 and --rows at least "
                      f"{10 * NUMBER_SIZE}")
    if given.threads:
        torch.set_num_threads(given.threads)
    device = pick_device(given.device)
    if given.child:
        model, variant, rows = given.child
        found = (measure_rank(model, int(rows), given.steps) if variant == "ranks"
                 else measure(model, variant, int(rows), given.steps, device))
        if not found.get("rank"):
            print(json.dumps(found))
        return
    given.variant = tuple(dict.fromkeys(given.variant or VARIANTS))
    origin = {"device": device_name(device), "threads": torch.get_num_threads(),
              "torch": torch.__version__,
              "commit": commit(), "copy_bytes_per_second": bandwidth(device)}
    made: list[dict[str, Any]] = []
    for rows in given.rows or ROWS[:2] if given.processes else ():
        made += of_processes(given, rows, origin)
        if given.json:
            write_json(given.json, made)
    if given.processes:
        return
    for model, rows in itertools.product(dict.fromkeys(given.model or ("fm",)),
                                         dict.fromkeys(given.rows or ROWS)):
        made += bench(given, model, rows, origin)
        if given.json:
            write_json(given.json, made)
    print(
        "{device}, {threads} threads, torch {torch}, commit {commit}; a copy moves "
        "{0:.1f} GB/s".format(
            origin["copy_bytes_per_second"] / 1e9, **origin
        )
    )
    print(table(made))


if __name__ == "__main__":
    main()
