import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.encode import KnownValues, build_vocabulary, encode

integers = st.lists(st.integers(-50, 50), min_size=1, max_size=60).map(np.array)
words = st.lists(st.text("abAZ09 -é", max_size=3), min_size=1, max_size=60).map(np.array)
columns = integers | words


@given(columns)
def test_every_code_is_below_the_size_and_decodes_to_its_value(column):
    vocabulary = build_vocabulary(column)
    codes = encode(column, vocabulary, "field")
    assert codes.dtype == np.int32
    assert codes.min() >= 0
    assert codes.max() < vocabulary.size
    assert vocabulary.values[codes].tolist() == column.tolist()
    assert vocabulary.size == len(set(column.tolist()))


@given(columns, st.randoms(use_true_random=False))
def test_a_permutation_of_the_rows_gives_every_row_the_same_code(column, random):
    order = list(range(len(column)))
    random.shuffle(order)
    codes = encode(column, build_vocabulary(column), "field")
    shuffled = encode(column[order], build_vocabulary(column[order]), "field")
    assert shuffled.tolist() == codes[order].tolist()


@given(columns)
def test_codes_fall_by_count_and_then_rise_by_value(column):
    values = column.tolist()
    expected = sorted(set(values), key=lambda value: (-values.count(value), value))
    assert build_vocabulary(column).values.tolist() == expected


@given(integers, integers)
def test_values_outside_the_vocabulary_get_the_unknown_code_alone(known, column):
    vocabulary = build_vocabulary(known, with_unknown=True)
    codes = encode(column, vocabulary, "field")
    assert vocabulary.unknown == vocabulary.size - 1 == len(set(known.tolist()))
    seen = np.isin(column, known)
    assert (codes[~seen] == vocabulary.unknown).all()
    assert (codes[seen] < vocabulary.unknown).all()


def test_a_value_without_a_code_is_an_error_that_names_field_and_value():
    with pytest.raises(ValueError, match=r"field 'age'.*99"):
        encode(np.array([5, 99]), KnownValues(np.array([5]), unknown=None), "age")


def test_truth_values_beside_numbers_are_refused():
    with pytest.raises(ValueError, match="field 'flag' has truth values beside numbers"):
        build_vocabulary([True, 1, 0, False], field="flag")
    assert build_vocabulary([True, "yes", None], field="flag").size == 3


def test_half_precision_is_counted_and_complex_numbers_are_named():
    assert build_vocabulary(np.array([1, 2, 2], np.float16)).values.tolist() == [2, 1]
    with pytest.raises(ValueError, match="column 'z' is of complex numbers"):
        build_vocabulary(np.array([1j, 2j]), field="z")
