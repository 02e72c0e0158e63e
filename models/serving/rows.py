"""Raw rows as users have them, in memory or in files, to columns of raw values."""

import csv
import difflib
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..vocabulary import MOST_LINE_ENDS, Packed

BLOCK = 1 << 21  # bytes of a file at a time
ROWS = 1 << 16  # of a Parquet file at a time
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"  # first bytes
# first bytes of what is not unpacked here
PACKED = {b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


_END = "the file ends here\0"  # a line that is put behind the last one


@dataclass
class Columns:
    """Some rows.

    Args:
        values: by column, (rows,) values as `models.vocabulary.as_text` takes them, or `Packed`.
        rows: how many.
        bad: by row, from 0, why it cannot be used; in all columns it has an empty value.
    """

    values: dict[str, Any]
    rows: int
    bad: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lines:
    """Whole lines of delimited text without quotes, not split yet.

    Args:
        text: each line, the last too, ends in a newline.
        separator: one character.
        names: of the columns, in their order.

    >>> read = Lines(b"1\\t2\\n3\\n", "\\t", ["a", "b"]).columns(["b"])
    >>> read.values["b"].get(0), read.bad
    ('2', {1: '1 cells in place of 2'})
    """

    text: bytes
    separator: str
    names: Sequence[str]

    def columns(self, needed: Sequence[str]) -> Columns:
        """The needed columns."""
        from .cells import find_cells

        block = np.frombuffer(self.text, np.uint8)
        lines = int(np.count_nonzero(block == ord("\n")))
        places = np.full(len(self.names), -1)
        places[[list(self.names).index(name) for name in needed]] = np.arange(len(needed))
        starts = np.zeros((len(needed), lines), np.int64)
        ends, counts = np.zeros_like(starts), np.empty(lines, np.int64)
        rows = find_cells(block, ord(self.separator), places, starts, ends, counts)
        wrong = np.flatnonzero(counts != len(self.names))
        bad = {int(row): f"{int(counts[row])} cells in place of {len(self.names)}"
               for row in wrong}
        starts[:, wrong], ends[:, wrong] = 0, 0
        values = {name: Packed(block, starts[place], ends=ends[place])
                  for place, name in enumerate(needed)}
        return Columns(values, rows, bad)


def columns_of(rows: Any, needed: Sequence[str]) -> Columns:
    """The needed columns of rows in memory.

    Args:
        rows: a DataFrame or Arrow table; columns by name, each a sequence of values, or for one row
            each a value; a sequence of such rows (dicts, named tuples, Series, database rows)
            or a structured array; or rows of bare values (rows, columns), array or lists, in the
            order of `needed`.

    Raises:
        ValueError: a column is missing, or bare rows have another number of values.
        TypeError: it is nothing of this.

    >>> columns_of({"town": "Rome", "age": 7}, ["age", "town"]).values
    {'age': [7], 'town': ['Rome']}
    """
    if not hasattr(rows, "columns") and (named := _named(rows)) is not None:
        rows = named
    if isinstance(rows, Mapping):
        require(list(rows), needed)
        values = {name: list(rows[name]) if hasattr(rows[name], "__next__") else rows[name]
                  for name in needed}
        several = [name for name in needed if _is_sequence(values[name])]
        if 0 < len(several) < len(needed):
            one = next(name for name in needed if name not in several)
            raise ValueError(f"column {one!r} is one value and {several[0]!r} has several: give "
                             "lists for all, or one row with one text a cell (several values of a "
                             "cell with their separator between them)")
        if not several:
            values = {name: [value] for name, value in values.items()}
    elif hasattr(rows, "column_names") or hasattr(rows, "columns"):
        names = getattr(rows, "column_names", None)
        listed = list(rows.columns if names is None else names)
        require([str(name) for name in listed], needed)
        there = {str(name): name for name in listed}
        values = {name: _listed(rows[there[name]]) for name in needed}
    elif isinstance(rows, np.ndarray | Sequence) and not isinstance(rows, str | bytes):
        listed = list(rows)
        by_name = [_named(row) for row in listed]
        if any(row is not None for row in by_name):
            if None in by_name:
                bare = by_name.index(None)
                raise ValueError(f"row {bare} must have its values by name, as other rows have; "
                                 f"got {listed[bare]!r:.80}")
            values = _of_named([row for row in by_name if row is not None], needed)
        else:
            wrong = [place for place, row in enumerate(listed)
                     if not _is_sequence(row) or len(row) != len(needed)]
            if wrong:
                raise ValueError(f"row {wrong[0]} must be of {len(needed)} values, in this order: "
                                 f"{', '.join(needed)}; got {listed[wrong[0]]!r:.80}")
            values = {name: [row[place] for row in listed] for place, name in enumerate(needed)}
    else:
        raise TypeError("rows must be a DataFrame, a dict of columns, a list of dicts or an array "
                        f"of raw values, got a {type(rows).__name__}")
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns must have the same number of rows, got {lengths}")
    return Columns(values, next(iter(lengths.values()), 0))


def _named(row: Any) -> Mapping[Any, Any] | None:
    """A row's values by their names, of a named tuple, a Series, a database row or a record (an
    array of records: its columns); None of a row without names."""
    if isinstance(row, Mapping):
        return row
    if hasattr(row, "_asdict"):
        return row._asdict()
    if hasattr(row, "to_dict") and hasattr(row, "index"):
        return row.to_dict()
    names = getattr(getattr(row, "dtype", None), "names", None)
    if names is None and hasattr(row, "keys") and hasattr(row, "__getitem__"):  # of a database
        names = row.keys()
    return None if names is None else {name: row[name] for name in names}


def _of_named(rows: Sequence[Mapping[Any, Any]], needed: Sequence[str]) -> dict[str, list[Any]]:
    for place, row in enumerate(rows):
        try:
            require(list(row), needed)
        except ValueError as error:
            raise ValueError(f"row {place}: {error}") from None
    return {name: [row[name] for row in rows] for name in needed}


def _is_sequence(value: Any) -> bool:
    return (hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping)
            and getattr(value, "ndim", 1) != 0)


def _listed(column: Any) -> Any:
    """A column of a DataFrame or Arrow table as `as_text` takes it.

    Floats as numpy has them, as those of 32 bits are written with fewer digits; integers as
    Python's, as numpy makes floats of them where there are gaps.
    """
    if hasattr(column, "to_pylist"):
        if str(column.type).startswith("dictionary"):
            column = column.cast(column.type.value_type)
        few_bits = str(column.type) in ("float", "halffloat")
        return column.to_numpy(zero_copy_only=False) if few_bits else column.to_pylist()
    kind = getattr(column, "dtype", None)
    values = getattr(kind, "categories", column)  # of a column of categories, those
    floats = "float" in str(getattr(values, "dtype", "")).lower()
    if not isinstance(kind, np.dtype) and not floats and hasattr(column, "to_list"):
        return column.to_list()
    return column.to_numpy() if hasattr(column, "to_numpy") else column


def require(there: Sequence[Any], needed: Sequence[str]) -> None:
    """Raise a ValueError that names missing columns and the nearest ones that are there, or a
    needed one that is there twice."""
    missing = [name for name in needed if name not in there]
    if not missing:
        if len({*there}) < len(there) and (
                twice := next((name for name in needed if list(there).count(name) > 1), None)):
            raise ValueError(f"the rows have two columns {twice!r}; leave one of them out")
        return
    near = difflib.get_close_matches(missing[0], [str(name) for name in there], 3, 0.5)
    hint = f" (near {missing[0]!r}: {', '.join(near)})" if near else ""
    raise ValueError(f"the rows lack {len(missing)} of the model's {len(needed)} columns: "
                     f"{', '.join(missing[:10])}{hint}; they have "
                     f"{', '.join(map(str, list(there)[:20])) or 'none'}")


@dataclass(frozen=True)
class FileForm:
    """What a file of raw rows looks like.

    Args:
        separator: one character.
        header: whether the first line names the columns.
        columns: in their order, the label among them; None where a header tells.
        label: the label's column, which may be missing.
    """

    separator: str
    header: bool
    columns: Sequence[str] | None
    label: str | None


def read_file(path: Path, form: FileForm, needed: Sequence[str]) -> Iterator[Columns | Lines]:
    """The needed columns of a CSV, TSV or Parquet file, some rows at a time, or the lines in which
    they are; CSV and TSV may be packed by gzip.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, lacks columns, or lines of it are of no known layout.
        ImportError: it is Parquet, and pyarrow is not installed.
    """
    if not path.is_file():
        what = "is a pipe or a folder; give a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"the file of rows {path} {what}")
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(PARQUET) or path.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(path, needed)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is UTF-16 text; turn it into UTF-8: iconv -f UTF-16 -t UTF-8 "
                         "FILE > NEW")
    packed = next((kind for magic, kind in PACKED.items() if head.startswith(magic)), None)
    if packed is not None:
        raise ValueError(f"{path} is packed by {packed}; unpack it, or pack it by gzip (.gz)")
    return _read_text(path, form, needed)


def _read_parquet(path: Path, needed: Sequence[str]) -> Iterator[Columns]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs pyarrow, which is not installed: pip install "
                          "pyarrow; or write the rows as CSV") from error
    try:
        opened = parquet.ParquetFile(path)
        require(opened.schema_arrow.names, needed)
        for batch in opened.iter_batches(ROWS, columns=list(needed)):
            yield Columns({name: _listed(batch.column(name)) for name in needed}, batch.num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no whole Parquet file ({error}); write it again") from error


def _read_text(path: Path, form: FileForm, needed: Sequence[str]) -> Iterator[Columns | Lines]:
    try:
        yield from _read_lines(path, form, needed)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); pack it again, or name it "
                         "without .gz if it is not packed") from error


def _read_lines(path: Path, form: FileForm, needed: Sequence[str]) -> Iterator[Columns | Lines]:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP or path.suffix.lower() == ".gz"
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    # an own table may be saved with another separator; a published layout has its own
    separator = form.separator if form.columns else SEPARATORS.get(suffix.lower(), form.separator)
    with gzip.open(path) if packed else path.open("rb") as file:
        first = file.readline()
        if not first.strip():
            what = "begins with a blank line" if first else "is empty"
            raise ValueError(f"{path} {what}; it must hold rows of {', '.join(needed)}")
        if not form.columns:  # as it is found in training
            separator = next((mark for mark in (separator, form.separator, *",\t;|")
                              if _has(first, mark, needed)), separator)
        names = _names(path, first, separator, form, needed)
        left = b""
        if names is None:  # no header: columns by position
            names, left = _by_position(path, first, separator, form), first
        quoted = b'"' in left
        while not quoted and (block := file.read(BLOCK)):
            left += block
            quoted = b'"' in block
            if (end := left.rfind(b"\n") + 1) and not quoted:
                if lines := _not_blank(left[:end], names):
                    yield Lines(lines, separator, names)
                left = left[end:]
        if quoted:  # a quoted cell may hold line breaks: the rest is read by Python's csv
            yield from _quoted(path, left, file, separator, names, needed)
        elif lines := _not_blank(left.removesuffix(b"\n") + b"\n", names):
            yield Lines(lines, separator, names)


def _not_blank(lines: bytes, names: Sequence[str]) -> bytes:
    """Lines without blank ones, which training passes over too; in a file of one column they are
    gaps."""
    if len(names) == 1 or not (b"\n\n" in lines or b"\n\r\n" in lines
                               or lines.startswith((b"\n", b"\r\n"))):
        return lines
    return re.sub(rb"^\r?\n", b"", lines, flags=re.MULTILINE)


def _has(first: bytes, separator: str, needed: Sequence[str]) -> bool:
    """Whether a first line names all columns."""
    return set(needed) <= set(_cells(first, separator))


def _cells(first: bytes, separator: str) -> list[str]:
    text = first.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    try:
        return next(csv.reader([text], delimiter=separator), [])
    except csv.Error as error:
        raise ValueError(f"the first line cannot be read ({error}); a line must end in a newline, "
                         "and a cell have fewer than 131,072 characters") from error


def _names(path: Path, first: bytes, separator: str, form: FileForm,
           needed: Sequence[str]) -> list[str] | None:
    """The columns that a first line names; None where it is a row, as it names few of them, and the
    layout has no header.

    Raises:
        ValueError: a header must be there and is not, or lacks columns.
    """
    cells = _cells(first, separator)
    if not form.header and len(set(needed) & set(cells)) < len(needed) / 2:
        return None
    try:
        require(cells, needed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. The first line must name the columns, separated by "
                         f"{separator!r}") from None
    return cells


def _by_position(path: Path, first: bytes, separator: str, form: FileForm) -> list[str]:
    """The columns of a file without a header, with or without the label."""
    assert form.columns is not None
    count = first.rstrip(b"\r\n").count(separator.encode()) + 1
    without = [name for name in form.columns if name != form.label]
    for names in (list(form.columns), without):
        if count == len(names):
            return names
    raise ValueError(f"{path}: the first line has {count} cells between {separator!r}, expected "
                     f"{len(form.columns)}, or {len(without)} without the label; the columns are "
                     f"{', '.join(form.columns)}")


def _quoted(path: Path, left: bytes, file: Any, separator: str, names: list[str],
            needed: Sequence[str]) -> Iterator[Columns]:
    """The rest of a file in which cells stand in quotes; a value that is no UTF-8 is an unknown
    one, as it is without quotes."""
    stream = io.TextIOWrapper(io.BufferedReader(_Joined(left, file)), "utf-8", "replace",
                              newline="")
    places = {name: names.index(name) for name in needed}
    rows: list[list[str]] = []
    try:
        for row in csv.reader(itertools.chain(stream, [_END]), delimiter=separator):
            if row == [_END]:
                break
            if any(len(cell) >= MOST_LINE_ENDS <= cell.count("\n") for cell in row):
                raise ValueError(f"{path} has a cell of {MOST_LINE_ENDS} lines or more: a quote is "
                                 "opened there and not closed; close it, or double it")
            if row or len(names) == 1:  # a blank line has no cell
                rows.append(row)
            if len(rows) == ROWS:
                yield _of_lists(rows, places, len(names))
                rows = []
        else:
            raise ValueError(f"{path} ends inside a cell in quotes, which begins {row[-1][:40]!r}: "
                             "a quote is opened there and not closed; close it, or double it")
    except csv.Error as error:
        raise ValueError(f"{path}: a cell in quotes cannot be read ({error}); either a quote is "
                         "opened and not closed, or the cell is too long") from error
    if rows:
        yield _of_lists(rows, places, len(names))


def _of_lists(rows: list[list[str]], places: dict[str, int], count: int) -> Columns:
    bad = {number: f"{len(row)} cells in place of {count}" for number, row in enumerate(rows)
           if len(row) != count}
    whole = [[""] * count if number in bad else row for number, row in enumerate(rows)]
    return Columns({name: [row[place] for row in whole] for name, place in places.items()},
                   len(rows), bad)


class _Joined(io.RawIOBase):
    """Some bytes, and then the rest of a file."""

    def __init__(self, first: bytes, file: Any) -> None:
        self.first, self.file = first, file

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        data = self.first[:len(buffer)] if self.first else self.file.read(len(buffer))
        self.first = self.first[len(data):] if self.first else b""
        buffer[:len(data)] = data
        return len(data)
