"""Work that is killed again and again, and started again until it is done: it must end with the
very bits of work that was left alone, and leave no stray file."""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture import works
from benchmarks.torture.trials import Outcome
from engine import cli

KILLS = 4  # of one work, at most
LONGEST = 120.0  # seconds that a work may take
TIMES = {"seconds", "processor_seconds", "seconds_per_epoch", "samples_per_second",
         "peak_memory_bytes", "samples_per_second_cpu", "commit", "checksum"}  # may differ
# exit codes: done, refused in words, interrupted; or the signal that ended it
ENDS = {0, 2, 130, -signal.SIGKILL, -signal.SIGTERM}
Work = Callable[[], Any]


@dataclass
class Left:
    """What a work left when nobody disturbed it.

    Args:
        files: by path, their comparable content.
        seconds: it took.
        writes: moments at which a file was opened, synced or renamed.
    """

    files: dict[str, Any]
    seconds: float
    writes: int


_alone: dict[tuple[Path, str], Left] = {}


def undisturbed(name: str, folder: Path) -> Left:
    """What a work leaves when it is left alone; found out once."""
    if (folder, name) not in _alone:
        out = folder / "alone" / name.replace(" ", "-")
        shutil.rmtree(out, ignore_errors=True)
        # compiles what has to be compiled; children then start with it, but for the threads that a
        # group of processes leaves, which do not outlive a fork
        if name != works.TWO:
            works.WORKS[name](out)
        elif code := finish(start(lambda: works.WORKS[name](out))):
            raise RuntimeError(f"{name} ends with code {code} when nobody disturbs it")
        shutil.rmtree(out)
        counter = folder / "writes"
        started = time.monotonic()
        code = finish(start(lambda: works.WORKS[name](out), lambda: at_write(0, counter)))
        seconds = time.monotonic() - started
        if code:
            raise RuntimeError(f"{name} ends with code {code} when nobody disturbs it")
        _alone[folder, name] = Left(contents(out), seconds, int(counter.read_text()))
    return _alone[folder, name]


def trial(seed: int, folder: Path) -> Outcome:
    """One work, disturbed in one of WAYS one to KILLS times, and started again until it is done."""
    rng = np.random.default_rng(seed)
    name = list(works.WORKS)[seed % len(works.WORKS)]
    way = list(WAYS)[seed // len(works.WORKS) % len(WAYS)]
    with works.silent():
        alone = undisturbed(name, folder)
        out = folder / "disturbed"
        shutil.rmtree(out, ignore_errors=True)
        _raw(folder / "alone" / name, out)
        codes = []
        for _ in range(rng.integers(1, KILLS + 1)):
            codes += WAYS[way](lambda: works.WORKS[name](out), alone, rng)
            if rng.random() < 0.3:
                equal_times(out)
        about = f"{name}, {way}, ends {codes}"
        if odd := set(codes) - ENDS:
            return Outcome(f"{way}: traceback", f"{about}: {odd}")
        if code := finish(start(lambda: works.WORKS[name](out))):
            return Outcome(f"{way}: not finished", f"{about}; then, alone, {code}")
    if wrong := differences(alone.files, contents(out)):
        return Outcome(f"{way}: other bits", f"{about}: {wrong}")
    return Outcome(f"{way}: same bits")


def _kill_at_a_moment(work: Work, alone: Left, rng: np.random.Generator) -> list[int]:
    child = start(work)
    time.sleep(rng.random() * alone.seconds)
    os.kill(child, signal.SIGKILL)
    return [finish(child)]


def _kill_at_a_write(work: Work, alone: Left, rng: np.random.Generator) -> list[int]:
    moment = int(rng.integers(1, alone.writes + 1))
    return [finish(start(work, lambda: at_write(moment)))]


def _terminate(work: Work, alone: Left, rng: np.random.Generator) -> list[int]:
    child = start(work)
    time.sleep(rng.random() * alone.seconds)
    os.kill(child, signal.SIGTERM)
    return [finish(child)]


def _interrupt_twice(work: Work, alone: Left, rng: np.random.Generator) -> list[int]:
    child = start(work)
    time.sleep(rng.random() * alone.seconds)
    os.kill(child, signal.SIGINT)
    time.sleep(rng.random() * 0.02)
    os.kill(child, signal.SIGINT)
    return [finish(child)]


def _two_at_once(work: Work, alone: Left, rng: np.random.Generator) -> list[int]:
    children = [start(work)]
    time.sleep(rng.random() * alone.seconds / 2)
    children.append(start(work))
    if rng.random() < 0.5:
        time.sleep(rng.random() * alone.seconds)
        os.kill(children[0], signal.SIGKILL)
    return [finish(child) for child in children]


def _clock_set_back(work: Work, alone: Left, rng: np.random.Generator) -> list[int]:
    seconds, moment = float(10 ** rng.uniform(0, 9)), int(rng.integers(1, alone.writes + 1))

    def before() -> None:
        now = time.time
        time.time = lambda: now() - seconds
        at_write(moment)

    return [finish(start(work, before))]


WAYS: dict[str, Callable[[Work, Left, np.random.Generator], list[int]]] = {
    "SIGKILL at any moment": _kill_at_a_moment, "SIGKILL at a write": _kill_at_a_write,
    "SIGTERM": _terminate, "SIGINT twice": _interrupt_twice, "two processes": _two_at_once,
    "clock set back": _clock_set_back}


def equal_times(out: Path) -> None:
    """Give all files the same time of their last change."""
    for path in out.rglob("*"):
        os.utime(path, (1e9, 1e9))


def _raw(alone: Path, out: Path) -> None:
    """The raw files of a work, which are made once."""
    raw, there = (path.with_name(path.name + "-raw") for path in (alone, out))
    shutil.rmtree(there, ignore_errors=True)
    if raw.exists():
        shutil.copytree(raw, there)


def start(work: Work, before: Callable[[], None] = lambda: None,
          said: Path = Path(os.devnull)) -> int:
    """A child of this process that does the work, as a command would; its id.

    Args:
        before: called in the child first.
        said: file for what it says.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # an interrupt waits until the command listens, as a terminal's does until the command is there
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
        return child

    def listening() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
        work()

    code = 99
    try:
        words = said.open("w")
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
        sys.stdout = sys.stderr = words
        before()
        cli.main(listening)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk takes no words either
            traceback.print_exc()
    finally:  # whatever happens, the child never goes on as its parent would
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def finish(child: int, seconds: float = LONGEST) -> int:
    """Wait so long for a child: its exit code, or minus the signal that killed it."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGALRM
        time.sleep(0.005)


def at_write(moment: int, counter: Path | None = None,
             act: Callable[[Path], None] | None = None) -> None:
    """In this process, act at a moment of a write: when a temporary folder was made, when half of a
    file is on the disk, when all of it is, and when it has its name.

    Args:
        moment: from 1; 0 only counts.
        counter: file to write the number of moments to, at each.
        act: takes the path that is written; kills the process if it is left out.
    """
    seen = 0

    def passed(path: Path) -> None:
        nonlocal seen
        seen += 1
        if counter is not None:
            with open(counter, "w") as file:
                file.write(str(seen))
        if seen == moment:
            (act or _kill)(path)

    fsync, replace, mkdtemp = os.fsync, os.replace, tempfile.mkdtemp

    def synced(number: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        if seen + 1 == moment and act is None:  # of what was written, half is on the disk
            os.truncate(path, os.fstat(number).st_size // 2)
        passed(path)
        fsync(number)

    def replaced(source: Any, target: Any, **more: Any) -> None:
        passed(Path(target))
        replace(source, target, **more)
        passed(Path(target))

    def made(*place: Any, **more: Any) -> str:
        path = mkdtemp(*place, **more)
        passed(Path(path))
        return path

    os.fsync, os.replace, tempfile.mkdtemp = synced, replaced, made


def _kill(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def contents(out: Path) -> dict[str, Any]:
    """Of all files below a folder, what two equal works must agree on; locks are left out."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_dir() or path.name.endswith(".lock"):
            continue
        own_table = path.parent.name.startswith("clicks-")
        if own_table and path.name in ("manifest.json", "checksums.json"):
            continue  # they name the place of the raw file
        if path.name in ("result.json", "movielens_fm_uniform.json"):
            found[name] = _without_times(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(each) for name, each in value.items() if name not in TIMES}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Files that one alone has, and those that differ; "" where there are none."""
    parts = {"missing": one.keys() - other.keys(), "stray": other.keys() - one.keys(),
             "other content": {name for name in one.keys() & other.keys()
                               if one[name] != other[name]}}
    return "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in parts.items()
                     if names)
