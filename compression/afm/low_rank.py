"""Affine maps of low rank that keep as much as can be kept of vectors, and how much rank each set
of vectors gets.

AFM (Yu et al. 2024; its parent, Yu & Wu, AAAI 2023) replaces y by U_k U_k^T (y - mean) + mean,
where the columns of U_k are the first k eigenvectors of the covariance of y on data. Among all
affine maps of rank k it loses least, the sum of the other eigenvalues.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compression.afm.statistics import Moments


@dataclass(frozen=True)
class Factor:
    """y ~ basis^T basis (y - mean) + mean: `basis` (k, m) has orthonormal rows, `mean` is (m,)."""

    basis: Tensor
    mean: Tensor

    @property
    def rank(self) -> int:
        """k."""
        return len(self.basis)

    def encode(self, vectors: Tensor) -> Tensor:
        """(..., m) -> (..., k), in double precision."""
        return (vectors.double() - self.mean) @ self.basis.T

    def decode(self, codes: Tensor) -> Tensor:
        """(..., k) -> (..., m)."""
        return codes @ self.basis + self.mean


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (m,) of a covariance, falling, never negative; its eigenvectors, the rows of (m,
    m); and the mean."""

    values: Tensor
    vectors: Tensor
    mean: Tensor
    count: float

    def first(self, rank: int) -> Factor:
        """The best affine map of a rank.

        Raises:
            ValueError: the rank is not in 0 .. m, or not below the sample count.
        """
        check_rank(rank, len(self.values), self.count)
        return Factor(self.vectors[:rank], self.mean)

    def lost(self, rank: int) -> float:
        """Mean squared error of the first `rank` directions on the calibration data: the
        eigenvalues after them."""
        return float(self.values[rank:].sum())


def decompose(moments: Moments) -> Spectrum:
    """The spectrum of what was counted, by symmetric eigenvectors; each has its largest entry
    positive.

    The published demo takes left and right singular vectors of the covariance for each other, which
    they are not where eigenvalues vanish: its full rank does not give the layer back.

    >>> spectrum = decompose(Moments(2).add(torch.tensor([[1.0, 0.0], [3.0, 0.0]])))
    >>> spectrum.values.tolist(), spectrum.vectors.abs().tolist()
    ([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    """
    values, vectors = torch.linalg.eigh(moments.covariance())
    return Spectrum(values.flip(0).clamp(min=0), _signed(vectors.T.flip(0)), moments.mean,
                    moments.count)


def check_rank(rank: int, width: int, count: float | None = None, least: int = 0) -> None:
    """A ValueError unless `rank` lies in least .. width and, where a sample count is given, below
    it."""
    if not least <= rank <= width:
        raise ValueError(f"a rank must lie between {least} and the width {width}, got {rank}")
    if count is not None and rank >= max(count, 1):
        raise ValueError(f"rank {rank} cannot be estimated from {count:g} samples; it must be "
                         "below their number: calibrate on more rows, or ask for less")


def rank_for_energy(values: Tensor, energy: float) -> int:
    """The smallest rank whose directions hold at least a share of the variance; 0 where nothing
    varies.

    >>> rank_for_energy(torch.tensor([6.0, 3.0, 1.0]), 0.9), rank_for_energy(torch.zeros(3), 0.9)
    (2, 0)
    """
    check_share("an energy", energy)
    total = float(values.sum())
    if not total:
        return 0
    shares = values.double().cumsum(0) / total
    return min(int((shares < energy - 1e-12).sum()) + 1, len(values))


def ranks_for_ratio(values: Sequence[Tensor], field_sizes: Sequence[int],
                    ratio: float) -> list[int]:
    """A rank for each field, so that all factored tables together have at most `ratio` of the dense
    ones' parameters.

    Directions are dropped one after the other, that with the smallest eigenvalue per saved
    parameter first: one of a field of V rows saves V + D parameters, its column of the table and
    its row of the basis. A field's mean (D) stays.

    Raises:
        ValueError: a ratio outside (0, 1), or one that not even the means fit into.

    >>> ranks_for_ratio([torch.tensor([9.0, 1.0]), torch.tensor([5.0, 4.0])], (100, 10), 0.7)
    [1, 2]
    """
    check_share("a ratio", ratio)
    width = len(values[0])
    limit = ratio * width * sum(field_sizes)
    ranks = [width] * len(values)
    size = sum(width * (rows + width) + width for rows in field_sizes)
    scores = []
    for number, (field, rows) in enumerate(zip(values, field_sizes, strict=True)):
        scores += [(float(value) / (rows + width), -place, number)
                   for place, value in enumerate(field)]
    for _, _, number in sorted(scores):
        if size <= limit:
            break
        ranks[number] -= 1
        size -= field_sizes[number] + width
    if size > limit:
        raise ValueError(f"ratio {ratio} leaves {limit:.0f} parameters, fewer than the {size} of "
                         "the fields' means; ask for more")
    return ranks


def check_share(what: str, share: float) -> None:
    """A ValueError unless 0 < share < 1."""
    if not 0 < share < 1:
        raise ValueError(f"{what} must lie between 0 and 1, both excluded; got {share}")


def svd_factor(table: Tensor, rank: int) -> Factor:
    """A baseline: the first right singular vectors of a table (V, m) as it is, neither centred nor
    weighted."""
    check_rank(rank, table.shape[1])
    grams = table.detach().double()
    _, vectors = torch.linalg.eigh(grams.T @ grams)
    return Factor(_signed(vectors.T.flip(0))[:rank],
                  torch.zeros(table.shape[1], dtype=torch.float64))


def random_factor(mean: Tensor, rank: int, generator: torch.Generator) -> Factor:
    """The control: any orthonormal basis, with the right mean (m,)."""
    check_rank(rank, len(mean))
    drawn = torch.randn(len(mean), len(mean), generator=generator, dtype=torch.float64)
    return Factor(torch.linalg.qr(drawn).Q.T[:rank], mean.double().cpu())


def error(factor: Factor, moments: Moments) -> float:
    """Mean squared error of a factor on what the moments counted, of any factor with orthonormal
    rows.

    It is tr C - tr(B C B^T) + |(I - B^T B)(mean - factor's mean)|^2.
    """
    covariance, basis = moments.covariance(), factor.basis.double()
    shift = moments.mean - factor.mean
    missed = shift - basis.T @ (basis @ shift)
    kept = torch.trace(basis @ covariance @ basis.T)
    return float(torch.trace(covariance) - kept + missed @ missed)


def _signed(vectors: Tensor) -> Tensor:
    """Rows whose entry of largest magnitude is positive, so that the same data give the same ones
    everywhere."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0)
