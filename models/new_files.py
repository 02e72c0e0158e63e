"""A file or folder that is written whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

MANIFEST = "manifest.json"  # of a folder; what has none is not whole
CHECKSUM = "checksum"  # of the manifest itself, in it


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield an open temporary file beside `path`; it gets that name when the block ends well, and
    goes when it does not. Its mode is that of any new file. Where `path` is a link, the file that
    it leads to is replaced; a pipe or a device is written to as it is.

    >>> place = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with new_file(place) as file:
    ...     _ = file.write(b"a")
    >>> place.read_text()
    'a'
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part",
                                     delete=False) as file:
        temporary = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes do
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def checksum_of(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its own checksum."""
    others = {key: value for key, value in manifest.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def require_free(folder: Path) -> None:
    """Raise FileExistsError where there is anything but an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "there already and not empty" if folder.is_dir() else "a file"
        raise FileExistsError(f"{folder} is {what}; name a new folder, or delete it first")


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; it becomes `folder` when the block ends well, and goes when it does
    not. In a folder that is there and empty (a mount, say, which cannot be replaced) its files
    take their places, MANIFEST last.

    Raises:
        FileExistsError: something is there that is no empty folder.
        OSError: it cannot be written; the message names the folder, what was written and what is
            free.

    >>> place = Path(tempfile.mkdtemp())
    >>> with new_folder(place / "model") as temporary:
    ...     _ = (temporary / "a.txt").write_text("a")
    >>> [path.name for path in (place / "model").iterdir()]
    ['a.txt']
    """
    require_free(folder)
    folder = folder.resolve()
    there = folder.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.",
                                      dir=folder if there else folder.parent))
    try:
        yield temporary
        if there:
            for path in sorted(temporary.iterdir(), key=lambda path: path.name == MANIFEST):
                path.rename(folder / path.name)
        else:
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(folder)
    except OSError as error:
        if error.filename is not None:  # it names a path itself
            raise
        written = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        free = shutil.disk_usage(folder.parent).free
        raise OSError(error.errno, f"{error.strerror or error} in {folder.parent} to write "
                      f"{folder.name}, which needs more than {written:,} bytes (free: {free:,}); "
                      f"make room there, or name another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
