"""Columns as users have them (arrays, lists, pandas, Arrow) to plain arrays, always by position."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

SHOWN = 3  # values that an error shows


def as_column(values: Any, name: str) -> np.ndarray:
    """The values of one column in the order in which they stand, whatever index they carry.

    A gap (None, NaN, NaT, pandas.NA, a masked entry) comes back as NaN in an array of floats, as
    NaT in one of times and as None in one of objects. Integers with gaps become objects and not
    floats, which would merge large ones.

    Args:
        values: (rows,) array, masked array, list, tuple, Series, Index, pandas or Arrow array.
        name: of the column, for errors.

    Returns:
        (rows,) array.

    Raises:
        ValueError: the values are not one-dimensional, or complex numbers.

    >>> as_column(pd.Series(["a", "b"], index=[1, 0]), "town").tolist()
    ['a', 'b']
    >>> as_column(pd.Series([7, None], dtype="Int64"), "age").tolist()
    [7, None]
    """
    if isinstance(values, np.ma.MaskedArray):
        found = values.data
        masked = np.ma.getmaskarray(values)
        if masked.any():
            found = found.astype(object)
            found[masked] = None
    elif isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        extended = isinstance(values.dtype, pd.api.extensions.ExtensionDtype)
        found = np.asarray(values, dtype=object if extended and pd.isna(values).any() else None)
    elif isinstance(values, list | tuple) or hasattr(values, "to_pylist"):
        entries = values if isinstance(values, list | tuple) else values.to_pylist()
        found = np.fromiter(entries, dtype=object, count=len(entries))
    else:
        found = np.asarray(values)
    if found.ndim != 1:
        kind = type(values).__name__
        raise ValueError(
            f"column {name!r} must be one-dimensional, got a {kind} of shape {found.shape}; "
            "give one array, list or Series of single values for each column"
        )
    if found.dtype.kind == "c":
        raise ValueError(f"column {name!r} is of complex numbers, which have no order; give their "
                         "parts as columns")
    if found.dtype == np.float16:  # which pandas does not count
        found = found.astype(np.float32)
    if found.dtype == object and pd.isna(found).any():
        found = found.copy()
        found[pd.isna(found)] = None
    return found


def as_columns(columns: Mapping[str, Any], labels: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of a data set as arrays of one length, and its labels as float32 of 0 and 1.

    Args:
        columns: field name -> (rows,) values, see `as_column`; a pandas DataFrame too.
        labels: (rows,) of 0 and 1 (numbers or booleans).

    Raises:
        ValueError: there is no column, the lengths differ, or labels have gaps or other values.

    >>> as_columns({"age": [7, 9]}, [True, False])[1].tolist()
    [1.0, 0.0]
    """
    if not len(columns):
        raise ValueError("there is no column; give at least one field")
    names = list(columns)
    found = {name: as_column(values, name) for name, values in columns.items()}
    if len(found) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two columns are called {twice!r}; give each a name of its own")
    checked = _as_labels(labels)
    lengths = {name: len(values) for name, values in found.items()}
    if set(lengths.values()) != {len(checked)}:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(
            f"columns and labels must have the same number of rows, got {listed}, "
            f"labels {len(checked)}; give one value and one label for each row"
        )
    return found, checked


def _as_labels(labels: Any) -> np.ndarray:
    found = as_column(labels, "labels")
    gaps = pd.isna(found)
    if gaps.any():
        raise ValueError(
            f"{np.count_nonzero(gaps)} of {len(found)} labels are missing (the first is that "
            f"of row {np.argmax(gaps)}, from 0); leave these rows out or fill them in"
        )
    good = pd.Series(found).isin([0, 1]).to_numpy()  # numpy's isin takes "1" for 1
    if not good.all():
        others = list(dict.fromkeys(found[~good].tolist()))
        raise ValueError(
            f"labels must be 0 or 1, got {others[:SHOWN]} (the first in row "
            f"{np.argmin(good)}, from 0); turn them into the numbers 0 and 1"
        )
    return found.astype(np.float32)
