"""What torchrun says in the environment; torch itself is not imported here."""

import os
from pathlib import Path

LANES = 4  # of a run under torchrun whose settings name none


def launched() -> bool:
    """Whether torchrun, or somebody who sets what it sets, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's number among those of the run; 0 without torchrun."""
    return int(os.environ["RANK"]) if launched() else 0


def size() -> int:
    """How many processes share the run; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def folder_of_tables(folder: Path) -> Path | None:
    """Where the files of large tables go, so that no process need have memory for a whole one; None
    in one process, which keeps them in its memory."""
    return folder if size() > 1 else None


def refuse(command: str) -> None:
    """Refuse a command that runs in one process only.

    Raises:
        ValueError: torchrun started this process.
    """
    if launched():
        raise ValueError(f"{command} runs in one process, and torchrun has started "
                         f"{size()}; start it with python")
