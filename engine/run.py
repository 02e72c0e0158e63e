"""A run: settings, seed, data and places, and the id of the result that they determine."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data.registry import DATASETS, IN_RANGES, WITH_DENSE
from data.store import Dataset, cache_folder
from data.table.options import OwnTable
from engine.checkpoint import only_one
from engine.progress import Report
from engine.record import pick_device, require_precision
from engine.settings import Settings, identity
from models.build import MODELS
from utils.files import read_record, require_writable, sha256_of

log = logging.getLogger("pep")

WEIGHTS = "model.safetensors"  # in a run's folder: the trained weights
CHECKPOINT = "checkpoint.safetensors"  # there too, while it is trained
NEEDED = ("run_id", "stage", "seed", "settings", "identity", "manifest")  # in every result
ALGORITHM_VERSION = 1  # raise it when the same settings would give other results


class Interrupted(KeyboardInterrupt):
    """The process was told to end; a checkpoint has been written.

    Like any interrupt it passes an `except Exception`, so that Ctrl-C ends a loop over runs too.
    """


class Unfinished(Exception):
    """A dry run came to a run that is not finished."""


@dataclass(frozen=True)
class RunContext:
    """Where a run reads and writes, and on which device. Nothing here changes a result's identity.

    In a dry run nothing is trained: a run that is not finished raises `Unfinished` instead.
    Of several processes that share a run under torchrun, the one of rank 0 alone writes.
    A run that is one of several tells `report` how far it has come, and shows no bar of its own.
    `opened`, where it is a dict, keeps the data sets that were opened, so that a plan of many runs
    opens each once.
    """

    out: Path = Path("tmp")
    cache: Path = field(default_factory=cache_folder)
    data: str | None = None
    device: str = "auto"
    alias: str | None = None
    force: bool = False
    overwrite: bool = False
    dry_run: bool = False
    report: Callable[[Report], None] | None = None
    opened: dict[Any, Dataset] | None = None
    rank: int = 0


@dataclass
class Run:
    """One training with everything that it needs.

    Args:
        stage: "search", "train" or "retrain"; each draws its own random numbers from the seed.
        extra: further things that the result depends on (the mask of a ticket, say).
    """

    settings: Settings
    seed: int
    context: RunContext
    dataset: Dataset
    stage: str
    extra: dict[str, Any]

    @property
    def run_id(self) -> str:
        """Hash of everything that the result depends on."""
        return sha256_of(f"v{ALGORITHM_VERSION}", identity(self.settings), self.dataset.hash,
                         str(self.seed), json.dumps(self.extra, sort_keys=True))[:12]

    @property
    def folder(self) -> Path:
        """tmp/runs/<run id>."""
        return self.context.out / "runs" / self.run_id

    def require_finished(self) -> None:
        """Raise `Unfinished` in a dry run."""
        if self.context.dry_run:
            raise Unfinished(f"run {self.run_id} ({self.stage}) is not finished")

    def finished(self) -> dict[str, Any] | None:
        """The result of a finished run; None if there is none, or with --force.

        Raises:
            ValueError: the result file is corrupt.
        """
        path = self.folder / "result.json"
        if self.context.force or not path.exists():
            self.require_finished()
            return None
        result = read_result(path)
        self._remove_checkpoint()
        log.info("run %s is finished: %s", self.run_id, self.folder)
        return result

    def _remove_checkpoint(self) -> None:
        """Remove what is left where a process was killed right after it had written the result."""
        checkpoint = self.folder / CHECKPOINT
        if checkpoint.exists() and not self.context.dry_run:
            # another process may be running it again by force; the folder may be read-only
            with contextlib.suppress(OSError), only_one(self.folder):
                checkpoint.unlink(missing_ok=True)


def read_result(path: Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
        ValueError: the file is corrupt, or of another run than its folder.
    """
    try:
        result = read_record(path)
        if absent := sorted(set(NEEDED) - set(result)):
            raise ValueError(f"it lacks {', '.join(absent)}")
        if result["run_id"] != path.parent.name:
            raise ValueError(f"it is of the run {result['run_id']!r}")
    except ValueError as error:
        raise ValueError(f"{path} is corrupt ({error}); delete it, or run again with "
                         f"--force") from error
    return result


def derive(seed: int, purpose: str) -> int:
    """A generator seed for one purpose, so that no two purposes share random numbers.

    >>> derive(1, "order") == derive(1, "order"), derive(1, "order") == derive(1, "table")
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{purpose}:{seed}".encode()).digest()[:6], "little")


def open_data(settings: Settings, context: RunContext, processes: int = 1,
              wanted: Mapping[str, Any] | None = None) -> tuple[Dataset, torch.device]:
    """Check the device and the output folder, then open the data set.

    Args:
        processes: that read its raw file, where that has not been encoded yet.
        wanted: the record of a run; an own table whose file is not named with --data is looked up
            by it.

    Raises:
        ValueError: the data set's raw files are read by one process alone, or it has no ids of
            users to take in.
    """
    device = pick_device(context.device)
    require_precision(settings.flat()["precision"], device)
    require_writable(context.out)
    data = settings.data
    reads_dense = MODELS[settings.model.model].reads_dense
    if data.dataset not in DATASETS:
        from data.table.encode import open_table  # pyarrow, which only own tables need

        if data.with_ids:
            raise ValueError("with_ids is of MovieLens; a table of your own has the columns that "
                             "fields and ignore name; leave it away")
        opener: Callable[..., Dataset] = open_table
        arguments: tuple[Any, ...] = (context.data, context.cache, OwnTable(
            data.dataset, settings.table.options, data.split, data.vocabulary, reads_dense), wanted)
    else:
        opener = DATASETS[data.dataset]
        if reads_dense:
            opener = WITH_DENSE.get(data.dataset, opener)
        arguments = (context.data, context.cache, data.with_ids, data.vocabulary, data.split)
    if processes > 1:
        if data.dataset not in IN_RANGES:
            raise ValueError(f"--jobs {processes}: the raw files of {data.dataset} are read by one "
                             f"process; leave --jobs away")
        opener = partial(opener, processes=processes)
    if context.opened is None:
        return opener(*arguments), device
    key = (opener, *map(repr, arguments))
    if key not in context.opened:
        context.opened[key] = opener(*arguments)
    return context.opened[key], device
