"""What every model is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from .embedding.base import Arrays, Embedding, EmbeddingEntry, RowIndexed
from .options import NoSettings, Sizes, Values, no_check

# what a batch gives a model: ids (B, F), or these and dense features (B, M)
Inputs = Tensor | tuple[Tensor, Tensor]


def as_inputs(inputs: Inputs) -> tuple[Tensor, ...]:
    """What a model is called with, of a batch as a loader gives it."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def called(model: nn.Module, inputs: Inputs) -> Tensor:
    """Logits (B,) of a batch as a loader gives it.

    >>> import torch
    >>> called(nn.Flatten(0), torch.ones(3, 1)).shape
    torch.Size([3])
    """
    return model(*as_inputs(inputs))


class ClickModel(nn.Module):
    """ids (B, F) -> logits (B,), around an injected embedding.

    A model that reads dense features too is called with ids (B, F) and these (B, M).
    """

    embedding: Any  # an `Embedding`; nn.Module's own typing cannot say so
    num_dense = 0  # M
    # of an evaluation on a CPU: so many at a time that what is made of them stays in the cache
    rows_in_cache = 1_024

    def by_hand(self, rows: Arrays, ids: np.ndarray,
                labels: np.ndarray) -> tuple[float, Arrays] | None:
        """A training step's loss and gradients without autograd, of a model whose gradient is
        written down; else None.

        Args:
            rows: the batch's rows (U, D) of each of `row_indexed_tables`, by name; copies, written
                over.
            ids: (B, F) int32 below U.
            labels: (B,).

        Returns:
            The mean cross entropy, and the gradients of the rows and of all other parameters, by
            name.
        """
        return None


@dataclass(frozen=True)
class ModelEntry:
    """A line of the registry: all that the rest of the code knows of a model.

    Args:
        build: (embedding, rows of each field, own settings, number of dense features) -> model.
        settings: frozen dataclass of its own settings, each an `option`.
        check: as of `EmbeddingEntry`.
        embedding: the only embedding that the model takes; None for any that is chosen.
        reads_dense: whether it reads a data set's dense features beside its categories.
        initial_table: (rows of each field, D, generator) -> V0 (N, D), where the model has its own
            way to draw it.
        vector_weights: of a model whose logits stay what they are when all vectors are rotated by
            R (D, D) and these weights with them: matrices (W, D) that read the vector of any field,
            or (W, F * D) that read all fields' side by side. None: the model is not invariant.
    """

    build: Callable[[Any, Sizes, Any, int], ClickModel]
    settings: type = NoSettings
    check: Callable[[Any, Values], None] = no_check
    embedding: EmbeddingEntry | None = None
    reads_dense: bool = False
    initial_table: Callable[..., Tensor] | None = None
    vector_weights: Callable[[Any], list[Tensor]] | None = None


def row_indexed_tables(model: ClickModel) -> dict[str, Tensor]:
    """Parameters and buffers, by their names in the model, of which a forward pass reads only the
    rows of its ids.

    Empty when the embedding uses the ids for more than that.
    """
    embedding: Embedding = model.embedding
    if embedding.row_indexed is None:
        return {}
    names = []
    for path, module in model.named_modules():
        if isinstance(module, RowIndexed):
            names += [f"{path}.{name}" for name in module.row_indexed or ()]
    everything = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: everything[name] for name in names}
