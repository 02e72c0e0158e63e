"""What every embedding is: a module that turns ids into vectors and knows its own size."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..options import NoSettings, Sizes, Values, no_check
from ..serving.compact import stored_bytes

Arrays = dict[str, np.ndarray]  # by name of a parameter or buffer
ByHand = tuple[np.ndarray, Callable[[np.ndarray], Arrays]]
Draw = Callable[[int, int], Tensor]  # (rows, width) -> fresh initial values
Counts = Callable[[], Tensor]  # () -> (N,) int64, how often each feature occurs in training
# `l2_regularization` in tuning grids; the first is the published one
DECAYS = (1e-5, 1e-6, 1e-4)


class Embedding(Protocol):
    """The first of the three plug points: an nn.Module. B batch, F fields, N rows, D width."""

    num_rows: int
    width: int
    num_fields: int
    deep_width: int  # W, of `deep_input`

    @property
    def row_indexed(self) -> tuple[str, ...] | None:
        """Parameters and buffers of N rows of which a forward pass reads only the rows of its ids.
        They may then be replaced by those rows alone, with ids that index them. None: the ids are
        used for something else too, so the module must see tables and ids as they are."""

    @property
    def computes_rows(self) -> bool:
        """Whether a forward pass computes rows of `table()` anew, entry by entry, and does nothing
        else: an evaluation may compute the table once and look its rows up."""

    @property
    def sharded(self) -> str | None:
        """How rows travel when the tables are cut over processes: see `RowIndexed`."""

    @property
    def decays(self) -> Mapping[str, str]:
        """Own parameters whose weight decay is not coupled: "decoupled" or "none"."""

    def __call__(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> vectors (B, F, D)."""

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of the ids without a copy for each place: a table (U, D), differentiable, and
        which of its rows each id has, (B, F). Looked up, they are the embedding's own output."""

    def by_hand(self, rows: Arrays) -> ByHand | None:
        """`rows` without autograd, where the gradient is written down; else None.

        Args:
            rows: (U, D) float32 of each of `row_indexed`, copies that may be written over.

        Returns:
            The table (U, D), and a function that turns its gradient (U, D) into those of the
            learned ones of `rows`, also in place. All bits but the last are those of autograd.
        """

    def deep_input(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """What a deep branch reads, (B, W). `vectors` are those of the ids, if they have been
        looked up."""

    def table(self) -> Tensor:
        """The whole table as used, (N, D), without gradient."""

    def num_params(self) -> int:
        """Embedding parameters left: the non-zero values of the table, or of what it is computed
        from."""

    def inference_bytes(self) -> int:
        """Bytes that the table takes in the file of an exported model, in float32."""


@dataclass(frozen=True)
class Blueprint:
    """What an embedding is built from.

    Args:
        draw: returns fresh initial values; the first call returns V0.
        field_sizes: rows of each field, in order; N in all.
        width: D, the setting `latent_dim`.
        own: the embedding's own settings, a record of the class that its entry names.
        counts: how often each feature occurs in training; called by embeddings that need it.
        cut: whether several processes divide the table next; it is then used as drawn, without a
            copy in memory.
    """

    draw: Draw
    field_sizes: Sizes
    width: int
    own: Any
    counts: Counts
    cut: bool = False

    @property
    def num_rows(self) -> int:
        """N."""
        return sum(self.field_sizes)

    @property
    def num_fields(self) -> int:
        """F."""
        return len(self.field_sizes)

    def table(self) -> Tensor:
        """V0 (N, D), drawn now."""
        return self.draw(self.num_rows, self.width)


@dataclass(frozen=True)
class EmbeddingEntry:
    """A line of the registry: all that the rest of the code knows of an embedding.

    Args:
        build: makes a fresh one.
        settings: frozen dataclass of its own settings, each an `option`.
        check: called with its own settings and all settings of a run by name, before any data is
            read; raises ValueError where they do not fit.
        grid: the settings that tuning tries; the first one sets the size. Empty: never tuned.
        unused: settings of every run that change nothing for this embedding.
    """

    build: Callable[[Blueprint], Embedding]
    settings: type = NoSettings
    check: Callable[[Any, Values], None] = no_check
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


class RowIndexed(nn.Module):
    """A module that says which of its tables are read by row: see `Embedding.row_indexed`."""

    row_indexed: tuple[str, ...] | None = None
    computes_rows = False
    # How rows travel when the tables are cut over processes (`engine.distributed`): "vectors": a
    # row's vector is made of it entry by entry, and is sent; "rows": the row is sent as it is;
    # None: the tables cannot be cut.
    sharded: str | None = None


class TableEmbedding(RowIndexed):
    """Shared parts of the embeddings whose deep input is the flattened forward."""

    row_indexed: tuple[str, ...] | None = ("weight",)
    decays: Mapping[str, str] = MappingProxyType({})

    def __init__(self, num_rows: int, width: int, num_fields: int) -> None:
        super().__init__()
        if min(num_rows, width, num_fields) < 1:
            raise ValueError(f"rows, width and fields must be positive, got {num_rows}, {width}, "
                             f"{num_fields}")
        self.num_rows = num_rows
        self.width = width
        self.num_fields = num_fields
        self.deep_width = num_fields * width

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Of an embedding that is no table: a row for each place, (B * F, D)."""
        vectors = self(ids)
        places = torch.arange(ids.numel(), dtype=torch.int32, device=ids.device)
        return vectors.flatten(0, 1), places.view(ids.shape)

    def by_hand(self, rows: Arrays) -> ByHand | None:
        """Autograd has the gradient."""
        return None

    def deep_input(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """(B, F * D)."""
        return (self(ids) if vectors is None else vectors).flatten(1)

    def table(self) -> Tensor:
        """(N, D)."""
        raise NotImplementedError

    def num_params(self) -> int:
        """Counted when asked."""
        return int(torch.count_nonzero(self.table()))

    @torch.no_grad()
    def kept_per_row(self) -> Tensor:
        """(N,) entries of each row that are not zero."""
        return torch.count_nonzero(self.table(), dim=1)

    def inference_bytes(self) -> int:
        """Of a dense table or of a compact one (see `models.serving.compact`), whichever takes
        less, as an exported model's file holds it in float32."""
        compact = stored_bytes(self.kept_per_row().cpu().numpy(), self.width)
        return min(4 * self.num_rows * self.width, compact)


def initial_table(num_rows: int, width: int, generator: torch.Generator,
                  empty: Callable[[int, int], Tensor] = torch.empty) -> Tensor:
    """V0 (N, D): Xavier-uniform over the whole matrix, bound sqrt(6 / (N + D)).

    Args:
        empty: (N, D) -> where it is drawn.

    >>> initial_table(4129, 64, torch.Generator().manual_seed(1)).abs().max() <= math.sqrt(6 / 4193)
    tensor(True)
    """
    bound = math.sqrt(6.0 / (num_rows + width))
    return empty(num_rows, width).uniform_(-bound, bound, generator=generator)
