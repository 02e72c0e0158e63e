"""Which rows are for training, validation and test: a random split, or one that was made
elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.npz import read_npz
from utils.files import sha256_of_file

SPLITS = ("train", "validation", "test")
RANDOM, IDS = "random", "ids:"
MOST_BYTES = 64  # of a split's file, unpacked, for each line of the raw file


def split_rows(rows: int, seed: int) -> list[np.ndarray]:
    """Random 80/10/10 split of 0 .. rows-1 into three ascending index sets that are disjoint and
    cover all.

    The seed belongs to the data set, never to a run: search and retrain must see the same test
    rows.

    >>> [len(part) for part in split_rows(1000, seed=1)]
    [800, 100, 100]
    """
    if rows < 10:
        raise ValueError(
            f"{rows} usable rows are too few to split 80/10/10; at least 10 are needed"
        )
    order = np.random.Generator(np.random.PCG64(seed)).permutation(rows)
    held_out = rows // 10
    bounds = [rows - 2 * held_out, rows - held_out]
    return [np.sort(part) for part in np.split(order, bounds)]


def check_name(split: str) -> None:
    """Raise a ValueError unless `split` is "random" or "ids:FILE" with a file that exists."""
    if split == RANDOM:
        return
    if not split.startswith(IDS):
        raise ValueError(f"split must be {RANDOM!r} or '{IDS}FILE', got {split!r}")
    if not Path(split.removeprefix(IDS)).is_file():
        raise ValueError(f"split: there is no file {split.removeprefix(IDS)!r}; it must be an .npz "
                         f"with the arrays {', '.join(SPLITS)}")


def identity(split: str) -> str:
    """What tells a split from another: its name, or the hash of its file.

    >>> identity("random")
    'random'
    """
    check_name(split)
    return split if split == RANDOM else IDS + sha256_of_file(Path(split.removeprefix(IDS)))


def split_indices(split: str, rows: int, seed: int,
                  kept: np.ndarray | None = None) -> list[np.ndarray]:
    """The three ascending index sets of `split`, disjoint and covering 0 .. rows-1.

    Args:
        split: "random", or "ids:FILE": an .npz whose arrays train, validation and test hold row
            numbers of the raw file, from 0, the header aside (of MovieLens: of the ratings that
            are not 3, in file order).
        kept: (lines,) bool, which lines of the raw file are the rows, when some were unusable; None
            when all are.

    Raises:
        ValueError: the file is not such a one, or its sets overlap, lack rows or name rows that are
            not there.
    """
    check_name(split)
    if split == RANDOM:
        return split_rows(rows, seed)
    path = Path(split.removeprefix(IDS))
    lines = rows if kept is None else len(kept)
    part_of_line = np.full(lines, len(SPLITS), np.uint8)
    for position, (name, ids) in enumerate(_read(path, lines).items()):
        beyond = ids[(ids < 0) | (ids >= lines)]
        if len(beyond):
            what = "the data have" if kept is None else "the raw file has"
            raise ValueError(f"{path}: {name} names row {beyond[0]}, but {what} the rows 0 to "
                             f"{lines - 1}")
        twice = ids[part_of_line[ids] != len(SPLITS)]
        if len(twice):
            raise ValueError(f"{path}: row {twice[0]} is in {name} and in "
                             f"{SPLITS[part_of_line[twice[0]]]}")
        part_of_line[ids] = position
        if len(np.unique(ids)) != len(ids):
            raise ValueError(f"{path}: {name} names a row twice")
    part_of_row = part_of_line if kept is None else part_of_line[kept]
    absent = np.flatnonzero(part_of_row == len(SPLITS))
    if len(absent):
        raise ValueError(f"{path}: {len(absent)} of {rows} rows are in no split (the first is row "
                         f"{absent[0] if kept is None else np.flatnonzero(kept)[absent[0]]}); "
                         f"every row must be in one")
    parts = [np.flatnonzero(part_of_row == position) for position in range(len(SPLITS))]
    for name, part in zip(SPLITS, parts, strict=True):
        if not len(part):
            raise ValueError(f"{path}: {name} has no row")
    return parts


def require_both_classes(name: str, positives: Sequence[int], counts: Sequence[int]) -> None:
    """Refuse a data set of which a split has one class alone: AUC is not defined there.

    Args:
        name: of the data set.
        positives: rows of label 1 in train, validation and test.
        counts: rows of these.

    Raises:
        ValueError: a split has only positive or only negative rows; the message names it.

    >>> require_both_classes("toy", (5, 1, 0), (8, 2, 2))
    Traceback (most recent call last):
    ValueError: toy: all 2 rows of the test split have the label 0, ...
    """
    for split, ones, rows in zip(SPLITS, positives, counts, strict=True):
        if ones in (0, rows):
            raise ValueError(
                f"{name}: all {rows} rows of the {split} split have the label {int(ones > 0)}, but "
                "training and AUC need both classes in each of train, validation and test. Take "
                "more rows, check that the labels are right, or give a split of your own "
                f"(split='{IDS}FILE') with both labels in each part")


def _read(path: Path, lines: int) -> dict[str, np.ndarray]:
    """name -> row numbers."""
    try:
        arrays = read_npz(path, MOST_BYTES * lines + (1 << 20))
        found = {name: arrays[name] for name in SPLITS}
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"{path} must be an .npz with the arrays {', '.join(SPLITS)} ({error})"
        ) from error
    for name, ids in found.items():
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"{path}: {name} must be a list of row numbers, got {ids.dtype} of "
                             f"shape {ids.shape}")
    return found
