"""Product quantisation whose centroids follow the rows."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..kernels.nearest import nearest
from .base import TableEmbedding
from .quantised import Quantiser, step_groups


class _StraightThrough(torch.autograd.Function):
    """What was chosen, with its gradient to the rows."""

    @staticmethod
    def forward(ctx, rows: Tensor, chosen: Tensor) -> Tensor:
        return chosen.view_as(chosen)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class Codebook(NamedTuple):
    """What a `Product` starts from beside its rows.

    Args:
        centroids: (S, K, D / S) values.
        bits: of an entry of a centroid.
        allowed: (N,) how many of the K centroids each row may use, the first ones; None for all. A
            code has as many bits as they take.
    """

    centroids: Tensor
    bits: int
    allowed: Tensor | None = None


class Product(TableEmbedding):
    """Each part of a row is replaced by the nearest of K centroids (Jegou et al. 2011).

    Trained as `Quantised` is: the loss sees the centroids, its gradient goes straight through to
    the rows, and `renew` sets each centroid to the mean of the parts that it stands for, a round of
    k-means. Centroids have few bits themselves.

    With fewer centroids for rare rows it is MGQE (Kang et al. 2020) from a dense table; `Mgqe`
    learns rows and centroids from scratch.

    Args:
        initial: (N, D) values to start from.
        importance: (N,) floats, what each row weighs in the means; rows of 0 are zero and have no
            codes.
        codebook: centroids to start from.
        num_fields: F.
        others: bytes of what is stored beside codes and centroids.
    """

    row_indexed = ("weight", "seen", "allowed")
    seen: Tensor  # (N, 1) of 0 and 1
    allowed: Tensor  # (N, 1)
    importance: Tensor  # (N, 1)
    centroids: Tensor  # (S, K, D / S)

    def __init__(self, initial: Tensor, importance: np.ndarray, codebook: Codebook,
                 num_fields: int, others: int) -> None:
        super().__init__(initial.shape[0], initial.shape[1], num_fields)
        self.weight = nn.Parameter(initial.clone(memory_format=torch.contiguous_format))
        centroids, bits, allowed = codebook
        parts, size, _ = centroids.shape
        limits = torch.full((len(initial),), size) if allowed is None else allowed
        self.register_buffer("allowed", limits[:, None].float(), persistent=False)
        self.register_buffer("importance", torch.from_numpy(importance)[:, None].float())
        self.register_buffer("seen", (self.importance > 0).float())
        self.register_buffer("centroids", centroids.clone())
        matrix = self._matrix()
        each = np.full(matrix.shape, bits)
        groups = step_groups(each, (centroids.shape[1],) * len(centroids))
        self.quantiser = Quantiser(matrix, each, groups)
        self.quantiser.parts = (centroids.shape[1],) * len(centroids)
        self.quantiser.row_indexed = None  # it has no row of the table
        seen = limits[self.seen[:, 0] > 0].tolist()
        codes = -(-parts * sum(max(limit - 1, 1).bit_length() for limit in seen) // 8)
        values = int(groups.max()) + 1 + -(-int(each.sum()) // 8)
        self.stored_bytes = others + codes + values

    def _matrix(self) -> Tensor:
        return self.centroids.flatten(0, 1)

    def coded(self) -> Tensor:
        """The centroids as they are stored, (S, K, D / S)."""
        return self.quantiser(self._matrix()).view(self.centroids.shape)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        centroids, rows = self.coded(), lookup(self.weight, ids)
        parts, size, _ = centroids.shape
        codes = nearest(self.weight.detach(), ids, centroids, self.allowed)
        places = codes + size * torch.arange(parts, device=rows.device)
        chosen = lookup(centroids.flatten(0, 1), places.flatten(1)).view(rows.shape)
        return _StraightThrough.apply(rows, chosen) * lookup(self.seen, ids)

    @torch.no_grad()
    def renew(self) -> None:
        """A round of k-means on the rows as they are; a centroid without a row stays."""
        centroids = self.coded()
        parts, size, width = centroids.shape
        rows, importance, allowed = (each[self.seen[:, 0] > 0]
                                     for each in (self.weight, self.importance, self.allowed))
        ids = torch.arange(len(rows), dtype=torch.int32, device=rows.device)[:, None]
        codes = nearest(rows, ids, centroids, allowed)[:, 0]
        for part in range(parts):
            own = rows[:, part * width:(part + 1) * width]
            sums = torch.zeros_like(centroids[part]).index_add_(0, codes[:, part], own * importance)
            total = importance.new_zeros((size, 1)).index_add_(0, codes[:, part], importance)
            self.centroids[part] = torch.where(total > 0, sums / total, self.centroids[part])
        self.quantiser.renew(self._matrix())

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        ids = torch.arange(self.num_rows, dtype=torch.int32, device=self.weight.device)
        return self(ids[:, None])[:, 0]

    @torch.no_grad()
    def num_params(self) -> int:
        """The non-zero values of the centroids."""
        return int(torch.count_nonzero(self.coded()))

    def inference_bytes(self) -> int:
        """Of codes, centroids and whatever says where they belong."""
        return self.stored_bytes
