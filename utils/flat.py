"""Nested values as one line of text: `name=value`, spaces between them, a/b for what is nested."""

import json
from typing import Any


def as_text(value: Any) -> str:
    """A value without spaces: a plain word as it is, all else as JSON.

    >>> as_text("umec"), as_text(0.5), as_text("0.5"), as_text([1, 2]), as_text(None)
    ('umec', '0.5', '"0.5"', '[1,2]', 'null')
    """
    if isinstance(value, str) and _is_word(value):
        return value
    # the only spaces left in compact JSON stand inside of strings
    return json.dumps(value, separators=(",", ":")).replace(" ", "\\u0020")


def from_text(text: str) -> Any:
    """What `as_text` has written.

    >>> [from_text(as_text(value)) for value in ("umec", "0.5", 0.5, "a b", True, {})]
    ['umec', '0.5', 0.5, 'a b', True, {}]
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


def dump(values: dict[str, Any]) -> str:
    """A nested dict as a line, its names in order.

    Raises:
        ValueError: a name is empty or holds a space, a slash or "=".

    >>> dump({"method": "umec", "dynamics": {"slr": 0.05, "keep": []}, "extra": {}})
    'dynamics/keep=[] dynamics/slr=0.05 extra={} method=umec'
    """
    return " ".join(f"{name}={as_text(value)}" for name, value in sorted(_leaves(values).items()))


def load(line: str) -> dict[str, Any]:
    """What `dump` has written.

    >>> load("dynamics/keep=[] dynamics/slr=0.05 extra={} method=umec")
    {'dynamics': {'keep': [], 'slr': 0.05}, 'extra': {}, 'method': 'umec'}
    """
    found: dict[str, Any] = {}
    for part in line.split():
        path, _, text = part.partition("=")
        *outer, name = path.split("/")
        inner = found
        for each in outer:
            inner = inner.setdefault(each, {})
        inner[name] = from_text(text)
    return found


def _leaves(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name.split() != [name] or "/" in name or "=" in name:
            raise ValueError(f"the name {name!r} cannot be written: it is empty, or holds a space, "
                             f"a slash or an equals sign")
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{before}{name}/")
        else:
            found[before + name] = value
    return found


def _is_word(value: str) -> bool:
    """Whether a string is read back as itself, without quotes."""
    if not value or value[0] in '"[{' or len(value.split()) != 1 or value != value.strip():
        return False
    try:
        json.loads(value)
    except ValueError:
        return True
    return False
