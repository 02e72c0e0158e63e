"""What the raw values of an encoded data set became: for each field, value -> id and count.

A vocabulary is kept beside the encoded rows and travels with an exported model. On disk it is a
folder of .npy arrays and one JSON file, which opens as memory maps: a million values in
milliseconds. In memory each field's values stand in the order of a 64-bit hash, so that a look-up
reads one bucket of about four values; the bytes are compared, so that equal hashes never give a
wrong id.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

FORMAT_VERSION = 1
TEXT, WHOLE, BUCKET = "text", "whole", "bucket"
KINDS = (TEXT, WHOLE, BUCKET)
LOG_SQUARED, QUANTILES = "log2", "quantiles"
RULES = (LOG_SQUARED, QUANTILES)
DATE_PARTS = ("hour", "weekday", "day", "month", "year")  # weekday: 0 is Monday
DAY = 86_400  # seconds
EARLIEST, LATEST = 1e8, 1e11  # seconds since 1970 that may be meant, of 1973 to 5138
NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)", re.ASCII)
ZONED = re.compile(r"(.*\d\d:\d\d.*?)(?:Z|([+-])(\d\d)(?::?(\d\d))?)", re.ASCII)
NOT_FOUND = -1  # the id of a value that is not known, in a field without an id for those
UNKNOWN = "(any other value)"  # what `Field.value` says of a field's unknown id
PER_BUCKET = 4  # values that share a bucket, on average
MOST_LINE_ENDS = 100  # in a cell; more are of a quote that was not closed
WHOLE_FLOATS = 1e15  # below it a float without a fraction is written as a whole number
_ARRAYS = ("text", "starts", "tags", "ids", "counts", "buckets")


@dataclass(frozen=True)
class FieldInfo:
    """What a field's values are.

    Args:
        name: of the field.
        kind: "text": a value is the cell's text; "whole": a whole number, so that 7 and 007 are
            one value; "bucket": a number, of which the bucket is the value.
        column: of the raw table, where its name is another one than the field's.
        rule: of a bucket: "log2", floor(ln(v)^2) for v > 2, else floor(v) - 2, of v = number -
            origin; or "quantiles", the number of `edges` that are at most the number.
        unknown, unknown_count: the id of all values that have none of their own, and its rows;
            None: there is no such id.
        missing, missing_count: the id of a gap, and its rows; None: a gap is an unknown value.
        part: of a date, one of DATE_PARTS: the column has times, and their part is the value.
        separator: between the values of a cell that has several. Each is a feature of its own, and
            they fill slots: this field and those behind it of the same column. The id of gaps is
            that of empty slots too.
        slot: of such a column; a slot but the first, 0, has no values of its own.
    """

    name: str
    kind: str = TEXT
    column: str | None = None
    rule: str | None = None
    edges: tuple[float, ...] = ()
    origin: float = 0.0
    unknown: int | None = None
    unknown_count: int = 0
    missing: int | None = None
    missing_count: int = 0
    part: str | None = None
    separator: str | None = None
    slot: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"field {self.name!r}: kind must be one of {', '.join(KINDS)}, got "
                             f"{self.kind!r}")
        if (self.rule in RULES) != (self.kind == BUCKET):
            raise ValueError(f"field {self.name!r}: a bucket needs a rule ({' or '.join(RULES)}), "
                             f"and no other kind has one; got kind {self.kind!r} with rule "
                             f"{self.rule!r}")


@dataclass(frozen=True)
class Packed:
    """Texts in one array.

    Args:
        text: (bytes,) uint8, UTF-8.
        starts: (n + 1,) text i is text[starts[i]:starts[i + 1]].
        missing: (n,) bool, which are gaps; None when none is.
        ends: (n,) where texts do not lie one behind the other; `starts` is of n then.
    """

    text: np.ndarray
    starts: np.ndarray
    missing: np.ndarray | None = None
    ends: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.spans[0])

    @property
    def spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each text starts and ends, (n,) each."""
        return (self.starts[:-1], self.starts[1:]) if self.ends is None else (self.starts,
                                                                              self.ends)

    def get(self, position: int) -> str:
        """One text; bytes of a file that are no UTF-8 are shown as U+FFFD."""
        starts, ends = self.spans
        return bytes(self.text[int(starts[position]):int(ends[position])]).decode(errors="replace")


def as_text(value: Any) -> str | None:
    """The text that stands for a value; None for a gap (None, NaN, NaT, pandas.NA).

    Raises:
        ValueError: it is a collection of values, or bytes that are no UTF-8.

    >>> [as_text(value) for value in ("é", 7, 7.0, 0.25, True, float("nan"), b"x")]
    ['é', '7', '7', '0.25', 'true', None, 'x']
    >>> as_text(np.datetime64("2026-01-31T08")), as_text(datetime(2026, 1, 31, 8, 0, 0, 5))
    ('2026-01-31 08:00:00', '2026-01-31 08:00:00')
    >>> as_text(time(8, 0, 0, 5)), as_text(timedelta(minutes=2))  # a duration in seconds
    ('08:00:00', '120')
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{value!r:.60} is no UTF-8 ({error.reason}); turn it into "
                             "text") from error
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    # first of these, as numpy's durations count as whole numbers
    if isinstance(value, np.timedelta64 | np.datetime64 | datetime | time | timedelta):
        return _text_of_time(value)
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        whole = abs(float(value)) < WHOLE_FLOATS and value == int(value)
        # numpy's float64 is a float; float32 has fewer digits, and 0.1 is 0.1 there too
        return str(int(value)) if whole else str(value)
    if hasattr(value, "as_py"):  # Arrow's
        return as_text(value.as_py())
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # one value of a tensor
        return as_text(np.asarray(value)[()])
    several = isinstance(value, list | tuple | set | dict)
    if several or hasattr(value, "ndim") or hasattr(value, "__next__"):
        raise ValueError(f"a cell must hold one value, got {value!r:.60}; several are one text "
                         "with a separator between them (multi)")
    return str(value)


def _text_of_time(value: Any) -> str | None:
    """Whole seconds of a duration, or up to the second of a moment or a time of day."""
    if isinstance(value, np.timedelta64):
        return None if np.isnat(value) else str(value // np.timedelta64(1, "s"))
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value.astype("datetime64[s]")).replace("T", " ")
    if isinstance(value, datetime):  # pandas' too; of UTC, as Arrow's are read
        naive = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        return naive.isoformat(" ", "seconds")
    if isinstance(value, time):
        return value.isoformat("seconds")
    return str(value // timedelta(seconds=1))  # pandas' durations too


def pack(values: Any) -> Packed:
    """Values (see `as_text`) as packed texts.

    >>> packed = pack(["ab", None, 7])
    >>> packed.text.tobytes(), packed.starts.tolist(), packed.missing.tolist()
    (b'ab7', [0, 2, 2, 3], [False, True, False])
    """
    if isinstance(values, Packed):
        return values
    texts = isinstance(values, np.ndarray) and values.dtype.kind == "U"
    listed = values.tolist() if texts else list(values)
    missing = None
    if not set(map(type, listed)) <= {str}:
        listed = [as_text(value) for value in listed]
        missing = np.fromiter((value is None for value in listed), bool, len(listed))
        listed = [value or "" for value in listed]
    joined = "".join(listed)
    try:
        content = joined.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a value cannot be written as UTF-8 ({error}); give text, or bytes of "
                         "UTF-8") from error
    lengths: Iterable[int] = map(len, listed)
    if len(content) != len(joined):  # some characters take several bytes
        lengths = (len(value.encode()) for value in listed)
    starts = np.zeros(len(listed) + 1, np.int64)
    np.cumsum(np.fromiter(lengths, np.int64, len(listed)), out=starts[1:])
    text = np.frombuffer(bytearray(content), np.uint8)  # writable, as all arrays are here
    return Packed(text, starts, missing if missing is not None and missing.any() else None)


def numbers_of(values: Any, field: str) -> np.ndarray:
    """(n,) float64 of values that are numbers or their texts; NaN for a gap or an empty text.

    Raises:
        ValueError: a text is no number; it is named with its field.

    >>> numbers_of(["1.5", "", "-2e3"], "price").tolist()
    [1.5, nan, -2000.0]
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return values.astype(np.float64)
    from .text_loops import OTHER, read_numbers

    packed = pack(values)
    numbers, kinds = np.empty(len(packed)), np.empty(len(packed), np.uint8)
    read_numbers(packed.text, *packed.spans, numbers, kinds)
    for position in np.flatnonzero(kinds == OTHER):
        text = packed.get(int(position))
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"field {field!r} is of numbers, got {text[:40]!r}; write a number "
                             "with a decimal point, or nothing in a gap") from None
        numbers[position] = number
    return numbers


def buckets_of(numbers: np.ndarray, info: FieldInfo) -> np.ndarray:
    """(n,) int64 buckets of numbers by a field's rule; what a NaN gives means nothing.

    >>> info = FieldInfo("price", BUCKET, rule="quantiles", edges=(1.0, 10.0))
    >>> buckets_of(np.array([0.5, 1, 9, 10]), info).tolist()
    [0, 1, 1, 2]
    """
    if info.rule == QUANTILES:
        return np.searchsorted(np.array(info.edges), numbers, side="right")
    from .text_loops import log_squared

    buckets = np.empty(len(numbers), np.int64)
    log_squared(numbers, info.origin, buckets)
    return buckets


def seconds_of(values: Any, field: str) -> np.ndarray:
    """(n,) float64 seconds since 1970 of times: numbers, or texts of these, are seconds; other
    texts are read as ISO 8601, those with a zone as UTC. NaN for a gap. A value is read by itself,
    whatever stands beside it.

    Raises:
        ValueError: a text is no time; it is named with its field.

    >>> seconds_of(["1970-01-02 00:00:01", "", "1970-01-01", "2023", "0.5"], "time").tolist()
    [86401.0, nan, 0.0, 2023.0, 0.5]
    """
    return _seconds(values, field)[0]


def _seconds(values: Any, field: str) -> tuple[np.ndarray, np.ndarray]:
    """`seconds_of` values, and which of them are numbers, (n,) each."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return values.astype(np.float64), np.ones(len(values), bool)
    packed = pack(values)
    texts = [packed.get(place) for place in range(len(packed))]
    numeric = np.array([NUMBER.fullmatch(text) is not None for text in texts], bool)
    seconds = np.full(len(texts), np.nan)
    seconds[numeric] = [float(text) for text in compress(texts, numeric)]
    written = [_without_zone(text) for text in compress(texts, ~numeric)]
    try:
        times = np.array([_of_digits(text) if text else "NaT" for text, _ in written],
                         "datetime64[s]")
    except ValueError:
        wrong = next(text for text in compress(texts, ~numeric) if text and not _is_time(text))
        raise ValueError(f"field {field!r} is of times, got {wrong[:40]!r}; write "
                         "2026-01-31 23:59:59, or seconds since 1970") from None
    ahead = np.array([offset for _, offset in written], np.float64)  # of UTC
    seconds[~numeric] = np.where(np.isnat(times), np.nan, times.astype(np.int64) - ahead)
    return seconds, numeric


def _without_zone(text: str) -> tuple[str, float]:
    """A time without its zone, and how many seconds that is ahead of UTC.

    >>> _without_zone("2026-01-31T08:00:00+02:30"), _without_zone("2026-01-31 08:00Z")
    (('2026-01-31T08:00:00', 9000.0), ('2026-01-31 08:00', 0.0))
    """
    zoned = ZONED.fullmatch(text)
    if zoned is None:
        return text, 0.0
    moment, sign, hours, minutes = zoned.groups()
    ahead = 0.0 if sign is None else 3600.0 * int(hours) + 60.0 * int(minutes or 0)
    return moment, -ahead if sign == "-" else ahead


def _of_digits(text: str) -> str:
    """The text, if it begins with a digit or a sign: numpy reads words such as "today" as times."""
    if not text.lstrip("+-")[:1].isdecimal():
        raise ValueError(f"{text!r} is no time")
    return text


def _is_time(text: str) -> bool:
    try:
        np.datetime64(_of_digits(_without_zone(text)[0]), "s")
    except ValueError:
        return False
    return True


def date_part(values: Any, part: str, field: str) -> Packed:
    """One part of times (see `seconds_of`), as texts.

    Raises:
        ValueError: a value is no time, or a number that is no time since 1973, as of days
            (20260131), years or milliseconds.

    >>> date_part(["2026-01-31 23:59:59", None], "weekday", "time").get(0)
    '5'
    """
    seconds, numeric = _seconds(values, field)
    gaps = np.isnan(seconds)
    odd = seconds[numeric & ((seconds < EARLIEST) | (seconds > LATEST))]
    if len(odd):
        raise ValueError(f"field {field!r} is of times, got {odd[0]:.15g}, which as seconds since "
                         "1970 is no time of this age; write 2026-01-31 23:59:59 or seconds, not a "
                         "day, a year or milliseconds, and nothing in a gap")
    times = np.nan_to_num(seconds).astype(np.int64)
    days = times.astype("datetime64[s]").astype("datetime64[D]")
    if part == "hour":
        found = times % DAY // 3600
    elif part == "weekday":
        found = (days.astype(np.int64) + 3) % 7
    elif part == "day":
        found = (days - days.astype("datetime64[M]")).astype(np.int64) + 1
    elif part == "month":
        found = days.astype("datetime64[M]").astype(np.int64) % 12 + 1
    else:
        found = days.astype("datetime64[Y]").astype(np.int64) + 1970
    return pack([None if gap else str(value)
                 for gap, value in zip(gaps.tolist(), found.tolist(), strict=True)])


@dataclass(frozen=True, eq=False)
class Field:
    """The known values of one field, in the order of their hashes.

    Args:
        info: what they are.
        packed: their texts.
        tags: (values,) uint8, the low byte of each hash.
        ids: (values,) int32, row numbers of the whole table.
        counts: (values,) rows that had the value when it was counted.
        buckets: where the values begin whose hashes share their first bits.
    """

    info: FieldInfo
    packed: Packed
    tags: np.ndarray
    ids: np.ndarray
    counts: np.ndarray
    buckets: np.ndarray

    @property
    def name(self) -> str:
        """Of the field."""
        return self.info.name

    @property
    def unknown(self) -> int | None:
        """The id of all values that have none of their own."""
        return self.info.unknown

    def lookup(self, values: Any) -> np.ndarray:
        """(n,) int32 ids of raw values; what is not known gets the field's unknown id, or
        NOT_FOUND (-1) where it has none.

        Args:
            values: list, array or Series of values as `as_text` takes them, or `Packed` texts.

        Raises:
            ValueError: a value of a field of numbers is no number.
        """
        if self.info.kind == BUCKET:
            return self._of_buckets(numbers_of(values, self.name))
        packed = (pack(values) if self.info.part is None
                  else date_part(values, self.info.part, self.name))
        if self.info.kind == WHOLE:
            packed = _without_zeros(packed)
        ids = self._find(packed)
        starts, ends = packed.spans
        empty = starts == ends
        # a gap that no row had may be known as an empty text, and the other way round
        gaps = empty & (ids == NOT_FOUND) if packed.missing is None else (
            packed.missing | (empty & (ids == NOT_FOUND)))
        if self.info.missing is not None:
            ids[gaps] = self.info.missing
        if self.unknown is not None:
            ids[ids == NOT_FOUND] = self.unknown
        return ids

    def _find(self, packed: Packed) -> np.ndarray:
        try:
            from .text_loops import find
        except ImportError:  # numba is not installed
            known = {self.packed.get(place): int(self.ids[place])
                     for place in range(len(self.ids))}
            return np.array([known.get(packed.get(place), NOT_FOUND)
                             for place in range(len(packed))], np.int32)
        found = np.empty(len(packed), np.int64)
        shift = np.uint64(64 - (len(self.buckets) - 2).bit_length())
        find(packed.text, *packed.spans, self.packed.text, self.packed.starts, self.tags,
             self.buckets, shift, found)
        if not len(self.ids):
            return np.full(len(packed), NOT_FOUND, np.int32)
        return np.where(found >= 0, self.ids[np.maximum(found, 0)], np.int32(NOT_FOUND))

    def _of_buckets(self, numbers: np.ndarray) -> np.ndarray:
        from .text_loops import known_buckets

        known, ids = self.known_buckets
        absent = NOT_FOUND if self.unknown is None else self.unknown
        gap = absent if self.info.missing is None else self.info.missing
        found = np.empty(len(numbers), np.int32)
        known_buckets(buckets_of(numbers, self.info), numbers, known, ids, gap, absent, found)
        return found

    @cached_property
    def known_buckets(self) -> tuple[np.ndarray, np.ndarray]:
        """Known buckets, ascending, and their ids."""
        buckets = np.array([int(self.packed.get(place)) for place in range(len(self.ids))],
                           np.int64)
        order = np.argsort(buckets)
        return buckets[order], np.asarray(self.ids[order], np.int32)

    @cached_property
    def _by_id(self) -> np.ndarray:
        """Positions of the values in the order of their ids."""
        return np.argsort(self.ids, kind="stable")

    def value(self, row: int) -> str | None:
        """The raw value of an id: its text, None for a gap, UNKNOWN for the unknown id; of a
        bucket, its number.

        Raises:
            KeyError: the id is none of this field.
        """
        if row == self.unknown:
            return UNKNOWN
        if row == self.info.missing:
            return None
        place = int(np.searchsorted(self.ids, row, sorter=self._by_id))
        if place == len(self.ids) or self.ids[self._by_id[place]] != row:
            raise KeyError(f"field {self.name!r} has no id {row}")
        return self.packed.get(int(self._by_id[place]))

    def entries(self) -> Iterator[tuple[int, str | None, int]]:
        """Yield (id, value as `value` gives it, count) by rising id."""
        found = [(int(self.ids[place]), self.packed.get(int(place)), int(self.counts[place]))
                 for place in self._by_id]
        rest: list[tuple[int, str | None, int]] = list(found)
        if self.info.missing is not None:
            rest.append((self.info.missing, None, self.info.missing_count))
        if self.unknown is not None:
            rest.append((self.unknown, UNKNOWN, self.info.unknown_count))
        yield from sorted(rest, key=lambda entry: entry[0])

    @property
    def size(self) -> int:
        """Its ids, those of gaps and of unknown values included."""
        return len(self.ids) + (self.info.missing is not None) + (self.unknown is not None)


def _without_zeros(packed: Packed) -> Packed:
    """Whole numbers as Python writes them; what is no whole number stays as it is."""
    starts, ends = packed.spans
    lengths = ends - starts
    first = packed.text[np.minimum(starts, max(len(packed.text) - 1, 0))] if len(
        packed.text) else np.zeros(len(packed), np.uint8)
    odd = (lengths > 1) & np.isin(first, np.frombuffer(b"0-+", np.uint8))
    if not odd.any():
        return packed
    texts: list[str | None] = [packed.get(place) for place in range(len(packed))]
    for place in np.flatnonzero(odd):
        text = str(texts[place])
        if text.lstrip("+-").isdecimal() and text.isascii():
            texts[place] = str(int(text))
    if packed.missing is not None:
        for place in np.flatnonzero(packed.missing):
            texts[place] = None
    return pack(texts)


@dataclass(frozen=True)
class Vocabulary:
    """The fields of a data set with their values.

    Args:
        fields: in the order of their ids.
        stored: the arrays of the folder that it was opened from, if any.

    >>> import tempfile
    >>> town = field_of(FieldInfo("town", unknown=2), ["Rome", "Oslo"], [0, 1], [5, 3])
    >>> Vocabulary((town,)).write(Path(tempfile.mkdtemp()) / "vocabulary")  # doctest: +SKIP
    >>> Vocabulary((town,)).field("town").lookup(["Oslo", "Bonn", None]).tolist()
    [1, 2, 2]
    >>> Vocabulary((town,)).renumbered(np.array([7, 0, 1])).field("town").value(7)
    'Rome'
    """

    fields: tuple[Field, ...]
    stored: dict[str, np.ndarray] | None = dataclasses.field(default=None, repr=False,
                                                             compare=False)

    def field(self, name: str) -> Field:
        """One field.

        Raises:
            KeyError: there is none of this name; the names are listed.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"there is no field {name!r}; the fields are "
                       f"{', '.join(field.name for field in self.fields)}")

    @property
    def size(self) -> int:
        """Ids of all fields."""
        return sum(field.size for field in self.fields)

    @cached_property
    def hash(self) -> str:
        """Identity of the fields' names, raw values and ids; counts are no part of it."""
        found = hashlib.sha256()
        for field in self.fields:
            # what is left at its default is left out, so that a new entry changes no older hash
            said = [[one.name, value] for one in dataclasses.fields(FieldInfo)
                    if (value := getattr(field.info, one.name)) != one.default
                    and not one.name.endswith("_count")]
            found.update(json.dumps(said).encode())
            for array, kind in ((field.packed.text, np.uint8), (field.packed.starts, np.int64),
                                (field.ids, np.int64)):
                found.update(np.ascontiguousarray(array, kind).data)
        return found.hexdigest()[:16]

    def counts(self) -> np.ndarray:
        """(N,) int64, rows that had each id when values were counted; N is the largest id + 1."""
        largest = max((max(_ids_of(field), default=-1) for field in self.fields), default=-1)
        counts = np.zeros(largest + 1, np.int64)
        for field in self.fields:
            info = field.info
            np.add.at(counts, field.ids, field.counts.astype(np.int64))
            for row, count in ((info.missing, info.missing_count),
                               (info.unknown, info.unknown_count)):
                if row is not None:
                    counts[row] += count
        return counts

    def renumbered(self, new_ids: np.ndarray) -> "Vocabulary":
        """The same values with other ids: new_ids[old id], (N,) whole numbers; several old ids may
        share a new one."""
        fields = []
        for field in self.fields:
            info = replace(field.info, unknown=_moved(field.info.unknown, new_ids),
                           missing=_moved(field.info.missing, new_ids))
            ids = np.asarray(new_ids)[field.ids].astype(np.int32)
            fields.append(replace(field, info=info, ids=ids))
        return Vocabulary(tuple(fields))

    def write(self, folder: Path) -> None:
        """Write a new folder; it must not exist."""
        folder.mkdir(parents=True)
        for name, array in self.arrays.items():
            np.save(folder / f"{name}.npy", array)
        described = {"format": FORMAT_VERSION, "fields": [
            {**asdict(field.info), "values": len(field.ids), "bytes": len(field.packed.text),
             "buckets": len(field.buckets)} for field in self.fields]}
        (folder / "fields.json").write_text(json.dumps(described, indent=1) + "\n")

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The fields' arrays one behind the other, in the smallest types; those of an opened folder
        are its maps."""
        if self.stored is not None:
            return self.stored
        each = [(field.packed.text, field.packed.starts, field.tags, field.ids, field.counts,
                 field.buckets) for field in self.fields]
        found = {name: np.concatenate(parts)
                 for name, parts in zip(_ARRAYS, zip(*each, strict=True), strict=True)}
        for name in ("starts", "counts"):
            small = len(found[name]) == 0 or int(found[name].max()) < 1 << 32
            found[name] = found[name].astype(np.uint32 if small else np.int64)
        return found

    @staticmethod
    def open(folder: Path) -> "Vocabulary":
        """Open a written folder as memory maps.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of another format, damaged or cut short.
        """
        path = folder / "fields.json"
        if not path.is_file():
            raise FileNotFoundError(f"there is no vocabulary in {folder} (no fields.json)")
        try:
            described = json.loads(path.read_text())
            version = described["format"]
            if version != FORMAT_VERSION:
                raise ValueError(f"its format is {version}, this code reads {FORMAT_VERSION}")
            arrays = {name: np.asarray(_mapped(folder / f"{name}.npy")) for name in _ARRAYS}
            fields = tuple(_read_fields(described["fields"], arrays))
        except (ValueError, KeyError, TypeError, OSError, EOFError, RecursionError) as error:
            raise ValueError(f"the vocabulary in {folder} cannot be read ({error}); make it "
                             "again") from error
        return Vocabulary(fields, arrays)


def _mapped(path: Path) -> np.ndarray:
    """An .npy as a copy-on-write map; an empty one, which cannot be mapped, as it is."""
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError:
        found = np.load(path, allow_pickle=False)
        if found.size:
            raise
        return found


def _read_fields(described: Sequence[dict[str, Any]],
                 arrays: dict[str, np.ndarray]) -> Iterator[Field]:
    values = text = starts = buckets = 0
    for record in described:
        known, size, table = (record.pop(name) for name in ("values", "bytes", "buckets"))
        info = FieldInfo(**{**record, "edges": tuple(record["edges"])})
        own = slice(values, values + known)
        field = Field(info, Packed(arrays["text"][text:text + size],
                                   arrays["starts"][starts:starts + known + 1]),
                      arrays["tags"][own], arrays["ids"][own], arrays["counts"][own],
                      arrays["buckets"][buckets:buckets + table])
        if len(field.ids) != known or len(field.tags) != known or len(field.counts) != known or (
                len(field.packed.text) != size or len(field.packed.starts) != known + 1
                or len(field.buckets) != table or int(field.packed.starts[-1]) != size):
            raise ValueError(f"field {info.name!r} lacks values")
        yield field
        values, text, starts, buckets = (values + known, text + size, starts + known + 1,
                                         buckets + table)


def _ids_of(field: Field) -> list[int]:
    """The largest of the known ids, and the two others."""
    largest = [int(field.ids.max())] if len(field.ids) else []
    return largest + [row for row in (field.info.missing, field.info.unknown) if row is not None]


def _moved(row: int | None, new_ids: np.ndarray) -> int | None:
    return None if row is None else int(new_ids[row])


def field_of(info: FieldInfo, values: Any, ids: Any, counts: Any) -> Field:
    """A field out of its known values.

    Args:
        info: what they are.
        values: (n,) texts, or `Packed` ones; of buckets, their numbers. No gap: its id stands in
            `info`.
        ids, counts: (n,) of each.

    Raises:
        ValueError: two values have the same text, or there are 2^31 of them.
    """
    from .text_loops import first_repeated, hash_all, take

    packed = pack(values)
    if len(packed) >= 1 << 31:
        raise ValueError(f"field {info.name!r} has {len(packed):,} values; at most 2^31 - 1 can "
                         "be numbered; raise min_count, or leave the column out")
    hashes = np.empty(len(packed), np.uint64)
    hash_all(packed.text, *packed.spans, hashes)
    order = np.argsort(hashes, kind="stable")
    twice = first_repeated(packed.text, packed.starts, order, hashes)
    if twice >= 0:
        raise ValueError(f"field {info.name!r}: two of its values are written "
                         f"{packed.get(order[twice])[:40]!r}; make them one value, or two texts")
    text, starts = np.empty_like(packed.text), np.zeros(len(packed) + 1, np.int64)
    take(packed.text, packed.starts, order, text, starts)
    bits = max(len(packed) // PER_BUCKET, 1).bit_length() - 1
    hashes = hashes[order]
    first = hashes >> np.uint64(64 - bits) if bits else np.zeros(len(packed), np.uint64)
    buckets = np.searchsorted(first, np.arange((1 << bits) + 1, dtype=np.uint64))
    return Field(info, Packed(text[:starts[-1]], starts), (hashes & np.uint64(255)).astype(
        np.uint8), np.asarray(ids, np.int32)[order], np.asarray(counts, np.int64)[order],
        buckets.astype(np.int32))
