"""Lines that cannot be used: counted, shown, and fatal past a stated share. None is dropped in silence."""

import logging
from pathlib import Path

log = logging.getLogger("pep")

MAX_BAD_SHARE = 0.001  # of a file's lines; above it the file is refused
SHOWN = 5


class BadLines:
    """The bad lines of one file; the text of the first few is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.shown: list[str] = []

    def note(self, number: int, why: str, text: bytes) -> None:
        """Note line `number` (from 1)."""
        self.count += 1
        if self.room:
            self.shown.append(f"line {number}: {why}: {text[:60]!r}")

    @property
    def room(self) -> int:
        """How many more lines would be shown; the others need only be counted."""
        return SHOWN - len(self.shown)

    def warn_cut_off(self, line: bytes) -> None:
        """Say that the file does not end with a line end."""
        log.warning("%s does not end with a line end; its last line may be cut off: %r", self.path, line[-60:])

    def too_many(self, lines: int) -> bool:
        """Whether a file of `lines` lines with so many bad ones is refused. One alone never is, unless it is all."""
        return (self.count > MAX_BAD_SHARE * lines and self.count > 1) or self.count == lines

    def check(self, lines: int) -> None:
        """Show the bad lines of a file of `lines` lines.

        Raises:
            ValueError: more than MAX_BAD_SHARE of the lines are bad, or none is good.
        """
        if not self.count:
            return
        report = f"{self.path}: {self.count} of {lines} lines cannot be used:\n  " + "\n  ".join(self.shown)
        if self.count > len(self.shown):
            report += f"\n  ... and {self.count - len(self.shown)} more"
        if self.too_many(lines):
            raise ValueError(f"{report}\nMore than {MAX_BAD_SHARE:.1%} of the file is unusable; fetch it again")
        log.warning("%s\nThey are left out.", report)
