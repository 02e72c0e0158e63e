"""A made data set whose truth is known: a teacher factorisation machine with a planted width for
each field.

A field of planted width k uses the first k coordinates of the teacher's vectors and is zero in the
others, so that its interactions with all other fields have rank k; a field of width 0 has a
first-order weight and interacts with nothing. Values follow a Zipf law, so most are rare. Labels
are tosses of the teacher's probabilities, so on average no model ranks them better than the
teacher's own logits do.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data import store
from data.split import RANDOM, SPLITS, split_rows

NAME = "planted"
ROWS = 100_000
SEED = 20_210_503  # of teacher, rows and labels
SPLIT_SEED = 20_210_118
ZIPF = 0.8  # value number r of a field is drawn in proportion to r ** -ZIPF
PAIRS, FIRST_ORDER = 2.0, 0.7  # standard deviations of the two parts of the teacher's logits


@dataclass(frozen=True)
class Field:
    """One field: how many values it has, and how many coordinates of its teacher's vectors are in
    use."""

    name: str
    size: int
    width: int


FIELDS = (  # each width but 2 at two sizes, so that a field's size does not tell its width
    Field("a", 200, 0), Field("b", 30, 0), Field("c", 150, 1), Field("d", 25, 1), Field("e", 40, 2),
    Field("f", 100, 4), Field("g", 30, 4), Field("h", 25, 8), Field("i", 50, 8),
)


@dataclass(frozen=True)
class Drawn:
    """Raw rows: codes (rows, F), from 0 in each field; the teacher's logits and the labels, (rows,)
    each."""

    codes: np.ndarray
    logits: np.ndarray
    labels: np.ndarray


def num_params() -> int:
    """Non-zero entries of the teacher's own table, the sum of size x width over the fields.

    >>> num_params()
    1375
    """
    return sum(field.size * field.width for field in FIELDS)


@lru_cache(maxsize=2)
def draw(rows: int = ROWS, seed: int = SEED) -> Drawn:
    """Make a teacher and its rows; the same seed gives the same ones in any process.

    >>> made = draw(1000)
    >>> made.codes.shape, sorted(set(made.labels.tolist()))
    ((1000, 9), [0, 1])
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    width = max(field.width for field in FIELDS)
    codes = np.empty((rows, len(FIELDS)), np.int32)
    first, total, squares = np.zeros(rows), np.zeros((rows, width)), np.zeros(rows)
    for position, field in enumerate(FIELDS):
        frequency = np.arange(1, field.size + 1) ** -ZIPF
        drawn = rng.choice(field.size, rows, p=frequency / frequency.sum())
        table = rng.standard_normal((field.size, width)) * (np.arange(width) < field.width)
        first += rng.standard_normal(field.size)[drawn]
        total += table[drawn]  # (rows, width)
        squares += (table[drawn] ** 2).sum(axis=1)
        codes[:, position] = drawn
    # the sum of all products of two fields' vectors
    pairs = ((total ** 2).sum(axis=1) - squares) / 2
    logits = PAIRS * _standard(pairs) + FIRST_ORDER * _standard(first)
    labels = rng.random(rows) < 1 / (1 + np.exp(-logits))
    return Drawn(codes, logits, labels.astype(np.int8))


def teacher_logits(split: str) -> np.ndarray:
    """The teacher's own logits (rows,) of a split's rows, in the order of `Dataset.split`.

    >>> len(teacher_logits("test"))
    10000
    """
    parts = split_rows(ROWS, SPLIT_SEED)
    return draw().logits[parts[SPLITS.index(split)]]


def open_dataset(folder: str | None, cache: Path, with_ids: bool = False, vocabulary: str = "all",
                 split: str = RANDOM) -> store.Dataset:
    """Make and encode the data set; nothing is read or written, so `folder` and `cache` are not
    looked at.

    Codes run by falling frequency within each field, as in every data set; fields keep their order
    and widths.

    Raises:
        ValueError: `with_ids` is asked for; there are no users and movies here.

    >>> open_dataset(None, Path()).schema.sizes == tuple(field.size for field in FIELDS)
    True
    """
    if with_ids:
        raise ValueError("with_ids=True: the planted data set has no user and movie ids; leave "
                         "with_ids away")
    made = draw()
    columns = {field.name: made.codes[:, position] for position, field in enumerate(FIELDS)}
    return store.build(NAME, columns, made.labels, SPLIT_SEED, vocabulary, split)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


if __name__ == "__main__":
    from data.synthetic.raw_planted import main

    main()
