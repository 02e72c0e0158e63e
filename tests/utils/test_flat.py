"""Nested values survive being one line of text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import flat

NAMES = st.text("abcXYZ019._-+", min_size=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers()
    | st.floats(allow_nan=False, allow_subnormal=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3), max_leaves=5)
DICTS = st.recursive(st.dictionaries(NAMES, VALUES, max_size=3),
                     lambda inner: st.dictionaries(NAMES, VALUES | inner, max_size=3),
                     max_leaves=6)


@given(DICTS)
@settings(max_examples=25)
def test_what_is_written_is_read_back(values):
    line = flat.dump(values)
    assert "\n" not in line
    assert json.dumps(flat.load(line), sort_keys=True) == json.dumps(values, sort_keys=True)


@pytest.mark.parametrize("text", ["1e5", "123", "null", "true", "NaN", "Infinity", "", '"', "[1",
                                  "a b", "\u00a0x", "tab\t"])
def test_words_that_look_like_something_else_stay_words(text):
    assert flat.load(flat.dump({"commit": text})) == {"commit": text}


@pytest.mark.parametrize("name", ["a b", "a/b", "a=b", "100%", "a%20b", "é\n"])
def test_any_name_is_read_back(name):
    assert flat.load(flat.dump({name: {name: 1}})) == {name: {name: 1}}


@pytest.mark.parametrize("name", [""])
def test_a_name_that_cannot_be_read_back_is_refused(name):
    with pytest.raises(ValueError, match="cannot be written"):
        flat.dump({"outer": {name: 1}})


@pytest.mark.parametrize("text", ["[1]", "{}", " [1]"])
def test_what_a_caller_may_change_is_new_each_time(text):
    assert flat.from_text(text) == flat.from_text(text)
    assert flat.from_text(text) is not flat.from_text(text)
