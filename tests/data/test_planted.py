"""The planted data set: the same every time, and its teacher is the truth."""

from pathlib import Path

import numpy as np
import pytest

from data.registry import DATASETS
from data.synthetic import planted


def test_another_process_would_make_the_same_rows():
    made = planted.draw(500)
    planted.draw.cache_clear()
    again = planted.draw(500)
    assert again is not made
    assert np.array_equal(again.codes, made.codes)
    assert np.array_equal(again.labels, made.labels)
    assert not np.array_equal(planted.draw(500, seed=1).codes, made.codes)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_teacher_logits_belong_to_the_rows_of_the_split(split):
    """In tenths by the teacher's probability, the labels' mean is that probability."""
    labels = DATASETS["planted"](None, Path()).split(split)[1]
    probability = 1 / (1 + np.exp(-planted.teacher_logits(split)))
    for rows in np.array_split(np.argsort(probability), 10):
        error = np.sqrt(0.25 / len(rows))
        assert labels[rows].mean() == pytest.approx(probability[rows].mean(), abs=4 * error)


def test_values_are_skewed():
    """A tenth of the largest field's values make up four tenths of its rows (a tenth, were they
    evenly spread)."""
    counts = np.sort(np.bincount(planted.draw().codes[:, 0]))[::-1]
    assert counts[:20].sum() > 0.4 * planted.ROWS


def test_user_and_movie_ids_are_refused():
    with pytest.raises(ValueError, match="with_ids"):
        planted.open_dataset(None, Path(), with_ids=True)
