"""Product quantisation with codes that stay: the parts of a row are trained as shared centroids."""

import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from .base import TableEmbedding


class FixedCodes(TableEmbedding):
    """Part s of row i is centroid codes[i, s] of that part; the codes were chosen before, by
    k-means say (Jegou et al. 2011), and only the centroids are trained.

    Args:
        codes: (N, S) whole numbers, 0 .. K-1; -1 for a part that is zero.
        centroids: (S, K, D / S) values to start from.
        num_fields: F.

    >>> fixed = FixedCodes(torch.tensor([[1, 0], [-1, -1]]), torch.ones(2, 2, 3), 1)
    >>> fixed(torch.tensor([[0], [1]])).sum(2).tolist(), fixed.num_params()
    ([[6.0], [0.0]], 12)
    """

    by_row = None
    places: Tensor  # (N, S) rows of all centroids, one below the other; the one behind them is zero

    def __init__(self, codes: Tensor, centroids: Tensor, num_fields: int) -> None:
        parts, size, width = centroids.shape
        super().__init__(len(codes), parts * width, num_fields)
        if codes.shape[1] != parts or int(codes.min()) < -1 or int(codes.max()) >= size:
            raise ValueError(f"there are {parts} parts of {size} centroids; got codes of shape "
                             f"{tuple(codes.shape)} from {int(codes.min())} to {int(codes.max())}")
        self.centroids = nn.Parameter(centroids.clone())
        places = torch.where(codes < 0, parts * size, codes + size * torch.arange(parts))
        self.register_buffer("places", places)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        flat = self.centroids.flatten(0, 1)
        every = torch.cat([flat, flat.new_zeros((1, flat.shape[1]))])
        places = self.places.index_select(0, ids.reshape(-1)).view(len(ids), -1)
        return lookup(every, places).view(*ids.shape, -1)

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        return self(torch.arange(self.num_rows, device=self.places.device)[:, None])[:, 0]

    @torch.no_grad()
    def num_params(self) -> int:
        """The non-zero values of the centroids."""
        return int(torch.count_nonzero(self.centroids))
