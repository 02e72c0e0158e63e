"""The dense model that a table of few bits starts from: rotated, and perhaps narrower."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compression.loaded_run import LoadedRun
from compression.waterline.rotation import principal_axes, rotate, vector_weights
from data import feature_counts
from models.base import ClickModel
from models.build import build_model
from models.embedding.uniform import Uniform
from models.options import Sizes


@dataclass(frozen=True)
class Start:
    """A model around a dense table, to be quantised.

    Args:
        model: with a `Uniform` of width D.
        counts: (N,), how often each row occurs in training.
        field_sizes: rows of each field, in order.
    """

    model: ClickModel
    counts: np.ndarray
    field_sizes: Sizes

    @property
    def table(self) -> Tensor:
        """(N, D)."""
        return self.model.embedding.table()

    @property
    def seen(self) -> np.ndarray:
        """(N,) whether training has seen the row."""
        return self.counts > 0


def start_of(trained: LoadedRun, rotation: bool, columns: np.ndarray | None = None) -> Start:
    """The start from a trained uniform table; the run's own model stays as it is.

    Args:
        rotation: to the principal axes.
        columns: those of the (rotated) table that are kept, in their new order; None for all.

    Raises:
        ValueError: rotated or narrower tables are asked for, and the model is not invariant; or a
            column is not in the table.
    """
    table = trained.table.astype(np.float64)
    sizes, name = trained.dataset.schema.sizes, trained.settings.model.model
    chosen = np.arange(table.shape[1]) if columns is None else columns
    if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= table.shape[1]:
        raise ValueError(f"the dense table has {table.shape[1]} columns; take 1 to "
                         f"{table.shape[1]} of them")
    axes = principal_axes(table, sizes) if rotation else np.eye(table.shape[1])
    kept = torch.from_numpy(np.ascontiguousarray((table @ axes)[:, chosen])).float()
    own = trained.model.state_dict()
    others = {key: value.clone() for key, value in own.items() if not key.startswith("embedding.")}
    whole = build_model(sizes, trained.settings.flat(), 0, Uniform(torch.zeros(table.shape),
                                                                   len(sizes)),
                        trained.dataset.num_dense)
    whole.load_state_dict(others, strict=False)
    counts = feature_counts.count(trained.dataset).numpy()
    if rotation:
        rotate(whole, name, axes)
    if columns is None:
        whole.embedding = Uniform(kept, len(sizes))
        return Start(whole.eval(), counts, sizes)
    values = {**trained.settings.flat(), "latent_dim": len(chosen)}
    model = build_model(sizes, values, 0, Uniform(kept, len(sizes)), trained.dataset.num_dense)
    _copy(whole, model, name, chosen, table.shape[1])
    return Start(model.eval(), counts, sizes)


@torch.no_grad()
def _copy(whole: ClickModel, model: ClickModel, name: str, columns: np.ndarray,
          width: int) -> None:
    """Copy all but the table; of the weights that read vectors, the chosen columns."""
    narrow = [id(weight) for weight in vector_weights(whole, name)]
    target, chosen = model.state_dict(keep_vars=True), torch.from_numpy(columns)
    for key, value in whole.state_dict(keep_vars=True).items():
        if key.startswith("embedding."):
            continue
        if id(value) in narrow:
            value = value.view(len(value), -1, width)[:, :, chosen].flatten(1)
        target[key].copy_(value)
