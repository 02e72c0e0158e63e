"""The checksums of an encoded set's files, in a file beside them."""

import json
import logging
from pathlib import Path

from utils.files import sha256_of_file, write_json

log = logging.getLogger("pep")

FILE = "checksums.json"


def write(folder: Path) -> None:
    """Write those of all files below a folder."""
    write_json(folder / FILE, _found(folder))


def hold(folder: Path) -> bool:
    """Whether a folder's files are those that were written; a warning where they are others.

    All bytes are read: one or two seconds for each gigabyte.
    """
    try:
        written = json.loads((folder / FILE).read_text())
        if written == (found := _found(folder)):
            return True
    except FileNotFoundError:  # no set, or an older one
        return False
    except (OSError, ValueError, RecursionError) as error:
        log.warning("the checksums in %s cannot be read (%s)", folder / FILE, error)
        return False
    names = set(written) | set(found) if isinstance(written, dict) else set(found)
    changed = [name for name in sorted(names)
               if not isinstance(written, dict) or written.get(name) != found.get(name)]
    log.warning("the encoded set %s is damaged: %s changed after it was written", folder,
                ", ".join(changed))
    return False


def _found(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of_file(path)
            for path in sorted(folder.rglob("*")) if path.is_file() and path.name != FILE}
