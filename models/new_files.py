"""A file or folder that is written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield an open temporary file beside `path`; it gets that name when the block ends well, and
    goes when it does not. Its mode is that of any new file.

    >>> place = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with new_file(place) as file:
    ...     _ = file.write(b"a")
    >>> place.read_text()
    'a'
    """
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


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which is absent or empty; it gets that name when
    the block ends well, and goes when it does not.

    Raises:
        OSError: it cannot be written; the message names the folder, what was written and what is
            free.

    >>> place = Path(tempfile.mkdtemp())
    >>> with new_folder(place / "model") as temporary:
    ...     _ = (temporary / "a.txt").write_text("a")
    >>> [path.name for path in (place / "model").iterdir()]
    ['a.txt']
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(folder.parent.stat().st_mode & 0o777)
        if folder.exists():
            folder.rmdir()  # an empty one
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
