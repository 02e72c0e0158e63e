"""The campaign's counts as the tables of docs/reliability.md."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.table import Table
from utils.files import atomic_path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
PLACE = re.compile(r"(<!-- campaign -->\n).*?(<!-- end of campaign -->)", re.DOTALL)
WHAT = {
    "kills": "work killed, interrupted, started twice, with the clock set back; then finished",
    "disk": "work on a disk that is full, limited, read-only, removed, or has links; then finished",
    "files": "files changed by others, read",
    "rows": "files of 500 raw lines, each line changed, against the plain definition",
    "settings": "random dicts of settings",
    "load": "eight trainings at once in one folder",
    "long": "200 stops of one search; 1,000 epochs"}


@dataclass(frozen=True)
class Mended:
    """A fault that the campaign found.

    Args:
        part: that found it.
        what: was wrong, and what happens now.
        test: holds it, as FILE::NAME.
    """

    part: str
    what: str
    test: str


def write(out: Path) -> None:
    """Put the counts of a folder into the page."""
    text = PAGE.read_text()
    with atomic_path(PAGE) as temporary:
        temporary.write_text(PLACE.sub(lambda found: found[1] + tables(out) + found[2], text))


def tables(out: Path) -> str:
    """The counts of a folder's parts, how each ended, and what was mended."""
    done = {name: json.loads((out / f"{name}.json").read_text()) for name in WHAT
            if (out / f"{name}.json").exists()}
    if not done:
        raise FileNotFoundError(f"there are no counts in {out}; run python -m benchmarks.torture "
                                f"first")
    lines = [(name, WHAT[name], f"{part['trials']:,}", f"{part['trials'] - part['faults']:,}",
              str(sum(fault.part == name for fault in MENDED)), str(part["faults"]))
             for name, part in done.items()]
    head = ("part", "tried", "trials", "survived", "faults mended", "faults left")
    ends = [(name, kind, f"{count:,}") for name, part in done.items()
            for kind, count in part["outcomes"].items()]
    found = [(fault.part, fault.what, f"`{fault.test}`") for fault in MENDED]
    return "\n".join([
        Table(head, lines).markdown(), "", *_origin(done), "", "How the trials ended:", "",
        Table(("part", "end", "trials"), ends).markdown(), "", "Found and mended:", "",
        Table(("part", "what was wrong, and what happens now", "test"), found).markdown(), ""])


def _origin(done: dict[str, Any]) -> list[str]:
    commits = sorted({commit[:12] + commit[40:] for part in done.values()
                      for commit in part["commits"]})
    machines = sorted({machine for part in done.values() for machine in part["machines"]})
    return [f"The seeds of each part are 0 to its trials less one. Commits: {', '.join(commits)}. "
            f"Machine: {', '.join(machines)}."]


MENDED: tuple[Mended, ...] = ()
