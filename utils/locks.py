"""One process at a time."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

RETRY = 0.1  # seconds between two tries, where the system cannot wait for us

log = logging.getLogger("pep")


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[Callable[[], bool]]:
    """Hold the lock file `path`, which is made when it is missing; a process that dies lets go of
    it.

    Yields:
        a function: whether the file is still there, so that nobody has removed its folder.

    Raises:
        BlockingIOError: another process holds it and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            _lock(file)
        except BlockingIOError:
            if not wait:
                raise
            log.info("waiting for another process that holds %s", path)
            _wait_for_lock(file)
        yield lambda: path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _lock(file: IO[str]) -> None:
    """Lock the file until it is closed; a BlockingIOError when another holds it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        raise BlockingIOError(error.errno, f"another process holds {file.name}") from error


def _wait_for_lock(file: IO[str]) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return None
    while True:
        try:
            return _lock(file)
        except BlockingIOError:
            time.sleep(RETRY)
