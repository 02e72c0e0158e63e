"""The first pass over a large raw file by several processes, each of which reads a byte range.

Each process numbers the values of its own lines. The distinct values are then put together in the
order of the file, which gives every value the number that one process would have given it.
"""

import contextlib
import logging
import multiprocessing
import signal
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from data.raw.bad_lines import BadLines
from data.raw.count import ValueCounter
from data.raw.source import RawFile
from data.raw.value_index import Numbered, Part, number_part, progress, show
from utils.signals import handling

log = logging.getLogger("pep")

SMALLEST = 1 << 26  # bytes of a range: to start a process takes as long as to read them
BLOCK = 1 << 22  # bytes that a process parses at a time, so that many take no more than one


@dataclass(frozen=True)
class _Read:
    """What a process made of its range; the values and their counts are in a file beside the
    rows'."""

    part: Part
    bad: BadLines
    cut_off: bytes


class _TooManyBad(Exception):
    """A range has more bad lines than the whole file may have."""


def number_ranges(raw: RawFile, bad: BadLines, folder: Path, processes: int) -> Numbered | None:
    """As `data.raw.value_index.number_lines`, by as many processes of one thread.

    Memory grows with the distinct values of each range, rather than with those of the file alone.

    Args:
        raw: not yet read.
        bad: where bad lines are noted.
        folder: where the rows are written.

    Returns:
        None where one process has to read the file: it is packed or small, or a range has so many
        bad lines that the whole file will be refused. Nothing is noted then.

    Raises:
        ValueError: too many lines are bad, or as `RawFile.blocks`.
        ChildProcessError: a process died.
    """
    count = min(processes, raw.size // SMALLEST)
    ranges = raw.parts(count) if count > 1 else []
    if len(ranges) < 2:
        log.info("%s is small or packed: one process reads it", raw.path)
        return None
    found = _read_all(raw, ranges, [folder / f"range{place}" for place in range(len(ranges))])
    if found is None:
        return None
    numbered = Numbered([], [ValueCounter() for _ in raw.layout.fields], len(raw.layout.dense))
    for read in found:
        bad.extend(read.bad, numbered.lines + raw.first_line - 1)
        with np.load(_values_of(read.part)) as values:
            renumbered = [counter.extend(values[f"values{field}"], values[f"counts{field}"])
                          for field, counter in enumerate(numbered.counters)]
        if numbered.parts:  # the values of the first range come first
            read.part.renumbered = renumbered
        numbered.parts.append(read.part)
    if found[-1].cut_off:
        bad.warn_cut_off(found[-1].cut_off)
    bad.check(numbered.lines)
    return numbered


def _values_of(part: Part) -> Path:
    return part.file.with_suffix(".npz")


def _read_all(raw: RawFile, ranges: list[tuple[int, int]],
              targets: list[Path]) -> list[_Read] | None:
    """Read each range in a process of its own; None when one has too many bad lines."""
    spawning = multiprocessing.get_context("spawn")
    workers: dict[Any, tuple[int, Any]] = {}
    found: dict[int, _Read] = {}
    done = [(0, 0)] * len(ranges)  # bytes and lines
    try:
        for place, (part, target) in enumerate(zip(ranges, targets, strict=True)):
            ours, theirs = spawning.Pipe(duplex=False)
            process = spawning.Process(target=_work, daemon=True, args=(
                theirs, RawFile(raw.path, raw.layout, BLOCK, part), target))
            # a Ctrl-C reaches every process of a terminal; this one ends the others
            with handling(signal.SIG_IGN):
                process.start()
            theirs.close()
            workers[ours] = (place, process)
        with progress(raw) as bar:
            while len(found) < len(ranges):
                reading = [ours for ours, (place, _) in workers.items() if place not in found]
                for ready in wait(reading):
                    place, process = workers[ready]
                    message = _received(ready, process, raw, ranges[place])
                    if message is None:
                        return None
                    if isinstance(message, _Read):
                        found[place] = message
                    else:
                        done[place] = message
                        read, lines = map(sum, zip(*done, strict=True))
                        show(bar, read, lines)
        return [found[place] for place in range(len(ranges))]
    finally:
        for ours, (_, process) in workers.items():
            process.kill()
            process.join()
            ours.close()


def _received(ours: Any, process: Any, raw: RawFile, part: tuple[int, int]) -> Any:
    """The next message of a process; its error is raised here."""
    try:
        message = ours.recv()
    except EOFError as error:
        process.join()
        raise ChildProcessError(
            f"the process that read the bytes {part[0]:,} to {part[1]:,} of {raw.path} died (exit "
            f"code {process.exitcode}; -9 is often too little memory: take fewer --jobs)"
        ) from error
    if isinstance(message, Exception):
        raise message
    return message


def _work(theirs: Connection, raw: RawFile, target: Path) -> None:
    """Read a range; send (bytes, lines) after each block, and at the end a _Read, None or an
    error."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # an OSError: the process that started this one is gone
    with contextlib.suppress(OSError):
        try:
            theirs.send(_read(theirs, raw, target))
        except _TooManyBad:
            theirs.send(None)
        except Exception as error:
            error.add_note(traceback.format_exc())
            theirs.send(error)


def _read(theirs: Connection, raw: RawFile, target: Path) -> _Read:
    assert raw.part is not None
    start = raw.part[0]
    bad = BadLines(raw.path, raw.layout.published)
    counters = [ValueCounter() for _ in raw.layout.fields]

    def check(lines: int) -> None:
        read = raw.position - start
        if bad.too_many(int(lines * raw.size / max(read, 1))):
            raise _TooManyBad
        theirs.send((read, lines))

    with ThreadPoolExecutor(1) as pool:
        part = number_part(raw, bad, counters, target, pool, 1, check)
    arrays: dict[str, Any] = {}
    for field, counter in enumerate(counters):
        arrays |= {f"values{field}": counter.values, f"counts{field}": counter.counts}
    np.savez(_values_of(part), **arrays)
    return _Read(part, bad, raw.cut_off)
