"""Synthetic rows of 27 fields, of which the first 12 say something about the label.

With vectors of 16 they fill a DLRM's first layer as Criteo does (432 columns), so that resources
read the same. Another `Teacher` makes another set, so that what was chosen on one can be measured
on the other.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data import store
from data.split import RANDOM

NAME = "planted_fields"
FIELDS, ROWS, SPLIT_SEED = 27, 60_000, 20_210_118


@dataclass(frozen=True)
class Teacher:
    """What the labels come from.

    Args:
        seed: of codes, weights, vectors and labels.
        informative: fields that say something; they come first.
        values: of each field, equally likely.
        first_order, pairs: standard deviations of the two parts of the logits.
    """

    seed: int = 20_210_504
    informative: int = 12
    values: int = 50
    first_order: float = 1.5
    pairs: float = 1.0


@lru_cache(maxsize=2)
def draw(rows: int = ROWS, teacher: Teacher = Teacher()) -> tuple[np.ndarray, np.ndarray]:
    """Codes (rows, 27) and labels (rows,); each informative field has a weight and a vector of 2
    for each value.

    >>> codes, labels = draw(1000)
    >>> codes.shape, sorted(set(labels.tolist()))
    ((1000, 27), [0, 1])
    """
    rng, number = np.random.Generator(np.random.PCG64(teacher.seed)), teacher.informative
    codes = rng.integers(0, teacher.values, (rows, FIELDS))
    informative = np.arange(number)
    first = rng.standard_normal((number, teacher.values))[informative,
                                                          codes[:, :number]].sum(axis=1)
    # (rows, number, 2)
    vectors = rng.standard_normal((number, teacher.values, 2))[informative, codes[:, :number]]
    pairs = ((vectors.sum(axis=1) ** 2).sum(axis=1) - (vectors ** 2).sum(axis=(1, 2))) / 2
    logits = (
        teacher.first_order * first / first.std()
        + teacher.pairs * (pairs - pairs.mean()) / pairs.std()
    )
    return codes, (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int8)


def open_dataset(folder: str | None, cache: Path, with_ids: bool = False, vocabulary: str = "all",
                 split: str = RANDOM) -> store.Dataset:
    """Make and encode the data set; nothing is read or written, so `folder` and `cache` are not
    looked at.

    Raises:
        ValueError: `with_ids` is asked for; there are no users and movies here.

    >>> open_dataset(None, Path()).schema.sizes == (50,) * FIELDS
    True
    """
    if with_ids:
        raise ValueError(f"with_ids=True: the data set {NAME} has no user and movie ids; leave "
                         f"with_ids away")
    return taught(Teacher(), vocabulary, split)


def taught(teacher: Teacher, vocabulary: str = "all", split: str = RANDOM) -> store.Dataset:
    """The encoded set of a teacher."""
    codes, labels = draw(ROWS, teacher)
    columns = {f"f{position + 1}": codes[:, position] for position in range(FIELDS)}
    return store.build(NAME, columns, labels, SPLIT_SEED, vocabulary, split)
