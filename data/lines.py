"""Reading `::`-separated text files line by line, with an honest account of the lines that could not be used."""

from collections.abc import Iterator
from pathlib import Path

from data.bad_lines import BadLines


class LineFile:
    """A text file of `width` fields a line.

    Raises:
        ValueError: the file is empty, or holds NUL bytes or a byte-order mark (a mis-encoded file).
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self.width = width
        content = path.read_bytes()
        if not content.strip():
            raise ValueError(f"{path} is empty; fetch the file again")
        if b"\0" in content or content.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
            raise ValueError(f"{path} is mis-encoded: it has NUL bytes or a byte-order mark, but MovieLens files are "
                             "plain Latin-1; unpack the official archive again")
        self.lines = content.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
        self.bad_lines = BadLines(path)
        if not content.endswith(b"\n"):
            self.bad_lines.warn_cut_off(self.lines[-1])

    def rows(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield (line number from 1, fields) of every line of the right width; the others are noted as bad."""
        for number, line in enumerate(self.lines, start=1):
            fields = line.split(b"::")
            if len(fields) == self.width:
                yield number, fields
            else:
                self.bad(number, f"expected {self.width} fields, got {len(fields)}")

    def bad(self, number: int, why: str) -> None:
        """Note a line that cannot be used."""
        self.bad_lines.note(number, why, self.lines[number - 1])

    def check(self) -> None:
        """Show the bad lines of a file that has been read; see `BadLines.check`."""
        self.bad_lines.check(len(self.lines))
