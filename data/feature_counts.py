"""How often each feature occurs in the training rows."""

import numpy as np
import torch
from torch import Tensor

from data.store import Dataset

CHUNK = 1 << 20  # rows counted at a time


def count(dataset: Dataset) -> Tensor:
    """How often each feature occurs in the training rows, (N,) int64."""
    ids, _ = dataset.split("train")
    counts = np.zeros(dataset.schema.num_rows, np.int64)
    for start in range(0, len(ids), CHUNK):
        counts += np.bincount(ids[start:start + CHUNK].ravel(), minlength=len(counts))
    return torch.from_numpy(counts)
