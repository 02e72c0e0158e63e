"""A table to an encoded set, in two streaming passes whose memory grows with the distinct values
and not with the rows."""

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from data import store
from data.raw.writer import Writer
from data.schema import Schema
from data.split import SPLITS
from data.table import parts
from data.table.count import TextCounter
from data.table.options import (
    COLUMN,
    TIME,
    OwnTable,
    TableOptions,
    check_options,
    check_rule,
    files_of,
    kind_of,
)
from data.table.read import Table
from data.table.spool import FieldPlan, Spooled, spool
from models.vocabulary import (
    BUCKET,
    LOG_SQUARED,
    QUANTILES,
    TEXT,
    Field,
    FieldInfo,
    Vocabulary,
    buckets_of,
    field_of,
    pack,
)
from utils.files import require_writable, sha256_of
from utils.locks import locked
from utils.text import unknown

log = logging.getLogger("pep")

TYPES_VERSION = 2  # raise it when values of Parquet or of memory would be encoded differently
SAMPLE = 2_000_000  # numbers of a column that its quantiles are taken of; fewer: of all
FEW = 12  # values of a field that is looked at for a copy of the label
YES, NO = ("1", "1.0", "true", "yes", "t", "y"), ("0", "0.0", "-1", "false", "no", "f", "n")


def open_table(data: Any, cache: Path, request: OwnTable,
               wanted: Mapping[str, Any] | None = None) -> store.Dataset:
    """The encoded set, from the cache when it was made from the same table by the same rules.

    A set is never replaced by another one: where a file has other rows than before and the same
    size and ends, both sets are kept.

    Args:
        data: a path, a pandas DataFrame, an Arrow table; None: $PEP_DATA/<name>, or the set of
            this name in the cache.
        cache: where encoded sets are kept.
        request: name and rules.
        wanted: the record of a run, whose set is taken from the cache where data is None, whatever
            has become of its file.

    Raises:
        FileNotFoundError: there is no such file; or, without data, no such set in the cache.
        ValueError: the table cannot be used; every message says what to do.
    """
    store.check_vocabulary(request.vocabulary)
    shared = Path(os.environ.get("PEP_DATA", ""), request.name)
    if data is None and os.environ.get("PEP_DATA") and shared.exists():
        data = shared
    if data is None:
        return _from_cache(request, cache, wanted)
    table = Table.of(data, files_of(request.split))
    split = kind_of(request.split, bool(table.files) and table.files[0].part is not None)
    if split[0] in (TIME, COLUMN) and split[1] not in table.columns:
        raise ValueError(f"split: the table has no such column. "
                         f"{unknown('column', split[1], table.columns)}")
    used = {split[1]: "split"} if split[0] in (TIME, COLUMN) else {}
    check_options(request.options, table.columns, used)
    seen = table.fingerprint()
    source: dict[str, Any] = {"files": seen, "rules": request.rules()}
    if table.typed:
        source["types"] = TYPES_VERSION
    key = sha256_of(str(sorted(_contents(seen))), str(source["rules"]))[:12]
    target = cache / f"{request.name}-{key}"
    dataset = _load(target, source)
    if dataset is not None:  # without the lock, so that a cache which cannot be written serves too
        return dataset
    require_writable(cache, "--cache (or PEP_CACHE)")
    with locked(cache / f"{target.name}.lock", wait=True):
        dataset = _load(target, source)
        if dataset is None:
            for left in cache.glob(f".{target.name}.*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            before = store.manifests(cache).get(target)  # of a file with the same size and ends
            folder = target if before is None else _beside(target, source)
            log.info("encoding %s into %s", request.name, folder)
            with store.new_folder(folder, source) as temporary:
                _encode(table, request, split, temporary, source)
                if table.fingerprint() != seen:
                    raise ValueError(f"{data} changed while it was read; wait until it is "
                                     "complete and start again")
            dataset = store.load(folder, source)
            old = None if before is None else store.load(target, before["source"])
            if old is not None and dataset is not None and (
                    (old.hash, old.values_hash) == (dataset.hash, dataset.values_hash)):
                shutil.rmtree(target)  # the file was touched or moved, and nothing else
                folder.rename(target)
                dataset = store.load(target, source)
    if dataset is None:
        raise OSError(f"{target} cannot be read back; delete it and start again")
    return dataset


def _beside(target: Path, source: Mapping[str, Any]) -> Path:
    """A folder for rows of the same size and ends as those in `target`."""
    return target.with_name(f"{target.name}-{sha256_of(str(sorted(source['files'].items())))[:8]}")


def _load(target: Path, source: dict[str, Any]) -> store.Dataset | None:
    found = store.load(target, source)
    return store.load(_beside(target, source), source) if found is None else found


def _contents(seen: Mapping[str, Any]) -> list[str]:
    return [str({key: value for key, value in file.items() if key != "modified"})
            for file in seen.values()]


def _from_cache(request: OwnTable, cache: Path, wanted: Mapping[str, Any] | None) -> store.Dataset:
    """The set that was encoded before, if it is the wanted one, or its file is still the same or is
    gone.

    Raises:
        FileNotFoundError: there is none, or there are several.
        ValueError: its file has changed; or the wanted record is too old to say which it is of
            several that differ in their raw values alone.
    """
    rules = request.rules()
    found = {folder: manifest for folder, manifest in store.manifests(cache).items()
             if manifest["dataset"] == request.name
             and manifest["source"].get("rules") == rules}
    if wanted is not None:
        loaded = (store.load(folder, manifest["source"]) for folder, manifest in found.items()
                  if manifest["content"] == wanted["manifest"])
        same = {dataset.values_hash: dataset for dataset in loaded
                if dataset is not None and dataset.other_than(wanted) is None}
        if len(same) > 1:
            raise ValueError(f"run {wanted['run_id']} does not say which of {len(same)} encoded "
                             f"sets in {cache} it is of, whose rows are the same and whose raw "
                             "values are not; name the table with --data")
        if same:
            return next(iter(same.values()))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{len(found) or 'no'} encoded sets in {cache} are called {request.name!r} and were "
            "read by these rules; name the table with --data")
    [(folder, manifest)] = found.items()
    for path, before in manifest["source"]["files"].items():
        file = Path(path)
        if not file.is_file():
            continue
        now = next(iter(Table.of(file).fingerprint().values()))
        if _contents({path: now}) != _contents({path: before}):
            raise ValueError(f"{path} has changed since it was encoded; name it with --data to "
                             "encode it again, or put the old file back")
    dataset = store.load(folder, manifest["source"])
    if dataset is None:
        raise OSError(f"{folder} cannot be read; delete it, and name the table with --data")
    return dataset


def _encode(table: Table, request: OwnTable, split: tuple[str, str], folder: Path,
            source: dict[str, Any]) -> None:
    options = request.options
    with (tempfile.TemporaryDirectory(dir=folder) as scratch,
          ThreadPoolExecutor(os.cpu_count()) as pool):
        spooled = spool(table, options, split, Path(scratch) / "rows.bin", pool)
        labels, label_counts = _labels(spooled.labels, options)
        part = parts.part_of_rows(spooled, *split, request.split)
        train = part == 0 if request.vocabulary == "train" else None
        dense = [plan.column in options.dense and request.with_dense for plan in spooled.numbers]
        coded, dropped = _code_fields(spooled, options, train, dense)
        counts = np.bincount(part, minlength=len(SPLITS))
        schema = Schema(request.name, tuple(each.plan.name for each in coded),
                        tuple(each.field.size for each in coded))
        writer = Writer(folder, schema, (int(counts[0]), int(counts[1]), int(counts[2])),
                        sum(dense), pool)
        leaks = _Leaks(coded, options.label)
        _write_rows(spooled, coded, np.array(dense, bool), labels, part, (writer, leaks))
        leaks.warn()
        ignored = _ignored(table, options, spooled, split)
        writer.finish({"min_count": options.min_count, "bad_lines": spooled.bad_lines,
                       "vocabulary": request.vocabulary,
                       "distinct": [each.distinct for each in coded],
                       "table": {"ignored": {**ignored, **dropped}, "label": label_counts,
                                 "dense": [plan.column for plan, own
                                           in zip(spooled.numbers, dense, strict=True) if own],
                                 "split": ":".join(split).strip(":")}},
                      source, Vocabulary(tuple(each.field for each in coded)))


def _ignored(table: Table, options: TableOptions, spooled: Spooled,
             split: tuple[str, str]) -> dict[str, str]:
    """Columns that are no field, and why."""
    read = {plan.column for plan in [*spooled.texts, *spooled.numbers]}
    why = {column: "not in fields" for column in table.columns
           if column not in read and column != options.label}
    why |= dict.fromkeys(options.ignore, "asked for")
    if split[1] in why:
        why[split[1]] = f"makes the split by {split[0]}"
    return {column or "(a column without a name)": reason if column else "it has no name"
            for column, reason in why.items()}


def _labels(counter: TextCounter, options: TableOptions) -> tuple[np.ndarray, dict[str, int]]:
    """(numbers,) int8, the label of each of the label column's values; and their rows.

    Raises:
        ValueError: a label is missing, or it is not clear which of the values count as 1.
    """
    counts = {counter.packed.get(number): int(counter.counts[number])
              for number in range(1, len(counter.counts))}
    if counter.counts[0]:
        raise ValueError(f"{int(counter.counts[0]):,} rows have no label ({options.label!r} is "
                         "empty); fill it in, or leave these rows out")
    positive = set(options.positive)
    if not positive:
        positive = {value for value in counts if value.lower() in YES}
        others = [value for value in counts if value.lower() not in (*YES, *NO)]
        if others or len(counts) > 2 or (len(counts) == 2 and len(positive) != 1):
            shown = ", ".join(f"{value!r} ({count:,} rows)"
                              for value, count in list(counts.items())[:5])
            raise ValueError(f"the label {options.label!r} has {len(counts)} values: {shown}"
                             f"{', ...' if len(counts) > 5 else ''}. It must be 0 or 1 (or false "
                             "and true, no and yes); say which of its values count as 1: "
                             "--set positive=VALUE")
    absent = sorted(positive - set(counts))
    if absent:
        raise ValueError(f"positive: the label {options.label!r} has no value {absent[0]!r}; it "
                         f"has {', '.join(map(repr, list(counts)[:5]))}")
    return np.array([0, *(value in positive for value in counts)], np.int8), counts


@dataclass(frozen=True)
class _Coded:
    """A field with its codes.

    Args:
        position: among the fields of its kind.
        table: of texts, the global id of each number.
        distinct: values that it has, gaps included.
    """

    plan: FieldPlan
    position: int
    field: Field
    distinct: int
    table: np.ndarray | None = None


def _code_fields(spooled: Spooled, options: TableOptions, train: np.ndarray | None,
                 dense: list[bool]) -> tuple[list[_Coded], dict[str, str]]:
    """The fields in the order of the table, and those that are left out as no value is frequent.

    Args:
        train: (rows,) bool, the rows that count; None: all.
        dense: which columns of numbers are kept as numbers alone.
    """
    numbers = {plan.name: position for position, plan in enumerate(spooled.numbers)
               if not dense[position]}
    texts = {plan.name: position for position, plan in enumerate(spooled.texts)}
    tallies = [counter.counts for counter in spooled.counters]
    if train is not None:
        tallies = _train_tallies(spooled, train)
    tallies = _with_empty_slots(spooled, tallies, spooled.rows if train is None else
                                int(train.sum()))
    infos = _bucket_infos(spooled, list(numbers.values()), train)
    buckets = _bucket_counts(spooled, infos, train)
    asked = {*options.fields, *options.dates}
    coded: list[_Coded] = []
    dropped: dict[str, str] = {}
    offset = 0
    for plan in _in_order(spooled):
        if plan.slot:
            first = next((each for each in coded if each.plan.name == plan.column), None)
            if first is not None and plan.slot < spooled.widest[plan.column]:
                coded.append(_slot(plan, texts[plan.name], first))
            continue
        if plan.name in texts:
            position = texts[plan.name]
            made = _code_texts(plan, position, spooled.counters[position], tallies[position],
                               (offset, options.min_count))
        elif plan.name in numbers:
            position = numbers[plan.name]
            made = _code_buckets(plan, position, infos[position], buckets[position],
                                 (offset, options.min_count))
        else:
            continue
        if made.field.size == 1:
            why = f"no value comes {options.min_count} times or more"
            if plan.column in asked:
                raise ValueError(f"min_count={options.min_count} leaves the field {plan.name!r} "
                                 f"empty: {why}; lower min_count, or take it out of fields")
            dropped[plan.name] = f"{why} (min_count)"
            continue
        coded.append(made)
        offset += made.field.size
        if offset >= 1 << 31:
            raise ValueError(f"the fields up to {plan.name!r} have {offset:,} values, more than "
                             "2^31 ids; raise min_count, or ignore a column")
    if not coded and not dropped:
        raise ValueError("every column is dense, and no field is left; a model needs one column at "
                         "least that is no dense one")
    if not coded:
        raise ValueError(f"min_count={options.min_count} leaves every field empty; lower it "
                         "(1 keeps all values)")
    return coded, dropped


def _with_empty_slots(spooled: Spooled, tallies: list[np.ndarray], rows: int) -> list[np.ndarray]:
    """The tallies, in which a gap of a column with several values in a cell is an empty slot."""
    found = list(tallies)
    for position, plan in enumerate(spooled.texts):
        if plan.separator is not None and not plan.slot:
            found[position] = tallies[position].copy()
            found[position][0] = rows * spooled.widest[plan.column] - int(
                tallies[position][1:].sum())
    return found


def _slot(plan: FieldPlan, position: int, first: _Coded) -> _Coded:
    """A slot behind the first of its column, with the ids of that one."""
    info = FieldInfo(plan.name, TEXT, plan.column, separator=plan.separator, slot=plan.slot)
    return _Coded(plan, position, field_of(info, [], [], []), 0, first.table)


def _in_order(spooled: Spooled) -> list[FieldPlan]:
    return sorted([*spooled.texts, *spooled.numbers], key=lambda plan: plan.place)


def _train_tallies(spooled: Spooled, train: np.ndarray) -> list[np.ndarray]:
    tallies = [np.zeros_like(counter.counts) for counter in spooled.counters]
    # of slots, the place of the first of their column
    tally_of = {plan.name: position - plan.slot for position, plan in enumerate(spooled.texts)}
    first = 0
    for texts, _, labels in spooled.blocks():
        chosen = train[first:first + len(labels)]
        for plan, tally, column in zip(spooled.texts, tallies, texts, strict=True):
            own = tallies[tally_of[plan.name]] if plan.slot else tally
            own += np.bincount(column[chosen], minlength=len(own))
        first += len(labels)
    return tallies


def _bucket_infos(spooled: Spooled, wanted: list[int],
                  train: np.ndarray | None) -> dict[int, FieldInfo]:
    """The rules of the columns of numbers, with their edges; by position."""
    samples = {position: _Sample(position) for position in wanted
               if check_rule(spooled.numbers[position].rule) is not None}
    first = 0
    for _, numbers, labels in spooled.blocks() if samples else ():
        chosen = slice(None) if train is None else train[first:first + len(labels)]
        for position, sample in samples.items():
            sample.add(numbers[position][chosen])
        first += len(labels)
    infos = {}
    for position in wanted:
        plan = spooled.numbers[position]
        buckets = check_rule(plan.rule)
        edges = () if buckets is None else samples[position].edges(buckets)
        infos[position] = FieldInfo(plan.name, BUCKET, plan.column,
                                    LOG_SQUARED if buckets is None else QUANTILES, edges)
    return infos


class _Sample:
    """A uniform sample of a stream of numbers: those with the smallest random keys."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.values, self.keys = np.empty(0), np.empty(0)

    def add(self, numbers: np.ndarray) -> None:
        """Take in a block; gaps and infinities do not count."""
        keys = self.generator.random(len(numbers))
        finite = np.isfinite(numbers)
        self.values = np.concatenate([self.values, numbers[finite]])
        self.keys = np.concatenate([self.keys, keys[finite]])
        if len(self.values) > SAMPLE:
            kept = np.argpartition(self.keys, SAMPLE)[:SAMPLE]
            self.values, self.keys = self.values[kept], self.keys[kept]

    def edges(self, buckets: int) -> tuple[float, ...]:
        """Between buckets of about as many rows each; equal ones fall together."""
        if not len(self.values):
            return ()
        edges = np.quantile(self.values, np.arange(1, buckets) / buckets)
        with np.errstate(over="ignore"):
            float32 = (self.values.astype(np.float32) == self.values).all()
        if float32 and (self.values % 1).any():
            # 0.1 of such a column is another number than the text 0.1; both are in one bucket
            short = edges.astype(np.float32)
            written = np.array([float(str(edge)) for edge in short])
            edges = np.where(short == edges, np.minimum(edges, written), edges)
        return tuple(np.unique(edges).tolist())


def _bucket_counts(spooled: Spooled, infos: Mapping[int, FieldInfo],
                   train: np.ndarray | None) -> dict[int, dict[int | None, int]]:
    """Of each column of numbers, bucket -> rows, 0 where no row of `train` has it; None is the gap.
    """
    found: dict[int, dict[int | None, int]] = {position: {} for position in infos}
    first = 0
    for _, numbers, labels in spooled.blocks() if infos else ():
        own = np.ones(len(labels), bool) if train is None else train[first:first + len(labels)]
        for position, info in infos.items():
            column, tally = numbers[position], found[position]
            gaps = np.isnan(column)
            buckets, counted = buckets_of(column[~gaps], info), own[~gaps]
            values, counts = np.unique(buckets[counted], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                tally[value] = tally.get(value, 0) + count
            for value in np.unique(buckets[~counted]).tolist():
                tally.setdefault(value, 0)
            if gaps.any():
                tally[None] = tally.get(None, 0) + int(own[gaps].sum())
        first += len(labels)
    return found


def _code_texts(plan: FieldPlan, position: int, counter: TextCounter, tally: np.ndarray,
                place: tuple[int, int]) -> _Coded:
    """Codes by falling count, then by value, with the gap before all others.

    Args:
        place: the field's first id, and min_count.
    """
    offset, min_count = place
    known = np.flatnonzero(tally >= max(min_count, 1))
    packed = counter.packed
    texts = pa.StringArray.from_buffers(len(packed), pa.py_buffer(packed.starts.astype(np.int32)),
                                        pa.py_buffer(packed.text)) if (
        packed.starts[-1] < 1 << 31) else pa.LargeStringArray.from_buffers(
        len(packed), pa.py_buffer(packed.starts), pa.py_buffer(packed.text))
    order = pc.sort_indices(
        pa.table({"count": tally[known], "text": texts.take(pa.array(known))}),
        [("count", "descending"), ("text", "ascending")]).to_numpy()
    known = known[order]
    unknown = offset + len(known)
    table = np.full(len(tally), unknown, np.int32)
    table[known] = offset + np.arange(len(known), dtype=np.int32)
    info = FieldInfo(plan.name, TEXT, plan.column, part=plan.part, separator=plan.separator,
                     unknown=unknown,
                     unknown_count=int(tally.sum() - tally[known].sum()))
    if (known == 0).any():
        info = replace(info, missing=int(table[0]), missing_count=int(tally[0]))
        known = known[known != 0]
    chosen = pack(texts.take(pa.array(known)).to_pylist())
    field = field_of(info, chosen, table[known], tally[known])
    # a column with several values in a cell may have empty slots and no empty cell
    distinct = int(np.count_nonzero(counter.counts[1:])) + bool(counter.counts[0] or tally[0])
    return _Coded(plan, position, field, distinct, table)


def _code_buckets(plan: FieldPlan, position: int, info: FieldInfo,
                  tally: Mapping[int | None, int], place: tuple[int, int]) -> _Coded:
    """As `_code_texts`, of buckets."""
    offset, min_count = place
    known = [bucket for bucket, count in tally.items() if count >= max(min_count, 1)]
    known.sort(key=lambda bucket: (-tally[bucket], bucket is not None, bucket or 0))
    unknown = offset + len(known)
    info = replace(info, unknown=unknown,
                   unknown_count=sum(tally.values()) - sum(tally[bucket] for bucket in known))
    ids = np.arange(offset, unknown)
    counts = np.array([tally[bucket] for bucket in known], np.int64)
    if None in known:
        gap = known.index(None)
        info = replace(info, missing=offset + gap, missing_count=tally[None])
        known.pop(gap)
        ids, counts = np.delete(ids, gap), np.delete(counts, gap)
    return _Coded(plan, position, field_of(info, known, ids, counts), len(tally))


def _write_rows(spooled: Spooled, coded: list[_Coded], dense: np.ndarray, labels: np.ndarray,
                part: np.ndarray, targets: "tuple[Writer, _Leaks]") -> None:
    writer, leaks = targets
    first = 0
    with tqdm(total=spooled.rows, desc="encoding", unit="rows", unit_scale=True,
              disable=None) as bar:
        for texts, numbers, label in spooled.blocks():
            here = part[first:first + len(label)]
            order = np.argsort(here, kind="stable")  # rows of one part stay in order
            ids = np.empty((len(label), len(coded)), np.int32)
            jobs = [writer.pool.submit(_ids, ids, place, each, texts, numbers)
                    for place, each in enumerate(coded)]
            for job in jobs:
                job.result()
            found = labels[label]
            leaks.add(ids, found)
            own = numbers[dense]
            if len(infinite := np.argwhere(np.isinf(own))):
                place, row = infinite[0]
                name = spooled.numbers[np.flatnonzero(dense)[place]].column
                raise ValueError(f"the dense column {name!r} has an infinite value in row "
                                 f"{first + row + 1:,}; leave it empty, or write a number")
            writer.add(np.bincount(here, minlength=len(SPLITS)), ids[order], found[order],
                       _signed_log(own).T[order])
            first += len(label)
            bar.update(len(label))


def _ids(ids: np.ndarray, place: int, coded: _Coded, texts: np.ndarray,
         numbers: np.ndarray) -> None:
    """Fill one field's column of a block."""
    if coded.table is not None:
        ids[:, place] = coded.table[texts[coded.position]]
    else:
        ids[:, place] = coded.field.lookup(numbers[coded.position])


def _signed_log(numbers: np.ndarray) -> np.ndarray:
    """sign(v) ln(|v| + 1), which is Criteo's for v >= 0; 0 in a gap."""
    return np.nan_to_num(np.sign(numbers) * np.log1p(np.abs(numbers))).astype(np.float32)


class _Leaks:
    """Looks for fields of few values of which each goes with one label alone."""

    def __init__(self, coded: list[_Coded], label: str) -> None:
        self.label = label
        offsets = np.cumsum([0, *(each.field.size for each in coded)])
        self.looked_at = {place: (each.plan.name, int(offsets[place]), each.field.size)
                          for place, each in enumerate(coded) if 0 < each.field.size <= FEW}
        self.counts = {place: np.zeros((size, 2), np.int64)
                       for place, (_, _, size) in self.looked_at.items()}

    def add(self, ids: np.ndarray, labels: np.ndarray) -> None:
        """Count the pairs of value and label of a block."""
        for place, (_, offset, size) in self.looked_at.items():
            pairs = 2 * (ids[:, place] - offset) + labels
            self.counts[place] += np.bincount(pairs, minlength=2 * size).reshape(size, 2)

    def warn(self) -> None:
        """Name the fields that tell the label."""
        for place, (name, _, _) in self.looked_at.items():
            counts = self.counts[place]
            if not counts.min(axis=1).any() and counts.sum(axis=0).all():
                log.warning("field %r tells the label %r in every row: it is probably a copy of "
                            "it, or known only afterwards; leave it out: --set ignore=%s", name,
                            self.label, name)


def describe(dataset: store.Dataset) -> str:
    """What a table became: a line for each field, and what was left out."""
    about = dataset.manifest["table"]
    lines = [dataset.describe().splitlines()[0],
             f"split: {about['split']}; label values: " + ", ".join(
                 f"{value} ({count:,})" for value, count in list(about["label"].items())[:6])]
    lines.append(f"{'field':24} {'read as':10} {'distinct':>10} {'ids':>10} {'gaps':>10} "
                 f"{'rare rows':>10}")
    assert dataset.vocabulary is not None
    for field, distinct in zip(dataset.vocabulary.fields, dataset.manifest["distinct"],
                               strict=True):
        info = field.info
        if info.slot:
            continue
        kind = info.rule or info.part or info.kind
        if info.separator is not None:
            slots = sum(each.info.column == info.column for each in dataset.vocabulary.fields)
            kind = f"up to {slots}"
        lines.append(f"{field.name:24} {kind:10} {distinct:>10,} "
                     f"{field.size:>10,} {info.missing_count:>10,} {info.unknown_count:>10,}")
    if dataset.num_dense:
        lines.append(f"{dataset.num_dense} columns of numbers beside the fields")
    lines += [f"left out: {column} ({why})" for column, why in about["ignored"].items()]
    if dataset.manifest["bad_lines"]:
        lines.append(f"left out: {dataset.manifest['bad_lines']:,} lines that cannot be used")
    return "\n".join(lines)
