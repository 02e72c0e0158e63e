"""Raw file -> encoded set, in two streaming passes whose memory grows with the distinct values and
not with the rows.

The first pass reads the text once: each value gets the number under which it first came, and is
counted. The second knows the counts, turns numbers into codes by a table, and puts the rows into
split order.
"""

import logging
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data import split as splits
from data import store
from data.raw.bad_lines import BadLines
from data.raw.kept_values import vocabulary_of
from data.raw.layout import Layout
from data.raw.ranges import number_ranges
from data.raw.source import RawFile, find_file, fingerprint
from data.raw.value_index import Numbered, number_lines
from data.raw.writer import Writer
from data.schema import Schema
from models.kernels.jit import njit
from utils.files import require_writable, sha256_of
from utils.locks import locked

log = logging.getLogger("pep")

TRAIN = splits.SPLITS.index("train")


def open_raw(layout: Layout, folder: str | None, cache: Path, with_ids: bool, vocabulary: str,
             split: str, processes: int = 1) -> store.Dataset:
    """The encoded data set, from the cache when it was made from the same file by the same rules.

    Args:
        folder: the raw file or its folder; see `data.raw.source.find_file`.
        cache: where encoded sets are kept.
        with_ids: only for MovieLens.
        vocabulary: "all" or "train", see `data.store.build`.
        split: "random", or "ids:FILE", see `data.split.split_indices`.
        processes: that read the text of a large, unpacked file; see `data.raw.ranges`.

    Raises:
        ValueError: the file cannot be used; see `data.raw.source.RawFile`,
            `data.raw.bad_lines.BadLines`, `data.split`.
    """
    if with_ids:
        raise ValueError(f"with_ids=True: {layout.name} has no user and movie ids; leave with_ids "
                         f"away")
    store.check_vocabulary(vocabulary)
    path = find_file(layout, folder)
    seen = fingerprint(path)
    source = {**seen, "rules": layout.rules_version, "split_seed": layout.split_seed,
              "split": splits.identity(split), "vocabulary": vocabulary,
              "min_count": layout.min_count,
              **({} if layout.bucketed else {"bucketed": False})}
    target = cache / f"{layout.name}-{sha256_of(*map(str, source.values()))[:12]}"
    dataset = store.load(target, source)
    if dataset is not None:  # without the lock, so that a cache which cannot be written serves too
        if path.stat().st_mtime > (target / "manifest.json").stat().st_mtime:
            log.warning("%s was written after it was encoded, with the same size, beginning and "
                        "end; if its rows have changed, delete %s", path, target)
        return dataset
    require_writable(cache, "--cache (or PEP_CACHE)")
    with locked(cache / f"{target.name}.lock", wait=True):
        dataset = store.load(target, source)  # another process may have stored it while we waited
        if dataset is None:
            # by a process that was killed; we hold the lock
            for left in cache.glob(f".{target.name}.*"):
                shutil.rmtree(left, ignore_errors=True)
            log.info("encoding %s from %s into %s", layout.name, path, target)
            with store.new_folder(target, source) as temporary:
                encode_file(layout, path, temporary, source, split, processes)
                if fingerprint(path) != seen:  # replaced while we waited for the lock, say
                    raise ValueError(f"{path} is another file than when it was opened; start again")
            dataset = store.load(target, source)
    if dataset is None:
        raise OSError(f"{target} cannot be read back; delete it and start again")
    return dataset


def encode_file(layout: Layout, path: Path, folder: Path, source: dict[str, Any],
                split: str = splits.RANDOM, processes: int = 1) -> None:
    """Encode a raw file into `folder`: ids.npy, labels.npy, dense.npy (for a layout with dense
    features), vocabulary/, manifest.json.

    Args:
        source: stored in the manifest; its `vocabulary` says over which rows values are counted.
        processes: that read the text; the files are the same for any number of them.
    """
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        raw, bad = RawFile(path, layout), BadLines(path, layout.published)
        numbered = None
        if processes > 1:
            numbered = number_ranges(raw, bad, Path(scratch), processes)
        if numbered is None:
            numbered = number_lines(raw, bad, Path(scratch) / "numbered.bin", pool)
        part_of_row = np.empty(numbered.rows, np.uint8)
        parts = splits.split_indices(split, numbered.rows, layout.split_seed, numbered.kept)
        for position, rows in enumerate(parts):
            part_of_row[rows] = position
        counts = (len(parts[0]), len(parts[1]), len(parts[2]))
        del parts
        tallies = _tallies(numbered, layout,
                           part_of_row if source["vocabulary"] == "train" else None)
        tables, sizes = _code_tables(numbered, layout, tallies)
        vocabulary = vocabulary_of(numbered, layout, tables, tallies)
        names = tuple(layout.fields[position] for position in layout.encoded)
        writer = Writer(folder, Schema(layout.name, names, tuple(sizes)), counts,
                        len(layout.dense), pool)
        _recode_all(numbered, layout, np.concatenate(tables), _starts(tables), part_of_row, writer)
        writer.finish({"min_count": layout.min_count, "bad_lines": bad.count,
                       "vocabulary": source["vocabulary"],
                       "distinct": [int(np.count_nonzero(numbered.counters[position].counts))
                                    for position in layout.encoded]}, source, vocabulary)


def _tallies(numbered: Numbered, layout: Layout,
             part_of_row: np.ndarray | None) -> list[np.ndarray]:
    """For each field, the rows of each number: of all, or, given the parts, of train alone."""
    tallies = [numbered.counters[position].counts for position in layout.encoded]
    if part_of_row is not None:
        tallies = [np.zeros_like(tally) for tally in tallies]
        first = 0
        for ids, _, labels in numbered.blocks():
            of_train = part_of_row[first:first + len(labels)] == TRAIN
            for tally, column in zip(tallies, ids[layout.encoded], strict=True):
                tally += np.bincount(column[of_train], minlength=len(tally))
            first += len(labels)
    return tallies


def _code_tables(numbered: Numbered, layout: Layout,
                 tallies: list[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """For each field, the global id of each number; and the field sizes."""
    counters = [numbered.counters[position] for position in layout.encoded]
    tables: list[np.ndarray] = []
    sizes: list[int] = []
    for counter, tally in zip(counters, tallies, strict=True):
        codes, known = counter.codes(tally, layout.min_count)
        tables.append(codes + sum(sizes))
        sizes.append(known + 1)
    return tables, sizes


def _starts(tables: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *(len(table) for table in tables[:-1])])


def _recode_all(numbered: Numbered, layout: Layout, table: np.ndarray, starts: np.ndarray,
                part_of_row: np.ndarray,
                writer: Writer) -> None:
    first = 0
    cores = os.cpu_count() or 1
    with tqdm(total=numbered.rows, desc="encoding", unit="rows", unit_scale=True,
              disable=None) as bar:
        for ids, dense, labels in numbered.blocks():
            parts = part_of_row[first:first + len(labels)]
            # rows of one split stay in file order
            order = np.argsort(parts, kind="stable").astype(np.int32)
            if not layout.bucketed:
                ids = ids[layout.encoded]
            coded = np.empty((len(labels), len(ids)), np.int32)
            pieces = zip(np.array_split(order, cores), np.array_split(coded, cores), strict=True)
            for job in [writer.pool.submit(_recode, ids, table, starts, *piece)
                        for piece in pieces]:
                job.result()
            writer.add(np.bincount(parts, minlength=len(splits.SPLITS)), coded, labels[order],
                       dense.T[order])
            first += len(labels)
            bar.update(len(labels))


@njit(nogil=True)
def _recode(ids, table, starts, order, coded):
    """coded[i, f] = the global id of number ids[f, order[i]]."""
    for field in range(ids.shape[0]):
        for i in range(len(order)):
            coded[i, field] = table[starts[field] + ids[field, order[i]]]
