"""Encoded data sets on disk: memory-mapped arrays and a manifest, whole or not there at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import checksums
from data.schema import Schema
from data.split import RANDOM, SPLITS, require_both_classes, split_indices
from models.vocabulary import TEXT, WHOLE, FieldInfo, Vocabulary
from utils.files import (
    naming_a_full_disk,
    remove_left_behind,
    require_writable,
    sha256_of,
    temporary_prefix,
    write_json,
)

FORMAT_VERSION = 2
VOCABULARY = "vocabulary"  # folder beside the arrays: what the raw values became
VOCABULARIES = ("all", "train")  # rows over which values are counted


@dataclass(frozen=True)
class Dataset:
    """Encoded rows in split order: the train rows first, then validation, then test.

    Args:
        schema: the fields.
        ids: (rows, F) int32, global row numbers of the whole table.
        labels: (rows,) float32 of 0 and 1.
        counts: rows of train, validation and test.
        manifest: what the rows are and how they were made; `manifest["content"]` identifies them.
        dense: (rows, M) float32, the dense features of a data set that has some.
        vocabulary: what the raw values became; None for rows that came encoded.
    """

    schema: Schema
    ids: np.ndarray
    labels: np.ndarray
    counts: tuple[int, int, int]
    manifest: dict[str, Any]
    dense: np.ndarray | None = None
    vocabulary: Vocabulary | None = None

    @property
    def hash(self) -> str:
        """Identity of the encoded rows and their split: the same raw rows and rules give the same
        hash."""
        return str(self.manifest["content"])

    @property
    def values_hash(self) -> str | None:
        """Identity of the fields' names and raw values; None for rows that came encoded."""
        return None if self.vocabulary is None else self.vocabulary.hash

    def other_than(self, record: Mapping[str, Any]) -> str | None:
        """How this data set differs from that of a run's record; None where it does not.

        Older records do not say which raw values their ids stood for.
        """
        if record["manifest"] != self.hash:
            return f"manifest {record['manifest']}, this is {self.hash}"
        if record.get("values_hash") not in (None, self.values_hash):
            return "the same ids, but fields of other names or other raw values"
        return None

    @property
    def unused_unknown_rows(self) -> int:
        """Rows of the table that are kept for unknown values and that no row of the data set has.

        A raw file's field has a row for unknown values even if none of its values is too rare; the
        published encoding has it only where something falls into it, and counts so.
        """
        manifest, schema = self.manifest, self.schema
        if "distinct" in manifest:  # of a raw file: the known values are all that there are
            return sum(size - 1 == distinct for size, distinct
                       in zip(schema.sizes, manifest["distinct"], strict=True))
        if manifest.get("vocabulary") != "train":
            return 0
        last = np.add(schema.offsets, schema.sizes) - 1
        return int(np.count_nonzero(~(self.ids == last).any(axis=0)))

    def describe(self) -> str:
        """Two lines: rows, features, positives; rows of each field."""
        unused = self.unused_unknown_rows
        without = ""
        if unused:
            without = (f" ({self.schema.num_rows - unused:,} without the rows for unknown values "
                       "that nothing fell into)")
        schema, rows = self.schema, sum(self.counts)
        split = ", ".join(f"{name} {count:,}" for name,
                          count in zip(SPLITS, self.counts, strict=True))
        sizes = ", ".join(f"{name} {size:,}" for name,
                          size in zip(schema.fields, schema.sizes, strict=True))
        return (f"{schema.name}: {rows:,} rows ({split}), {self.manifest['positives'] / rows:.2%} "
                f"positive, {schema.num_fields} fields, {schema.num_rows:,} "
                f"features{without}\n{sizes}")

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(ids, labels) of one split, as views."""
        rows = self._rows(name)
        return self.ids[rows], self.labels[rows]

    @property
    def num_dense(self) -> int:
        """M."""
        return 0 if self.dense is None else self.dense.shape[1]

    def dense_of(self, name: str) -> np.ndarray | None:
        """(rows, M) of one split, as a view; None without dense features."""
        return None if self.dense is None else self.dense[self._rows(name)]

    def _rows(self, name: str) -> slice:
        start = sum(self.counts[:SPLITS.index(name)])
        return slice(start, start + self.counts[SPLITS.index(name)])


def build(name: str, columns: Mapping[str, Any], labels: Any, split_seed: int,
          vocabulary: str = "all", split: str = RANDOM,
          kinds: Mapping[str, FieldInfo] | None = None) -> Dataset:
    """Split and encode raw columns; row i is the i-th value of each, whatever indexes they carry.

    Args:
        name: of the data set.
        columns: field name -> (rows,) raw values, in field order: arrays, lists, pandas Series or a
            DataFrame, Arrow arrays. A gap (None, NaN, NaT, pandas.NA) is a value of its own.
        labels: (rows,) of 0 and 1.
        split_seed: the data set's own.
        vocabulary: "all" counts values over all rows, as the paper's Table 3 does; "train" over the
            training rows only, with one unknown code a field.
        split: see `data.split.split_indices`.
        kinds: what the values of a field are, where it is more than text or whole numbers.

    Raises:
        ValueError: columns and labels differ in length, a label is missing or neither 0 nor 1, a
            field's values cannot be put in order, a split has one class alone, or `vocabulary` or
            `split` is unknown.

    >>> build("toy", {"town": list("abc") * 40}, [0, 1, 1] * 40, split_seed=1).schema.sizes
    (3,)
    """
    from data.columns import as_columns  # pandas, which takes half a second
    from data.encode import build_vocabulary, encode, field_of_known

    check_vocabulary(vocabulary)
    columns, labels = as_columns(columns, labels)
    parts = split_indices(split, len(labels), split_seed)
    order = np.concatenate(parts)
    train_only = vocabulary == "train"
    ids = np.empty((len(labels), len(columns)), np.int32)
    sizes: list[int] = []
    kept = []
    for position, (field, column) in enumerate(columns.items()):
        known = build_vocabulary(column[parts[0]] if train_only else column, train_only, field)
        ids[:, position] = encode(column[order], known, field) + sum(sizes)
        whole = WHOLE if column.dtype.kind in "iu" else TEXT
        info = (kinds or {}).get(field, FieldInfo(field, whole))
        kept.append(field_of_known(known, sum(sizes), info))
        sizes.append(known.size)
    schema = Schema(name, tuple(columns), tuple(sizes))
    ordered = labels[order]
    positives = [int(labels[part].sum()) for part in parts]
    require_both_classes(name, positives, [len(part) for part in parts])
    counts = (len(parts[0]), len(parts[1]), len(parts[2]))
    manifest = {
        "format": FORMAT_VERSION, "dataset": name, "fields": list(schema.fields), "sizes": sizes,
        "rows": len(labels), "counts": list(counts), "positives": int(ordered.sum()),
        "split_seed": split_seed, "vocabulary": vocabulary,
        "content": sha256_of(ids.tobytes(), ordered.tobytes(),
                             json.dumps([sizes, list(counts)]))[:16],
    }
    return Dataset(schema, ids, ordered, counts, manifest, vocabulary=Vocabulary(tuple(kept)))


def check_vocabulary(vocabulary: str) -> None:
    """Raise a ValueError unless `vocabulary` is one of VOCABULARIES."""
    if vocabulary not in VOCABULARIES:
        raise ValueError(f"vocabulary must be {' or '.join(map(repr, VOCABULARIES))}, got "
                         f"{vocabulary!r}")


def save(dataset: Dataset, folder: Path, source: dict[str, Any]) -> None:
    """Write arrays and manifest of a data set without dense features to `folder`. `source` says
    what was read."""
    with new_folder(folder, source) as temporary:
        np.save(temporary / "ids.npy", dataset.ids)
        np.save(temporary / "labels.npy", dataset.labels)
        if dataset.vocabulary is not None:
            dataset.vocabulary.write(temporary / VOCABULARY)
        write_json(temporary / "manifest.json", {**dataset.manifest, "source": source})


def cache_folder(chosen: str | None = None) -> Path:
    """Where encoded data sets are kept: the chosen folder, else $PEP_CACHE, else data/cache.

    >>> cache_folder("/scratch/encoded").name
    'encoded'
    """
    if chosen is not None:
        return Path(chosen)
    return Path(os.environ.get("PEP_CACHE") or Path(__file__).parent / "cache")


def manifests(cache: Path) -> dict[Path, dict[str, Any]]:
    """The sets in a cache that this code reads: folder -> manifest, with `source`; newest first."""
    found = {}
    paths = [path for path in cache.glob("*/manifest.json") if not path.parent.name.startswith(".")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            manifest = json.loads(path.read_text())
        except (ValueError, RecursionError):
            continue
        if isinstance(manifest, dict) and manifest.get("format") == FORMAT_VERSION:
            found[path.parent] = manifest
    return found


@contextmanager
def new_folder(folder: Path, source: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder; rename it to `folder`, in the place of an older one, when the block
    ends well."""
    require_writable(folder.parent, "--cache (or PEP_CACHE)")
    remove_left_behind(folder)
    temporary = Path(tempfile.mkdtemp(prefix=temporary_prefix(folder), dir=folder.parent))
    # mkdtemp's own mode shuts out others who share the cache
    temporary.chmod(folder.parent.stat().st_mode & 0o777)
    try:
        with naming_a_full_disk(folder, temporary):
            yield temporary
            checksums.write(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            temporary.rename(folder)
        except OSError:
            # else another process stored the same set at this moment
            if load(folder, source) is None:
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: Path, source: dict[str, Any]) -> Dataset | None:
    """Open a stored data set as memory maps, or return None when it is absent, of another source,
    unreadable or not what was written.

    The maps are copy-on-write: the files are never written to.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest.pop("source") != source or manifest["format"] != FORMAT_VERSION:
            return None
        if not checksums.hold(folder):
            return None
        ids = np.load(folder / "ids.npy", mmap_mode="c")
        labels = np.load(folder / "labels.npy", mmap_mode="c")
        width = manifest.get("numbers", 0)
        dense = np.load(folder / "dense.npy", mmap_mode="c") if width else None
        rows, counts = manifest["rows"], tuple(manifest["counts"])
        schema = Schema(manifest["dataset"], tuple(manifest["fields"]), tuple(manifest["sizes"]))
        kept = Vocabulary.open(folder / VOCABULARY)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError,
            RecursionError):
        return None
    if ids.shape != (rows, schema.num_fields) or labels.shape != (rows,):
        return None
    if dense is not None and dense.shape != (rows, width):
        return None
    if [field.size for field in kept.fields] != list(schema.sizes):
        return None
    return Dataset(schema, ids, labels, counts, manifest, dense, kept)
