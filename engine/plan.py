"""A list of runs that something needs: which are missing, how long they may take, and running them one by one."""

import logging
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from engine.run import Place, Unfinished

log = logging.getLogger("pep")


@dataclass(frozen=True)
class Need:
    """One run, with all that has to be run before it.

    Args:
        what: in words; for the list of what is missing.
        kind: what its duration depends on: (model, scheme).
        run: runs it, at a place; finished parts are not run again.
    """

    what: str
    kind: tuple[str, str]
    run: Callable[[Place], Any]


def missing(needs: Sequence[Need], place: Place) -> list[Need]:
    """Those that are not finished; nothing is trained to find out."""
    found = []
    level = log.level
    log.setLevel(logging.WARNING)  # else every finished run says so
    try:
        for need in needs:
            try:
                need.run(replace(place, dry=True))
            except (Unfinished, FileNotFoundError):
                found.append(need)
    finally:
        log.setLevel(level)
    return found


def seconds_of(needs: Sequence[Need], results: Sequence[dict[str, Any]]) -> list[float | None]:
    """What each may take: the median of finished runs of its kind, of its model, or None when there are none.

    >>> done = [{"settings": {"model": "fm", "embedding": "mde"}, "seconds": 40.0}]
    >>> seconds_of([Need("a", ("fm", "mde"), print), Need("b", ("fm", "qr"), print), Need("c", ("x", ""), print)], done)
    [40.0, 40.0, None]
    """
    return [_median(results, *need.kind) or _median(results, need.kind[0]) for need in needs]


def _median(results: Sequence[dict[str, Any]], model: str, scheme: str | None = None) -> float | None:
    times = [result["seconds"] for result in results if result["settings"]["model"] == model
             and scheme in (None, result["settings"]["embedding"])]
    return statistics.median(times) if times else None


def describe(needs: Sequence[Need], seconds: Sequence[float | None]) -> str:
    """The plan as text, with an estimate where there is one."""
    lines = [f"  {need.what}" + (f" (about {_long(each)})" if each else "") for need, each in
             zip(needs, seconds, strict=True)]
    known = [each for each in seconds if each]
    total = f", about {_long(sum(known))}" if known else ""
    unknown = len(seconds) - len(known)
    if not needs:
        return "nothing is missing"
    many = f"{len(needs)} runs are missing" if len(needs) > 1 else "1 run is missing"
    return "\n".join([f"{many}{total}{f' and {unknown} of unknown length' if known and unknown else ''}:", *lines])


def carry_out(needs: Sequence[Need], seconds: Sequence[float | None], place: Place) -> None:
    """Run them with one bar over the whole plan, whose time left goes by the estimates."""
    share = [each or 1.0 for each in seconds]
    with tqdm(total=round(sum(share)), unit="s", desc="plan", file=sys.stderr, disable=None) as bar:
        for need, each in zip(needs, share, strict=True):
            bar.set_postfix_str(need.what)
            need.run(place)
            bar.update(round(each))


def _long(seconds: float) -> str:
    """A duration in the unit that suits it.

    >>> _long(42), _long(300), _long(9000)
    ('42 s', '5 min', '2.5 h')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else (
        f"{seconds / 3600:.1f} h")
