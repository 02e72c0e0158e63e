"""Whether the memory holds what is about to be taken."""

import os
from pathlib import Path

GIB = 1 << 30


def available_memory() -> int:
    """Bytes of memory that can be had, or the memory's size where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines
                    if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(
            os, "sysconf") else 1 << 32


def require_memory(need: int, what: str) -> None:
    """Refuse what takes more bytes than are available.

    Raises:
        ValueError: it names the need and what can be had.
    """
    if need > (most := available_memory()):
        raise ValueError(f"{what} takes {need / GIB:,.2f} GiB, and {most / GIB:,.2f} GiB of memory "
                         "are available; take a smaller latent_dim, an embedding of fewer "
                         "parameters, or a machine with more memory (docs/scale.md)")
