"""A raw file, plain or compressed, as blocks of whole lines."""

import gzip
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from data.layout import Layout

LONGEST_LINE = 1 << 16  # bytes; real lines have a few hundred
ENDS = 1 << 20  # bytes of head and tail that identify a file of gigabytes


def find_file(layout: Layout, given: str | None) -> Path:
    """The raw file: `given` (the file or its folder), else $PEP_DATA/<name>, else data/<name>.

    Raises:
        FileNotFoundError: it is not there; the message says where to get it and where to put it.
    """
    if given is not None:
        folder, origin = Path(given), "--data"
        if folder.is_file():
            return folder
        if not folder.exists():
            raise FileNotFoundError(f"--data: there is no file or folder {folder}")
    elif os.environ.get("PEP_DATA"):
        folder, origin = Path(os.environ["PEP_DATA"]) / layout.name, "PEP_DATA"
    else:
        folder, origin = Path(__file__).parent / layout.name, "the data folder"
    names = [name + end for end in ("", ".gz", ".zip") for name in layout.file_names]
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{origin}: {folder} has none of {', '.join(names)}. Get the file from {layout.url}, or make one with "
            f"`python -m data.planted {layout.name} --rows 1000000 --out {folder / layout.file_names[0]}`")
    return found[0]


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and hashes of head and tail, which tell a file from another without reading gigabytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(ENDS)).hexdigest()
        file.seek(max(size - ENDS, 0))
        tail = hashlib.sha256(file.read(ENDS)).hexdigest()
    return {"bytes": size, "head": head, "tail": tail}


class RawFile:
    """Blocks of whole lines of a raw file; the header is checked and left out.

    Args:
        path: plain, gzip, or zip with one suitable member (which may itself be a gzip).
        block_bytes: about how much text is in a block.
    """

    def __init__(self, path: Path, layout: Layout, block_bytes: int = 1 << 25) -> None:
        self.path = path
        self.layout = layout
        self.block_bytes = block_bytes
        self.position = 0  # bytes of the file, as it lies on the disk, that are read
        self.size = path.stat().st_size
        self.cut_off = b""  # the last line, when no line end follows it

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield (bytes,) uint8 of whole lines, each with its line end.

        Raises:
            ValueError: the file is empty, has a header where none belongs or lacks one, is not what its name says, is
                cut short (gzip, zip) or changed while it was read.
        """
        before = self.path.stat()
        rest, first = b"", True
        with _opened(self.path, self.layout) as (stream, on_disk):
            while True:
                try:
                    text = stream.read(self.block_bytes)
                except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
                    raise ValueError(f"{self.path} is damaged or cut short ({error}); fetch it again") from error
                self.position = on_disk.tell()
                if not text:
                    break
                text = rest + text
                end = text.rfind(b"\n") + 1
                text, rest = text[:end], text[end:]
                if len(rest) > LONGEST_LINE:
                    raise ValueError(f"{self.path} has a line of more than {LONGEST_LINE} bytes; line ends must be LF "
                                     "or CRLF")
                if text:
                    text = self._without_header(text) if first else text
                    first = False
                if text:
                    yield np.frombuffer(text, np.uint8)
        if first and not rest.strip():
            raise ValueError(f"{self.path} is empty; fetch it again")
        after = self.path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ValueError(f"{self.path} changed while it was read ({before.st_size} bytes before, {after.st_size} "
                             "after); wait until it is complete")
        if rest:
            self.cut_off = rest
            rest = self._without_header(rest + b"\n") if first else rest + b"\n"
            if rest:
                yield np.frombuffer(rest, np.uint8)

    def _without_header(self, text: bytes) -> bytes:
        line, _, others = text.partition(b"\n")
        line = line.removesuffix(b"\r")
        if line.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
            raise ValueError(f"{self.path} starts with a byte-order mark; it must be plain text as published")
        shown = line[:80].decode("latin-1")
        if self.layout.has_header:
            if line != self.layout.header.encode():
                raise ValueError(f"{self.path}: the first line must be the header {self.layout.header!r}, got "
                                 f"{shown!r}")
            return others
        if line[:1].isalpha():
            raise ValueError(f"{self.path}: the first line looks like a header ({shown!r}); {self.layout.name} files "
                             "have none, remove it")
        return text


@contextmanager
def _opened(path: Path, layout: Layout) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The text's stream, and the file under it whose position tells how far the reading is."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(file) as stream:
                yield cast(IO[bytes], stream), file
        elif magic == b"PK\x03\x04":
            with _zip_member(path, file, layout) as stream:
                yield stream, file
        else:
            yield file, file


@contextmanager
def _zip_member(path: Path, file: IO[bytes], layout: Layout) -> Iterator[IO[bytes]]:
    wanted = [name + end for name in layout.file_names for end in ("", ".gz")]
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); fetch it again") from error
    with archive:
        names = archive.namelist()
        found = [name for name in names if Path(name).name in wanted]
        if len(found) != 1:
            raise ValueError(f"{path} must hold exactly one of {', '.join(wanted)}; it holds {', '.join(names[:5])}")
        try:
            opened = archive.open(found[0])
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{path}: {found[0]} cannot be unpacked ({error}); unpack it by hand") from error
        with opened as member:
            if found[0].endswith(".gz"):
                with gzip.open(member) as stream:
                    yield cast(IO[bytes], stream)
            else:
                yield member
