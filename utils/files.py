"""Files that are either whole or not there: write to a temporary name, then rename."""

import difflib
import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"  # among a record's keys in its file; older files have none
# another key, far from it: damage that takes the checksum away makes no older file
WITH_CHECKSUM = "with_checksum"
NEAR = 0.5  # of a name, that damage to it leaves
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share, or a file's limit
NO_SPACE = r"No space left|\d+ requested and \d+ written"


def folders_that_begin(folder: Path, name: str) -> list[Path]:
    """The folders in `folder` whose name begins so, in their order.

    >>> [found.name for found in folders_that_begin(Path(__file__).parents[1], "util")]
    ['utils']
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith(name) and path.is_dir())


@contextmanager
def naming_a_full_disk(path: Path, temporary: Path, need: int | None = None) -> Iterator[None]:
    """Let an error in the block that says that the disk is full name the folder and the need.

    Args:
        path: what is written in the end.
        temporary: file or folder that is written first.
        need: bytes; without it, what was written before the error counts as the least.

    Raises:
        OSError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        # safetensors has an error of its own and numpy one of a short write, without a number
        number = getattr(error, "errno", None)
        if number is None and "File too large" in str(error):
            number = errno.EFBIG
        if number not in FULL and not re.search(NO_SPACE, str(error)):
            raise
        what = "No space left" if number != errno.EFBIG else "File too large (see ulimit -f)"
        wanted = f"{need:,}" if need else f"more than {_bytes_in(temporary):,}"
        free = shutil.disk_usage(path.parent).free
        raise OSError(number or errno.ENOSPC,
                      f"{what} in {path.parent} to write {path.name}, which needs {wanted} "
                      f"bytes (free: {free:,}); make room there, or choose another folder with "
                      f"--out (runs) or --cache (data sets)") from error


def _bytes_in(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@contextmanager
def atomic_path(path: Path, need: int | None = None) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends without an
    error.

    An error inside the block (a full disk, say) removes the temporary file and leaves the old
    `path` as it was. The file's mode is that of any new file under the process's umask.

    Args:
        path: the file to write.
        need: its bytes, where they are known, for the message about a full disk.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_behind(path)
    handle, name = tempfile.mkstemp(prefix=temporary_prefix(path), suffix=f".part{path.suffix}",
                                    dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming_a_full_disk(path, temporary, need):
            yield temporary
            # mkstemp makes files of mode 600; so do writers that, like safetensors, put a file of
            # their own in the place of this one, which is why the mode is set after the block
            temporary.chmod(0o666 & ~_umask())
            # Windows syncs no file that is open for reading alone
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())  # the rename must not reach the disk before the bytes do
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_prefix(path: Path) -> str:
    """Of the names under which this process writes a file or folder before it is renamed."""
    return f".{path.name}.{platform.node()}-{os.getpid()}."


def remove_left_behind(path: Path) -> None:
    """Remove what processes of this machine that were killed have left of a file or folder.

    A writer on another machine, or one that is alive, is left alone.
    """
    if os.name != "posix":  # elsewhere, asking whether a process is alive ends it
        return
    start = f".{path.name}.{platform.node()}-"
    for left in path.parent.glob(f"{glob.escape(start)}*"):
        number = left.name.removeprefix(start).partition(".")[0]
        if not number.isdigit() or _alive(int(number)):
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with atomic_path(target, source.stat().st_size) as temporary:
        shutil.copyfile(source, temporary)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record and its checksum, whole or not at all."""
    record = json.loads(json.dumps(record))  # keys are text, as when it is read
    write_json(path, {**record, CHECKSUM: checksum_of(record), WITH_CHECKSUM: True})


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no record, or was changed after it was written; the message says why and
            leaves the path to the caller.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.json"
    >>> write_record(path, {"auc": 0.84})
    >>> read_record(path)
    {'auc': 0.84}
    >>> _ = path.write_text(path.read_text().replace("0.84", "0.85"))
    >>> read_record(path)
    Traceback (most recent call last):
    ValueError: it was changed after it was written: its checksum is of another content
    """
    try:
        record = json.loads(path.read_text())
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(record, dict):
        raise ValueError(f"it holds a {type(record).__name__}, not a record")
    found = take_checksum(record)
    if found is not None and found != checksum_of(record):
        raise ValueError("it was changed after it was written: its checksum is of another content")
    return record


def take_checksum(record: dict[str, Any], name: str = CHECKSUM) -> str | None:
    """Take its checksum out of a record; None where it has none, as older files do.

    Raises:
        ValueError: the checksum is gone, or damage has changed its name.

    >>> take_checksum({"auc": 0.8}), take_checksum({"auc": 0.8, "checksum": "a1"})
    (None, 'a1')
    >>> take_checksum({"auc": 0.9, "chucksum": "a1"})
    Traceback (most recent call last):
    ValueError: its checksum has the name 'chucksum'
    >>> take_checksum({"auc": 0.9, "with_checksum": True})
    Traceback (most recent call last):
    ValueError: its checksum is gone
    """
    has_one = record.pop(WITH_CHECKSUM, False)
    if name not in record and (near := difflib.get_close_matches(name, record, 1, NEAR)):
        raise ValueError(f"its checksum has the name {near[0]!r}")
    if has_one and name not in record:
        raise ValueError("its checksum is gone")
    return record.pop(name, None)


def checksum_of(record: dict[str, Any]) -> str:
    """Of the values of a record, whatever their order."""
    return sha256_of(json.dumps(record, sort_keys=True))[:16]


def sha256_of(*parts: bytes | memoryview | str) -> str:
    """Hex digest over the parts, each preceded by its length so that no two lists of parts collide.

    >>> sha256_of("ab", "c") == sha256_of("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_writable(folder: Path, option: str = "--out") -> None:
    """Make `folder` and prove that a file can be made in it.

    Args:
        option: what the user can choose another folder with.

    Raises:
        OSError: no file can be made there; the message names the folder and the option.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the folder {folder} ({error}); choose another with "
                      f"{option}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
