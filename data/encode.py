"""Columns of raw values to vocabularies, and columns to codes."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Vocabulary:
    """The known values of one field, in code order. `unknown` is the code of every other value, or None.

    The order is by falling count, then by value, so the same rows give the same codes in any process and in any
    row order.
    """

    values: np.ndarray  # (known,) one dtype
    unknown: int | None

    @property
    def size(self) -> int:
        """V_f, the unknown value included."""
        return len(self.values) + (self.unknown is not None)


def build_vocabulary(column: np.ndarray, with_unknown: bool = False) -> Vocabulary:
    """Count a column's values and give them codes.

    Args:
        column: (rows,) integers or strings.
        with_unknown: reserve one further code for values that are not in the column.

    >>> build_vocabulary(np.array(["b", "a", "b", "c"])).values.tolist()
    ['b', 'a', 'c']
    """
    codes, values = pd.factorize(column, sort=True)
    counts = np.bincount(codes, minlength=len(values))
    order = np.argsort(-counts, kind="stable")  # values are sorted, so ties stay in value order
    return Vocabulary(np.asarray(values)[order], len(values) if with_unknown else None)


def encode(column: np.ndarray, vocabulary: Vocabulary, field: str) -> np.ndarray:
    """Codes (rows,) int32 of a column.

    Raises:
        ValueError: a value is not in a vocabulary that has no unknown code; the message names field and value.

    >>> encode(np.array([7, 5, 9]), Vocabulary(np.array([5, 7]), unknown=2), "age").tolist()
    [1, 0, 2]
    """
    codes = pd.Index(vocabulary.values).get_indexer(pd.Index(column))
    missing = codes < 0
    if missing.any():
        if vocabulary.unknown is None:
            raise ValueError(f"field {field!r}: the value {column[missing][0]!r} is not in its vocabulary")
        codes = np.where(missing, vocabulary.unknown, codes)
    return codes.astype(np.int32)
