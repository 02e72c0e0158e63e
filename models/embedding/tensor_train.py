"""A table as a tensor train: a row is a product of small matrices, one for each digit of its
number."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..options import option
from .base import DECAYS, Draw, EmbeddingEntry, TableEmbedding

DIGITS = 3  # of a row's number; the published code's too


class TensorTrain(TableEmbedding):
    """Row i, in mixed radix (i_1, i_2, i_3), is G_1[i_1] G_2[i_2] G_3[i_3] L.

    The factors are of shapes 1 x r_1, r_1 x r_2, r_2 x r_3 and r_3 x D.
    AFM's baseline (Yu et al. 2024; tensor trains: Oseledets 2011). Only the batch's matrices are
    looked up and multiplied, or the whole table is, whichever has fewer rows, and gradients reach
    every core. (The published code always multiplies the whole table out and looks it up through a
    new nn.Parameter, which cuts the cores off from their
    gradients: they never train.)

    Args:
        cores: G_t (n_t, r_(t-1), r_t), with r_0 = 1.
        last: L (r_3, D).
        num_rows: N, at most the product of the n_t.
        num_fields: F.

    Raises:
        ValueError: the cores do not fit each other, or hold fewer rows than N.

    >>> cores = [torch.ones(3, 1, 2), torch.ones(2, 2, 2), torch.ones(2, 2, 2)]
    >>> train = TensorTrain(cores, torch.ones(2, 4), num_rows=11, num_fields=1)
    >>> train(torch.tensor([[10]])).tolist(), train.num_params()
    ([[[8.0, 8.0, 8.0, 8.0]]], 30)
    """

    row_indexed = None

    def __init__(self, cores: Sequence[Tensor], last: Tensor, num_rows: int,
                 num_fields: int) -> None:
        super().__init__(num_rows, last.shape[1], num_fields)
        self.radices = tuple(len(core) for core in cores)
        self.ranks = tuple(core.shape[2] for core in cores)
        behind = (1, *self.ranks)
        fits = all(core.shape[1] == rank for core,
                   rank in zip(cores, behind, strict=False)) and len(last) == behind[-1]
        room = 1
        for radix in self.radices:
            room *= radix
        if not fits or room < num_rows:
            raise ValueError(f"the cores {[tuple(core.shape) for core in cores]} and "
                             f"{tuple(last.shape)} do not make a table of {num_rows} rows: "
                             f"neighbours must share their rank, the first have rank 1 before it, "
                             f"and the numbers of matrices multiply to at least the rows, not "
                             f"{room}")
        # (n_t, r_(t-1) * r_t)
        # contiguous, as the fused Adam walks through memory, and its saved moments are
        self.cores = nn.ParameterList(core.flatten(1).clone(memory_format=torch.contiguous_format)
                                      for core in cores)
        self.last = nn.Parameter(last.clone(memory_format=torch.contiguous_format))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D), of float32 whatever the precision of the model's products: rows
        are added up where ids repeat."""
        with torch.autocast(ids.device.type, enabled=False):
            return lookup(self._rows(), ids) if ids.numel() >= self.num_rows else self.of_ids(ids)

    def of_ids(self, ids: Tensor) -> Tensor:
        """The definition: a product for each id."""
        rest, digits = ids, []
        for radix in reversed(self.radices[1:]):
            digits.append(rest % radix)
            rest = torch.div(rest, radix, rounding_mode="floor")
        # so that a number too high is an error
        rest = torch.where(ids < self.num_rows, rest, self.radices[0])
        product = lookup(self.cores[0], rest)  # (B, F, r_1)
        for core, digit, rank in zip(list(self.cores)[1:], reversed(digits), self.ranks[1:],
                                     strict=True):
            matrices = lookup(core, digit).unflatten(-1, (-1, rank))  # (B, F, r_(t-1), r_t)
            product = torch.einsum("bfi,bfij->bfj", product, matrices)
        return product @ self.last

    def _rows(self) -> Tensor:
        """All rows (N, D): rows that begin with the same digits share the product of these."""
        product = self.cores[0]  # (n_1, r_1)
        for core, rank in zip(list(self.cores)[1:], self.ranks[1:], strict=True):
            # (r_(t-1), n_t * r_t)
            matrices = core.unflatten(-1, (-1, rank)).transpose(0, 1).flatten(1)
            product = (product @ matrices).view(-1, rank)  # (n_1 * ... * n_t, r_t)
        return product[:self.num_rows] @ self.last

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D), multiplied out."""
        return self._rows()

    @torch.no_grad()
    def num_params(self) -> int:
        """The non-zero entries of the cores."""
        return sum(int(torch.count_nonzero(parameter)) for parameter in self.parameters())

    def inference_bytes(self) -> int:
        """The cores at 4 bytes a value."""
        return 4 * sum(parameter.numel() for parameter in self.parameters())


def radices_for(num_rows: int) -> tuple[int, ...]:
    """As even as can be, with a product of at least N.

    >>> radices_for(4129), radices_for(5)
    ((17, 16, 16), (2, 2, 2))
    """
    found: list[int] = []
    left = num_rows
    for digit in range(DIGITS, 0, -1):
        found.insert(0, max(round(left ** (1 / digit)), 1) if digit > 1 else left)
        left = -(-left // found[0])
    return tuple(sorted(found, reverse=True))


def ranks_for(radices: Sequence[int], width: int, rank: int) -> tuple[int, ...]:
    """`rank` everywhere but where fewer make any table of that shape.

    >>> ranks_for((3, 3, 2), 4, 8)
    (3, 8, 4)
    """
    before, behind, ranks = 1, width, []
    for radix in radices:
        behind *= radix
    for radix in radices:
        before, behind = before * radix, behind // radix
        ranks.append(min(rank, before, behind))
    return tuple(ranks)


def fresh_tensor_train(num_rows: int, width: int, rank: int, draw: Draw,
                       num_fields: int) -> TensorTrain:
    """Random cores whose products are as large as the entries of V0, of variance 2 / (N + D)."""
    radices = radices_for(num_rows)
    ranks = ranks_for(radices, width, rank)
    paths = 1
    for each in ranks:
        paths *= each
    # root mean square of each core's entries
    size = (2 / (num_rows + width) / paths) ** (0.5 / (DIGITS + 1))
    shapes = [(radix, low, high) for radix, low,
              high in zip(radices, (1, *ranks), ranks, strict=False)]
    drawn = [draw(radix, low * high) for radix, low, high in shapes]
    cores = [(core * (size / core.square().mean().sqrt())).view(shape)
             for core, shape in zip(drawn, shapes, strict=True)]
    last = draw(ranks[-1], width)
    return TensorTrain(cores, last * (size / last.square().mean().sqrt()), num_rows, num_fields)


@torch.no_grad()
def tensor_train_of(table: Tensor, rank: int, num_fields: int) -> TensorTrain:
    """The tensor train of a table (N, D) by successive truncated singular value decompositions
    (Oseledets 2011)."""
    num_rows, width = table.shape
    radices = radices_for(num_rows)
    room = 1
    for radix in radices:
        room *= radix
    rest = torch.cat([table.double(),
                      table.new_zeros((room - num_rows, width), dtype=torch.float64)])
    cores, before = [], 1
    for radix, most in zip(radices, ranks_for(radices, width, rank), strict=True):
        left, values, right = torch.linalg.svd(rest.reshape(before * radix, -1),
                                               full_matrices=False)
        cores.append(left[:, :most].reshape(before, radix, most).transpose(0, 1).to(table.dtype))
        rest, before = values[:most, None] * right[:most], most
    return TensorTrain(cores, rest.to(table.dtype), num_rows, num_fields)


@dataclass(frozen=True)
class TensorTrainSettings:
    """The setting of the cores."""

    tt_rank: int = option(16, "rank between the cores", low=1, source="Yu et al. 2024")


ENTRY = EmbeddingEntry(
    lambda plan: fresh_tensor_train(plan.num_rows, plan.width, plan.own.tt_rank, plan.draw,
                                    plan.num_fields),
    TensorTrainSettings,
    grid={"tt_rank": [4, 8, 16, 24], "l2_regularization": list(DECAYS)})
