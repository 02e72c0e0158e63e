"""Made rows in which it is known which fields matter: 27 fields, of which the first 12 say something of the label.

With vectors of 16 they fill a DLRM's first layer as Criteo does (432 columns), so that resources read the same.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from data import store
from data.split import RANDOM

NAME = "planted_fields"
FIELDS, INFORMATIVE, VALUES = 27, 12, 50
ROWS = 60_000
SEED, SPLIT_SEED = 20_210_504, 20_210_118
PAIRS, FIRST_ORDER = 1.0, 1.5  # standard deviations of the two parts of the teacher's logits


@lru_cache(maxsize=2)
def draw(rows: int = ROWS, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Codes (rows, 27) and labels (rows,); each informative field has a weight and a vector of 2 for each value.

    >>> codes, labels = draw(1000)
    >>> codes.shape, sorted(set(labels.tolist()))
    ((1000, 27), [0, 1])
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    codes = rng.integers(0, VALUES, (rows, FIELDS))
    informative = np.arange(INFORMATIVE)
    first = rng.standard_normal((INFORMATIVE, VALUES))[informative, codes[:, :INFORMATIVE]].sum(axis=1)
    vectors = rng.standard_normal((INFORMATIVE, VALUES, 2))[informative, codes[:, :INFORMATIVE]]  # (rows, 12, 2)
    pairs = ((vectors.sum(axis=1) ** 2).sum(axis=1) - (vectors ** 2).sum(axis=(1, 2))) / 2
    logits = FIRST_ORDER * first / first.std() + PAIRS * (pairs - pairs.mean()) / pairs.std()
    return codes, (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int8)


def open_dataset(folder: str | None, cache: Path, with_ids: bool = False, vocabulary: str = "all",
                 split: str = RANDOM) -> store.Dataset:
    """Make and encode the data set; nothing is read or written, so `folder` and `cache` are not looked at.

    Raises:
        ValueError: `with_ids` is asked for; there are no users and movies here.

    >>> open_dataset(None, Path()).schema.sizes == (VALUES,) * FIELDS
    True
    """
    if with_ids:
        raise ValueError(f"with_ids=True: the data set {NAME} has no user and movie ids; leave with_ids away")
    codes, labels = draw()
    columns = {f"f{position + 1}": codes[:, position] for position in range(FIELDS)}
    return store.build(NAME, columns, labels, SPLIT_SEED, vocabulary, split)
