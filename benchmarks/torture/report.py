"""The campaign's counts as the tables of docs/reliability.md."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies.table import Table
from utils.files import atomic_path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
PLACE = re.compile(r"(<!-- campaign -->\n).*?(<!-- end of campaign -->)", re.DOTALL)
FAULT = re.compile(r"^\| (\w+) \| .* \| `(\S+::\w+)` \|$", re.MULTILINE)
WHAT = {
    "kills": "work killed, interrupted, started twice, with the clock set back; then finished",
    "disk": "work on a disk that is full, limited, read-only, slow, removed, has links; then done",
    "files": "files changed by others, read",
    "rows": "files of 500 raw lines, each line changed, against the plain definition",
    "settings": "random dicts of settings",
    "load": "eight trainings at once in one folder; 200 scorers of one model for five minutes",
    "long": "200 stops of one search; 1,000 epochs"}


def write(out: Path) -> None:
    """Put the counts of a folder into the page."""
    text = PAGE.read_text()
    counts = tables(out, Counter(part for part, _ in mended(text)))
    with atomic_path(PAGE) as temporary:
        temporary.write_text(PLACE.sub(lambda found: found[1] + counts + found[2], text))


def mended(text: str) -> list[tuple[str, str]]:
    """The part that found each fault of the page's table, and the test that holds it, FILE::NAME.

    >>> mended("| kills | Half a file was left. | `tests/test_a.py::test_b` |")
    [('kills', 'tests/test_a.py::test_b')]
    """
    return FAULT.findall(text)


def tables(out: Path, faults: Mapping[str, int]) -> str:
    """The counts of a folder's parts, and how each ended.

    Args:
        faults: that were mended, by part.
    """
    done = {name: json.loads((out / f"{name}.json").read_text()) for name in WHAT
            if (out / f"{name}.json").exists()}
    if not done:
        raise FileNotFoundError(f"there are no counts in {out}; run python -m benchmarks.torture "
                                f"first")
    lines = [(name, WHAT[name], f"{part['trials']:,}", f"{part['trials'] - part['faults']:,}",
              str(faults.get(name, 0)), str(part["faults"]))
             for name, part in done.items()]
    head = ("part", "tried", "trials", "survived", "faults mended", "faults left")
    ends = []
    for name, part in done.items():
        ends += [(name, kind, f"{count:,}") for kind, count in part["outcomes"].items()]
    return "\n".join([
        Table(head, lines).markdown(), "", *_origin(done), "", "How the trials ended:", "",
        Table(("part", "end", "trials"), ends).markdown(), ""])


def _origin(done: dict[str, Any]) -> list[str]:
    commits, machines = set(), set()
    for part in done.values():
        commits |= {commit[:12] + commit[40:] for commit in part["commits"]}
        machines |= set(part["machines"])
    return [f"The seeds of each part are 0 to its trials less one. Commits: "
            f"{', '.join(sorted(commits))}. Machine: {', '.join(sorted(machines))}."]
