"""A search that is stopped and started again 200 times, and a training of 1,000 epochs: results as
in one piece; open files, threads and memory do not grow."""

import gc
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture import works
from benchmarks.torture.kills import contents, differences
from benchmarks.torture.trials import Outcome
from engine import stages
from engine.hooks import Checkpoint
from engine.run import Interrupted

RESUMES, EPOCHS = 200, 1000
GROWTH = 48 << 20  # bytes of memory that allocators may keep
WARM = 0.2  # share of the stops, or epochs, before it is looked at


def trial(seed: int, folder: Path) -> Outcome:
    """The stopped search for even seeds, the long training for odd ones."""
    shutil.rmtree(folder, ignore_errors=True)
    with works.silent():
        return _epochs(seed, folder) if seed % 2 else _resumes(seed, folder)


def _settings(steps: int, seed: int) -> Any:
    epochs = -(-steps // 4)  # 4 steps an epoch
    return works.settings(**works.PEP, max_epochs=epochs, eval_interval=max(epochs // 10, 1),
                          early_stop=10**6, lr=[0.01, 0.02, 0.005][seed // 2 % 3])


def _resumes(seed: int, folder: Path) -> Outcome:
    settings = _settings(RESUMES, seed)
    stages.train(settings, works.SEED, works.context(folder / "whole"))
    seen = []
    call = Checkpoint.__call__

    def interrupted(hook: Checkpoint, state: Any) -> str | None:
        hook.interrupted = True  # as Ctrl-C does
        return call(hook, state)

    stops = 0
    with works.changed(Checkpoint, {"__call__": interrupted}):
        while True:
            try:
                stages.train(settings, works.SEED, works.context(folder / "stopped"))
                break
            except Interrupted:
                stops += 1
                seen.append(held())
    if wrong := differences(contents(folder / "whole"), contents(folder / "stopped")):
        return Outcome("resumes: other bits", f"after {stops} stops: {wrong}")
    return _flat("resumes", seen, f"{stops} stops")


def _epochs(seed: int, folder: Path) -> Outcome:
    seen: list[tuple[int, int, int]] = []
    stages.train(works.settings(**works.DENSE, max_epochs=EPOCHS, eval_interval=10,
                                early_stop=10**6, checkpoint_seconds=1.0), seed,
                 works.context(folder, report=lambda report: seen.append(held())))
    return _flat("epochs", seen, f"{EPOCHS} epochs")


def held() -> tuple[int, int, int]:
    """Open files, threads, and bytes of memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (len(os.listdir("/proc/self/fd")), threading.active_count(),
            pages * os.sysconf("SC_PAGE_SIZE"))


def _flat(kind: str, seen: list[tuple[int, int, int]], after: str) -> Outcome:
    numbers = np.array(seen[int(len(seen) * WARM):])
    files, threads, memory = numbers.max(0) - numbers[0]
    grown = (f"{files} files, {threads} threads, {memory >> 20} MiB more after {after}"
             if files or threads or memory > GROWTH else "")
    return Outcome(f"{kind}: {'grown' if grown else 'same bits, flat'}", grown)
