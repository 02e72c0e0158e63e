"""Reading `::`-separated text files line by line, with an honest account of the lines that could not be used."""

import logging
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("pep")

MAX_BAD_SHARE = 0.001  # of a file's lines; above it the file is refused
SHOWN = 5


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
        self.bad_lines: list[str] = []
        if not content.endswith(b"\n"):
            log.warning("%s does not end with a line end; its last line may be cut off: %r", path, self.lines[-1][:60])

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
        self.bad_lines.append(f"line {number}: {why}: {self.lines[number - 1][:60]!r}")


def check_bad_lines(file: LineFile) -> None:
    """Show the bad lines of a file that has been read; too many are an error.

    Raises:
        ValueError: more than MAX_BAD_SHARE of the lines are bad, or none is good.
    """
    bad = len(file.bad_lines)
    if not bad:
        return
    report = f"{file.path}: {bad} of {len(file.lines)} lines cannot be used:\n  " + "\n  ".join(file.bad_lines[:SHOWN])
    if bad > SHOWN:
        report += f"\n  ... and {bad - SHOWN} more"
    if (bad > MAX_BAD_SHARE * len(file.lines) and bad > 1) or bad == len(file.lines):
        raise ValueError(f"{report}\nMore than {MAX_BAD_SHARE:.1%} of the file is unusable; fetch it again")
    log.warning("%s\nThey are left out.", report)
