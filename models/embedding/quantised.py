"""Tables of few bits an entry: each entry has a number of bits of its own, steps are shared by
groups of entries.

Training sees the levels and moves the float32 values behind them, through which the gradient goes
straight. Whether all entries have one number of bits, some have none (a mask), or each has its own,
the quantiser is the same.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.lookup import lookup
from ..kernels.quantise import STARTS, fitted, quantise, rounded
from .base import RowIndexed, TableEmbedding

SMALL = 64  # rows below which all columns of a field share their steps
RENEWALS = 10  # of the steps before training
MOST = 8  # bits of an entry


def step_groups(bits: np.ndarray, parts: tuple[int, ...]) -> np.ndarray:
    """The group of each entry that shares its step: one for each (part, bits, column) of a part
    with 64 rows or more, one for each (part, bits) of a smaller one.

    Args:
        bits: (N, D) of 0 .. 8.
        parts: rows of each part, in order; the fields of a table, say.

    Returns:
        (N, D) int32, groups counted in the order of (part, bits, column); -1 where there are no
        bits.

    >>> step_groups(np.array([[2, 2], [1, 0]]), (1, 1)).tolist()
    [[0, 0], [1, -1]]
    """
    if bits.ndim != 2 or sum(parts) != len(bits):
        raise ValueError(f"the parts {parts} sum to {sum(parts)} rows, the bits are of shape "
                         f"{bits.shape}; give the rows of each part of this very table")
    width = bits.shape[1]
    part = np.repeat(np.arange(len(parts)), parts)[:, None]
    own = np.where(np.array(parts) >= SMALL, 1, 0)[part]
    column = np.arange(width)[None] * own
    keys = (part * (MOST + 1) + bits) * width + column
    groups = np.full(bits.shape, -1, np.int32)
    groups[bits > 0] = np.unique(keys[bits > 0], return_inverse=True)[1]
    return groups


class Quantiser(RowIndexed):
    """Bits and steps of a table of values, (N, D).

    Args:
        values: (N, D) that the steps are first fitted to.
        bits: (N, D) of 0 .. 8.
        groups: (N, D) int32, as of `step_groups`.

    >>> values = torch.tensor([[0.3, -1.0], [0.1, 0.2]])
    >>> quantiser = Quantiser(values, np.array([[8, 8], [8, 0]]), np.array([[0, 0], [0, -1]]))
    >>> [[round(value, 1) + 0.0 for value in row] for row in quantiser(values).tolist()]
    [[0.3, -1.0], [0.1, 0.0]]
    """

    row_indexed: tuple[str, ...] | None = ("step", "bound")
    parts: tuple[int, ...] = ()  # rows of each part, where whoever made `groups` has set it
    step: Tensor  # (N, D); 1 where there are no bits
    bound: Tensor  # (N, D), half the number of levels; 0 where there are no bits
    groups: Tensor  # (N, D)

    def __init__(self, values: Tensor, bits: np.ndarray, groups: np.ndarray) -> None:
        super().__init__()
        if not tuple(values.shape) == bits.shape == groups.shape:
            raise ValueError(f"values, bits and groups must be of one shape, got "
                             f"{tuple(values.shape)}, {bits.shape} and {groups.shape}")
        if bits.min() < 0 or bits.max() > MOST:
            raise ValueError(f"an entry has 0 to {MOST} bits, got {bits.min()} to {bits.max()}")
        bounds = np.where(bits > 0, 2.0 ** (bits.astype(np.int64) - 1), 0).astype(np.float32)
        self.register_buffer("bound", torch.from_numpy(bounds))
        self.register_buffer("groups", torch.from_numpy(groups.astype(np.int32)), persistent=False)
        self.register_buffer("step", torch.ones(bits.shape))
        self._set(_first_steps(values, bits, groups))
        for _ in range(RENEWALS):
            self.renew(values)

    def forward(self, values: Tensor) -> Tensor:
        """The levels of values (N, D), or of the rows that stand in its buffers' place."""
        return quantise(values, self.step, self.bound)

    def steps(self) -> np.ndarray:
        """The step of each group, (G,)."""
        groups = self.groups.cpu().numpy()
        found = np.ones(int(groups.max(initial=-1)) + 1, np.float32)
        found[groups[groups >= 0]] = self.step.cpu().numpy()[groups >= 0]
        return found

    @torch.no_grad()
    def renew(self, values: Tensor) -> None:
        """Fit the steps to the codes that values (N, D) have now."""
        self._set(fitted(values, self.groups, self.bound, self.steps()))

    def _set(self, steps: np.ndarray) -> None:
        padded = torch.from_numpy(np.append(steps, np.float32(1)))  # -1 reads the last
        self.step.copy_(padded.to(self.step.device)[self.groups.long()])


def _first_steps(values: Tensor, bits: np.ndarray, groups: np.ndarray) -> np.ndarray:
    kept = groups >= 0
    count = int(groups.max(initial=-1)) + 1
    squares = np.bincount(groups[kept], values.detach().cpu().numpy()[kept].astype(np.float64) ** 2,
                          count)
    entries = np.bincount(groups[kept], minlength=count)
    factor = np.zeros(count)
    factor[groups[kept]] = np.array(STARTS)[bits[kept] - 1]
    return rounded(np.sqrt(squares / np.maximum(entries, 1)) * factor)


class Quantised(TableEmbedding):
    """A table whose entries have few bits, each its own number of them.

    Args:
        initial: (N, D) values to start from.
        bits: (N, D) of 0 .. 8; an entry of 0 bits is zero.
        groups: (N, D) int32, which entries share a step; see `step_groups`.
        num_fields: F.
        stored_bytes: of everything that has to be stored of it.

    >>> bits = np.array([[2, 0], [3, 1]])
    >>> Quantised(torch.ones(2, 2), bits, step_groups(bits, (2,)), 1, 9).num_params()
    3
    """

    row_indexed = ("weight",)

    def __init__(self, initial: Tensor, bits: np.ndarray, groups: np.ndarray, num_fields: int,
                 stored_bytes: int) -> None:
        super().__init__(initial.shape[0], initial.shape[1], num_fields)
        self.weight = nn.Parameter(initial.clone(memory_format=torch.contiguous_format))
        self.quantiser = Quantiser(initial, bits, groups)
        self.stored_bytes = stored_bytes

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        return lookup(*self.rows(ids))

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The table of levels and the ids."""
        return self.quantiser(self.weight), ids

    def renew(self) -> None:
        """Fit the steps to the values."""
        self.quantiser.renew(self.weight)

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        return self.quantiser(self.weight)

    def inference_bytes(self) -> int:
        """Of codes, steps and whatever says where they belong."""
        return self.stored_bytes


class QuantisedParts(TableEmbedding):
    """Any embedding with some of its parameters quantised: those of quotient-remainder, say.

    Args:
        inner: the embedding; it is changed by training.
        quantisers: of its parameters by name, each for the parameter as a matrix of its last axis.
        stored_bytes: as of `Quantised`.
    """

    row_indexed = None

    def __init__(self, inner: TableEmbedding, quantisers: dict[str, Quantiser],
                 stored_bytes: int) -> None:
        super().__init__(inner.num_rows, inner.width, inner.num_fields)
        self.inner = inner
        self.names = tuple(quantisers)
        self.quantisers = nn.ModuleList(quantisers.values())
        self.stored_bytes = stored_bytes

    def coded(self) -> dict[str, Tensor]:
        """The quantised parameters by name, differentiable in their values."""
        own = dict(self.inner.named_parameters())
        return {name: quantiser(_matrix(own[name])).view(own[name].shape)
                for name, quantiser in self._named()}

    def _named(self) -> Iterator[tuple[str, Quantiser]]:
        for name, quantiser in zip(self.names, self.quantisers, strict=True):
            assert isinstance(quantiser, Quantiser)
            yield name, quantiser

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        return torch.func.functional_call(self.inner, self.coded(), (ids,))

    def renew(self) -> None:
        """Fit the steps to the values."""
        own = dict(self.inner.named_parameters())
        for name, quantiser in self._named():
            quantiser.renew(_matrix(own[name]))

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D)."""
        device = next(self.inner.parameters()).device
        ids = torch.arange(self.num_rows, dtype=torch.int32, device=device)
        return self(ids[:, None])[:, 0]

    @torch.no_grad()
    def num_params(self) -> int:
        """The non-zero values of what is quantised."""
        return sum(int(torch.count_nonzero(value)) for value in self.coded().values())

    def inference_bytes(self) -> int:
        """Of codes, steps and whatever says where they belong."""
        return self.stored_bytes


def _matrix(value: Tensor) -> Tensor:
    """A parameter as a matrix of its last axis."""
    return value.reshape(-1, value.shape[-1])
