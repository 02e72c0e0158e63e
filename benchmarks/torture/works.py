"""What the trials disturb: every kind of work that writes files, on data so small that a second is
enough."""

import contextlib
import io
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
import torch.multiprocessing

from benchmarks.torture.settings import Watched, small_dataset
from compression import finetune
from compression.afm import command as afm
from compression.afm.compress import Choice
from compression.finetune import FineTuning
from compression.loaded_run import load_model, load_uniform
from compression.lowbit.retraining import Retraining
from compression.pruning import methods
from compression.umec import command as umec
from compression.umec.command import Task
from compression.waterline import command as waterline
from compression.waterline.shape import Shape
from data import criteo, movielens
from data.movielens import FIRST_RATING
from data.synthetic import raw_planted
from data.table.encode import open_table
from data.table.options import OwnTable, TableOptions
from engine import cli, stages
from engine.record import pick_device
from engine.run import RunContext
from engine.settings import Settings, parse
from serving.export import export
from studies import tuning

SETTINGS = {"model": "fm", "latent_dim": 4, "batch_size": 64, "lr": 0.05, "max_epochs": 3,
            "eval_interval": 1, "early_stop": 9, "log_interval": 1, "mlp_dims": [8],
            "threshold_init": -3.0, "tensorboard": False, "checkpoint_seconds": 0.0}
PEP = {"embedding": "pep", "candidate_p": [150, 40]}
DENSE = {"embedding": "uniform"}
ROWS = 300
SEED = 1
TABLE = OwnTable("clicks", TableOptions("click", min_count=1), "random:1")
_opened: list[Watched] = []


def context(out: Path, **changes: Any) -> RunContext:
    """A place where every data set is the same small one."""
    if not _opened:
        _opened.append(Watched(small_dataset(rows=ROWS)))
    return RunContext(**{"out": out, "cache": out / "cache", "device": "cpu",
                         "opened": _opened[0], **changes})


def settings(**changes: Any) -> Settings:
    """Those that all works share, with changes."""
    return parse({**SETTINGS, **changes})


def train(out: Path, **changes: Any) -> dict[str, Any]:
    """A training, or a search; its result."""
    return stages.train(settings(**changes), SEED, context(out))


def search(out: Path) -> None:
    """A PEP search."""
    train(out, **PEP)


def retrain(out: Path) -> None:
    """A search, and a retraining of each of its snapshots."""
    search(out)
    stages.retrain(settings(**PEP), SEED, context(out))


def search_row_by_row(out: Path) -> None:
    """A search of DeepFM whose table is updated row by row."""
    train(out, **PEP, model="deepfm", table_update="lazy")


def darts(out: Path) -> None:
    """DartsEmb: a search of widths and a training."""
    train(out, embedding="darts", darts_widths=[1, 3], darts_epochs=1, max_epochs=2)


def umec_of_dlrm(out: Path) -> None:
    """A DLRM, UMEC's descent and the small model's training."""
    trained = train(out, **DENSE, model="dlrm", arch_mlp_bot=[6], arch_mlp_top=[8, 6],
                    optimizer="sgd", lr=0.1, l2_regularization=0.0)
    base = umec.load(trained["run_id"], "field", context(out))
    umec.compress(base, Task(0.6, epochs=1, finetune_epochs=1), context(out))


def afm_of_deepfm(out: Path) -> None:
    """A DeepFM, AFM's factored model and the dense control."""
    run_id = train(out, **DENSE, model="deepfm", mlp_dims=[8, 8])["run_id"]
    trained, how = load_model(run_id, context(out)), FineTuning(1)
    choice = Choice(emb_rank=2, mlp_rank=2)
    quick = {"SECONDS": 0.0, "BATCHES": (1, 64)}, {"DRAWS": 10}
    with changed(afm, quick[0]), changed(finetune, quick[1]):
        made = afm.factored(trained, choice, how, pick_device("cpu"))
        control = afm.control(trained, how)
        afm.compared(trained, made, control, finetune.run_of(trained, how, choice.identity()))


def prune(out: Path) -> None:
    """Iterative magnitude pruning of a uniform table."""
    run_id = train(out, **DENSE)["run_id"]
    place = context(out)
    trained = load_model(run_id, place)
    tables = methods.iteratively(trained, [60, 30], 0.5, place)
    methods.prune(trained, "imp", tables, replace(place, alias="pruned"))


def water_line(out: Path) -> None:
    """A uniform table, and its packed form under the water line."""
    run_id = train(out, **DENSE)["run_id"]
    trained = load_uniform(run_id, context(out))
    with changed(finetune, {"DRAWS": 10}):
        waterline.compress(trained, Shape(), [180], Retraining(2, 0.01))


def two_processes(out: Path) -> None:
    """A PEP search of two processes, each with one of two lanes; the second ends with the first."""
    if dist.is_initialized():  # by an earlier run with lanes in this process
        dist.destroy_process_group()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    share = partial(_rank, 1, out, port, os.getpid())
    second = get_context("fork").Process(target=cli.main, args=(share,), daemon=True)
    second.start()
    _rank(0, out, port)
    second.join()
    if second.exitcode:
        raise RuntimeError("the second process has failed")


def _rank(rank: int, out: Path, port: int, first: int = 0) -> None:
    """The share of one process.

    Args:
        first: the process that this one ends with.
    """
    if first:
        torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)
        if os.getppid() != first:
            raise RuntimeError("the first process has ended")
    own = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": str(port)}
    os.environ |= own
    try:
        stages.train(settings(**PEP, lanes=2), SEED, context(out, rank=rank))
    finally:
        for name in own:
            del os.environ[name]


def encode(out: Path) -> None:
    """Raw files of MovieLens and Criteo, and a table, to encoded sets."""
    raw = out.with_name(out.name + "-raw")
    if not (raw / "done").exists():
        write_movielens(raw / "ml-1m")
        raw_planted.write("criteo", 2000, raw / "train.txt")
        write_table(raw / "clicks.csv")
        (raw / "done").touch()
    movielens.open_dataset(str(raw / "ml-1m"), out / "cache")
    criteo.open_dataset(str(raw / "train.txt"), out / "cache")
    open_table(str(raw / "clicks.csv"), out / "cache", TABLE)


def export_run(out: Path) -> None:
    """A training on a table, and the folder that scores raw rows."""
    raw = out.with_name(out.name + "-raw")
    if not (raw / "done").exists():
        write_table(raw / "clicks.csv")
        (raw / "done").touch()
    opened = Watched(open_table(str(raw / "clicks.csv"), out / "cache", TABLE))
    place = context(out, opened=opened)
    run_id = stages.train(settings(**DENSE), SEED, place)["run_id"]
    if not (out / "model").exists():
        export(run_id, out / "model", "float32", place)


def tune(out: Path) -> None:
    """Two trials, and the file with what was chosen."""
    path = tuning.file_of(out, "movielens", "fm", "uniform")
    tuning.tune([{"latent_dim": 2}, {"latent_dim": 4}], lambda point: train(out, **DENSE, **point),
                path, {"seed": SEED})


TWO = "two processes"
WORKS: dict[str, Callable[[Path], None]] = {
    "search": search, "retrain": retrain, "search by row": search_row_by_row, "DartsEmb": darts,
    "UMEC": umec_of_dlrm, "AFM": afm_of_deepfm, "iterative pruning": prune,
    "water line": water_line, TWO: two_processes, "encode": encode,
    "export": export_run, "tune": tune}


def movielens_lines(ratings: int = 400, seed: int = 0) -> dict[str, list[str]]:
    """Random lines of the three files of MovieLens-1M, by file."""
    rng = np.random.default_rng(seed)
    users = [f"{user}::{rng.choice(['F', 'M'])}::{rng.choice([1, 18, 25])}::{rng.integers(21)}::"
             f"{10000 + rng.integers(60)}" for user in range(1, 41)]
    movies = [f"{movie}::Film {movie} ({1950 + rng.integers(50)})::"
              f"{rng.choice(['Action', 'Comedy|Drama'])}" for movie in range(1, 31)]
    lines = [f"{1 + rng.integers(40)}::{1 + rng.integers(30)}::{rng.choice([1, 2, 4, 5])}::"
             f"{FIRST_RATING + rng.integers(10**6)}" for _ in range(ratings)]
    return {"users.dat": users, "movies.dat": movies, "ratings.dat": lines}


def write_table(path: Path, rows: int = ROWS) -> None:
    """A CSV file of clicks whose columns hold text, numbers and gaps."""
    rng = np.random.default_rng(rows)
    lines = ["click,user,item,price"]
    for _ in range(rows):
        price = f"{rng.random():.3f}" if rng.random() < 0.9 else ""
        lines.append(f"{rng.integers(2)},u{rng.integers(30)},é {rng.integers(12)},{price}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def write_movielens(folder: Path) -> None:
    """A folder as the archive of MovieLens-1M unpacks to."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in movielens_lines().items():
        (folder / name).write_text("".join(line + "\n" for line in lines), "latin-1")


@contextmanager
def silent() -> Iterator[None]:
    """No log lines and nothing on standard output within the block."""
    log = logging.getLogger("pep")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


@contextmanager
def changed(module: Any, values: dict[str, Any]) -> Iterator[None]:
    """A module's names have other values within the block."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
