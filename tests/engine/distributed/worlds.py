"""Runs in several processes on this machine, for tests; each process imports this file anew."""

import json
import os
import socket
import traceback
from pathlib import Path

import tiny
import torch
import torch.multiprocessing as mp

from data.registry import DATASETS
from engine import stages
from engine.distributed.lanes import LaneStep

# the last batch of an epoch has 54 rows of 71, and so lanes of other sizes
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
ON_DEVICE = "gpu form of "  # before a name: with the steps of a GPU, in plain torch on this CPU
CASES |= {ON_DEVICE + name: CASES[name] for name in ("fm", "deepfm", "field", "autoint")}
RETRAINED = ("fm", "deepfm")


class Killed(BaseException):
    """Stands in for a power cut."""


def run(name: str, out: Path, rank: int = 0, until: int | None = None) -> None:
    """A search or training, and the retraining of what it has saved.

    Args:
        until: saved at every step, and killed when it has come to this one.
    """
    case = CASES[name] | ({"checkpoint_seconds": 0.0} if until else {})
    step = LaneStep.__call__
    LaneStep.as_on_device = name.startswith(ON_DEVICE)
    if until:
        steps: list[int] = []

        def counted(self, *batch):
            steps.append(1)
            if len(steps) > until:
                raise Killed
            return step(self, *batch)

        LaneStep.__call__ = counted  # type: ignore[method-assign]
    try:
        tiny.train(out, **case, places={"rank": rank})
        LaneStep.__call__ = step  # type: ignore[method-assign]
        if name.removeprefix(ON_DEVICE) in RETRAINED:
            stages.retrain(tiny.settings(**case), 1, tiny.context(out, rank=rank))
    except Killed:
        return
    finally:
        LaneStep.__call__ = step  # type: ignore[method-assign]
        LaneStep.as_on_device = False


def prepare() -> None:
    """One thread, and the small data set in the place of MovieLens."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    made = tiny.dataset(rows=600)
    DATASETS["movielens"] = lambda *arguments: made


def _work(rank: int, size: int, port: int, out: Path, runs: list[tuple[str, int | None]]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}
    prepare()
    try:
        for name, until in runs:
            run(name, out / name, rank, until)
    except BaseException:
        (out / f"error{rank}").write_text(traceback.format_exc())
        os._exit(1)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(size: int, out: Path, runs: list[tuple[str, int | None]]) -> mp.ProcessContext:
    """The processes of a world, which make all runs of these names, until these steps.

    Each begins as a copy of one process that has imported torch and nothing of this one, which
    takes a tenth of a second instead of seconds.
    """
    port = free_port()
    out.mkdir(parents=True, exist_ok=True)
    mp.set_forkserver_preload(["engine.stages"])
    return mp.start_processes(_work, (size, port, out, runs), size, join=False,
                              start_method="forkserver")


def finish(world: mp.ProcessContext, out: Path) -> None:
    """Wait for the processes; the errors of those that failed are an error here."""
    try:
        while not world.join():
            pass
    except Exception as error:
        texts = [path.read_text() for path in sorted(out.glob("error*"))]
        raise AssertionError("\n".join(texts) or str(error)) from error


def bits(out: Path) -> dict[str, object]:
    """All files that runs have left, by name; of results what two equal runs agree on."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.name == "result.json":
            result = tiny.without_times(json.loads(path.read_text()))
            result["settings"].pop("checkpoint_seconds")
            found[name] = result
        elif path.is_file() and path.name not in (".lock", "search.json"):
            found[name] = path.read_bytes()
    return found
