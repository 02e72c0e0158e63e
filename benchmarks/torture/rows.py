"""Raw rows that were changed in any way: what is read of each is what a plain definition reads, and
each that is refused is named by its number and the reason."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture import works
from benchmarks.torture.trials import Outcome
from data import avazu, criteo, movielens
from data.movielens import time_bucket
from data.raw import bad_lines, plain
from data.raw import lines as raw_lines
from data.raw.bad_lines import BadLines
from data.raw.layout import BUCKET, DECIMAL, HEX, ID, Layout
from data.raw.parse import MISSING
from data.raw.source import RawFile
from data.raw.value_index import number_lines

LINES = 500  # of a file, each of them changed
LAYOUTS = {"Criteo": criteo.LAYOUT, "Avazu": avazu.LAYOUT}
CELLS = ("", "-", "--1", "+5", "-0", "007", "1e3", "1.5", " 1", "2", "NULL", "nan", "1" * 9,
         "1" * 10, "1" * 21, "0000abcd", "FFFFFFFF", "abcdefg0", "0x12", "\xb2", "\x85", "\xa0")
BYTES = b"\t,:\r-0A\xff\x1a\"' "


class Lenient(BadLines):
    """Refuses no file, so that each line is looked at."""

    def too_many(self, lines: int) -> bool:
        """Never."""
        return False


def trial(seed: int, folder: Path) -> Outcome:
    """A file of LINES changed lines, read by the code and by the definition."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    shown, noted = bad_lines.SHOWN, bad_lines.NOTED
    bad_lines.SHOWN = bad_lines.NOTED = 10**9
    try:
        with works.silent():
            if seed % 3 == 2:
                return _movielens(rng, folder)
            name = list(LAYOUTS)[seed % 3]
            return _layout(name, LAYOUTS[name], rng, folder)
    finally:
        bad_lines.SHOWN, bad_lines.NOTED = shown, noted


def spoilt(line: bytes, separator: bytes, rng: np.random.Generator) -> bytes:
    """The line with one to three cells or bytes changed, left out or put in."""
    for _ in range(rng.integers(1, 4)):
        kind, cells = rng.integers(5), line.split(separator)
        if kind == 0:
            cells[rng.integers(len(cells))] = str(rng.choice(CELLS)).encode("latin-1")
        elif kind == 1:
            cells.insert(int(rng.integers(len(cells) + 1)), b"")
        elif kind == 2 and len(cells) > 1:
            del cells[rng.integers(len(cells))]
        line = separator.join(cells)
        if kind > 2 and line:
            changed = bytearray(line)
            at = int(rng.integers(len(changed)))
            usual = rng.random() < 0.7
            put = BYTES[rng.integers(len(BYTES))] if usual else rng.integers(1, 256)
            changed[at:at + int(rng.integers(2))] = bytes([int(put)])
            line = bytes(changed)
    # a NUL byte refuses the whole file, so that one in many has it
    nul = b"\0" if rng.random() < 1e-4 else b""
    return line.replace(b"\n", b"") + nul


def _good(layout: Layout, rng: np.random.Generator) -> bytes:
    cells = []
    for column in layout.columns:
        if column.kind == ID:
            cells.append(str(rng.integers(10**15)))
        elif column.kind == HEX:
            cells.append(f"{rng.integers(1 << 32):08x}" if rng.random() > 0.2 else "")
        elif column.kind in (BUCKET, DECIMAL):
            cells.append(str(rng.integers(-3, 10**int(rng.integers(1, 9)))))
        else:
            cells.append(str(rng.integers(2)))
    return layout.separator.join(cells).encode()


def _layout(name: str, layout: Layout, rng: np.random.Generator, folder: Path) -> Outcome:
    separator = layout.separator.encode()
    first = layout.header.encode() if layout.has_header else _good(layout, rng)
    lines = [first, *(spoilt(_good(layout, rng), separator, rng) for _ in range(LINES))]
    ending = [b"\n", b"\r\n"][rng.integers(2)]
    content = ending.join(lines) + (ending if rng.random() < 0.9 else b"")
    path = folder / "raw"
    path.write_bytes(content)
    expected = plain.read_plain(content, layout)
    bad = Lenient(path, "")
    with ThreadPoolExecutor(2) as pool:
        try:
            numbered = number_lines(RawFile(path, layout, int(rng.integers(200, 1 << 20))), bad,
                                    folder / "numbered", pool)
        except ValueError as error:  # of the file as a whole, such as NUL bytes
            named = str(path) in str(error)
            return Outcome(f"{name}: file refused", "" if named else f"{name}: {error}")
    keys, numbers, labels = [], [], []
    for ids, block, of_block in numbered.blocks():
        columns = [counter.values[column].tolist()
                   for counter, column in zip(numbered.counters, ids, strict=True)]
        keys += [list(row) for row in zip(*columns, strict=True)]
        numbers += block.T.tolist()
        labels += of_block.tolist()
    text = content.split(b"\n")
    words = [f"line {number}: {why}: {text[number - 1][:60]!r}"
             for number, why in expected.bad.items()]
    wanted = (_keys(expected.values, layout), np.array(expected.numbers, np.float32).tolist(),
              expected.labels, words)
    return _judged(name, wanted, (keys, numbers, labels, bad.shown))


def _keys(values: list[list[Any]], layout: Layout) -> list[list[int]]:
    """Plain values as the parser's keys."""
    is_hex = [column.kind == HEX for column in layout.columns
              if column.kind in (BUCKET, DECIMAL, HEX)]
    return [[_key(value, of_hex) for value, of_hex in zip(row, is_hex, strict=True)]
            for row in values]


def _key(value: Any, of_hex: bool) -> int:
    if value is None:
        return MISSING
    return int(value, 16) if of_hex else value


def _judged(name: str, wanted: tuple[Any, ...], found: tuple[Any, ...]) -> Outcome:
    for part, one, other in zip(("cells", "numbers", "labels", "refused lines"), wanted, found,
                                strict=True):
        if one != other:
            at = next((place for place, pair in enumerate(zip(one, other, strict=False))
                       if pair[0] != pair[1]), min(len(one), len(other)))
            return Outcome(f"{name}: {part} differ", f"{name}: {part} {len(one)} and {len(other)}, "
                           f"first {one[at:at + 1]} and {other[at:at + 1]}")
    return Outcome(f"{name}: the same")


# ---- MovieLens: `_rating` is its definition


def _movielens(rng: np.random.Generator, folder: Path) -> Outcome:
    """The ratings are changed; users and movies are whole."""
    lines = works.movielens_lines(LINES, int(rng.integers(1 << 30)))
    raw = folder / "ml-1m"
    raw.mkdir(exist_ok=True)
    for name in ("users.dat", "movies.dat"):
        (raw / name).write_text("".join(line + "\n" for line in lines[name]), "latin-1")
    changed = [spoilt(line.encode(), b"::", rng) for line in lines["ratings.dat"]]
    content = b"\n".join(changed) + b"\n"
    (raw / "ratings.dat").write_bytes(content)
    users = {line.split("::")[0]: line.split("::")[1:] for line in lines["users.dat"]}
    movies = {line.split("::")[0]: line.split("::") for line in lines["movies.dat"]}
    bad: list[int] = []
    rows = []
    for number, line in enumerate(content.replace(b"\r\n", b"\n").split(b"\n")[:-1], 1):
        row = _rating(line.decode("latin-1"), users, movies)
        if row is None:
            bad.append(number)
        elif row[-1] != 3:
            rows.append(row)
    noted: list[int] = []

    class Kept(Lenient):
        def note(self, number: int, why: str, text: bytes, forms: Any) -> None:
            if why:
                noted.append(number)

    with works.changed(movielens, {"EXPECTED_ROWS": len(rows)}), \
            works.changed(raw_lines, {"BadLines": Kept}):
        try:
            columns, labels = movielens.read_columns(raw, with_ids=True)
        except ValueError as error:
            named = str(raw) in str(error)
            return Outcome("MovieLens: file refused", "" if named else f"MovieLens: {error}")
    found = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    wanted = [row[:-1] for row in rows]
    return _judged("MovieLens", (wanted, [], [int(row[-1] > 3) for row in rows], bad),
                   (found, [], labels.tolist(), noted))


def _rating(line: str, users: dict[str, list[str]],
            movies: dict[str, list[str]]) -> tuple[Any, ...] | None:
    """time, gender, age, occupation, zip, year, genres, user, movie and rating; None for a line
    that cannot be used."""
    cells = line.split("::")
    if len(cells) != 4 or cells[0] not in users or cells[1] not in movies:
        return None
    if not re.fullmatch("[1-5]::[0-9]+", "::".join(cells[2:])):
        return None
    gender, age, job, code = users[cells[0]]
    _, title, genres = movies[cells[1]]
    time = int(time_bucket(np.array([int(cells[3]) - movielens.FIRST_RATING]))[0])
    return (time, gender, int(age), int(job), code, int(title[-5:-1]), genres, int(cells[0]),
            int(cells[1]), int(cells[2]))
