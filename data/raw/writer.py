"""Encoded rows written as they come, each split to its own place in the files, with little
memory."""

import hashlib
import itertools
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data.schema import Schema
from data.split import SPLITS, require_both_classes
from data.store import FORMAT_VERSION, VOCABULARY
from models.vocabulary import Vocabulary
from utils.files import sha256_of, write_json


class Writer:
    """Writes ids.npy, labels.npy, dense.npy (when there are dense features) and, at the end,
    vocabulary/ and manifest.json.

    Args:
        folder: exists.
        schema: the fields.
        counts: rows of train, validation and test.
        num_dense: M.
        pool: does the writing and hashing.
    """

    def __init__(self, folder: Path, schema: Schema, counts: tuple[int, int, int], num_dense: int,
                 pool: ThreadPoolExecutor) -> None:
        rows = sum(counts)
        self.folder = folder
        self.schema = schema
        self.counts = counts
        self.pool = pool
        self.positives = np.zeros(len(SPLITS), np.int64)  # of each split
        self.files = [_Array(folder / "ids.npy", (rows, schema.num_fields), "<i4", counts),
                      _Array(folder / "labels.npy", (rows,), "<f4", counts)]
        if num_dense:
            self.files.append(_Array(folder / "dense.npy", (rows, num_dense), "<f4", counts))
        self.num_dense = num_dense
        self.pending: list[Future[None]] = []

    def add(self, sizes: np.ndarray, ids: np.ndarray, labels: np.ndarray,
            dense: np.ndarray) -> None:
        """Append rows to the splits: the first sizes[0] go to train, the next to validation, then
        test.

        Args:
            sizes: (3,) rows for each split.
            ids: (n, F); labels: (n,); dense: (n, M).
        """
        self.wait()
        bounds = np.cumsum(sizes)[:-1]
        self.positives += [np.count_nonzero(part) for part in np.split(labels, bounds)]
        arrays = (ids, labels, dense)[:len(self.files)]
        self.pending = [self.pool.submit(file.add, sizes, array)
                        for file, array in zip(self.files, arrays, strict=True)]

    def wait(self) -> None:
        """Until what was added is written; errors (a full disk) come up here."""
        for job in self.pending:
            job.result()
        self.pending = []

    def finish(self, manifest: dict[str, Any], source: dict[str, Any],
               vocabulary: Vocabulary) -> None:
        """Close the files, write the vocabulary and, last, the manifest.

        Raises:
            ValueError: a split has one class alone.
        """
        self.wait()
        require_both_classes(self.schema.name, self.positives.tolist(), self.counts)
        digests = list(itertools.chain.from_iterable(file.close() for file in self.files))
        vocabulary.write(self.folder / VOCABULARY)
        sizes, counts = list(self.schema.sizes), list(self.counts)
        write_json(self.folder / "manifest.json", {
            "format": FORMAT_VERSION, "dataset": self.schema.name,
            "fields": list(self.schema.fields), "sizes": sizes,
            "rows": sum(counts), "counts": counts, "positives": int(self.positives.sum()),
            "numbers": self.num_dense,
            "content": sha256_of(*digests, json.dumps([sizes, counts]))[:16], **manifest,
            "source": source})


class _Array:
    """One .npy file whose three splits grow side by side."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str,
                 counts: tuple[int, int, int]) -> None:
        self.file = path.open("wb")
        self.dtype = np.dtype(dtype)
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        row_bytes = self.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        starts = (0, counts[0], counts[0] + counts[1])
        self.places = [self.file.tell() + start * row_bytes for start in starts]
        self.ends = [place + count * row_bytes for place,
                     count in zip(self.places, counts, strict=True)]
        self.hashes = [hashlib.sha256() for _ in SPLITS]

    def add(self, sizes: np.ndarray, array: np.ndarray) -> None:
        first = 0
        for split, rows in enumerate(sizes):
            part = np.ascontiguousarray(array[first:first + rows], self.dtype)
            self.file.seek(self.places[split])
            self.file.write(part.data)
            self.hashes[split].update(part.data)
            self.places[split] += part.nbytes
            first += rows

    def close(self) -> list[str]:
        assert self.places == self.ends, "a split has another number of rows than announced"
        self.file.close()
        return [digest.hexdigest() for digest in self.hashes]
