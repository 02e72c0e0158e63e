"""The first pass over a raw file: each value becomes the number under which it first came in its
field."""

import os
from collections.abc import Iterator
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
class Numbered:
    """Rows of a raw file as numbers, on the disk.

    Args:
        file: of blocks, each ids (F, n) int32, numbers (M, n) float32 and labels (n,) int8.
        sizes: n of each block.
        counters: one a field.
        num_dense: M.
        kept: (lines,) bool, which lines, the header aside, are usable; None when all are.
    """

    file: Path
    sizes: list[int]
    counters: list[ValueCounter]
    num_dense: int
    kept: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """Usable rows of the file."""
        return sum(self.sizes)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (ids (F, n), numbers (M, n), labels (n,)) in the order of the file."""
        fields, num_dense = len(self.counters), self.num_dense
        with self.file.open("rb") as stream:
            for rows in self.sizes:
                yield (np.fromfile(stream, np.int32, fields * rows).reshape(fields, rows),
                       np.fromfile(stream, np.float32, num_dense * rows).reshape(num_dense, rows),
                       np.fromfile(stream, np.int8, rows))


def number_lines(raw: RawFile, bad: BadLines, target: Path, pool: ThreadPoolExecutor) -> Numbered:
    """Read `raw` once, write its rows to `target`; bad lines are noted in `bad` and checked.

    Raises:
        ValueError: too many lines are bad, of those read and as many as the rest of the file may be
            expected to have.
    """
    layout = raw.layout
    numbered = Numbered(target, [], [ValueCounter() for _ in layout.fields], len(layout.numbers))
    lines, dropped = 0, []
    bar = tqdm(total=raw.size, desc=f"reading {raw.path.name}", unit="B", unit_scale=True,
               disable=None)
    with target.open("wb") as out, bar:
        for text in raw.blocks():
            for piece, parsed in _parse_pieces(text, layout, pool):
                dropped += [lines + int(line) for line in parsed.bad[:, 0]]
                _note(bad, parsed, piece, lines + raw.first_line, layout)
                lines += parsed.lines
                ids = pool.map(ValueCounter.add, numbered.counters, parsed.keys)
                for part in (*ids, np.ascontiguousarray(parsed.numbers), parsed.labels):
                    # not `tofile`, which takes a disk that is full at its end for a success
                    out.write(np.ascontiguousarray(part).data)
                numbered.sizes.append(len(parsed.labels))
            if bad.too_many(int(lines * raw.size / max(raw.position, 1))):
                bad.check(lines)
            bar.set_postfix_str(f"{lines / max(bar.format_dict['elapsed'], 1e-9):,.0f} rows/s",
                                refresh=False)
            bar.update(raw.position - bar.n)
    if raw.cut_off:
        bad.warn_cut_off(raw.cut_off)
    bad.check(lines)
    if dropped:
        numbered.kept = np.ones(lines, bool)
        numbered.kept[dropped] = False
    return numbered


def _parse_pieces(text: np.ndarray, layout: Layout,
                  pool: ThreadPoolExecutor) -> list[tuple[np.ndarray, Parsed]]:
    """Cut a block at line ends into as many pieces as there are cores, and parse them side by
    side."""
    pieces, cores = [], os.cpu_count() or 1
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
