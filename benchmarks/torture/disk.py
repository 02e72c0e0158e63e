"""Work whose disk fails it: full, with a limit on files, read-only, slow, a folder removed, a link
in a file's place. It must say so with the path and the need, and go on when the disk is well
again."""

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture import works
from benchmarks.torture.kills import (
    Left,
    Work,
    at_write,
    contents,
    differences,
    finish,
    start,
    undisturbed,
)
from benchmarks.torture.trials import Outcome
from engine import snapshots
from engine.checkpoint import load_checkpoint
from engine.run import read_result
from studies.figures.by_epoch import evaluations_in

Way = Callable[[Work, Path, Left, np.random.Generator, Path], int]
OLD = b"somebody else's"  # what a link points to
ROOM = 2048  # bytes that a limit on files leaves for the message
SLOW = 0.1  # seconds that a sync takes, at most


def trial(seed: int, folder: Path) -> Outcome:
    """One work whose disk fails in one of WAYS, and started again afterwards."""
    rng = np.random.default_rng(seed)
    name = list(works.WORKS)[seed % len(works.WORKS)]
    ways = {**WAYS, **(MOUNTED if can_mount(folder) else {})}
    way = list(ways)[seed // len(works.WORKS) % len(ways)]
    with works.silent():
        alone = undisturbed(name, folder)
        place = folder / "disk"
        out = place / name.replace(" ", "-")
        _fresh(place, folder / "alone")
        mounted = way in MOUNTED
        if mounted:
            _mount(place, _size(alone) * 2 + (1 << 20))
            _fresh(place, folder / "alone", made=True)
        try:
            said = folder / "said.txt"
            code = ways[way](lambda: works.WORKS[name](out), out, alone, rng, said)
            about = f"{name}, {way}: "
            words = said.read_text().strip()
            if code not in (0, 2) or "Traceback" in words:
                return Outcome(f"{way}: traceback", about + words[-300:])
            # of two processes the other one may have been refused the write
            errors = [line for line in words.splitlines() if line.startswith("error: ")]
            if code == 2 and not any(str(place) in line for line in errors):
                return Outcome(f"{way}: no path", about + words[-300:])
            if (link := folder / "linked").exists() and link.read_bytes() != OLD:
                return Outcome(f"{way}: written through", about + "a link's file was changed")
            if mounted:
                subprocess.run(["mount", "-o", "remount,rw,size=64m", str(place)], check=True)
            while code := finish(start(lambda: works.WORKS[name](out), said=said)):
                if not _done_as_said(out, said.read_text()):
                    return Outcome(f"{way}: not finished", about + said.read_text()[-300:])
            if links := _links(out):  # put there after the last look at the file
                taken = [str(path.relative_to(out)) for path in links if not _refused(path)]
                if taken:
                    return Outcome(f"{way}: taken", about + f"{', '.join(taken)} is read")
                return Outcome(f"{way}: refused when it is read")
            wrong = differences(alone.files, contents(out))
        finally:
            if mounted:
                subprocess.run(["umount", str(place)], check=True)
    return Outcome(f"{way}: other bits", about + wrong) if wrong else Outcome(f"{way}: same bits")


def _links(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_symlink()]


def _done_as_said(out: Path, words: str) -> bool:
    """Do what a message asks for: delete the link or the checkpoint that it names, or run that run
    again."""
    for path in _links(out):
        if str(path) in words:
            path.unlink()
            return True
    if damaged := re.search(r"the checkpoint (\S+) is corrupt .*; delete it", words):
        shutil.rmtree(damaged[1])
        return True
    lost = re.search(r"run (\w+) has kept no weights .* run it again with --force", words)
    if lost:
        shutil.rmtree(out / "runs" / lost[1])
    return bool(lost)


def _refused(path: Path) -> bool:
    """Whether the reader of such a file refuses it by its name."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".npz": snapshots.read, ".safetensors": load_checkpoint, ".json": read_result,
        ".jsonl": evaluations_in}
    if path.suffix not in readers:
        return False
    try:
        readers[path.suffix](path)
    except ValueError as error:
        return str(path) in str(error)
    return False


def can_mount(folder: Path) -> bool:
    """Whether this process may mount file systems."""
    if os.geteuid() or not shutil.which("mount"):
        return False
    probe = folder / "probe"
    probe.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(probe)]
    return not (subprocess.run(mount, capture_output=True).returncode
                or subprocess.run(["umount", str(probe)], capture_output=True).returncode)


def _mount(place: Path, size: int) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)


def _fresh(place: Path, alone: Path, made: bool = False) -> None:
    """An empty place, but for the raw files of an encoding."""
    if not made:
        if place.is_mount():  # of a campaign that was killed
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    for raw in alone.glob("*-raw"):
        shutil.copytree(raw, place / raw.name)


def _size(alone: Left) -> int:
    return sum(len(content) if isinstance(content, bytes) else 8192
               for content in alone.files.values())


def _file_limit(work: Work, out: Path, alone: Left, rng: np.random.Generator, said: Path) -> int:
    most = max(len(content) for content in alone.files.values() if isinstance(content, bytes))
    limit = int(rng.integers(ROOM, max(most, ROOM + 1)))

    def before() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return finish(start(work, before, said))


def _removed(work: Work, out: Path, alone: Left, rng: np.random.Generator, said: Path) -> int:
    moment = int(rng.integers(1, alone.writes + 1))
    return finish(start(work, lambda: at_write(moment, act=lambda path: shutil.rmtree(out)), said))


def _linked(work: Work, out: Path, alone: Left, rng: np.random.Generator, said: Path) -> int:
    moment = int(rng.integers(1, alone.writes + 1))
    elsewhere = said.with_name("linked")
    elsewhere.write_bytes(OLD)

    def put_link(path: Path) -> None:
        if path.is_file() and not path.name.startswith("."):
            path.unlink()
            path.symlink_to(elsewhere)

    return finish(start(work, lambda: at_write(moment, act=put_link), said))


def _full(work: Work, out: Path, alone: Left, rng: np.random.Generator, said: Path) -> int:
    moment = int(rng.integers(1, alone.writes + 1))

    def fill(path: Path) -> None:
        disk = shutil.disk_usage(out.parent)
        with (out.parent / "filler").open("wb") as file:
            file.write(bytes(max(disk.free - int(rng.integers(3)) * 4096, 0)))

    code = finish(start(work, lambda: at_write(moment, act=fill), said))
    (out.parent / "filler").unlink(missing_ok=True)
    return code


def _read_only(work: Work, out: Path, alone: Left, rng: np.random.Generator, said: Path) -> int:
    moment = int(rng.integers(1, alone.writes + 1))
    finish(start(work, lambda: at_write(moment), said))  # killed
    subprocess.run(["mount", "-o", "remount,ro", str(out.parent)], check=True)
    return finish(start(work, said=said))


def _slow(work: Work, out: Path, alone: Left, rng: np.random.Generator, said: Path) -> int:
    """Every sync takes its time; in half of the trials the work is told to end meanwhile."""
    seconds = float(rng.random()) * SLOW

    def before() -> None:
        fsync = os.fsync

        def slow(number: int) -> None:
            time.sleep(seconds)
            fsync(number)

        os.fsync = slow

    child = start(work, before, said)
    if rng.random() < 0.5:
        time.sleep(rng.random() * (alone.seconds + seconds * alone.writes))
        os.kill(child, signal.SIGTERM)
    code = finish(child)
    return 0 if code in (130, -signal.SIGTERM) else code


WAYS: dict[str, Way] = {"limit on files": _file_limit, "folder removed": _removed,
                        "link in its place": _linked, "slow": _slow}
MOUNTED: dict[str, Way] = {"full": _full, "read-only": _read_only}  # on a small disk in memory
