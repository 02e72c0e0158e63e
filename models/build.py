"""The models and embeddings by name, and how each is made from plain values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import autoint, deepfm, dlrm, fm, linear
from .base import ClickModel, ModelEntry
from .embedding import (
    darts,
    hashing,
    mde,
    mgqe,
    pep,
    quotient_remainder,
    tensor_train,
    uniform,
)
from .embedding.base import (
    Blueprint,
    Counts,
    Embedding,
    EmbeddingEntry,
    TableEmbedding,
    initial_table,
)
from .embedding.mixed_width import Mixed
from .memory import array_in_file, require_memory
from .options import Sizes, Values, record_of

# A new model or embedding is one file and one line here.
MODELS: dict[str, ModelEntry] = {
    "linear": linear.ENTRY, "fm": fm.ENTRY, "deepfm": deepfm.ENTRY, "autoint": autoint.ENTRY,
    "dlrm": dlrm.ENTRY}
EMBEDDINGS: dict[str, EmbeddingEntry] = {
    "pep": pep.ENTRY, "uniform": uniform.ENTRY, "mde": mde.ENTRY, "mgqe": mgqe.ENTRY,
    "darts": darts.ENTRY, "hash": hashing.ENTRY, "qr": quotient_remainder.ENTRY,
    "tt": tensor_train.ENTRY}


def embedding_entry(model: str, embedding: str) -> EmbeddingEntry:
    """The entry of the embedding that a model gets: the chosen one, or the only one it takes."""
    return MODELS[model].embedding or EMBEDDINGS[embedding]


def _not_counted() -> Tensor:
    raise ValueError("this embedding needs to know how often each feature occurs; give `counts`")


def build_embedding(field_sizes: Sizes, values: Values, seed: int,
                    counts: Counts = _not_counted, folder: Path | None = None) -> Embedding:
    """A fresh embedding. One seed gives the same V0 to every embedding of one whole table, under
    every model but those that draw it in their own way.

    Args:
        field_sizes: rows of each field, in order.
        values: settings by name; what is missing keeps its default, but for `model`, `embedding`
            and `latent_dim`.
        counts: () -> (N,) int64, how often each feature occurs in training.
        folder: of a table that is cut over processes next: it is drawn in a file there.

    Raises:
        ValueError: the embedding needs counts and none are given, these or its settings do not
            fit the table, or a table does not fit the memory.
    """
    entry = embedding_entry(values["model"], values["embedding"])
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int, width: int) -> Tensor:
        return fresh_table(rows, width, field_sizes, values, generator, empty_in(folder))

    def checked_counts() -> Tensor:
        return _checked(counts(), sum(field_sizes))

    own: Any = record_of(entry.settings, values)
    return entry.build(Blueprint(draw, field_sizes, values["latent_dim"], own, checked_counts,
                                 folder is not None))


def empty_in(folder: Path | None) -> Callable[[int, int], Tensor]:
    """(rows, width) -> a table to be filled, in memory or in a file of the folder."""
    def empty(rows: int, width: int) -> Tensor:
        if folder is not None:
            return torch.from_numpy(array_in_file((rows, width), np.float32, folder))
        require_memory(4 * rows * width, f"a table of {rows:,} x {width}")
        return torch.empty(rows, width)

    return empty


def fresh_table(rows: int, width: int, field_sizes: Sizes, values: Values,
                generator: torch.Generator,
                empty: Callable[[int, int], Tensor] = torch.empty) -> Tensor:
    """V0 (rows, D): the model's own where it has one for the whole table, else
    `initial_table`."""
    own = MODELS[values["model"]].initial_table
    if own is not None and rows == sum(field_sizes):
        return own(field_sizes, width, generator, empty)
    return initial_table(rows, width, generator, empty)


def _checked(counts: Tensor, num_rows: int) -> Tensor:
    wanted = (f"there must be {num_rows} counts (int64, from 0 up), one for each feature in the "
              "order of the ids")
    if counts.shape != (num_rows,) or counts.dtype != torch.int64:
        raise ValueError(f"{wanted}; got {counts.dtype} of shape {tuple(counts.shape)}")
    if int(counts.min()) < 0:
        raise ValueError(f"{wanted}; got {int(counts.min())} for feature {int(counts.argmin())}")
    return counts


def build_mixed(width_of_row: Tensor, widths: Sizes, field_sizes: Sizes,
                seed: int) -> TableEmbedding:
    """Fresh vectors of `width_of_row` (N,), each one of `widths`, all projected to the largest."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int, width: int) -> Tensor:
        return initial_table(rows, width, generator)

    groups = torch.searchsorted(torch.tensor(widths), width_of_row)
    return Mixed(groups, widths, widths[-1], draw, len(field_sizes))


def build_model(field_sizes: Sizes, values: Values, seed: int, embedding: Embedding,
                num_dense: int = 0) -> ClickModel:
    """A model around `embedding`; its other parameters are drawn from `seed` alone.

    Args:
        num_dense: M, of the data set; for models that read dense features.
    """
    entry = MODELS[values["model"]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return entry.build(embedding, field_sizes, record_of(entry.settings, values), num_dense)


def num_embedding_params(model: ClickModel) -> int:
    """Embedding parameters left in a model; 0 for logistic regression."""
    return model.embedding.num_params()


def inference_bytes(model: ClickModel) -> int:
    """Bytes that the embedding of a model needs at inference; 0 for logistic regression."""
    return model.embedding.inference_bytes()
