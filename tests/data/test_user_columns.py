"""Columns of any make become arrays by position; their gaps, lengths and labels are looked at."""

import numpy as np
import pandas as pd
import pytest

from data import store
from data.columns import as_column, as_columns
from data.encode import build_vocabulary, encode
from data.split import split_rows

ROWS = 200
LABELS = np.arange(ROWS) % 2
TOWNS = np.array([f"town {i % 7}" for i in range(ROWS)])


class ArrowLike:
    """What a column of pyarrow offers."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):  # Arrow's own turns integers with gaps into floats
        return np.array([np.nan if value is None else value for value in self.values], dtype)

    def to_pylist(self):
        return list(self.values)


SHUFFLED = np.random.default_rng(0).permutation(ROWS)
MAKES = {
    "array": np.asarray,
    "list": list,
    "tuple": tuple,
    "Series": pd.Series,
    "Index": pd.Index,
    "shuffled Series": lambda values: pd.Series(values, index=SHUFFLED),
    "Series of one label": lambda values: pd.Series(values, index=np.zeros(ROWS)),
    "categories": lambda values: pd.Series(values, index=SHUFFLED).astype("category"),
    "pandas array": lambda values: pd.array(values),
    "Arrow": lambda values: ArrowLike(values.tolist()),
}


def same(one, other):
    return (one.hash == other.hash and one.schema == other.schema and np.array_equal(one.ids,
                                                                                     other.ids)
            and np.array_equal(one.labels, other.labels))


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("vocabulary", store.VOCABULARIES)
def test_row_i_is_the_ith_value_of_each_column_whatever_the_columns_are(make, vocabulary):
    plain = store.build("toy", {"row": np.arange(ROWS), "town": TOWNS}, LABELS, 7, vocabulary)
    columns = {"row": MAKES[make](np.arange(ROWS)), "town": MAKES[make](TOWNS)}
    assert same(store.build("toy", columns, MAKES[make](LABELS), 7, vocabulary), plain)


def test_a_shuffled_frame_keeps_each_row_together():
    frame = pd.DataFrame({"row": np.arange(ROWS), "label": LABELS}, index=SHUFFLED)
    made = store.build("toy", frame[["row"]], frame["label"], 7)
    order = np.concatenate(split_rows(ROWS, 7))
    assert made.ids[:, 0].tolist() == order.tolist()
    assert made.labels.tolist() == LABELS[order].tolist()


def test_booleans_and_floats_of_0_and_1_are_labels():
    plain = store.build("toy", {"town": TOWNS}, LABELS, 7)
    for labels in (LABELS == 1, LABELS.astype(float), (LABELS == 1).astype(object),
                   pd.array(LABELS == 1)):
        assert same(store.build("toy", {"town": TOWNS}, labels, 7), plain)


# gaps


def with_gaps(values, gap):
    made = list(values)
    made[::5] = [gap] * len(made[::5])
    return made


BIG = 2**60
GAPS = {
    "None among text": with_gaps(TOWNS.tolist(), None),
    "NaN among text": with_gaps(TOWNS.tolist(), float("nan")),
    "NaN among floats": np.array(with_gaps(np.arange(ROWS) % 7 + 0.5, np.nan)),
    "None among integers": with_gaps((np.arange(ROWS) % 7).tolist(), None),
    "NA in a Series": pd.Series(with_gaps((np.arange(ROWS) % 7).tolist(), None), dtype="Int64"),
    "NA among large integers": pd.Series(
        with_gaps((BIG + np.arange(ROWS) % 7).tolist(), None), dtype="Int64"
    ),
    "None among large integers": with_gaps((BIG + np.arange(ROWS) % 7).tolist(), None),
    "Arrow": ArrowLike(with_gaps((BIG + np.arange(ROWS) % 7).tolist(), None)),
    "NaT": np.array(
        with_gaps(np.datetime64("2020-01-01") + np.arange(ROWS) % 7, np.datetime64("NaT"))
    ),
    "NaT of a zone": pd.Series(
        with_gaps([pd.Timestamp(f"2020-01-0{i % 7 + 1}", tz="UTC") for i in range(ROWS)], pd.NaT)
    ),
    "a category's": pd.Series(with_gaps(TOWNS.tolist(), None), dtype="category"),
    "masked": np.ma.masked_array(np.arange(ROWS) % 7, mask=np.arange(ROWS) % 5 == 0),
}


@pytest.mark.parametrize("gap", GAPS)
def test_a_gap_is_a_value_of_its_own_in_a_field(gap):
    made = store.build("toy", {"field": GAPS[gap]}, LABELS, 7)
    order = np.concatenate(split_rows(ROWS, 7))
    assert made.schema.sizes == (8,)
    codes = made.ids[np.argsort(order), 0]
    assert set(codes[::5]) == {0}  # the most frequent value: 40 of 200
    others = np.delete(np.arange(ROWS), np.s_[::5])
    assert len({(code, row % 7) for code, row in zip(codes[others], others, strict=True)}) == 7
    assert 0 not in codes[others]


@pytest.mark.parametrize("values", [["b", None, "a", None, "b", "a"], [2.0, np.nan, 1.0, np.nan,
                                                                       2.0, 1.0]])
def test_of_equal_counts_a_gap_comes_first(values):
    known = build_vocabulary(values).values.tolist()
    assert pd.isna(known[0])
    assert known[1:] == sorted({value for value in values if not pd.isna(value)})


def test_a_gap_that_training_rows_lack_is_unknown_to_vocabulary_train():
    train = split_rows(ROWS, 7)[0]
    column = np.array([None] * ROWS)
    column[train] = "a"
    made = store.build("toy", {"field": column}, LABELS, 7, "train")
    assert made.schema.sizes == (2,)
    assert set(made.split("train")[0][:, 0]) == {0}
    assert set(made.split("test")[0][:, 0]) == {1}


def test_encode_takes_a_series_by_position_and_shows_the_first_missing_value():
    vocabulary = build_vocabulary(pd.Series(["a", "b"], index=[5, 3]))
    assert encode(pd.Series(["b", "a"], index=[1, 0]), vocabulary, "town").tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"field 'town': the value 'x' is not in its vocabulary"):
        encode(pd.Series(["a", "x", "y"], index=[2, 0, 1]), vocabulary, "town")


# what cannot be used


def test_columns_of_unequal_lengths_are_named_with_their_lengths():
    with pytest.raises(ValueError,
                       match=r"same number of rows, got age 200, town 199, labels 200;"):
        store.build("toy", {"age": np.arange(ROWS), "town": TOWNS[1:]}, LABELS, 7)
    with pytest.raises(ValueError, match=r"got age 200, labels 198;"):
        store.build("toy", {"age": np.arange(ROWS)}, LABELS[2:], 7)
    with pytest.raises(ValueError, match="there is no column"):
        as_columns({}, LABELS)


@pytest.mark.parametrize("labels", [with_gaps(LABELS.tolist(), None),
                                    np.array(with_gaps(LABELS, np.nan)),
                                    pd.Series(with_gaps(LABELS.tolist(), None), dtype="Int64")])
def test_labels_with_gaps_are_an_error_that_counts_them(labels):
    with pytest.raises(
        ValueError, match=r"40 of 200 labels are missing \(the first is that of row 0, from 0\)"
    ):
        store.build("toy", {"town": TOWNS}, labels, 7)


@pytest.mark.parametrize(("odd", "shown"), [("0", r"\['0'\]"), (0.5, r"\[0\.5\]"), (2, r"\[2\]"),
                                            ("yes", r"\['yes'\]")])
def test_other_labels_are_an_error_that_shows_value_and_row(odd, shown):
    labels = LABELS.tolist()
    labels[3] = odd
    with pytest.raises(ValueError,
                       match=rf"labels must be 0 or 1, got {shown} \(the first in row 3, from 0\)"):
        store.build("toy", {"town": TOWNS}, labels, 7)


def test_a_column_of_another_shape_is_an_error_that_names_it():
    with pytest.raises(
        ValueError,
        match=r"column 'pair' must be one-dimensional, got a ndarray of shape \(200, 2\)",
    ):
        as_column(np.zeros((ROWS, 2)), "pair")
    with pytest.raises(ValueError,
                       match=r"column 'set' must be one-dimensional, got a set of shape \(\)"):
        as_column({1, 2}, "set")


@pytest.mark.parametrize("values", [[b"x", 3] * 100, [[1], [2]] * 100])
def test_a_field_of_several_kinds_of_values_is_an_error_that_names_it(values):
    with pytest.raises(ValueError, match=r"field 'mixed': its values cannot be counted and sorted"):
        store.build("toy", {"mixed": values}, LABELS, 7)


def test_another_vocabulary_is_an_error_and_not_taken_for_all():
    with pytest.raises(ValueError, match="vocabulary must be 'all' or 'train', got 'Train'"):
        store.build("toy", {"town": TOWNS}, LABELS, 7, "Train")
