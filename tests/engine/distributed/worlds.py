"""Runs in several processes on this machine, for tests; each process imports this file anew."""

import os
import socket
import traceback
from pathlib import Path

import tiny
import torch
import torch.multiprocessing as mp

from data.registry import DATASETS
from engine import stages

# 24 steps, the last of an epoch with a batch of 6 rows; a lane of which has one row
SEARCH = {"embedding": "pep", "candidate_p": [550, 300, 20], "max_epochs": 3, "lr": 0.05,
          "log_interval": 3, "batch_size": 71, "lanes": 4}
CASES = {
    "fm": SEARCH,
    "deepfm": {**SEARCH, "model": "deepfm", "grad_clip": 0.5, "l2_penalty": 0.01,
               "candidate_p": [500, 300]},
    "dimension": {**SEARCH, "threshold_type": "dimension", "candidate_p": [500]},
    "feature": {**SEARCH, "threshold_type": "feature", "candidate_p": [500]},
    "field": {**SEARCH, "threshold_type": "field", "candidate_p": [500], "budget": "as_reached"},
    "uniform": {**SEARCH, "model": "deepfm", "embedding": "uniform", "dropout": 0.5},
    "linear": {**SEARCH, "model": "linear"},
    "autoint": {**SEARCH, "model": "autoint", "embedding": "uniform", "max_epochs": 1},
}
RETRAINED = ("fm", "deepfm")


def run(name: str, out: Path, rank: int = 0) -> None:
    """A search or training, and the retraining of what it has saved."""
    case = {**CASES[name], "candidate_p": CASES[name]["candidate_p"]}
    tiny.train(out, **case, places={"rank": rank})
    if name in RETRAINED:
        settings = tiny.settings(**case)
        stages.retrain(settings, 1, tiny.context(out, rank=rank))


def prepare() -> None:
    """One thread, and the small data set in the place of MovieLens."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    made = tiny.dataset(rows=600)
    DATASETS["movielens"] = lambda *arguments: made


def _work(rank: int, size: int, port: int, out: Path, names: list[str]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}
    prepare()
    try:
        for name in names:
            run(name, out / name, rank)
    except BaseException:
        (out / f"error{rank}").write_text(traceback.format_exc())
        os._exit(1)


def start(size: int, out: Path, names: list[str]) -> mp.ProcessContext:
    """The processes of a world, which run all cases of these names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out.mkdir(parents=True, exist_ok=True)
    return mp.start_processes(_work, (size, port, out, names), size, join=False,
                              start_method="spawn")


def bits(out: Path) -> dict[str, object]:
    """All files that runs have left, by name; of results what two equal runs agree on."""
    import json

    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        if path.name == "result.json":
            found[str(path.relative_to(out))] = tiny.without_times(json.loads(path.read_text()))
        elif path.is_file() and path.name != ".lock":
            found[str(path.relative_to(out))] = path.read_bytes()
    return found
