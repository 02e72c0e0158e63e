"""DartsEmb: a mixture of several widths for each feature, out of which one is chosen.

Zhao et al. (2020, AutoEmb) in the form in which the PEP paper compares with it: widths belong to
features, the weights of the mixture are trained on validation rows (`engine.bilevel`), and the
widest share wins. Differs from AutoEmb: a feature's weights are its own instead of being computed
from its popularity, and the vectors of different widths are not batch-normalised before they are
added.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.batch_rows import distinct
from ..kernels.lookup import lookup
from ..options import option
from .base import DECAYS, Draw, EmbeddingEntry, TableEmbedding


class Darts(TableEmbedding):
    """The search over widths: sum over widths w of softmax(mixing)_w * (V_w P_w), all of them in
    the common width D.

    The tables V_w (N, w) lie side by side in one, the projections P_w (w, D) below each other, so
    that a batch needs one lookup and one product. D is the largest width, whose projection is the
    identity and stays it.

    Args:
        num_rows: N.
        widths: W of them, rising.
        draw: fresh initial values.
        num_fields: F.

    Raises:
        ValueError: the widths do not rise, or there are fewer than two.

    >>> Darts(5, (1, 2), torch.ones, num_fields=1)(torch.tensor([[3]])).shape
    torch.Size([1, 1, 2])
    """

    of_width: Tensor  # (W, sum of widths) of 0 and 1: of which width each column is
    # (N, W) logits; no parameter, because another optimiser moves them on other rows
    mixing: Tensor
    row_indexed = None

    def __init__(self, num_rows: int, widths: tuple[int, ...], draw: Draw, num_fields: int) -> None:
        _require_rising(widths)
        super().__init__(num_rows, widths[-1], num_fields)
        self.widths = widths
        # (N, sum of widths)
        self.weight = nn.Parameter(torch.cat([draw(num_rows, width) for width in widths], 1))
        self.projection = nn.Parameter(torch.cat([draw(width, self.width)
                                                  for width in widths[:-1]]))
        self.register_buffer("mixing", torch.zeros(num_rows, len(widths)))
        columns = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
        of_width = nn.functional.one_hot(columns, len(widths)).T.float()
        self.register_buffer("of_width", of_width.contiguous(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        return lookup(*self.rows(ids))

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The mixture of each row of the batch once."""
        unique, places = distinct(ids, self.num_rows)
        return self._mixed(lookup(self.weight, unique), lookup(self.mixing, unique)), places

    def _mixed(self, values: Tensor, mixing: Tensor) -> Tensor:
        """values (..., sum of widths), mixing (..., W) -> (..., D)."""
        # by a product, as indexing has a slow gradient
        scaled = values * (torch.softmax(mixing, -1) @ self.of_width)
        narrow, widest = scaled.split([len(self.projection), self.width], -1)
        return narrow @ self.projection + widest

    @torch.no_grad()
    def table(self) -> Tensor:
        """(N, D), of the mixture as it is."""
        return self._mixed(self.weight, self.mixing)

    def num_params(self) -> int:
        """Of all tables and projections: a search carries every width."""
        return int(torch.count_nonzero(self.weight) + torch.count_nonzero(self.projection))

    def inference_bytes(self) -> int:
        """Of all tables, projections and the mixing weights."""
        return 4 * (self.num_params() + self.mixing.numel())

    def chosen(self) -> Tensor:
        """(N,) the width with the largest share of each feature; among equals the smallest."""
        return torch.tensor(self.widths, device=self.mixing.device)[self.mixing.argmax(1)]


@dataclass(frozen=True)
class DartsSettings:
    """The settings of the search over widths."""

    darts_widths: tuple[int, ...] = option((2, 4, 16), "candidate widths, rising; the largest is "
                                           "the common one", low=1, source="PEP paper, A.4.4")
    darts_epochs: int = option(20, "epochs of the search; max_epochs is of the training after it",
                               low=1)
    darts_lr: float = option(1e-2, "Adam's, of the mixture's weights, on validation rows", low=0)


def _require_rising(widths: tuple[int, ...]) -> None:
    if len(widths) < 2 or list(widths) != sorted(set(widths)) or widths[0] < 1:
        raise ValueError(f"darts_widths must be two or more rising widths, got {list(widths)}")


ENTRY = EmbeddingEntry(
    lambda plan: Darts(plan.num_rows, plan.own.darts_widths, plan.draw, plan.num_fields),
    DartsSettings, lambda own, values: _require_rising(own.darts_widths),
    grid={"darts_widths": [[1, 2, 8], [2, 4, 16], [4, 8, 32], [8, 16, 64]],
          "l2_regularization": list(DECAYS)},
    unused=("latent_dim",))
