import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.raw.count import _GOLDEN, ValueCounter
from data.raw.parse import MISSING

numbers = st.lists(st.integers(-20, 20) | st.integers(-999_999_999, 999_999_999) | st.just(MISSING),
                   max_size=80)
words = st.lists(st.integers(0, 20) | st.integers(0, 2**32 - 1)
                 | st.sampled_from([0, 2**32 - 1, 2**31, MISSING]),
                 max_size=80)


def fill(parts):
    """A counter to which the parts were added one by one, and the numbers it gave, all in one
    list."""
    counter, found = ValueCounter(), []
    for part in parts:
        found += counter.add(np.array(part, np.int64)).tolist()
    return counter, found


def check(parts):
    """Values, counts and numbers against a Counter, whose keys stand in the order in which they
    first came."""
    keys = list(itertools.chain.from_iterable(parts))
    expected = Counter({MISSING: 0})
    expected.update(keys)
    counter, found = fill(parts)
    assert counter.values.tolist() == list(expected)
    assert counter.counts.tolist() == list(expected.values())
    places = {key: number for number, key in enumerate(expected)}
    assert found == [places[key] for key in keys]
    return counter


@given(st.lists(numbers, max_size=4) | st.lists(words, max_size=4))
def test_values_are_numbered_as_they_first_come_and_counted(parts):
    check(parts)


@pytest.mark.parametrize(("low", "high"), [(0, 2**32), (-2**31, 2**31), (-40, 30_000)],
                         ids=["hexadecimal", "negative too", "neighbours"])
def test_the_table_grows_over_several_doublings(low, high):
    rng = np.random.default_rng(3)
    keys = np.where(rng.random(60_000) < 0.1, MISSING,
                    low + ((high - low) * rng.random(60_000) ** 3).astype(np.int64))
    counter = check([part.tolist() for part in np.split(keys, [1, 511, 512, 513, 7000, 7000])])
    assert len(counter.values) > 1 << 13  # four doublings and more
    assert np.array_equal(counter.add(np.array([MISSING, *counter.values[::-1]])),
                          [0, *range(len(counter.values) - 1, -1, -1)])


def test_values_whose_place_is_the_last_of_the_table_stay_apart():
    every = np.arange(1 << 22, dtype=np.uint64)
    same = every[every * _GOLDEN >> np.uint64(64 - 12) == (1 << 12) - 1]
    assert len(same) > 1000
    check([same.tolist() * 2])


# codes


def codes_by_value(counter, counts, min_count):
    codes, known = counter.codes(counts, min_count)
    return dict(zip(counter.values.tolist(), codes.tolist(), strict=True)), known


def test_codes_run_by_falling_count_then_value_with_nothing_first():
    counter, _ = fill([[9, -4, 9, 30, 30, -4, 5, 5, 5, 2, MISSING, MISSING]])
    expected = {5: 0, MISSING: 1, -4: 2, 9: 3, 30: 4}
    assert codes_by_value(counter, counter.counts, 2) == ({**expected, 2: 5}, 5)
    assert codes_by_value(counter, counter.counts, 1) == ({**expected, 2: 5}, 6)
    assert codes_by_value(counter, counter.counts,
                          3) == (dict.fromkeys(counter.values.tolist(), 1) | {5: 0}, 1)


@given(numbers | words, st.integers(1, 4))
def test_codes_are_those_of_a_sorted_counter(keys, min_count):
    counter, _ = fill([keys])
    expected = sorted((key for key, count in Counter(keys).items() if count >= min_count),
                      key=lambda key: (-keys.count(key), key))
    codes, known = codes_by_value(counter, counter.counts, min_count)
    assert known == len(expected)
    assert {key: codes[key] for key in expected} == {key: code for code, key in enumerate(expected)}
    assert {codes[key] for key in codes if key not in expected} <= {known}


def test_values_that_other_counts_lack_share_the_last_code():
    """As when only the training rows count."""
    counter, _ = fill([[7, 8, 9, 8]])
    assert codes_by_value(counter, np.array([0, 0, 2, 3]), 1) == ({9: 0, 8: 1, 7: 2, MISSING: 2}, 2)
    assert codes_by_value(counter, np.array([0, 0, 2, 3]), 0) == ({9: 0, 8: 1, 7: 2, MISSING: 2}, 2)
    assert codes_by_value(counter, np.array([0, 0, 0, 0]), 1)[1] == 0


def test_an_empty_counter_knows_nothing():
    counter = ValueCounter()
    assert codes_by_value(counter, counter.counts, 1) == ({MISSING: 0}, 0)
