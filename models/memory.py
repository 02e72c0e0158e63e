"""Whether the memory holds what is about to be taken, and arrays in files where it need not."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

GIB = 1 << 30
GROUP = Path("/sys/fs/cgroup")
# of Linux's control groups, version 2 and 1: the limit, what is used, what of it can be given back
CONTAINERS = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
     ("total_inactive_file", "total_active_file")))


def available_memory() -> int:
    """Bytes of memory that can be had, by the machine and by the limit of a container; the memory's
    size where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(int(line.split()[1]) * 1024 for line in lines
                     if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(
            os, "sysconf") else 1 << 32
    return min(found, _left_by_container(found))


def _left_by_container(otherwise: int) -> int:
    """Bytes that a container's limit leaves; pages of files are given back when memory is short."""
    for limit, used, cached in CONTAINERS:
        try:
            most = (GROUP / limit).read_text().strip()
            stat = dict(line.split() for line in
                        (GROUP / limit).with_name("memory.stat").read_text().splitlines())
            if most != "max":
                left = int(most) - int((GROUP / used).read_text())
                return max(left + sum(int(stat[name]) for name in cached), 0)
        except (OSError, ValueError, KeyError):  # no such group, or of another form
            continue
    return otherwise


def require_memory(need: int, what: str) -> None:
    """Refuse what takes more bytes than are available.

    Raises:
        ValueError: it names the need and what can be had.
    """
    if need > (most := available_memory()):
        raise ValueError(f"{what} takes {need / GIB:,.2f} GiB, and {most / GIB:,.2f} GiB of memory "
                         "are available; take a smaller latent_dim, an embedding of fewer "
                         "parameters, or a machine with more memory (docs/scale.md)")


def array_in_file(shape: Sequence[int], dtype: DTypeLike, folder: Path) -> np.ndarray:
    """An array of zeros in a file of its own, which has no name and ends with the array.

    The system keeps as much of it in memory as it likes.

    Raises:
        OSError: the disk has no room for all of it; nothing is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        array = np.memmap(file, dtype, "w+", shape=tuple(shape))
        if hasattr(os, "posix_fallocate"):  # else a full disk would end the process at a write
            os.posix_fallocate(file.fileno(), 0, array.nbytes)
    return array
