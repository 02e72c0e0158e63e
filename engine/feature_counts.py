"""How often each feature occurs: counted in the training rows, or read from a file."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.store import Dataset
from engine.settings import COUNTING, ModelSettings

COUNTED = 1 << 20  # rows counted at a time
LIMIT = 1 << 53  # up to it every whole number is a double


def count(dataset: Dataset) -> Tensor:
    """How often each feature occurs in the training rows, (N,) int64."""
    ids, _ = dataset.split("train")
    counts = np.zeros(dataset.schema.num_rows, np.int64)
    for start in range(0, len(ids), COUNTED):
        counts += np.bincount(ids[start:start + COUNTED].ravel(), minlength=len(counts))
    return torch.from_numpy(counts)


def given(settings: ModelSettings) -> Tensor | None:
    """The counts that the settings name a file of; None when there is none, or nothing that needs
    it."""
    needed = settings.embedding in COUNTING and settings.model != "linear"
    return read(settings.popularity) if needed and settings.popularity != "train" else None


def read(path: str) -> Tensor:
    """The counts of an .npy file, (N,) int64.

    Raises:
        ValueError: there is no such file, or it does not hold a row of whole numbers from 0 up.
    """
    rule = "it must be an .npy file with one count for each feature, or 'train' to count the training rows"
    if not Path(path).is_file():
        raise ValueError(f"popularity: there is no file {path!r}; {rule}")
    try:
        counts = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"popularity: {path!r} cannot be read ({error}); {rule}") from error
    if not isinstance(counts, np.ndarray):
        raise ValueError(f"popularity: {path!r} holds several arrays; {rule}")
    if counts.ndim != 1 or counts.dtype.kind not in "iuf":
        raise ValueError(f"popularity: {path!r} holds {counts.dtype} of shape {counts.shape}; "
                         f"{rule}")
    wrong = np.flatnonzero(~((counts >= 0) & (counts < LIMIT) & (counts == np.floor(counts))))
    if len(wrong):
        raise ValueError(f"popularity: entry {wrong[0]} of {path!r} is {counts[wrong[0]]}; counts "
                         "are whole numbers from 0 up")
    return torch.from_numpy(counts.astype(np.int64))
