"""Multi-granular quantised embeddings: rows made of a few shared centroids, rare features from
fewer of them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..kernels.nearest import nearest
from ..options import Values, option
from .base import Draw, EmbeddingEntry, TableEmbedding

HEAD = 10  # one feature in ten, the most popular ones, may use all centroids
TAIL = 4  # the others the first quarter


def mgqe(counts: Tensor, subspaces: int, centroids: int, width: int, draw: Draw,
         num_fields: int) -> "Mgqe":
    """An `Mgqe` of two tiers. V0 is drawn first; the centroids start as the first K rows of a
    second one.

    Args:
        counts: (N,) how often each feature occurs in training.
        subspaces: S, a divisor of D.
        centroids: K, in each subspace, 1 .. N.
        width: D.
        draw: gives initial values.
        num_fields: F.

    Raises:
        ValueError: the subspaces do not divide D, or there are more centroids than features.

    >>> made = mgqe(torch.tensor([5, 9, 1, 1]), 2, 4, 6,
    ...             lambda rows, width: torch.rand(rows, width), 1)
    >>> made.allowed[:, 0].tolist(), made.num_params(), made.inference_bytes()
    ([1.0, 4.0, 1.0, 1.0], 24, 100)
    """
    if not 1 <= centroids <= len(counts):
        raise ValueError(f"mgqe_centroids must lie in 1 .. {len(counts)}, the number of "
                         f"features; got {centroids}")
    initial = draw(len(counts), width)
    return Mgqe(initial, tiers(counts, centroids), draw(len(counts), width)[:centroids],
                subspaces, num_fields)


def tiers(counts: Tensor, centroids: int) -> Tensor:
    """How many of the K centroids each feature may use, (N,); of features of one count the lower
    ids come first.

    >>> tiers(torch.tensor([3, 8, 8, *[1] * 8]), 9).tolist()
    [2, 9, 9, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    allowed = torch.full_like(counts, max(centroids // TAIL, 1))
    head = torch.argsort(counts, descending=True, stable=True)[:-(-len(counts) // HEAD)]
    return allowed.index_fill(0, head, centroids)


class _StraightThrough(torch.autograd.Function):
    """The centroids' values; the rows get their gradient, the centroids are pulled to the rows."""

    @staticmethod
    def forward(ctx, rows: Tensor, chosen: Tensor) -> Tensor:
        ctx.save_for_backward(rows, chosen)
        return chosen.view_as(chosen)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, chosen = ctx.saved_tensors
        return grad, (chosen - rows) * (2 / len(rows))


class Mgqe(TableEmbedding):
    """Each row x is cut into S parts, and each part is replaced by its nearest centroid (Kang et
    al. 2020).

    Trained as the paper's DPQ-VQ (Chen et al. 2019): the loss sees the centroids c; its gradient
    goes straight through to x, unchanged; and c is pulled to x by the gradient of |c - x|^2, summed
    over a batch's vectors and divided by its examples. Our loss has no such term, so the pull is
    added in the backward pass of the vectors, whatever the loss is multiplied by. Only x and c
    matter in training, and only codes and c at inference.

    Differs from the paper: one set of centroids for the features of all fields; the pull is divided
    by the examples, not by the number of entries, so that the coupled weight decay does not drown
    it.

    Parameters are counted as the centroids; the codes, S for each feature, are in
    `inference_bytes`, at ceil(log2 K) bits each in whole bytes a row, as the compact form stores
    them. Codes of rare features could do with two bits less, but rows are then no longer found by
    their number.

    Args:
        initial: (N, D) what the rows start from.
        allowed: (N,) how many centroids each row may use, 1 .. K: the first ones.
        centroids: (K, D) what they start from; part s of row k is centroid k of subspace s.
        subspaces: S.
        num_fields: F.
    """

    allowed: Tensor
    row_indexed = ("weight", "allowed")

    def __init__(self, initial: Tensor, allowed: Tensor, centroids: Tensor, subspaces: int,
                 num_fields: int) -> None:
        super().__init__(initial.shape[0], initial.shape[1], num_fields)
        check_subspaces(self.width, subspaces)
        if allowed.shape != (self.num_rows,) or not 1 <= int(allowed.min()) <= int(
            allowed.max()
        ) <= len(centroids):
            raise ValueError(f"each of {self.num_rows} rows may use 1 .. {len(centroids)} "
                             f"centroids; got numbers of shape {tuple(allowed.shape)} from "
                             f"{int(allowed.min())} to {int(allowed.max())}")
        self.weight = nn.Parameter(initial.clone())
        parts = centroids.view(len(centroids), subspaces, -1).transpose(0, 1)
        # (S, K, D / S)
        self.centroids = nn.Parameter(parts.clone(memory_format=torch.contiguous_format))
        self.register_buffer("allowed", allowed[:, None].float())  # (N, 1)

    def codes_of(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> codes (B, F, S) int64."""
        return nearest(self.weight.detach(), ids, self.centroids.detach(), self.allowed)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        rows = lookup(self.weight, ids)
        return _StraightThrough.apply(rows, _decode(self.codes_of(ids), self.centroids))

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        return _decode(self._codes(), self.centroids)[:, 0]

    def num_params(self) -> int:
        """The non-zero values of the centroids."""
        return int(torch.count_nonzero(self.centroids))

    def inference_bytes(self) -> int:
        """Centroids at 4 bytes a value, and the codes."""
        parts, size, _ = self.centroids.shape
        return 4 * self.centroids.numel() + self.num_rows * -(-parts * _bits(size) // 8)

    def packed_codes(self) -> Tensor:
        """uint8 (N, bytes of a row): the codes at ceil(log2 K) bits each, see `pack`."""
        return pack(self._codes()[:, 0], _bits(self.centroids.shape[1]))

    def _codes(self) -> Tensor:
        """(N, 1, S) of every row."""
        every = torch.arange(self.num_rows, dtype=torch.int32, device=self.weight.device)
        return self.codes_of(every[:, None])


def _decode(codes: Tensor, centroids: Tensor) -> Tensor:
    """codes (B, F, S), centroids (S, K, D / S) -> (B, F, D)."""
    subspaces, size, _ = centroids.shape
    places = codes + size * torch.arange(subspaces, device=codes.device)
    found = lookup(centroids.flatten(0, 1), places.flatten(1))
    return found.view(*codes.shape[:2], subspaces * centroids.shape[2])


def _bits(size: int) -> int:
    """Of a number below `size`; one at least, so that a lookup has something to find an id outside
    the table by."""
    return max(size - 1, 1).bit_length()


def pack(codes: Tensor, bits: int) -> Tensor:
    """Whole numbers (N, S) below 2 ** bits, lowest bits first -> uint8 (N, ceil(S * bits / 8)).

    >>> pack(torch.tensor([[5, 2, 7]]), 3).tolist()  # from the right: 11 010 101, then 1
    [[213, 1]]
    """
    every = ((codes[..., None] >> torch.arange(bits, device=codes.device)) & 1).flatten(1)
    padded = nn.functional.pad(every, (0, -every.shape[1] % 8)).unflatten(1, (-1, 8))
    return (padded << torch.arange(8, device=codes.device)).sum(dim=-1).to(torch.uint8)


def check_subspaces(width: int, subspaces: int) -> None:
    """Raise ValueError where a row of `width` cannot be cut into so many parts."""
    if subspaces < 1 or width % subspaces:
        raise ValueError(f"mgqe_subspaces must divide latent_dim {width}, got {subspaces}")


@dataclass(frozen=True)
class MgqeSettings:
    """The settings of the centroids."""

    mgqe_subspaces: int = option(8, "parts of a row, a divisor of latent_dim; 4, 8 or 16", low=1,
                                 source="PEP paper, A.4.4")
    mgqe_centroids: int = option(256, "values that a part can take; 64, 128, 256 or 512", low=1,
                                 source="Kang et al. 2020; PEP paper, A.4.4")


def _check(own: MgqeSettings, values: Values) -> None:
    check_subspaces(values["latent_dim"], own.mgqe_subspaces)
    if values.get("l2_penalty"):  # a second backward pass through the vectors would pull again
        raise ValueError(f"l2_penalty={values['l2_penalty']} would pull mgqe's centroids to their "
                         "rows twice a step; leave it at 0, or use l2_regularization")


ENTRY = EmbeddingEntry(
    lambda plan: mgqe(plan.counts(), plan.own.mgqe_subspaces, plan.own.mgqe_centroids, plan.width,
                      plan.draw, plan.num_fields),
    MgqeSettings, _check,
    grid={"latent_dim": [8, 16, 32, 64], "mgqe_subspaces": [4, 8],
          "mgqe_centroids": [64, 128, 256, 512]})
