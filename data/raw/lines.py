"""Reading `::`-separated text files line by line, with an honest account of the lines that could
not be used."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.raw.bad_lines import BadLines
from data.raw.forms import BYTE_ORDER_MARK, NUL, find_forms, refuse_foreign


class LineFile:
    """A text file of fields between `::`; a byte-order mark in front is passed over.

    Args:
        kinds: of the fields, see `data.raw.layout`; None for text.
        published: see `data.raw.bad_lines.BadLines`.

    Raises:
        ValueError: the file is empty, holds NUL bytes, or is no plain text.
    """

    def __init__(self, path: Path, kinds: Sequence[int | None], published: str) -> None:
        self.path = path
        self.kinds = kinds
        content = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
        if not content.strip():
            raise ValueError(f"{path} is empty; fetch the file again")
        refuse_foreign(path, content[:512])
        if b"\0" in content:
            raise ValueError(f"{path} has {NUL.name}: {NUL.hint}")
        self.lines = content.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
        self.bad_lines = BadLines(path, published)
        if not content.endswith(b"\n"):
            self.bad_lines.warn_cut_off(self.lines[-1])

    def rows(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield (line number from 1, fields) of every line of the right width; the others are noted
        as bad."""
        for number, line in enumerate(self.lines, start=1):
            fields = line.split(b"::")
            if len(fields) == len(self.kinds):
                yield number, fields
            else:
                self.bad(number, f"expected {len(self.kinds)} fields, got {len(fields)}")

    def bad(self, number: int, why: str) -> None:
        """Note a line that cannot be used."""
        line = self.lines[number - 1]
        forms = find_forms(line.decode("latin-1"), "::", self.kinds) if self.bad_lines.room else {}
        self.bad_lines.note(number, why, line, forms)

    def check(self) -> None:
        """Show the bad lines of a file that has been read; see `BadLines.check`."""
        self.bad_lines.check(len(self.lines))
