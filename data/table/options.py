"""What a user says of a table: the label, which columns are fields, and how each is read."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from data import split as splits
from models.vocabulary import DATE_PARTS, LOG_SQUARED, QUANTILES
from utils.text import unknown

SLOTS = 16  # most values of a cell, where its column does not say how many
ROLES = ("multi", "ignore", "dense", "bucket", "dates")  # of a column, one alone
NONE = "none"  # a rule: the numbers of a column are categories as they stand
QUANTILE_BUCKETS = 20  # of a rule "quantiles" that does not say how many
RULES_VERSION = 1  # raise it when the same table would be encoded differently
SPLIT_SEED = 20_210_118
AUTO, TIME, COLUMN, FILES, SEED = "auto", "time", "column", "files", "random:"
ALLOWED = ("auto (three files named train, valid and test, else random), random, random:SEED, "
           "time:COLUMN (the last tenth for test, the one before for validation), column:COLUMN "
           "(its values are train, validation and test), files:TRAIN,VALIDATION,TEST (three files, "
           "in the folder that --data names), or ids:FILE")


@dataclass(frozen=True)
class TableOptions:
    """How a table becomes an encoded set; checked against the table's columns by `checked`.

    Args:
        label: the column to predict, of two values.
        fields: columns that are fields; none: all that nothing else is said of.
        dense: columns of numbers that a DLRM reads as they are, and other models as buckets by
            floor(ln(v)^2), as Criteo's.
        bucket: column -> "quantiles", "quantiles:N", "log2" (floor(ln(v)^2)) or "none"; or one rule
            for all columns whose numbers have a fraction.
        dates: column -> parts of a date that become fields: hour, weekday, day, month, year.
        multi: column with several values in a cell -> (what stands between them, how many there are
            at most).
        ignore: columns that are left out.
        positive: the label's values that count as 1, all others being 0; none: 1, true or yes.
        min_count: values seen fewer times in their field become its one unknown value.
    """

    label: str = ""
    fields: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    bucket: str | Mapping[str, str] = QUANTILES
    dates: Mapping[str, Any] = field(default_factory=dict)
    multi: Mapping[str, Any] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    min_count: int = 10

    @staticmethod
    def of(values: Mapping[str, Any]) -> "TableOptions":
        """From checked settings; a column of dates may name one part or several."""
        own = {item.name: values[item.name] for item in fields(TableOptions)
               if item.name in values}
        made = TableOptions(**own)
        dates = {column: _listed_or_one(parts) for column, parts in (made.dates or {}).items()}
        multi = {column: (rule, SLOTS) if isinstance(rule, str) else _listed_or_one(rule)
                 for column, rule in (made.multi or {}).items()}
        return replace(made, dates=dates, multi=multi)

    def identity(self) -> dict[str, Any]:
        """What tells this reading of a table from another, for the manifest."""
        own: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        if not self.multi:  # sets that were encoded before there was this option stay valid
            del own["multi"]
        return dict(json.loads(json.dumps(own)), version=RULES_VERSION)

    def rule_of(self, column: str, fractions: bool) -> str:
        """The rule of a column's numbers.

        Args:
            fractions: whether its first rows are numbers of which some have a fraction.

        >>> TableOptions(bucket={"age": "log2"}).rule_of("age", fractions=False)
        'log2'
        >>> TableOptions(bucket="none").rule_of("price", fractions=True)
        'none'
        """
        if column in self.dense:
            return LOG_SQUARED
        if isinstance(self.bucket, str):
            return self.bucket if fractions else NONE
        return self.bucket.get(column, QUANTILES if fractions else NONE)


def _listed_or_one(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


@dataclass(frozen=True)
class OwnTable:
    """A data set that is in no registry: its name, and how its table becomes an encoded set.

    Args:
        split: see `check_split`.
        vocabulary: "all" or "train", the rows over which values are counted.
        with_dense: keep the dense columns as numbers alone, for a model that reads them.
    """

    name: str
    options: TableOptions
    split: str = AUTO
    vocabulary: str = "all"
    with_dense: bool = False

    def rules(self) -> dict[str, Any]:
        """What tells this reading from another one of the same table."""
        return {"options": self.options.identity(), "split": split_identity(self.split),
                "vocabulary": self.vocabulary,
                "with_dense": self.with_dense and bool(self.options.dense)}


def check_rule(rule: Any) -> int | None:
    """The number of buckets of a rule by quantiles; None for another rule.

    Raises:
        ValueError: there is no such rule.

    >>> check_rule("quantiles:50"), check_rule("log2")
    (50, None)
    """
    name, _, number = str(rule).partition(":")
    if name == QUANTILES and not number:
        return QUANTILE_BUCKETS
    if name == QUANTILES and number.isdecimal() and 2 <= int(number) <= 10_000:
        return int(number)
    if rule in (LOG_SQUARED, NONE):
        return None
    raise ValueError(f"bucket: a rule must be {QUANTILES!r}, '{QUANTILES}:N' with N from 2 to "
                     f"10,000, {LOG_SQUARED!r} or {NONE!r}, got {rule!r}")


def check_options(options: TableOptions, columns: tuple[str, ...], used: Mapping[str, str]) -> None:
    """Refuse options that do not fit a table's columns.

    Args:
        columns: the table's.
        used: column -> what else it is used for (the split).

    Raises:
        ValueError: a column is not there (the nearest names are given) or has two roles, or a rule
            or a part of a date is unknown.
    """
    if not options.label:
        raise ValueError(f"which column is the label? Give --label; the columns are "
                         f"{_listed(columns)}")
    by_column = {} if isinstance(options.bucket, str) else options.bucket
    named = {"label": (options.label,), "fields": options.fields, "dense": options.dense,
             "ignore": options.ignore, "bucket": tuple(by_column), "dates": tuple(options.dates),
             "multi": tuple(options.multi)}
    for role, asked in named.items():
        for column in asked:
            if column not in columns:
                raise ValueError(f"{role}: the table has no such column. "
                                 f"{unknown('column', column, columns)}")
    for rule in [options.bucket] if isinstance(options.bucket, str) else by_column.values():
        check_rule(rule)
    for column, parts in options.dates.items():
        _check_dates(column, parts, columns)
    for column, rule in options.multi.items():
        _check_multi(column, rule, columns)
    for role in ("fields", *ROLES):
        if options.label in named[role]:
            raise ValueError(f"{role} names the label {options.label!r}; a model that reads what "
                             "it is to predict learns nothing; take it out")
    for column in columns:
        roles = [role for role in ROLES if column in named[role]]
        if "ignore" in roles and column in options.fields:
            roles.append("fields")
        if column in used and {"multi", "ignore"} & {*roles}:
            roles.append("split")
        if len(roles) > 1:
            raise ValueError(f"{column!r} is in {roles[0]} and also in {roles[1]}; take it out of "
                             "one of them")
        if "bucket" in roles and column not in options.fields and (options.fields
                                                                   or column in used):
            raise ValueError(f"bucket: {column!r} is no field; name it in fields too, or take it "
                             "out of bucket")


def _check_dates(column: str, parts: tuple[Any, ...], columns: tuple[str, ...]) -> None:
    for part in parts:
        if part not in DATE_PARTS:
            raise ValueError(f"dates: {column}: {unknown('part', part, DATE_PARTS)}")
        if parts.count(part) > 1:
            raise ValueError(f"dates: {column}: {part!r} is named twice; name each part once")
        if f"{column}.{part}" in columns:
            raise ValueError(f"dates: the parts of {column!r} are called {column}.{part} and so "
                             f"on, and the table has such a column; rename that one")


def _check_multi(column: str, rule: Any, columns: tuple[str, ...]) -> None:
    separator, most = rule if len(rule) == 2 else (None, 0)
    whole = isinstance(most, int) and not isinstance(most, bool)
    if not (isinstance(separator, str) and separator and whole and 2 <= most <= 1000):
        raise ValueError(f"multi: {column}: give what stands between the values, such as '|', or "
                         f"that and how many a cell has at most, such as ['|', 40] (2 to 1000); "
                         f"got {list(rule)!r}")
    taken = [name for name in slot_names(column, most)[1:] if name in columns]
    if taken:
        raise ValueError(f"multi: the slots of {column!r} are called {column}.2 and so on, and the "
                         f"table has a column {taken[0]!r}; rename that column")


def slot_names(column: str, slots: int) -> list[str]:
    """The fields of a column with several values in a cell.

    >>> slot_names("genres", 3)
    ['genres', 'genres.2', 'genres.3']
    """
    return [column, *(f"{column}.{number}" for number in range(2, slots + 1))]


def _listed(columns: tuple[str, ...]) -> str:
    shown = ", ".join(columns[:20])
    return shown if len(columns) <= 20 else f"{shown} and {len(columns) - 20} more"


def check_split(split: str) -> None:
    """Raise a ValueError unless `split` is of one of the forms of a table's split.

    >>> check_split("time:day")
    >>> check_split("by day")
    Traceback (most recent call last):
    ValueError: split must be auto (three files named train, valid and test, else random), ...
    """
    kind, _, rest = split.partition(":")
    good = split in (AUTO, splits.RANDOM) or (kind in (TIME, COLUMN) and rest) or (
        split.startswith(SEED) and rest.isdecimal())
    if good or (kind == FILES and len(files_of(split)) == len(splits.SPLITS)):
        return
    if split.startswith(splits.IDS):
        splits.check_name(split)
        return
    raise ValueError(f"split must be {ALLOWED}; got {split!r}")


def files_of(split: str) -> list[str]:
    """The names in a split by files; none of another split.

    >>> files_of("files:a.csv,b.csv,c.csv"), files_of("random")
    (['a.csv', 'b.csv', 'c.csv'], [])
    """
    kind, _, names = split.partition(":")
    return [name for name in names.split(",") if name] if kind == FILES else []


def kind_of(split: str, files_are_parts: bool) -> tuple[str, str]:
    """The kind of a split, and its column, seed or file.

    >>> kind_of("auto", files_are_parts=True), kind_of("random:7", False)
    (('files', ''), ('random', '7'))
    """
    check_split(split)
    if split == AUTO:
        return (FILES, "") if files_are_parts else (splits.RANDOM, "")
    kind, _, rest = split.partition(":")
    return kind, rest


def split_identity(split: str) -> str:
    """What tells a split from another: its name, or the hash of its file."""
    return splits.identity(split) if split.startswith(splits.IDS) else split


def own_name(data: str | None, name: str, taken: Collection[str]) -> str:
    """What an own table's data set is called: as asked, or after its file.

    Args:
        taken: the names of other data sets.

    Raises:
        ValueError: there is neither a name nor a file, or the name is taken or unfit.

    >>> own_name("data/clicks.csv", "", ["criteo"])
    'clicks'
    """
    if not name and data is None:
        raise ValueError("which table? Give --data FILE (or --set name=NAME for one that was "
                         "encoded before)")
    found = name or name_of(Path(str(data)))
    if found in taken:
        raise ValueError(f"a table cannot be called {found!r}, which is another data set's name; "
                         f"give --set name=my_{found}")
    if not found or found != name_of(Path(found)):
        raise ValueError(f"name must be of letters, digits, _ and -, got {found!r}")
    return found


def name_of(path: Path) -> str:
    """A data set's name from its file: the stem, of letters, digits, _ and - alone.

    >>> name_of(Path("my clicks.csv.gz"))
    'my_clicks'
    """
    stem = path.name.split(".")[0] or path.resolve().name
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in stem)
