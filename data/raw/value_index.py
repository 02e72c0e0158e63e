"""The first pass over a raw file: each value becomes the number under which it first came in its
field."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.raw.bad_lines import BadLines
from data.raw.count import ValueCounter
from data.raw.forms import find_forms
from data.raw.layout import KIND_NAMES, Layout
from data.raw.parse import COLUMNS, Parsed, parse
from data.raw.plain import cells_of
from data.raw.source import RawFile


@dataclass
class Part:
    """Rows of a file, or of a part of it, as numbers on the disk.

    Args:
        file: of blocks, each ids (F, n) int32, dense (M, n) float32 and labels (n,) int8.
        sizes: n of each block.
        lines: rows and lines that were left out together, the header aside.
        dropped: the indices of those that were left out.
        renumbered: for each field, the number in the whole file of each number of this part; None
            where they are the same.
    """

    file: Path
    sizes: list[int]
    lines: int
    dropped: list[int]
    renumbered: list[np.ndarray] | None = None


@dataclass
class Numbered:
    """Rows of a raw file as numbers, on the disk.

    Args:
        parts: in the order of the file.
        counters: one a field.
        num_dense: M.
    """

    parts: list[Part]
    counters: list[ValueCounter]
    num_dense: int

    @property
    def rows(self) -> int:
        """Usable rows of the file."""
        return sum(sum(part.sizes) for part in self.parts)

    @property
    def lines(self) -> int:
        """Lines of the file, the header aside."""
        return sum(part.lines for part in self.parts)

    @property
    def kept(self) -> np.ndarray | None:
        """(lines,) bool, which lines are usable; None when all are."""
        if not any(part.dropped for part in self.parts):
            return None
        kept = [np.ones(part.lines, bool) for part in self.parts]
        for of_part, part in zip(kept, self.parts, strict=True):
            of_part[part.dropped] = False
        return np.concatenate(kept)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (ids (F, n), dense (M, n), labels (n,)) in the order of the file."""
        fields, num_dense = len(self.counters), self.num_dense
        for part in self.parts:
            with part.file.open("rb") as stream:
                for rows in part.sizes:
                    ids = np.fromfile(stream, np.int32, fields * rows).reshape(fields, rows)
                    for field, numbers in enumerate(part.renumbered or ()):
                        ids[field] = numbers[ids[field]]
                    dense = np.fromfile(stream, np.float32, num_dense * rows)
                    yield (ids, dense.reshape(num_dense, rows),
                           np.fromfile(stream, np.int8, rows))


def number_lines(raw: RawFile, bad: BadLines, target: Path, pool: ThreadPoolExecutor) -> Numbered:
    """Read `raw` once, write its rows to `target`; bad lines are noted in `bad` and checked.

    Raises:
        ValueError: too many lines are bad, of those read and as many as the rest of the file may be
            expected to have.
    """
    counters = [ValueCounter() for _ in raw.layout.fields]
    with progress(raw) as bar:

        def check(lines: int) -> None:
            if bad.too_many(int(lines * raw.size / max(raw.position, 1))):
                bad.check(lines)
            show(bar, raw.position, lines)

        part = number_part(raw, bad, counters, target, pool, os.cpu_count() or 1, check)
    if raw.cut_off:
        bad.warn_cut_off(raw.cut_off)
    bad.check(part.lines)
    return Numbered([part], counters, len(raw.layout.dense))


def progress(raw: RawFile) -> "tqdm[None]":
    """The bar of the reading."""
    return tqdm(total=raw.size, desc=f"reading {raw.path.name}", unit="B", unit_scale=True,
                disable=None)


def show(bar: "tqdm[None]", position: int, lines: int) -> None:
    """So many bytes and lines are read."""
    bar.set_postfix_str(f"{lines / max(bar.format_dict['elapsed'], 1e-9):,.0f} rows/s",
                        refresh=False)
    bar.update(position - bar.n)


def number_part(raw: RawFile, bad: BadLines, counters: list[ValueCounter], target: Path,
                pool: ThreadPoolExecutor, cores: int, check: Callable[[int], None]) -> Part:
    """Number the values of a file, or of a part of it.

    Args:
        bad: where bad lines are noted.
        counters: which number and count, one a field.
        target: where the rows are written.
        cores: pieces of a block that are parsed side by side.
        check: called with the number of lines after each block.
    """
    layout = raw.layout
    part = Part(target, [], 0, [])
    with target.open("wb") as out:
        for text in raw.blocks():
            for piece, parsed in _parse_pieces(text, layout, pool, cores):
                part.dropped += [part.lines + int(line) for line in parsed.bad[:, 0]]
                _note(bad, parsed, piece, part.lines + raw.first_line, layout)
                part.lines += parsed.lines
                ids = pool.map(ValueCounter.add, counters, parsed.keys)
                for array in (*ids, np.ascontiguousarray(parsed.dense), parsed.labels):
                    # not `tofile`, which takes a disk that is full at its end for a success
                    out.write(np.ascontiguousarray(array).data)
                part.sizes.append(len(parsed.labels))
            check(part.lines)
    return part


def _parse_pieces(text: np.ndarray, layout: Layout, pool: ThreadPoolExecutor,
                  cores: int) -> list[tuple[np.ndarray, Parsed]]:
    """Cut a block at line ends into as many pieces as there are cores, and parse them side by
    side."""
    pieces = []
    for left in range(cores, 0, -1):
        end = len(text) // left
        while end < len(text) and text[end - 1] != ord("\n"):
            end += 1
        pieces.append(text[:end])
        text = text[end:]
    pieces = [piece for piece in pieces if len(piece)]
    return list(zip(pieces, pool.map(lambda piece: parse(piece, layout), pieces), strict=True))


def _note(bad: BadLines, parsed: Parsed, text: np.ndarray, first: int, layout: Layout) -> None:
    """Note what is wrong with the first bad lines, as `data.raw.plain.complaint` says; count the
    rest.

    Args:
        first: number of the text's first line in the file.
    """
    kinds = [column.kind for column in layout.columns]
    noted = parsed.bad[:bad.room]
    for line, column, start in noted:
        end = start + int(np.argmax(text[start:] == ord("\n")))
        content = text[start:end].tobytes()
        line_text = content.removesuffix(b"\r").decode("latin-1")
        cells = cells_of(line_text, layout)
        if column == COLUMNS:
            why = f"expected {len(layout.columns)} columns, got {len(cells)}"
        else:
            wrong = layout.columns[column]
            why = (f"column {wrong.name}: expected {KIND_NAMES[wrong.kind]}, "
                   f"got {cells[column][:20]!r}")
        bad.note(first + int(line), why, content, find_forms(line_text, layout.separator, kinds))
    bad.count += len(parsed.bad) - len(noted)
