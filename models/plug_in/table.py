"""Tables of a plugged model: called, read and moved like the modules that they replace."""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..embedding.pep import Thresholds
from ..kernels.threshold import GATES, soft_threshold
from .watch import watch
from .weight import guarded

Plain = nn.Embedding | nn.EmbeddingBag
COUNTED = 1 << 15  # entries at a time on a CPU: they stay in the cache, and take no second thread
COUNTED_ELSEWHERE = 1 << 24
SET_VALUES = ("unplug(model), change the weight and plug(model) again, or write to the table's "
              "`values` under torch.no_grad()")


def exporting() -> bool:
    """Whether torch.export records: a choice by the number of ids would hold for that number
    alone."""
    asked = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6
    return asked()


class PluggedTable(nn.Module):
    """N rows of width D that replace an nn.Embedding or nn.EmbeddingBag; the shared parts.

    `weight` is the pruned table, computed at each reading with its gradient, so that a model which
    scores all items by `user @ items.weight.T` uses the pruned table too. It is read-only: writing
    into it (see `PrunedWeight`) or assigning to it is an error. The plain module is kept for
    `restore`, hidden from parameters() and state_dict(). Its other attributes (`max_norm`,
    `sparse`, ...) can be read here by code that calls torch's own lookup.

    Args:
        plain: the module to replace.
    """

    values: nn.Parameter
    mode: Any  # of a bag; None in the place of an nn.Embedding
    max_norm: float | None = None  # a module where any of these three is set is refused
    scale_grad_by_freq = False
    sparse = False

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self.plain = (plain,)  # in a tuple, or nn.Module would take it for a child
        self.num_embeddings, self.embedding_dim = plain.num_embeddings, plain.embedding_dim
        self.padding_idx, self.norm_type = plain.padding_idx, plain.norm_type
        self.mode = plain.mode if isinstance(plain, nn.EmbeddingBag) else None
        self.include_last_offset = isinstance(plain, nn.EmbeddingBag) and plain.include_last_offset

    @property
    def weight(self) -> Tensor:
        """The whole table as used, (N, D), to be read."""
        return guarded(self.table())

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; `weight` cannot be set."""
        if name == "weight":
            raise AttributeError(f"`weight` of a plugged table is computed and cannot be replaced; "
                                 f"{SET_VALUES}")
        super().__setattr__(name, value)

    def _load_from_state_dict(self, *state: Any, **named: Any) -> None:
        """With `assign=True` torch replaces the Parameter; the plain module gets the new one."""
        super()._load_from_state_dict(*state, **named)
        (plain,) = self.plain
        if plain._parameters["weight"] is not None:
            plain._parameters["weight"] = self.values

    def reset_parameters(self) -> None:
        """Refused: what the table restarts from was noted by plug()."""
        raise RuntimeError(f"a plugged table cannot be initialised anew; {SET_VALUES}")

    def table(self) -> Tensor:
        """The whole table as used, (N, D), a plain tensor."""
        raise NotImplementedError

    def vectors(self, ids: Tensor) -> Tensor:
        """ids of any shape -> (*ids.shape, D)."""
        raise NotImplementedError

    def forward(self, input: Tensor, *bag: Tensor | None, **named: Tensor | None) -> Tensor:
        """What the plain module takes and gives: ids -> vectors (*ids.shape, D), or ids in bags ->
        (bags, D)."""
        if self.mode is None:
            return self.vectors(input, *bag, **named)
        return self._bags(input, *bag, **named)

    def _bags(self, ids: Tensor, offsets: Tensor | None = None,
              per_sample_weights: Tensor | None = None) -> Tensor:
        """The batch's vectors, one for each id, are a small table of their own, out of which torch
        fills the bags."""
        count, padding = ids.numel(), self.padding_idx
        if exporting() or not 0 < count < self.num_embeddings:
            table = self.table()
        else:
            table = self.vectors(ids.reshape(-1))
            places = torch.arange(count, dtype=ids.dtype, device=ids.device).view_as(ids)
            # a last row stands for it, so that torch leaves it out of sums and means
            if padding is not None:
                table = torch.cat([table, table.new_zeros(1, self.embedding_dim)])
                places, padding = torch.where(ids == padding, count, places), count
            ids = places
        return functional.embedding_bag(ids, table, offsets, mode=self.mode,
                                        per_sample_weights=per_sample_weights,
                                        include_last_offset=self.include_last_offset,
                                        padding_idx=padding)

    @torch.no_grad()
    def num_params(self) -> int:
        """Entries that are not zero, the padding row aside."""
        table = self.table()
        padding = table[:0] if self.padding_idx is None else table[self.padding_idx]
        return int(torch.count_nonzero(table) - torch.count_nonzero(padding))

    @torch.no_grad()
    def restore(self) -> Plain:
        """The module that was there; its weight is the same Parameter as ever and holds the table
        as used."""
        (plain,) = self.plain
        self.values.copy_(self.table())
        self.values.grad = None
        plain.weight = self.values
        return plain

    def shell(self) -> Plain:
        """A copy of the module that was there, without a weight; others keep that one whole."""
        (plain,) = self.plain
        shell = copy.copy(plain)
        shell._parameters = {"weight": None}
        return shell

    def extra_repr(self) -> str:
        """Its size, for print(model)."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class PepTable(PluggedTable):
    """S(V, s) = sign(V) relu(|V| - g(s)), V and s trained together, for ids of any shape and for
    bags (eq. 8 to 11).

    Differs from `Pep`: nothing is known of fields, so `field` and `field_dim` do not exist; lookups
    are torch's own, with its padding. The padding row is not thresholded. As in torch, lookups give
    it no gradient, reading `weight` does.

    Args:
        plain: its weight becomes V: the same Parameter, so that whoever holds it already (an
            optimiser, a list of weights to regularise) goes on holding the right one.
        thresholds: granularity within this table, start value and gate; decay and gradient are the
            user's optimiser's affair, and other than the usual ones are refused.

    Raises:
        ValueError: the thresholds ask for another decay, or for none of the loss's gradient.

    >>> plain = nn.Embedding.from_pretrained(torch.tensor([[1.0, -0.2]]))
    >>> table = PepTable(plain, Thresholds("global", init=-1.0))
    >>> table(torch.tensor(0)).tolist(), table.num_params()
    ([0.73..., 0.0], 1)
    """

    name = "?"  # in the model, for messages; `plug` sets it
    initial: Tensor

    def __init__(self, plain: Plain, thresholds: Thresholds) -> None:
        if thresholds.decay != "coupled" or not thresholds.learned:
            raise ValueError(f"a plugged table cannot have decay {thresholds.decay!r} or learned "
                             f"{thresholds.learned} thresholds; the optimiser is yours: give them "
                             f"a group of their own")
        super().__init__(plain)
        self.settings = thresholds
        self.values = cast(nn.Parameter, plain.weight)
        shape = thresholds.shape(self.num_embeddings, self.embedding_dim, 1)
        self.thresholds = nn.Parameter(torch.full(shape, float(thresholds.init),
                                                  dtype=self.values.dtype,
                                                  device=self.values.device))
        # V0; saved, for a search that is resumed
        self.register_buffer("initial", self.values.detach().clone())
        self.taken_back: tuple[float, float] | None = None  # mean s before and after a load
        watch(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is watched too."""
        super().__setstate__(state)
        watch(self)

    def _load_from_state_dict(self, *state: Any, **named: Any) -> None:
        """Remember when thresholds fall: who reloads the best checkpoint undoes the search."""
        before = self.mean_threshold()
        super()._load_from_state_dict(*state, **named)
        after = self.mean_threshold()
        if after < before:
            self.taken_back = before, after

    def table(self) -> Tensor:
        """S(V, s), (N, D)."""
        return self._thresholded(self.values, self.thresholds, None)

    def vectors(self, ids: Tensor) -> Tensor:
        """ids of any shape -> (*ids.shape, D): the smaller of the table and the batch is
        thresholded."""
        if self.num_embeddings <= ids.numel():
            return functional.embedding(ids, self.table(), self.padding_idx)
        by_feature = self.settings.type in ("feature", "feature_dim")
        thresholds = functional.embedding(ids, self.thresholds) if by_feature else self.thresholds
        return self._thresholded(functional.embedding(ids, self.values, self.padding_idx),
                                 thresholds, ids)

    def _thresholded(self, values: Tensor, thresholds: Tensor, ids: Tensor | None) -> Tensor:
        """`values` (*ids.shape, D) of the rows `ids`, None for all; a padding row is left as it
        is."""
        table = soft_threshold(values, self.settings.scale * GATES[self.settings.gate](thresholds))
        # not by a threshold of 0, which takes the gradient from entries that are 0
        if self.padding_idx is not None:
            rows = torch.arange(self.num_embeddings, device=values.device) if ids is None else ids
            table = torch.where((rows == self.padding_idx).unsqueeze(-1), values, table)
        return table

    @torch.no_grad()
    def margins(self) -> Tensor:
        """|V| - g(s), (N, D): positive where an entry is kept; -inf in the padding row, which no
        budget counts."""
        margins = self._margins(slice(None))
        if self.padding_idx is not None:
            margins[self.padding_idx] = -torch.inf
        return margins

    def _margins(self, rows: slice) -> Tensor:
        by_feature = self.settings.type in ("feature", "feature_dim")
        thresholds = self.thresholds[rows] if by_feature else self.thresholds
        return self.values[rows].abs() - self.settings.scale * GATES[self.settings.gate](thresholds)

    @torch.no_grad()
    def num_params(self) -> int:
        """Entries that are kept, the padding row aside; no second table is made."""
        counted = COUNTED if self.values.device.type == "cpu" else COUNTED_ELSEWHERE
        rows = max(counted // self.embedding_dim, 1)
        slices = [slice(start, start + rows) for start in range(0, self.num_embeddings, rows)]
        counts = [torch.count_nonzero(self._margins(part) > 0) for part in slices]
        count = int(torch.stack(counts).sum()) if counts else 0
        if self.padding_idx is not None:
            padding = slice(self.padding_idx, self.padding_idx + 1)
            count -= int(torch.count_nonzero(self._margins(padding) > 0))
        return count

    def mean_threshold(self) -> float:
        """The mean of s; NaN on the meta device."""
        s = self.thresholds.detach()
        return torch.nan if s.is_meta else float(s.mean(dtype=torch.float64))

    def has_moved(self) -> bool:
        """Whether training has changed any threshold since the start."""
        thresholds = self.thresholds.detach()
        return not torch.equal(thresholds, torch.full_like(thresholds, self.settings.init))


class TicketTable(PluggedTable):
    """A table under a fixed mask: entries outside are zero, stay zero and get no gradient (PEP,
    section 4.2).

    Args:
        plain: the module that was there.
        values: (N, D), the Parameter that is trained.
        mask: (N, D) of bool.
    """

    mask: Tensor

    def __init__(self, plain: Plain, values: nn.Parameter, mask: Tensor) -> None:
        super().__init__(plain)
        self.values = values
        self.register_buffer("mask", mask.to(values.device, copy=True))

    def table(self) -> Tensor:
        """(N, D), zero outside the mask."""
        return self.values * self.mask

    def vectors(self, ids: Tensor) -> Tensor:
        """ids of any shape -> (*ids.shape, D)."""
        if not exporting() and self.num_embeddings <= ids.numel():
            return functional.embedding(ids, self.table(), self.padding_idx)
        return functional.embedding(ids, self.values, self.padding_idx) * self.mask[ids.long()]
