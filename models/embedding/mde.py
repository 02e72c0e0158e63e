"""Mixed Dimension Embeddings: the width of a feature follows a power of its popularity."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..options import option
from .base import Draw, EmbeddingEntry
from .mixed_width import Mixed


def mde(counts: Tensor, blocks: int, alpha: float, width: int, draw: Draw,
        num_fields: int) -> Mixed:
    """A `Mixed` whose groups are blocks of popularity (Ginart et al. 2019, popularity-based
    partition).

    Differs from the original: blocks are cut from all features at once, as PEP's comparison cuts K
    blocks, and not within each field; and widths are rounded to whole numbers, not to powers of
    two. That option of the original keeps rows aligned in memory; with alpha 0.1 to 0.3 it leaves
    two or three widths where the power law has K.

    Args:
        counts: (N,) how often each feature occurs in training.
        blocks: K, 1 .. N.
        alpha: from 0, one width for all, to 1, width in proportion to popularity.
        width: D, the width of the most popular block and of all vectors.
        draw: gives initial values.
        num_fields: F.

    Raises:
        ValueError: more blocks than features, or no feature occurs.

    >>> counts = torch.tensor([900, 80, 10, 10])
    >>> made = mde(counts, 2, 0.3, 8, lambda rows, width: torch.ones(rows, width), 1)
    >>> made.num_params()  # 1 x 8, 3 x 3, map 3 x 8
    41
    """
    occurrences = counts.double().numpy()
    block = equal_blocks(occurrences, blocks)
    return Mixed(torch.from_numpy(block), power_law(occurrences, block, alpha, width), width, draw,
                 num_fields)


def equal_blocks(counts: np.ndarray, blocks: int) -> np.ndarray:
    """Block of each feature, (N,): from block to block less popular, with about the same share of
    all occurrences.

    Each block in turn ends where its sum is nearest to an equal share of what is left; it holds one
    feature at least. Features of one count are taken in the order of their ids.

    >>> equal_blocks(np.array([1, 6, 2, 3, 0]), 2)
    array([1, 0, 1, 1, 1])
    """
    if not 1 <= blocks <= len(counts):
        raise ValueError(f"mde_blocks must lie in 1 .. {len(counts)}, the number of features; got "
                         f"{blocks}")
    order = np.argsort(-counts, kind="stable")
    # occurrences of the n most popular features
    sums = np.concatenate([[0], counts[order].cumsum()])
    block, start = np.zeros(len(counts), np.int64), 0
    for number in range(1, blocks):
        target = sums[start] + (sums[-1] - sums[start]) / (blocks - number + 1)
        nearest = int(np.abs(sums - target).argmin())
        # counts fall, so a share never takes the features that later blocks need
        start = max(nearest, start + 1)
        block[order[start:]] = number
    return block


def power_law(counts: np.ndarray, block: np.ndarray, alpha: float, width: int) -> list[int]:
    """Width of each block: D (p_k / p_max)^alpha, p_k the mean count of a feature of block k (their
    power-law sizing).

    Rounded to the nearest whole number, 1 at least.

    >>> power_law(np.array([900, 80, 10, 10]), np.array([0, 1, 1, 1]), 0.3, 8)
    [8, 3]
    """
    means = np.bincount(block, weights=counts) / np.bincount(block)
    if not means.max() > 0:
        raise ValueError("no feature occurs: all counts are 0; count the training "
                         "rows, or give other counts")
    return [max(round(float(each)), 1) for each in width * (means / means.max()) ** alpha]


@dataclass(frozen=True)
class MdeSettings:
    """The settings of the blocks."""

    mde_blocks: int = option(8, "blocks of features with equal shares of all occurrences; 8 or 16",
                             low=1, source="PEP paper, A.4.4")
    mde_alpha: float = option(0.1, "width ~ count ** alpha, latent_dim for the first block", low=0,
                              source="Ginart et al. 2019; PEP paper, A.4.4")


ENTRY = EmbeddingEntry(
    lambda plan: mde(plan.counts(), plan.own.mde_blocks, plan.own.mde_alpha, plan.width, plan.draw,
                     plan.num_fields),
    MdeSettings,
    grid={"latent_dim": [4, 8, 16, 32], "mde_blocks": [8, 16], "mde_alpha": [0.1, 0.2, 0.3]})
