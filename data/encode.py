"""Columns of raw values to vocabularies, and columns to codes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from data.columns import as_column
from models.vocabulary import Field, FieldInfo, as_text, field_of


@dataclass(frozen=True)
class KnownValues:
    """The known values of one field, in code order. `unknown` is the code of every other value, or
    None.

    The order is by falling count, then by value with a gap before all others, so the same rows give
    the same codes in any process and in any row order. A gap (see `data.columns.as_column`) is a
    value like others.
    """

    values: np.ndarray  # (known,) one dtype
    unknown: int | None
    counts: np.ndarray | None = None  # (known,) rows that had each value

    @property
    def size(self) -> int:
        """V_f, the unknown value included."""
        return len(self.values) + (self.unknown is not None)


def build_vocabulary(column: Any, with_unknown: bool = False, field: str = "column") -> KnownValues:
    """Count a column's values and give them codes.

    Args:
        column: (rows,) values, see `data.columns.as_column`; taken by position.
        with_unknown: reserve one further code for values that are not in the column.
        field: its name, for errors.

    Raises:
        ValueError: the values cannot be put in order or counted (numbers beside bytes, lists, truth
            values beside numbers).

    >>> build_vocabulary(np.array(["b", "a", "b", "c"])).values.tolist()
    ['b', 'a', 'c']
    >>> build_vocabulary([7, None, 7, None, 5]).values.tolist()
    [None, 7, 5]
    """
    values = as_column(column, field)
    kinds = set(map(type, values)) if values.dtype == object else set()
    if kinds & {bool, np.bool_} and kinds - {bool, np.bool_, str, bytes, type(None)}:
        raise ValueError(f"field {field!r} has truth values beside numbers, of which True would be "
                         "1; give it values of one kind")
    try:
        codes, known = pd.factorize(values, sort=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"field {field!r}: its values cannot be counted and sorted ({error}); "
                         "give it values of one kind, numbers or text") from error
    counts = np.bincount(codes + 1, minlength=len(known) + 1)  # the code of a gap is -1
    known = np.asarray(known)
    if counts[0]:
        known = np.concatenate([values[codes < 0][:1], known])
    else:
        counts = counts[1:]
    order = np.argsort(-counts, kind="stable")  # values are sorted, so ties stay in value order
    return KnownValues(known[order], len(known) if with_unknown else None, counts[order])


def encode(column: Any, vocabulary: KnownValues, field: str) -> np.ndarray:
    """Codes (rows,) int32 of a column; its values are taken by position.

    Raises:
        ValueError: a value is not in a vocabulary that has no unknown code; the message names field
            and value.

    >>> encode(np.array([7, 5, 9]), KnownValues(np.array([5, 7]), unknown=2), "age").tolist()
    [1, 0, 2]
    """
    values = as_column(column, field)
    codes = _index(vocabulary.values).get_indexer(_index(values))
    missing = codes < 0
    if missing.any():
        if vocabulary.unknown is None:
            raise ValueError(f"field {field!r}: the value {values[missing][0]!r} is not in its "
                             "vocabulary")
        codes = np.where(missing, vocabulary.unknown, codes)
    return codes.astype(np.int32)


def field_of_known(known: KnownValues, offset: int, info: FieldInfo) -> Field:
    """The values of a field as they are kept with the encoded rows.

    Args:
        known: as counted.
        offset: the field's first row of the whole table.
        info: name and kind; the ids of gaps and unknown values are filled in.
    """
    texts = [as_text(value) for value in known.values]
    counts = np.zeros(len(texts), np.int64) if known.counts is None else known.counts
    ids = offset + np.arange(len(texts))
    gaps = [place for place, text in enumerate(texts) if text is None]
    if gaps:
        [gap] = gaps
        info = replace(info, missing=offset + gap, missing_count=int(counts[gap]))
        texts.pop(gap)
        counts, ids = np.delete(counts, gap), np.delete(ids, gap)
    if known.unknown is not None:
        info = replace(info, unknown=offset + known.unknown)
    return field_of(info, texts, ids, counts)


def _index(values: np.ndarray) -> pd.Index:
    """Objects stay what they are: pandas would turn integers beside None into floats."""
    return pd.Index(values, dtype=object) if values.dtype == object else pd.Index(values)
