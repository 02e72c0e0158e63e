"""Nested values as one line of text: `name=value`, spaces between them, a/b for what is nested."""

import functools
import json
from typing import Any
from urllib.parse import quote, unquote


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
    if text.lstrip()[:1] in "[{":  # a new list or dict each time, which the caller may change
        return _parsed(text)
    return _scalar(text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# the records of many runs have the same few values and names, over and over
_scalar = functools.lru_cache(maxsize=2**16)(_parsed)


def dump(values: dict[str, Any]) -> str:
    """A nested dict as a line, its names in order.

    What would part names (spaces, slashes, "=") is written as %20 and so on.

    Raises:
        ValueError: a name is empty.

    >>> dump({"my price": 1})
    'my%20price=1'
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
        *outer, name = _names(path)
        inner = found
        for each in outer:
            inner = inner.setdefault(each, {})
        inner[name] = from_text(text)
    return found


@functools.lru_cache(maxsize=2**12)
def _names(path: str) -> tuple[str, ...]:
    return tuple(map(unquote, path.split("/")))


def _leaves(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if not name:
            raise ValueError("a name is empty, and cannot be written")
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{before}{as_name(name)}/")
        else:
            found[before + as_name(name)] = value
    return found


def as_name(name: str) -> str:
    """A name without what parts names; `urllib.parse.unquote` reads it.

    >>> as_name("genres"), as_name("a b/c=1%")
    ('genres', 'a%20b%2Fc%3D1%25')
    """
    return "".join(quote(letter, safe="") if letter.isspace() or letter in "/=%" else letter
                   for letter in name)


def _is_word(value: str) -> bool:
    """Whether a string is read back as itself, without quotes."""
    if not value or value[0] in '"[{' or len(value.split()) != 1 or value != value.strip():
        return False
    try:
        json.loads(value)
    except ValueError:
        return True
    return False
