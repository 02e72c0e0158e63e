"""Parts of messages."""

import difflib
from collections.abc import Iterable


def counted(count: int, noun: str) -> str:
    """A count and what it is of.

    >>> counted(1, "run"), counted(2000, "run")
    ('1 run', '2,000 runs')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One line: what came, the nearest known name, and all known names.

    >>> unknown("model", "deepfn", ["fm", "deepfm"])
    "unknown model 'deepfn'; did you mean 'deepfm'? Known: deepfm, fm"
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}"
