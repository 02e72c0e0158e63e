"""Raw rows to probabilities: `load(folder).score(rows)`."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..kernels.eager import has_numba
from ..new_files import new_file
from ..vocabulary import BUCKET, NOT_FOUND, Field, Packed, numbers_of, pack
from .artefact import MANIFEST, Artefact, read
from .rows import Columns, FileForm, Lines, columns_of, read_file

log = logging.getLogger("pep")

FEWEST = 20  # rows of which something should be known
SHOWN = 3  # bad rows that a message names
MOST_VALUES = 1 << 24  # of a vocabulary that is read in one pass; 27 bytes of memory each
NUMBERS = 1 << 20  # numbers of vectors at a time, so that they stay in the cache


def load(folder: str | os.PathLike[str]) -> "Scorer":
    """Open a folder that `export.py` wrote.

    Raises:
        FileNotFoundError: there is no exported model, or a file of it is missing.
        ValueError: it is of a newer format, or damaged.
    """
    return Scorer(read(folder))


@dataclass(frozen=True)
class ScoredFile:
    """What became of a file: its rows, and why some could not be scored."""

    rows: int
    bad: int
    examples: tuple[str, ...]


class Scorer:
    """An exported model with its vocabulary.

    A value that is not in its field's vocabulary gets the id that the field keeps for unknown
    values, on which rare values were trained. A field without such an id (MovieLens with
    `vocabulary="all"`) adds nothing for it: its vector and its weight are zero.

    Args:
        artefact: see `load`.
    """

    def __init__(self, artefact: Artefact) -> None:
        self.model = artefact.model
        self.vocabulary = artefact.vocabulary
        self.manifest = artefact.manifest
        self.dense: list[str] = artefact.manifest.get("dense", [])
        names = [_column(field) for field in self.vocabulary.fields] + self.dense
        self.columns = list(dict.fromkeys(names))  # what rows need
        width = self.model.table.width if self.model.kept is None else 1  # of vectors in memory
        self.batch = int(np.clip(NUMBERS // (self.model.table.num_fields * max(width, 1)), 64,
                                 1 << 14))

        self._named: set[str] = set()  # columns of which nothing is known, named once each

    def __repr__(self) -> str:
        return (f"Scorer(run {self.manifest['run_id']}, {self.manifest['dataset']}, "
                f"{len(self.vocabulary.fields)} fields, {self.manifest['values']})")

    def score(self, rows: Any) -> np.ndarray:
        """Probabilities (rows,) float32 of raw rows; NaN for a row that cannot be used, which a
        warning names.

        Args:
            rows: see `models.serving.rows.columns_of`; a label column is not looked at.

        Raises:
            ValueError, TypeError: columns are missing, or the rows are of no known form.
        """
        columns = columns_of(rows, self.columns)
        found = self.score_columns(columns)
        _warn_of_bad(columns)
        return found

    def score_columns(self, columns: Columns) -> np.ndarray:
        """The same of columns; further bad rows are noted in them."""
        ids, numbers = self.encode_columns(columns)
        found = self.score_ids(ids, numbers)
        found[list(columns.bad)] = np.nan
        return found

    def score_lines(self, lines: Lines) -> tuple[np.ndarray, dict[int, str]]:
        """The same of lines, and which of them are bad. One pass reads them; what it leaves is read
        as columns are."""
        if self._encoder is None:
            columns = lines.columns(self.columns)
            return self.score_columns(columns), columns.bad
        ids, ends, unread = self._encoder.encode(lines.text, lines.separator, lines.names)
        left = np.flatnonzero(unread)
        bad: dict[int, str] = {}
        if len(left):
            starts = np.append(0, ends[:-1])
            own = b"".join(lines.text[starts[row]:ends[row]] for row in left)
            columns = Lines(own, lines.separator, lines.names).columns(self.columns)
            ids[left] = self.encode_columns(columns)[0]
            bad = {int(left[place]): why for place, why in columns.bad.items()}
        end = lines.text.find(b"\n") + 1
        self._warn_of_unknown(ids, lambda: Lines(lines.text[:end], lines.separator,
                                                 lines.names).columns(self.columns))
        found = self.score_ids(ids)
        found[list(bad)] = np.nan
        return found, bad

    @cached_property
    def _encoder(self) -> Any:
        """Of lines; None where a field needs more than its own cell, the vocabulary is large, or
        numba is not installed."""
        fields = self.vocabulary.fields
        # its hash table is in memory, as the vocabulary need not be
        small = sum(len(field.ids) for field in fields) <= MOST_VALUES
        cells = all(field.info.part is None and field.info.separator is None for field in fields)
        own = len(self.columns) == len(fields) and not self.dense
        if not (own and small and cells and has_numba()):
            return None
        from .lines import LineEncoder

        return LineEncoder(self.vocabulary, self.model.table.num_rows)

    @torch.inference_mode()
    def score_ids(self, ids: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
        """Probabilities (rows,) of ids (rows, F) in the exported numbering, N for a value without
        an id, and dense features (rows, M).

        Raises:
            ValueError: ids of another shape.
            IndexError: an id that is not in 0 .. N.
        """
        table = self.model.table
        if ids.ndim != 2 or ids.shape[1] != table.num_fields:
            raise ValueError(f"ids must be (rows, {table.num_fields}), got {ids.shape}")
        low, high = (ids.min(), ids.max()) if ids.size else (0, 0)
        if low < 0 or high > table.num_rows:
            raise IndexError(f"ids must be in 0 .. {table.num_rows}, got {low} .. {high}")
        found = np.empty(len(ids), np.float32)
        every = torch.from_numpy(ids)
        dense = None if numbers is None else torch.from_numpy(numbers)
        for start in range(0, len(ids), self.batch):
            part = slice(start, start + self.batch)
            logits = self.model(every[part], None if dense is None else dense[part])
            found[part] = torch.sigmoid(logits).numpy()
        return found

    def encode(self, rows: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Raw rows, as for `score`, to ids (rows, F) int32, N for a value without an id, and dense
        features (rows, M) if the model reads some. A value of the wrong kind is taken for a gap,
        and a warning names its row; raises as `score` does."""
        columns = columns_of(rows, self.columns)
        found = self.encode_columns(columns)
        _warn_of_bad(columns)
        return found

    def encode_columns(self, columns: Columns) -> tuple[np.ndarray, np.ndarray | None]:
        """The same of columns; rows with a value of the wrong kind are noted in them."""
        fields = self.vocabulary.fields
        ids = np.empty((columns.rows, len(fields)), np.int32)
        for place, field in enumerate(fields):
            values = columns.values[_column(field)]
            if field.info.separator is not None:
                values = self._slot(field, values, columns.bad)
                field = fields[place - field.info.slot]  # which has the values
            try:
                found = field.lookup(values)
            except ValueError:
                found = field.lookup(_without_bad(field, values, columns.bad))
            ids[:, place] = found
        ids[ids == NOT_FOUND] = self.model.table.num_rows
        self._warn_of_unknown(ids, lambda: columns)
        if not self.dense:
            return ids, None
        numbers = np.empty((columns.rows, len(self.dense)), np.float32)
        for place, name in enumerate(self.dense):
            try:
                read = numbers_of(columns.values[name], name)
            except ValueError:
                read = numbers_of(_numbers_alone(columns.values[name], name, columns.bad), name)
            infinite = np.isinf(read)  # which training refuses
            for row in np.flatnonzero(infinite):
                columns.bad.setdefault(int(row), f"field {name!r} has an infinite value")
            read = np.where(infinite, np.nan, read)
            if self.manifest["dataset"] == "criteo":  # as published: nothing below 0
                read = np.maximum(read, 0)
            numbers[:, place] = np.nan_to_num(np.sign(read) * np.log1p(np.abs(read)))
        return ids, numbers

    def _warn_of_unknown(self, ids: np.ndarray, rows: Callable[[], Columns]) -> None:
        """Say once of a column whose values are all unknown, where most were known in training.

        Args:
            rows: gives the columns of the first row, or of more.
        """
        if len(ids) < FEWEST:
            return
        for place, field in enumerate(self.vocabulary.fields):
            name, info = _column(field), field.info
            absent = self.model.table.num_rows if field.unknown is None else field.unknown
            if name in self._named or info.slot or not (ids[:, place] == absent).all():
                continue
            if int(field.counts.sum()) + info.missing_count > info.unknown_count:
                self._named.add(name)
                values = rows().values[name]
                value = (values if isinstance(values, Packed) else pack(values[:1])).get(0)
                log.warning("the model knows none of the %d values of column %r, the first of "
                            "which is read as %r: are they written as in the training table "
                            "(0007, not 7)?", len(ids), name, value)

    def _slot(self, field: Field, values: Any, bad: dict[int, str]) -> list[str | None]:
        """What cells with several values have in one slot, None for nothing; cells with more values
        than the model has slots are noted in `bad`."""
        info = field.info
        slots = sum(other.info.column == info.column for other in self.vocabulary.fields)
        try:
            packed = pack(values)
        except ValueError:
            packed = pack(_readable(values, pack, bad))
        found: list[str | None] = []
        for row in range(len(packed)):
            parts = packed.get(row).split(info.separator)
            if len(parts) > slots:
                bad.setdefault(row, f"{len(parts)} values in {info.column!r}, the model takes "
                                    f"{slots}")
            found.append(parts[info.slot] if info.slot < len(parts) else None)
        return found

    def score_file(self, path: str | os.PathLike[str], out: str | os.PathLike[str],
                   progress: Callable[[int], None] = lambda rows: None) -> ScoredFile:
        """Score a CSV, TSV or Parquet file, and write a CSV of `row,probability`, whole or not at
        all; the probability of a bad row is empty.

        Args:
            progress: told how many rows were scored since the last time.

        Raises:
            FileNotFoundError, ImportError, ValueError: see `models.serving.rows.read_file`; or no
                row could be used, or `out` is the file of rows or one of the model's.
        """
        path, out, rows, bad = Path(path), Path(out), 0, 0
        self._require_free(out, path)
        examples: list[str] = []
        form = FileForm(**self.manifest["raw"])
        with new_file(out) as file:
            file.write(b"row,probability\n")
            for read in read_file(path, form, self.columns):
                found, wrong = (self.score_lines(read) if isinstance(read, Lines)
                                else (self.score_columns(read), read.bad))
                if len(examples) < SHOWN:
                    examples += _examples(wrong, rows)
                file.write(_lines(found, rows))
                rows, bad = rows + len(found), bad + len(wrong)
                progress(len(found))
            if rows == bad:
                raise ValueError(f"{path}: none of its {rows:,} rows could be scored: "
                                 f"{'; '.join(examples)}" if rows else f"{path} has no rows")
        return ScoredFile(rows, bad, tuple(examples[:SHOWN]))

    def _require_free(self, out: Path, path: Path) -> None:
        """Raise a ValueError where scores would be written over something that is needed."""
        if out.is_dir():
            raise ValueError(f"{out} is a folder; name the file that scores are to be written to")
        if out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"{out} holds the raw rows, and scores would be written over them; "
                             "name another file")
        files = (MANIFEST, *self.manifest["files"])
        for folder in out.resolve().parents:
            if (folder / MANIFEST).exists() and str(out.resolve().relative_to(folder)) in files:
                raise ValueError(f"{out} is a file of an exported model; name another file for the "
                                 "scores")


def _lines(found: np.ndarray, first: int) -> memoryview:
    """Lines of `row,probability`."""
    from .cells import ROW_BYTES, write_scores

    out = np.empty(len(found) * ROW_BYTES, np.uint8)
    return out[:write_scores(found, first, out)].data


def _warn_of_bad(columns: Columns) -> None:
    if columns.bad:
        log.warning("%d of %d rows cannot be scored: %s", len(columns.bad), columns.rows,
                    "; ".join(_examples(columns.bad, 0)))


def _examples(bad: dict[int, str], first: int) -> list[str]:
    return [f"row {first + row}: {why}" for row, why in sorted(bad.items())[:SHOWN]]


def _column(field: Field) -> str:
    """The raw table's column of a field."""
    return field.info.column or field.name


def _without_bad(field: Field, values: Any, bad: dict[int, str]) -> Any:
    """The values of a field with gaps in the place of those that it cannot read, each noted."""
    if field.info.kind == BUCKET:
        return _numbers_alone(values, field.name, bad)
    return _readable(values, field.lookup, bad)


def _numbers_alone(values: Any, name: str, bad: dict[int, str]) -> list[Any]:
    return _readable(values, lambda one: numbers_of(one, name), bad)


def _readable(values: Any, read: Callable[[Any], Any], bad: dict[int, str]) -> list[Any]:
    """Values, None in the place of each that `read` refuses."""
    listed: list[Any] = ([values.get(place) for place in range(len(values))]
                         if isinstance(values, Packed) else list(values))
    for place, value in enumerate(listed):
        try:
            read([value])
        except ValueError as error:
            listed[place] = None
            bad.setdefault(place, str(error).split(";")[0])
    return listed
