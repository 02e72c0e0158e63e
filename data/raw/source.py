"""A raw file, plain or compressed, as blocks of whole lines."""

import gzip
import hashlib
import io
import logging
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from data.raw.forms import BYTE_ORDER_MARK, NUL, describe_header, find_forms, refuse_foreign
from data.raw.layout import Layout
from data.raw.plain import cells_of, complaint

try:
    import lzma
except ImportError:  # a Python that was built without it
    lzma = None  # type: ignore[assignment]

log = logging.getLogger("pep")

LONGEST_LINE = 1 << 16  # bytes; real lines have a few hundred
TAR_HEAD = 512  # bytes of a tar archive's first header
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError,
            *([lzma.LZMAError] if lzma else []))
_PACKINGS = ("", ".gz", ".zip", ".xz", ".tar", ".tar.gz", ".tgz")
_NOT_READ = (".zst", ".bz2", ".7z", ".parquet", ".feather")  # found too: reading says what to do
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
        folder, origin = Path(__file__).parents[1] / layout.name, "the data folder"
    names = [name + end for end, name in product(_PACKINGS, layout.file_names)]
    others = [name + end for end, name in product(_NOT_READ, layout.file_names)]
    found = [folder / name for name in (*names, *layout.archives, *others)
             if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{origin}: {folder} has none of {', '.join((*layout.file_names, *layout.archives))} "
            f"(each also with {', '.join(_PACKINGS[1:])} behind its name). "
            f"Get the file from {layout.url}, or make one with "
            f"`python -m data.synthetic.planted {layout.name} --rows 1000000 --out "
            f"{folder / layout.file_names[0]}`")
    return found[0]


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and hashes of head and tail, which tell a file from another without reading
    gigabytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(ENDS)).hexdigest()
        file.seek(max(size - ENDS, 0))
        tail = hashlib.sha256(file.read(ENDS)).hexdigest()
    return {"bytes": size, "head": head, "tail": tail}


class RawFile:
    """Blocks of whole lines of a raw file; the header is checked and left out.

    A byte-order mark in front is passed over. A file that should have a header and has none is
    taken if its first line is a row as published.

    Args:
        path: plain, gzip, xz, or an archive (zip, tar) with one suitable member, in any nesting but
            for a zip inside of something else.
        block_bytes: about how much text is in a block.
        part: first byte and end of the lines that are read, of a plain file; see `parts`.
    """

    def __init__(self, path: Path, layout: Layout, block_bytes: int = 1 << 25,
                 part: tuple[int, int] | None = None) -> None:
        self.path = path
        self.layout = layout
        self.block_bytes = block_bytes
        self.part = part
        self.position = 0  # bytes of the file, as it lies on the disk, that are read
        self.size = path.stat().st_size
        self.cut_off = b""  # the last line, when no line end follows it
        self.first_line = 1  # number of the first line that is a row; known when a block was read

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield (bytes,) uint8 of whole lines, each with its line end.

        Raises:
            ValueError: the file is empty, has a header where none belongs or lacks one, is of a
                form that is not read (see `data.raw.forms`), is cut short (when packed) or changed
                while it was read.
        """
        before = self.path.stat()
        rest, first = b"", self.part is None
        with _opened(self.path, self.layout) as (stream, on_disk):
            if self.part:
                stream.seek(self.part[0])
            while True:
                most = self.block_bytes
                if self.part:
                    most = min(most, self.part[1] - stream.tell())
                with _damage_named(self.path):
                    text = stream.read(most)
                self.position = on_disk.tell()
                if not text:
                    break
                text = rest + text
                end = text.rfind(b"\n") + 1
                text, rest = text[:end], text[end:]
                if len(rest) > LONGEST_LINE and b"\0" in rest:
                    raise ValueError(f"{self.path} has {NUL.name}: {NUL.hint}")
                if len(rest) > LONGEST_LINE:
                    raise ValueError(f"{self.path} has a line of more than {LONGEST_LINE} bytes; "
                                     "line ends must be LF or CRLF")
                if text:
                    text = self._without_header(text) if first else text
                    first = False
                if text:
                    yield np.frombuffer(text, np.uint8)
        if first and not rest.strip():
            raise ValueError(f"{self.path} is empty; fetch it again")
        after = self.path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ValueError(f"{self.path} changed while it was read ({before.st_size} bytes "
                             f"before, {after.st_size} after); wait until it is complete")
        if rest:
            self.cut_off = rest
            rest = self._without_header(rest + b"\n") if first else rest + b"\n"
            if rest:
                yield np.frombuffer(rest, np.uint8)

    def parts(self, count: int) -> list[tuple[int, int]]:
        """The rows of a plain file in at most `count` parts of about the same size, each (first
        byte, end) of whole lines; none of a packed file or one whose lines have no ends.

        Raises:
            ValueError: as `blocks`, of the header.
        """
        with _opened(self.path, self.layout) as (stream, on_disk):
            if stream is not on_disk:
                return []
            first = stream.readline(self.block_bytes)
            if not first.endswith(b"\n"):
                return []
            cuts = [len(first) - len(self._without_header(first))]
            for number in range(1, count):
                stream.seek(max(cuts[-1], self.size * number // count))
                line = stream.readline(self.block_bytes)
                if not line.endswith(b"\n") and stream.tell() < self.size:
                    return []
                cuts.append(stream.tell())
        return [(start, end) for start, end in pairwise([*cuts, self.size]) if start < end]

    def _without_header(self, text: bytes) -> bytes:
        layout = self.layout
        if text.startswith(BYTE_ORDER_MARK):
            log.info("%s starts with a byte-order mark, which is passed over", self.path)
            text = text.removeprefix(BYTE_ORDER_MARK)
        first, _, others = text.partition(b"\n")
        line = first.removesuffix(b"\r").decode("latin-1")
        if layout.has_header and line.removesuffix(layout.separator) == layout.header:
            self.first_line = 2
            return others
        if complaint(cells_of(line, layout), layout) is None:
            if layout.has_header:
                log.warning("%s has no header; its columns are taken to be those of %s's file, in "
                            "the published order", self.path, layout.name)
            return text
        about = describe_header(line, layout)
        forms = find_forms(line, layout.separator, [column.kind for column in layout.columns])
        if layout.has_header:
            why = about or ", ".join(form.name for form in forms)
            raise ValueError(f"{self.path}: the first line must be the header {layout.header!r}, "
                             f"got {line[:80]!r}. {f'It has {why}. ' if why else ''}"
                             f"{layout.published}")
        if about is not None or (first[:1].isalpha() and not forms):
            raise ValueError(f"{self.path}: the first line looks like a header ({line[:80]!r}); "
                             f"{layout.name} files have none, remove it. "
                             f"{f'It has {about}. ' if about else ''}{layout.published}")
        return text


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Errors of a packed file that is not whole, in words."""
    try:
        yield
    except _DAMAGED as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); fetch it again") from error


@contextmanager
def _opened(path: Path, layout: Layout) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The text's stream, and the file under it whose position tells how far the reading is."""
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        with _damage_named(path):
            stream = _unpacked(path, file, layout, stack)
        yield stream, file


def _unpacked(path: Path, file: Any, layout: Layout, stack: ExitStack) -> IO[bytes]:
    """The text in a file, whatever it is packed in; a form that is not read is a named error."""
    stream = file
    while True:
        head = stream.peek(TAR_HEAD)[:TAR_HEAD]
        if head.startswith(b"\x1f\x8b"):
            stream = stack.enter_context(gzip.GzipFile(fileobj=stream, mode="rb"))
        elif head.startswith(b"\xfd7zXZ\0"):
            if lzma is None:
                raise ValueError(f"{path} is packed by xz, which this Python cannot read; unpack "
                                 "it: xz -d FILE")
            stream = stack.enter_context(lzma.LZMAFile(stream))
        elif head[257:262] == b"ustar":
            stream = io.BufferedReader(_TarMember(path, stream, layout))
        elif head.startswith(b"PK\x03\x04"):
            if stream is not file:
                raise ValueError(f"{path} holds a zip archive inside; unpack it by hand")
            archive = stack.enter_context(zipfile.ZipFile(file))
            stream = stack.enter_context(_zip_member(path, archive, layout))
        else:
            refuse_foreign(path, head)
            return cast(IO[bytes], stream)


def _wanted(layout: Layout) -> list[str]:
    return [name + end for name, end in product(layout.file_names, ("", ".gz"))]


def _must_hold(path: Path, layout: Layout, names: Sequence[str]) -> ValueError:
    return ValueError(f"{path} must hold exactly one of {', '.join(_wanted(layout))}; it holds "
                      f"{', '.join(names[:5])}")


def _zip_member(path: Path, archive: zipfile.ZipFile, layout: Layout) -> IO[bytes]:
    names = archive.namelist()
    if "xl/workbook.xml" in names:
        raise ValueError(f"{path} is an Excel workbook, which changes hashes and large numbers. "
                         f"{layout.published}")
    found = [name for name in names if Path(name).name in _wanted(layout)]
    if len(found) != 1:
        raise _must_hold(path, layout, names)
    try:
        return archive.open(found[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: {found[0]} cannot be unpacked ({error}); unpack it by "
                         "hand") from error


class _TarMember(io.RawIOBase):
    """The one suitable member of a tar archive, which is read once from its beginning to its end.

    That there is no second one shows only behind the first.
    """

    def __init__(self, path: Path, stream: IO[bytes], layout: Layout) -> None:
        self.path = path
        self.stream = stream
        self.layout = layout
        self.archive = tarfile.TarFile.open(fileobj=stream, mode="r|")
        self.seen: list[str] = []
        self.member = self._next()
        if self.member is None:
            raise _must_hold(path, layout, self.seen)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with the member's next bytes; how many they are, 0 at its end."""
        count = self.member.readinto(buffer) if self.member else 0
        if not count and self.member:
            self.member = self._next()
            if self.member:
                raise _must_hold(self.path, self.layout, self.seen)
            while self.stream.read(1 << 20):  # a gzip around it has its checksum at its end
                pass
        return count

    def _next(self) -> Any:
        """The next suitable member, opened, or None."""
        while (info := self.archive.next()) is not None:
            self.seen.append(info.name)
            if info.isfile() and Path(info.name).name in _wanted(self.layout):
                return self.archive.extractfile(info)
        return None
