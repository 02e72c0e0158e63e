"""Random masks, the control of every pruning: how good is a ticket whose entries are drawn?"""

import numpy as np


def uniform(shape: tuple[int, int], count: int, generator: np.random.Generator) -> np.ndarray:
    """A mask (N, D) of bool with `count` entries, each table entry as likely as any other.

    Raises:
        ValueError: the table has fewer entries.

    >>> uniform((3, 2), 4, np.random.default_rng(0)).sum()
    np.int64(4)
    """
    size = shape[0] * shape[1]
    if not 0 < count <= size:
        raise ValueError(f"a budget must lie between 1 and the table's {size} entries, got {count}")
    mask = np.zeros(size, bool)
    mask[generator.choice(size, count, replace=False)] = True
    return mask.reshape(shape)


def per_field(like: np.ndarray, field_sizes: tuple[int, ...],
              generator: np.random.Generator) -> np.ndarray:
    """A mask (N, D) of bool with as many entries in each field as `like` (N, D), drawn within the
    field.

    Raises:
        ValueError: the fields do not make up the table.

    >>> mask = np.array([[1, 0], [0, 0], [1, 1]], bool)
    >>> per_field(mask, (2, 1), np.random.default_rng(0))[2].tolist()
    [True, True]
    """
    if sum(field_sizes) != len(like):
        raise ValueError(f"the mask to be like has {len(like)} rows, the fields have "
                         f"{sum(field_sizes)}")
    ends = np.cumsum(field_sizes)
    parts = [uniform(part.shape, int(part.sum()), generator) if part.any()
             else np.zeros(part.shape, bool)
             for part in np.split(like.astype(bool), ends[:-1])]
    return np.concatenate(parts)


def per_feature(like: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A mask (N, D) of bool with as many entries in each row as `like` (N, D), at coordinates that
    are drawn.

    >>> mask = np.array([[1, 0], [0, 0], [1, 1]], bool)
    >>> per_feature(mask, np.random.default_rng(0)).sum(axis=1).tolist()
    [1, 0, 2]
    """
    # (N, D), each row a permutation
    ranks = generator.random(like.shape).argsort(axis=1).argsort(axis=1)
    return ranks < like.astype(bool).sum(axis=1, keepdims=True)
