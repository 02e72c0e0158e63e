"""Raw rows that were changed in any way: what is read of each is what a plain definition reads, and
each that is refused is named by its number and the reason."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
from data.table import read
from models.serving import scorer
from models.vocabulary import as_text

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
            kind = seed % 6
            if kind < 2:
                name = list(LAYOUTS)[kind]
                return _layout(name, LAYOUTS[name], rng, folder)
            return (_movielens, _csv, _parquet, _scored)[kind - 2](rng, folder)
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
    wanted = (_keys(expected.values, layout), np.array(expected.dense, np.float32).tolist(),
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
    if not re.fullmatch("[1-5]::[0-9]{1,18}", "::".join(cells[2:])):
        return None
    gender, age, job, code = users[cells[0]]
    _, title, genres = movies[cells[1]]
    time = int(time_bucket(np.array([int(cells[3]) - movielens.FIRST_RATING]))[0])
    return (time, gender, int(age), int(job), code, int(title[-5:-1]), genres, int(cells[0]),
            int(cells[1]), int(cells[2]))


# ---- tables: CSV is what Python's csv reads, a Parquet cell what `as_text` says of it


def _csv(rng: np.random.Generator, folder: Path) -> Outcome:
    """Texts, numbers and gaps; one file in twenty may hold bytes that are no UTF-8."""
    names = [f"c{place}" for place in range(int(rng.integers(2, 9)))]
    separator = str(rng.choice([",", "\t", ";", "|"]))
    sane = rng.random() < 0.95
    lines = [separator.join(names).encode()]
    for _ in range(LINES):
        cells = [str(rng.choice(CELLS)) if rng.random() < 0.3 else str(rng.integers(100))
                 for _ in names]
        line = spoilt(separator.join(cells).encode(), separator.encode(), rng)
        lines.append(line.decode("latin-1").encode() if sane else line)
    path = folder / "rows.csv"
    path.write_bytes(b"\n".join(lines) + b"\n")
    bad: list[str] = []

    class Kept(Lenient):
        def note(self, number: int, why: str, text: bytes, forms: Any) -> None:
            bad.append(f"row {number}: {why}")

    with works.changed(read, {"BadLines": Kept}):
        try:
            table = read.Table.of(path)
            found = _cells(table, names)
        except ValueError as error:
            return Outcome("CSV: file refused", "" if str(path) in str(error) else f"CSV: {error}")
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""),
                           delimiter=separator))
    good, refused = [], []
    for number, row in enumerate((row for row in rows if row), 1):
        if len(row) != len(names):
            refused.append(f"row {number}: expected {len(names)} columns, got {len(row)}")
        elif number > 1:
            good.append(row)
    return _judged("CSV", (good, [], [], refused), (found, [], [], bad))


def _listed(array: pa.Array) -> Sequence[Any]:
    """Its values; those of float32 as such, which have fewer digits than Python's floats."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return (array.to_numpy(zero_copy_only=False) if pa.types.is_float32(array.type)
            else array.to_pylist())


def _cells(table: read.Table, names: list[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    for _, batch in table.batches(names):
        columns = [read.texts_of(column) for column in batch.columns]
        rows += [[column.get(row) for column in columns] for row in range(batch.num_rows)]
    return rows


def _parquet(rng: np.random.Generator, folder: Path) -> Outcome:
    """Columns of every flat type, with gaps and odd numbers."""
    arrays = {f"{kind} {place}": _column(kind, rng)
              for place, kind in enumerate(rng.choice(list(TYPES), int(rng.integers(2, 8))))}
    table = pa.table(arrays)
    path = folder / "rows.parquet"
    pq.write_table(table, path, row_group_size=int(rng.integers(50, 600)))
    found = _cells(read.Table.of(path), list(arrays))
    wanted = [[as_text(value) or "" for value in row]
              for row in zip(*map(_listed, arrays.values()), strict=True)]
    return _judged("Parquet", (wanted, [], [], []), (found, [], [], []))


# ---- rows to score: of an exported model, in one pass over the lines and column by column


def _scored(rng: np.random.Generator, folder: Path) -> Outcome:
    """Columns in any order, known values and strange ones, quotes in one file of four."""
    if not (folder / "exported" / "model").exists():
        works.export_run(folder / "exported")
    separator = str(rng.choice([",", "\t"]))
    names = rng.permutation(["user", "item", "price", "click"]).tolist()
    ordinary: dict[str, Callable[[], str]] = {
        "user": lambda: f"u{rng.integers(40)}", "item": lambda: f"é {rng.integers(16)}",
        "price": lambda: f"{rng.random():.3f}", "click": lambda: str(rng.integers(2))}
    quoted = rng.random() < 0.25
    lines = [separator.join(names).encode()]
    for _ in range(LINES):
        cells = [ordinary[name]() if rng.random() < 0.8 else str(rng.choice(CELLS))
                 for name in names]
        line = spoilt(separator.join(cells).encode(), separator.encode(), rng)
        line = line.decode(errors="replace").encode()
        lines.append(line if quoted else line.replace(b'"', b""))
    path = folder / ("rows.csv" if separator == "," else "rows.tsv")
    ending = [b"\n", b"\r\n"][rng.integers(2)]
    path.write_bytes(ending.join(lines) + (ending if rng.random() < 0.9 else b""))
    found = []
    for in_one_pass in (True, False):
        own = scorer.load(folder / "exported" / "model")
        if not in_one_pass:
            vars(own)["_encoder"] = None  # which leaves the lines to the definition
        elif own._encoder is None:
            raise RuntimeError("the exported model is not scored in one pass")
        out = folder / f"scores-{in_one_pass}.csv"
        try:
            done = own.score_file(path, out)
        except ValueError as error:
            found.append((str(error), ()))
        else:
            found.append((out.read_text(), done.examples))
    if found[0] != found[1]:
        return Outcome("scored: differ", f"{names}, {separator!r}: {found[0][1]}, {found[1][1]}")
    refused = not found[0][0].startswith("row,")
    return Outcome(f"scored: {'file refused' if refused else 'the same'}")


TYPES: dict[str, tuple[pa.DataType, Any]] = {
    "int8": (pa.int8(), lambda rng: int(rng.integers(-128, 128))),
    "int64": (pa.int64(), lambda rng: int(rng.integers(-2**63, 2**63 - 1))),
    "uint64": (pa.uint64(), lambda rng: int(rng.integers(0, 2**63))),
    "float": (pa.float32(), lambda rng: float(np.float32(10 ** rng.uniform(-40, 38)))),
    "double": (pa.float64(), lambda rng: [float(rng.integers(-2**60, 2**60)), rng.normal(),
                                          np.nan, np.inf, -0.0, 1e300][rng.integers(6)]),
    "bool": (pa.bool_(), lambda rng: bool(rng.integers(2))),
    "string": (pa.string(), lambda rng: str(rng.choice(CELLS)) + "\n\"日"[rng.integers(3)]),
    "large string": (pa.large_string(), lambda rng: str(rng.choice(CELLS))),
    "date": (pa.date32(), lambda rng: int(rng.integers(-40_000, 40_000))),
    "seconds": (pa.timestamp("s"), lambda rng: int(rng.integers(-10**9, 2 * 10**9))),
    "milliseconds": (pa.timestamp("ms"), lambda rng: int(rng.integers(2 * 10**12))),
    "codes": (pa.dictionary(pa.int16(), pa.string()), lambda rng: str(rng.choice(CELLS)))}


def _column(kind: str, rng: np.random.Generator) -> pa.Array:
    of_type, draw = TYPES[kind]
    values = [None if rng.random() < 0.1 else draw(rng) for _ in range(LINES)]
    return pa.array(values, of_type)
