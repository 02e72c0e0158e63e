"""A list of runs that something needs: which are missing, how long they may take, and running
them."""

import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine import jobs
from engine.run import RunContext, Unfinished
from utils.text import counted

log = logging.getLogger("pep")

CORES = 2  # of the machine that costs are given for
STAGES = ("train", "search", "retrain")
COST_HEAD = ("device", "runs", "finished", "hours in all", "hours open", "without an estimate")


@dataclass(frozen=True)
class PlannedRun:
    """One run, with all that has to be run before it.

    Args:
        what: describes it in the list of what is missing.
        kind: (model, scheme), which its duration depends on.
        run: runs it with a context; finished parts are not run again. To run several at once it
            must be a function of a module, or a `functools.partial` of one.
        alone: it measures times, so nothing may run beside it.
    """

    what: str
    kind: tuple[str, str]
    run: Callable[[RunContext], Any]
    alone: bool = False


def recorded(name: str, one: PlannedRun) -> PlannedRun:
    """The same run, but one whose result lacks the field `name` is run again."""
    return replace(one, run=partial(_with_field, name, one))


def _with_field(name: str, one: PlannedRun, context: RunContext) -> dict[str, Any]:
    result = one.run(context)
    if name in result:
        return result
    if context.dry_run:
        raise Unfinished(f"{one.what}: the result is older than its field `{name}`")
    return one.run(replace(context, force=True))


def missing(needs: Sequence[PlannedRun], context: RunContext) -> list[PlannedRun]:
    """Those that are not finished; nothing is trained to find out, and each data set is opened
    once."""
    found = []
    dry = replace(context, dry_run=True, opened={})
    with quiet():
        for need in needs:
            try:
                need.run(dry)
            except (Unfinished, FileNotFoundError):
                found.append(need)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what runs say of themselves in the block, as each would say it."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def seconds_of(needs: Sequence[PlannedRun], results: Sequence[dict[str, Any]],
               gpu: bool = False) -> list[float | None]:
    """What each may take: the median of finished runs of its kind, of its model, or None when there
    are none.

    Args:
        results: finished runs.
        gpu: count runs on a GPU; otherwise those on a CPU.

    >>> settings = {"model": "fm", "embedding": "mde"}
    >>> done = [{"settings": settings, "stage": "train", "seconds": seconds, "device": device}
    ...         for device, seconds in (("AMD EPYC", 40.0), ("NVIDIA H200", 2.0))]
    >>> kinds = {"a": ("fm", "mde"), "b": ("fm", "qr"), "c": ("x", "")}
    >>> seconds_of([PlannedRun(name, kind, print) for name, kind in kinds.items()], done)
    [40.0, 40.0, None]
    """
    own = [result for result in results if is_gpu(result.get("device", "")) == gpu]
    return [_median(own, *need.kind) or _median(own, need.kind[0]) for need in needs]


def _median(results: Sequence[dict[str, Any]], model: str,
            scheme: str | None = None) -> float | None:
    """Of whole trainings: compressing and fine-tuning take other times."""
    times = [result["seconds"] for result in results if result["settings"]["model"] == model
             and result["stage"] in STAGES and scheme in (None, result["settings"]["embedding"])
             and result.get("seconds")]
    return statistics.median(times) if times else None


def describe(needs: Sequence[PlannedRun], seconds: Sequence[float | None]) -> str:
    """The plan as text, with an estimate where there is one.

    >>> print(describe([PlannedRun("fm mde seed 1", ("fm", "mde"), print)], [300.0]))
    1 run missing, about 5 min one after the other:
      fm mde seed 1 (about 5 min)
    """
    if not needs:
        return "nothing is missing"
    head = f"{counted(len(needs), 'run')} missing"
    known = [each for each in seconds if each]
    if known:
        head += f", about {_long(sum(known))} one after the other"
        if len(known) < len(seconds):
            head += f" and {len(seconds) - len(known)} of unknown length"
    lines = [f"{head}:"]
    for need, each in zip(needs, seconds, strict=True):
        lines.append(f"  {need.what}" + (f" (about {_long(each)})" if each else ""))
    return "\n".join(lines)


def run_all(needs: Sequence[PlannedRun], seconds: Sequence[float | None], context: RunContext,
            at_once: int = 1) -> list[Any]:
    """Run them with one bar over the whole plan, whose time left goes by the estimates; returns
    their results in the same order.

    Args:
        at_once: processes, see `engine.jobs.run_all`, which says what it raises.
    """
    known = [each for each in seconds if each]
    usual = statistics.mean(known) if known else 1.0
    wanted = [jobs.Job(need.what, need.run, each or usual, need.alone)
              for need, each in zip(needs, seconds, strict=True)]
    return jobs.run_all(wanted, context, at_once)


def _long(seconds: float) -> str:
    """A duration in the unit that suits it.

    >>> _long(42), _long(300), _long(9000)
    ('42 s', '5 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def cost(needs: Sequence[PlannedRun], results: Sequence[dict[str, Any]],
         context: RunContext) -> list[tuple[str, ...]]:
    """What all runs of a list cost and what is still open, one line a device that finished runs
    were measured on.

    A run takes the median of its kind. On a processor that is its seconds times its threads, shared
    by CORES, as if runs with fewer threads went side by side.

    Args:
        needs: a run that several figures need may be in it several times.
        results: of one data set, finished.

    Returns:
        (device, runs, finished, hours of all, hours of the open ones, runs without an estimate),
        under COST_HEAD.
    """
    distinct = list({need.what: need for need in needs}.values())
    open_runs = {need.what for need in missing(distinct, context)}
    lines: list[tuple[str, ...]] = []
    for device in sorted({result["device"] for result in results if "threads" in result}):
        own = [{**result, "seconds": result["seconds"]
                * (1 if is_gpu(device) else result["threads"] / CORES)}
               for result in results if result.get("device") == device and result.get("seconds")
               and "threads" in result]
        seconds = dict(zip((need.what for need in distinct),
                           seconds_of(distinct, own, is_gpu(device)), strict=True))
        total = sum(each for each in seconds.values() if each)
        left = sum(each for what, each in seconds.items() if each and what in open_runs)
        lines.append((device if is_gpu(device) else f"{device}, {CORES} cores", str(len(distinct)),
                      str(len(distinct) - len(open_runs)), f"{total / 3600:.1f}",
                      f"{left / 3600:.1f}",
                      str(sum(each is None for each in seconds.values()))))
    return lines or [("-", str(len(distinct)), str(len(distinct) - len(open_runs)), "-", "-",
                      str(len(distinct)))]


def is_gpu(device: str) -> bool:
    """By the name that torch gives it; a processor's is that of the operating system."""
    return any(maker in device for maker in ("NVIDIA", "Tesla", "GeForce", "Instinct", "Radeon"))
