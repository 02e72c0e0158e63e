"""Files of a table, or a table in memory, as batches of columns of text.

The reader is pyarrow: on a CSV of 1,000,000 rows and 12 columns (62 MB, 2 cores) it takes 0.8 to
1.6 s and 215 to 247 MB, polars' batches 1.2 to 2.1 s and 224 to 228 MB, pandas' 4.5 s; it also
names the lines that it cannot use, and reads any column as the text that stands there.
"""

import csv
import hashlib
import io
import logging
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data.raw.bad_lines import BadLines
from data.raw.forms import refuse_foreign
from data.raw.source import fingerprint
from models.vocabulary import MOST_LINE_ENDS, Packed, as_text

log = logging.getLogger("pep")

BLOCK_BYTES = 1 << 23  # of text read at a time
BATCH_ROWS = 100_000  # of Parquet and of tables in memory
FIRST_ROWS = 10_000  # which tell whether a column is of numbers with fractions
MOST_COLUMNS = 2_000
SEPARATORS = ",\t;|"
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz", ".zst", ".zip", ".bz2")
PARTS = {"train": "train", "valid": "validation", "validation": "validation", "val": "validation",
         "dev": "validation", "test": "test"}  # names of files, and values of a column
PUBLISHED = ("A table of text has a header, one line a row, the same columns in each, and cells "
             "with a separator or a line end in them in double quotes")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}


@dataclass(frozen=True)
class TableFile:
    """One file of a table.

    Args:
        kind: "parquet" or "text".
        separator: of text.
        part: of the split, where the files are the split.
        rows: whether there is something behind the header.
    """

    path: Path
    kind: str
    columns: tuple[str, ...]
    separator: str = ","
    part: str | None = None
    rows: bool = True


def find_files(path: Path) -> list[tuple[Path, str | None]]:
    """The files of a table, with the part of the split that each is, where there are three such.

    Args:
        path: a file, or a folder of parts, which are taken by name; hidden files and those that
            begin with _ are passed over.

    Raises:
        FileNotFoundError: there is no such file, or no table in the folder.
        ValueError: the parts are numbered and a number is missing; or there are several files of a
            part of the split.
    """
    if path.is_file():
        return [(path, None)]
    if not path.is_dir():
        raise FileNotFoundError(f"--data: there is no file or folder {path}")
    files = sorted(file for file in path.iterdir() if file.is_file()
                   and file.name[0] not in "._" and file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"--data: {path} has no table; its files must end in "
                                f"{', '.join(SUFFIXES)}")
    parts = [PARTS.get(file.name.split(".")[0].lower()) for file in files]
    if set(parts) >= {"train", "validation", "test"}:
        named = [file for part, file in zip(parts, files, strict=True) if part]
        if len(named) > 3:
            raise ValueError(f"--data: {path} has several files of a part of the split "
                             f"({', '.join(file.name for file in named)}); leave one of each "
                             "there, or name three: --split files:TRAIN,VALIDATION,TEST")
        if others := sorted({file.name for file in files} - {file.name for file in named}):
            log.warning("%s: train, validation and test are the split, and %s %s passed over", path,
                        ", ".join(others), "is" if len(others) == 1 else "are")
        by_part = dict(zip(parts, files, strict=True))
        return [(by_part[part], part) for part in ("train", "validation", "test")]
    if {"train", "test"} <= set(parts):
        log.warning("%s has train and test, and no file called valid: all are one table, which is "
                    "split anew; for the files as they are name three: --split "
                    "files:TRAIN,VALIDATION,TEST", path)
    numbers = _part_numbers([file.name.split(".")[0] for file in files])
    lacking = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers)) if numbers else []
    if lacking:
        raise ValueError(f"--data: {path} has the parts {files[0].name} to {files[-1].name}, "
                         f"but part {lacking[0]} is missing ({len(lacking)} in all); fetch it, "
                         "or give the others numbers without a gap")
    return [(file, None) for file in files]


def _part_numbers(names: Sequence[str]) -> list[int]:
    """The numbers of parts, where names differ in one number that is no date; else none.

    >>> _part_numbers(["part-00000-3f2-c000", "part-00002-3f2-c000"]), _part_numbers(["a1", "b"])
    ([0, 2], [])
    >>> _part_numbers(["20231130", "20231201"]), _part_numbers(["d_2023-11-30", "d_2023-12-01"])
    ([], [])
    """
    found = [re.findall(r"\d+", name) for name in names]
    if len({len(own) for own in found}) > 1:
        return []
    varying = [column for column in zip(*found, strict=True) if len(set(column)) > 1]
    if len(varying) != 1 or all(re.fullmatch(r"(19|20)\d{6}", number) for number in varying[0]):
        return []
    return [int(number) for number in varying[0]]


def _named(folder: Path, names: Sequence[str]) -> list[tuple[Path, str | None]]:
    """The three files of a split.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: two are the same.
    """
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"split: there is no file {path}; name three files in the "
                                    f"folder --data ({folder}), or with their whole paths")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"split: two of {', '.join(names)} are the same file; rows for test must "
                         "not be trained on")
    return list(zip(paths, ("train", "validation", "test"), strict=True))


def describe_file(path: Path, part: str | None = None) -> TableFile:
    """Kind, columns and separator of a file, from its beginning.

    Raises:
        ValueError: the file is empty, of a kind that is not read, without a header, has nested
            columns, too many, or two of one name.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        with _errors_named(path):
            schema = pq.read_schema(path)
        columns = tuple(schema.names)
        _check_names(path, columns)
        for name in columns:
            _require_flat(path, name, schema.field(name).type)
        return TableFile(path, "parquet", columns, part=part)
    with _opened(path) as stream, _errors_named(path):
        text = stream.read(1 << 20)
        rows = b"\n" in text.strip() or bool(stream.read(1))
    if not text.strip():
        raise ValueError(f"{path} is empty; give a file with a header and rows")
    refuse_foreign(path, text[:512])
    if text[257:262] == b"ustar":
        raise ValueError(f"{path} is a tar archive; unpack it, and name the folder of its files")
    content = _decoded(path, text.removeprefix(b"\xef\xbb\xbf"))
    found = {mark: _first_row(content, mark) for mark in SEPARATORS}
    separator = max(SEPARATORS, key=lambda mark: len(found[mark]))
    if not found[separator]:
        raise ValueError(f"{path} does not begin with a header. {PUBLISHED}")
    _check_names(path, found[separator])
    return TableFile(path, "text", found[separator], separator, part, rows)


def _decoded(path: Path, text: bytes) -> str:
    """The first lines; a character that the end of the block cuts is left out."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        if error.start > len(text) - 4:
            return text[:error.start].decode()
        raise ValueError(_not_utf8(path, f"byte {text[error.start]:#x} at {error.start}")) from None


def _not_utf8(path: Path, what: str) -> str:
    return (f"{path} is not UTF-8 text ({what}); turn it into it: iconv -f LATIN1 -t UTF-8 FILE > "
            "NEW, with the encoding that it has in the place of LATIN1")


def _first_row(content: str, separator: str) -> tuple[str, ...]:
    try:
        return tuple(next(csv.reader(io.StringIO(content), delimiter=separator), []))
    except csv.Error:  # a cell of more than 131,072 characters: another separator, then
        return ()


def _check_names(path: Path, names: Sequence[str]) -> None:
    if len(names) > MOST_COLUMNS:
        raise ValueError(f"{path} has {len(names):,} columns, more than {MOST_COLUMNS:,}: each "
                         "would be a field with a vector in every row; leave out those that you do "
                         "not need, or keep the data as (row, column, value)")
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise ValueError(f"{path}: two columns are called {twice[0]!r}; give each a name of its "
                         "own")
    if len(names) < 2:
        raise ValueError(f"{path} has one column, {names[0]!r}; a table needs a label and at least "
                         "one more, with a comma, tab, semicolon or bar between them")


def _require_flat(path: Path | str, name: str, kind: pa.DataType) -> None:
    if pa.types.is_nested(kind):
        raise ValueError(f"{path}: column {name!r} is nested ({kind}); make it columns of single "
                         "values (pandas: explode or json_normalize), or text")


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Errors of a damaged file, in words."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(path, str(error))) from error
    except (pa.ArrowInvalid, pa.ArrowException, OSError, EOFError, zlib.error,
            zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        if "UTF8" in str(error) or "UTF-8" in str(error):
            raise ValueError(_not_utf8(path, str(error))) from error
        raise ValueError(f"{path} cannot be read: {error}. If it was cut short or damaged on its "
                         f"way, fetch it again. {PUBLISHED}") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The bytes of a file, unpacked."""
    with ExitStack() as stack, _errors_named(path):
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith(b"\xfd7zXZ"):
            raise ValueError(f"{path} is packed by xz; unpack it, or pack it by gzip, zstd, bzip2 "
                             "or zip")
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # the second of an empty one
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if "xl/workbook.xml" in names:
                raise ValueError(f"{path} is an Excel workbook; save it as CSV (UTF-8)")
            if len(names) != 1:
                raise ValueError(f"{path} holds {len(names)} files ({', '.join(names[:3])}); pack "
                                 "one table alone, or unpack it and name the folder")
            try:
                opened = archive.open(names[0])
            except (RuntimeError, NotImplementedError) as error:  # a password, an odd method
                raise ValueError(f"{path} cannot be unpacked here ({error}); unpack it") from error
            yield stack.enter_context(opened)
            return
        kind = next((kind for magic, kind in _COMPRESSED.items() if head.startswith(magic)), None)
        source = stack.enter_context(pa.OSFile(str(path)))
        yield source if kind is None else stack.enter_context(pa.CompressedInputStream(source,
                                                                                       kind))


class Table:
    """The rows of files or of a table in memory, one after the other.

    Args:
        files: all with the same columns.
        memory: a table in memory, in the place of files.
    """

    def __init__(self, files: Sequence[TableFile] = (), memory: pa.Table | None = None) -> None:
        self.files = tuple(files)
        self.memory = memory
        self.bad: list[BadLines] = []  # of each file of text that was read
        self.columns = tuple(memory.column_names) if memory is not None else self.files[0].columns

    @staticmethod
    def of(data: Any, parts: Sequence[str] = ()) -> "Table":
        """A path (text or Path), a pandas DataFrame or an Arrow table.

        Args:
            parts: three files in the folder `data`, or elsewhere, which are for training,
                validation and test.

        Raises:
            FileNotFoundError, ValueError: see `find_files` and `describe_file`; columns differ
                between files.
        """
        if isinstance(data, pa.Table | pd.DataFrame):
            if parts:
                raise ValueError("a split by files is of files, and this table is in memory; add a "
                                 "column that names the part (split column:NAME)")
            return Table(memory=_in_memory(data))
        found = _named(Path(data), parts) if parts else find_files(Path(data))
        files = [describe_file(path, part) for path, part in found]
        first = files[0]
        for file in files[1:]:
            lacking = sorted(set(first.columns) ^ set(file.columns))
            if lacking:
                has, lacks = ((first, file) if lacking[0] in first.columns else (file, first))
                raise ValueError(f"the columns differ: {has.path.name} has {lacking[0]!r}, which "
                                 f"{lacks.path.name} lacks ({len(lacking)} differ in all); every "
                                 "file of a table must have the same columns")
        return Table(files)

    @property
    def typed(self) -> bool:
        """Whether columns have types, and are not all of text."""
        return self.memory is not None or any(file.kind == "parquet" for file in self.files)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this table from another without reading gigabytes."""
        if self.memory is None:
            return {str(file.path.resolve()): {**fingerprint(file.path),
                                               "modified": file.path.stat().st_mtime_ns}
                    for file in self.files}
        sink = _Hash()
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), self.memory.schema) as writer:
            writer.write_table(self.memory)
        return {"memory": {"sha256": sink.digest.hexdigest()}}

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[str | None, pa.RecordBatch]]:
        """Yield (the file's part of the split, a batch of these columns), in order.

        Raises:
            ValueError: a file is damaged, not UTF-8, or too many of its lines cannot be used.
        """
        if self.memory is not None:
            for batch in self.memory.select(list(columns)).to_batches(BATCH_ROWS):
                yield None, batch
        for file in self.files:
            with _errors_named(file.path):
                if not file.rows:  # of which the reader makes an error
                    continue
                batches = (_parquet(file, columns) if file.kind == "parquet"
                           else self._text(file, columns))
                for batch in batches:
                    yield file.part, batch

    def _text(self, file: TableFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        bad = BadLines(file.path, PUBLISHED)
        self.bad.append(bad)
        lines, last_bad, longest = 0, 0, ""

        def note(row: Any) -> str:
            nonlocal last_bad, longest
            last_bad, longest = row.number, max(longest, row.text, key=len)
            bad.note(row.number, f"expected {row.expected_columns} columns, got "
                     f"{row.actual_columns}", row.text.encode(), {})
            return "skip"

        names = list(file.columns)
        # columns without a name cannot be asked for
        names = [name or f"(no name {place})" for place, name in enumerate(names)]
        with _opened(file.path) as stream:
            reader = pa_csv.open_csv(
                stream,
                # with threads, which make it no faster, a line that cannot be used has no number
                pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names,
                                   skip_rows=0, skip_rows_after_names=1),
                pa_csv.ParseOptions(delimiter=file.separator, newlines_in_values=True,
                                    invalid_row_handler=note),
                pa_csv.ConvertOptions(column_types={name: pa.string() for name in names},
                                      include_columns=list(columns), strings_can_be_null=False))
            for batch in reader:
                lines += batch.num_rows
                for column in batch.columns:
                    if (pc.max(pc.binary_length(column)).as_py() or 0) >= MOST_LINE_ENDS:
                        _require_closed(file.path, _most_lines(column))
                yield batch
        _require_closed(file.path, longest)
        if last_bad == lines + bad.count + 1 and not _ends_with_a_line(file.path):
            raise ValueError(f"{file.path} ends in the middle of a line, the {last_bad:,}th: it "
                             "was cut short on its way; fetch it again, or delete what is left of "
                             "that line")
        bad.check(lines + bad.count)


def _most_lines(column: pa.Array) -> str:
    """The cell with the most line ends."""
    ends = pc.count_substring(column, "\n")
    return str(column[pc.index(ends, pc.max(ends)).as_py()])


def _require_closed(path: Path, text: str) -> None:
    """Raise ValueError where a cell or a row goes over so many lines that a quote must be open."""
    if (ends := text.count("\n")) >= MOST_LINE_ENDS:
        raise ValueError(f"{path} has a cell of {ends:,} lines, in {text[:40]!r}: a quote is "
                         "opened there and not closed, and all lines up to the next quote would "
                         "be lost in it; close it, or write it twice if it belongs to the text")


def _ends_with_a_line(path: Path) -> bool:
    """Whether a file's last character ends a line; True of packed files, whose end is checked as
    they are unpacked."""
    with path.open("rb") as file:
        if file.read(8).startswith((b"PK", *_COMPRESSED)):
            return True
        file.seek(-1, 2)
        return file.read() in (b"\n", b"\r")


class _Hash(io.RawIOBase):
    """A file that keeps the hash of what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, content: Any) -> int:
        """Take it in."""
        self.digest.update(content)
        return len(content)


def _in_memory(data: Any) -> pa.Table:
    """An Arrow table of a pandas one; columns of several kinds of values become text."""
    if isinstance(data, pd.DataFrame):
        if index := [str(name) for name in data.index.names if name is not None]:
            log.warning("the DataFrame's index (%s) is no column and is left out; reset_index() "
                        "makes it one", ", ".join(index))
        arrays = {}
        for place, name in enumerate(data.columns):
            column = data.iloc[:, place]
            if isinstance(column.dtype, pd.PeriodDtype):  # of which Arrow takes numbers
                column = column.astype(str).where(column.notna(), None)
            kinds = getattr(column.dtype, "categories", column).dtype
            try:
                made = pa.array(column, from_pandas=True)
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError,
                    OverflowError):  # of an int from 2^64 on
                made = None
            # Arrow writes decimals with as many places as the longest of them, and no intervals
            if (made is None or pa.types.is_decimal(made.type)
                    or isinstance(kinds, pd.IntervalDtype)):
                made = pa.array([as_text(value) for value in column], pa.string())
            arrays[str(name)] = made
        if len(arrays) != data.shape[1]:
            raise ValueError("the DataFrame has two columns of one name; give each its own")
        data = pa.table(arrays)
    _check_names(Path("the table"), data.column_names)
    for name in data.column_names:
        _require_flat("the table", name, data.schema.field(name).type)
    return data


def _parquet(file: TableFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file.path) as opened:
        yield from opened.iter_batches(BATCH_ROWS, columns=list(columns))


def strings_of(array: pa.Array) -> pa.Array:
    """A column as strings, an empty one for a gap, by the rule of `models.vocabulary.as_text`."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_floating(kind):
        coded = array.dictionary_encode()
        # numpy's float32 is written with fewer digits than a float of the same value
        values = coded.dictionary.to_pylist() if pa.types.is_float64(kind) else (
            coded.dictionary.to_numpy(zero_copy_only=False))
        array = pa.array([as_text(value) or "" for value in values],
                         pa.string()).take(coded.indices)
    elif pa.types.is_timestamp(kind):  # the cast alone takes those before 1970 towards it
        array = pc.floor_temporal(array, unit="second").cast(pa.timestamp("s")).cast(pa.string())
    elif pa.types.is_time(kind):
        array = pc.cast(array, pa.time32("s"), safe=False).cast(pa.string())
    elif pa.types.is_duration(kind) or isinstance(kind, pa.BaseExtensionType):
        array = pa.array([as_text(value) for value in array.to_pylist()], pa.string())
    elif not pa.types.is_string(kind):
        array = array.cast(pa.string())
    return pc.fill_null(array, "")


def texts_of(array: pa.Array) -> Packed:
    """`strings_of` a column, packed."""
    array = strings_of(array)
    _, offsets, content = array.buffers()
    starts = np.frombuffer(offsets, np.int32)[array.offset:array.offset + len(array) + 1] if len(
        array) else np.zeros(1, np.int32)
    text = np.frombuffer(content, np.uint8) if content else np.zeros(0, np.uint8)
    return Packed(text, starts.astype(np.int64))


def values_of(array: pa.Array) -> np.ndarray | Packed:
    """A column's numbers as float64 with NaN in gaps where it is of numbers, else its texts."""
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return texts_of(array)


def has_fractions(arrays: Iterable[pa.Array]) -> bool:
    """Whether a column's first FIRST_ROWS, which may come in several arrays, are numbers of which
    some have a fraction; a column of gaps is not."""
    from models.vocabulary import numbers_of

    found, left = False, FIRST_ROWS
    for array in arrays:
        try:
            numbers = numbers_of(values_of(array.slice(0, left)), "")
        except ValueError:
            return False
        found |= bool((numbers[np.isfinite(numbers)] % 1 != 0).any())
        left -= len(numbers)
    return found


def parts_of_column(values: Mapping[int, str]) -> dict[int, int]:
    """Number -> position of the part that a column's value names."""
    names = ("train", "validation", "test")
    return {number: names.index(PARTS[value.strip().lower()]) for number, value in values.items()
            if value.strip().lower() in PARTS}
