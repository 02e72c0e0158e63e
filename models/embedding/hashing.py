"""Double hashing: every feature is the sum of two rows of one small table."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..options import option
from .base import DECAYS, EmbeddingEntry, TableEmbedding

KEYS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)  # odd, one for each hash function


class Hash(TableEmbedding):
    """Row i is T[h1(i)] + T[h2(i)], T (R, D) shared by all fields (Zhang et al. 2020, double
    hashing).

    Two features share a vector only where both hash functions meet: one pair in R^2 / 2, where a
    single one has one in R. The functions are fixed; nothing but T is stored. Differs from the
    paper's whole proposal, which leaves the most
    frequent features a row of their own: this is the half of it that hashes.

    T starts from the first R rows of V0, over the root of 2, so that a sum has the scale of a row
    of V0.

    Args:
        initial: V0 (N, D).
        hash_rows: R, 1 .. N.
        num_fields: F.

    Raises:
        ValueError: R is not in 1 .. N.

    >>> made = Hash(torch.rand(9, 2), 4, 1)
    >>> made.num_params(), made.table().shape
    (8, torch.Size([9, 2]))
    """

    row_indexed = None
    places: Tensor  # (N, 2) the rows of T of each feature, worked out again when the module is made

    def __init__(self, initial: Tensor, hash_rows: int, num_fields: int) -> None:
        super().__init__(initial.shape[0], initial.shape[1], num_fields)
        if not 1 <= hash_rows <= self.num_rows:
            raise ValueError(f"hash_rows must lie in 1 .. {self.num_rows}, the number of features; "
                             f"got {hash_rows}")
        self.weight = nn.Parameter(initial[:hash_rows] / 2 ** 0.5)
        places = np.stack([hashed(self.num_rows, key, hash_rows) for key in KEYS], axis=1)
        self.register_buffer("places", torch.from_numpy(places), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        places = self.places.index_select(0, ids.reshape(-1)).view(len(ids), 2 * ids.shape[1])
        return lookup(self.weight, places).unflatten(1, (-1, 2)).sum(2)

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        return lookup(self.weight, self.places).sum(1)

    @torch.no_grad()
    def num_params(self) -> int:
        """The non-zero entries of T."""
        return int(torch.count_nonzero(self.weight))

    def inference_bytes(self) -> int:
        """T at 4 bytes a value."""
        return 4 * self.weight.numel()


def hashed(count: int, key: int, size: int) -> np.ndarray:
    """Hash values of the numbers 0 .. count-1, each in 0 .. size-1, (count,) int32; the same in any
    process.

    The product of number and key, mixed as in splitmix64 (Steele et al. 2014).

    >>> hashed(6, KEYS[0], 1000).tolist()
    [535, 700, 679, 444, 747, 90]
    """
    # modulo 2^64, as all that follows
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(key)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(size)).astype(np.int32)


@dataclass(frozen=True)
class HashSettings:
    """The setting of the shared table."""

    hash_rows: int = option(1000, "rows of the one table for all features (MovieLens has 4,129; "
                            "100,000 suits Criteo and Avazu)", low=1, source="Zhang et al. 2020")


ENTRY = EmbeddingEntry(
    lambda plan: Hash(plan.table(), plan.own.hash_rows, plan.num_fields), HashSettings,
    grid={"hash_rows": [256, 512, 1024, 2048], "l2_regularization": list(DECAYS)})
