"""A list of runs that something needs: which are missing, how long they may take, and running them
one by one."""

import logging
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from engine.run import RunContext, Unfinished

log = logging.getLogger("pep")

CORES = 2  # of the machine that a cost is told for
STAGES = ("train", "search", "retrain")
COST_HEAD = ("device", "runs", "finished", "hours in all", "hours open", "without an estimate")


@dataclass(frozen=True)
class PlannedRun:
    """One run, with all that has to be run before it.

    Args:
        what: in words; for the list of what is missing.
        kind: what its duration depends on: (model, scheme).
        run: runs it, at a place; finished parts are not run again.
    """

    what: str
    kind: tuple[str, str]
    run: Callable[[RunContext], Any]


def recorded(name: str, one: PlannedRun) -> PlannedRun:
    """The same run, but one that is older than a field of its result is run again."""

    def again(context: RunContext) -> dict[str, Any]:
        result = one.run(context)
        if name in result:
            return result
        if context.dry:
            raise Unfinished(f"{one.what}: the result is older than its field `{name}`")
        return one.run(replace(context, force=True))

    return replace(one, run=again)


def missing(needs: Sequence[PlannedRun], context: RunContext) -> list[PlannedRun]:
    """Those that are not finished; nothing is trained to find out."""
    found = []
    level = log.level
    log.setLevel(logging.WARNING)  # else every finished run says so
    try:
        for need in needs:
            try:
                need.run(replace(context, dry=True))
            except (Unfinished, FileNotFoundError):
                found.append(need)
    finally:
        log.setLevel(level)
    return found


def seconds_of(needs: Sequence[PlannedRun],
               results: Sequence[dict[str, Any]]) -> list[float | None]:
    """What each may take: the median of finished runs of its kind, of its model, or None when there
    are none.

    >>> done = [{"settings": {"model": "fm", "embedding": "mde"}, "stage": "train", "seconds": 40.0}]
    >>> kinds = {"a": ("fm", "mde"), "b": ("fm", "qr"), "c": ("x", "")}
    >>> seconds_of([PlannedRun(name, kind, print) for name, kind in kinds.items()], done)
    [40.0, 40.0, None]
    """
    return [_median(results, *need.kind) or _median(results, need.kind[0]) for need in needs]


def _median(results: Sequence[dict[str, Any]], model: str,
            scheme: str | None = None) -> float | None:
    """Of whole trainings; what was compressed or trained on takes other times."""
    times = [result["seconds"] for result in results if result["settings"]["model"] == model
             and result["stage"] in STAGES and scheme in (None, result["settings"]["embedding"])]
    return statistics.median(times) if times else None


def describe(needs: Sequence[PlannedRun], seconds: Sequence[float | None]) -> str:
    """The plan as text, with an estimate where there is one."""
    lines = [f"  {need.what}" + (f" (about {_long(each)})" if each else "") for need, each in
             zip(needs, seconds, strict=True)]
    known = [each for each in seconds if each]
    total = f", about {_long(sum(known))}" if known else ""
    unknown = len(seconds) - len(known)
    if not needs:
        return "nothing is missing"
    many = f"{len(needs)} runs are missing" if len(needs) > 1 else "1 run is missing"
    return "\n".join(
        [
            f"{many}{total}{f' and {unknown} of unknown length' if known and unknown else ''}:",
            *lines,
        ]
    )


def run_all(needs: Sequence[PlannedRun], seconds: Sequence[float | None],
            context: RunContext) -> None:
    """Run them with one bar over the whole plan, whose time left goes by the estimates."""
    share = [each or 1.0 for each in seconds]
    with tqdm(total=round(sum(share)), unit="s", desc="plan", file=sys.stderr, disable=None) as bar:
        for need, each in zip(needs, share, strict=True):
            bar.set_postfix_str(need.what)
            need.run(context)
            bar.update(round(each))


def _long(seconds: float) -> str:
    """A duration in the unit that suits it.

    >>> _long(42), _long(300), _long(9000)
    ('42 s', '5 min', '2.5 h')
    """
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else (f"{seconds / 3600:.1f} h")
    )


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
                * (1 if _is_gpu(device) else result["threads"] / CORES)}
               for result in results if result.get("device") == device and "threads" in result]
        seconds = dict(zip((need.what for need in distinct), seconds_of(distinct, own),
                           strict=True))
        total = sum(each for each in seconds.values() if each)
        left = sum(each for what, each in seconds.items() if each and what in open_runs)
        lines.append((device if _is_gpu(device) else f"{device}, {CORES} cores", str(len(distinct)),
                      str(len(distinct) - len(open_runs)), f"{total / 3600:.1f}",
                      f"{left / 3600:.1f}",
                      str(sum(each is None for each in seconds.values()))))
    return lines or [("-", str(len(distinct)), str(len(distinct) - len(open_runs)), "-", "-",
                      str(len(distinct)))]


def _is_gpu(device: str) -> bool:
    """By the name that torch gives it; a processor's is that of the operating system."""
    return any(maker in device for maker in ("NVIDIA", "Tesla", "GeForce", "Instinct", "Radeon"))
