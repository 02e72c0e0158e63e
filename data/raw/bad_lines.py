"""Lines that cannot be used: counted, shown, and fatal past a stated share. None is dropped in
silence."""

import logging
from collections.abc import Mapping
from pathlib import Path

from data.raw.forms import Form

log = logging.getLogger("pep")

MAX_BAD_SHARE = 0.001  # of a file's lines; above it the file is refused
SHOWN = 5
NOTED = 1000  # lines whose forms are looked at


class BadLines:
    """The bad lines of one file: the text of the first few, and the first line of each known form.

    Args:
        path: of the file.
        published: what the file should look like, and how to get it so; the end of an error.
    """

    def __init__(self, path: Path, published: str) -> None:
        self.path = path
        self.published = published
        self.count = 0
        self.noted: list[tuple[int, str, bytes, Mapping[Form, str]]] = []  # of the first, in order

    def note(self, number: int, why: str, text: bytes, forms: Mapping[Form, str]) -> None:
        """Note line `number` (from 1).

        Args:
            why: it cannot be used.
            forms: see `data.raw.forms.find_forms`.
        """
        if self.room:
            self.noted.append((number, why, text[:60], forms))
        self.count += 1

    def extend(self, others: "BadLines", lines: int) -> None:
        """Add those of the next part of the file, whose line 1 has `lines` lines before it."""
        self.noted += [(lines + number, why, text, forms)
                       for number, why, text, forms in others.noted[:self.room]]
        self.count += others.count

    @property
    def shown(self) -> list[str]:
        """The first few, in words."""
        return [f"line {number}: {why}: {text!r}" for number, why, text, _ in self.noted[:SHOWN]]

    @property
    def forms(self) -> dict[Form, str]:
        """The forms of the noted lines, each with the first line that has it."""
        found: dict[Form, str] = {}
        for number, _, _, forms in self.noted:
            for form, cell in forms.items():
                found.setdefault(form, f"first in line {number}: {cell!r}")
        return found

    @property
    def room(self) -> int:
        """How many more lines should be noted; the others need only be counted."""
        return max(NOTED - self.count, 0)

    def warn_cut_off(self, line: bytes) -> None:
        """Say that the file does not end with a line end."""
        log.warning("%s does not end with a line end; its last line may be cut off: %r", self.path,
                    line[-60:])

    def too_many(self, lines: int) -> bool:
        """Whether a file of `lines` lines with so many bad ones is refused. One alone never is,
        unless it is all."""
        return (self.count > MAX_BAD_SHARE * lines and self.count > 1) or self.count == lines

    def check(self, lines: int) -> None:
        """Show the bad lines of a file of `lines` lines, and in which forms it was saved.

        Raises:
            ValueError: more than MAX_BAD_SHARE of the lines are bad, or none is good.
        """
        if not self.count:
            return
        shown = self.shown
        report = f"{self.path}: {self.count} of {lines} lines cannot be used:\n  " + "\n  ".join(
            shown
        )
        if self.count > len(shown):
            report += f"\n  ... and {self.count - len(shown)} more"
        for form, first in self.forms.items():
            report += f"\nThe file has {form.name} ({first}): {form.hint}."
        if self.too_many(lines):
            raise ValueError(f"{report}\nMore than {MAX_BAD_SHARE:.1%} of the file is unusable. "
                             f"{self.published}")
        log.warning("%s\nThey are left out.", report)
