"""The models and embeddings by name, and how each is made from plain values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .autoint import Attention, AutoInt
from .base import ClickModel
from .deepfm import DeepFM
from .dlrm import DLRM, Shape, initial_tables
from .embedding.base import Draw, TableEmbedding, initial_table
from .embedding.darts import Darts
from .embedding.hashing import Hash
from .embedding.mde import mde
from .embedding.mgqe import mgqe
from .embedding.mixed_width import Mixed
from .embedding.pep import Pep, Thresholds
from .embedding.quotient_remainder import Qr
from .embedding.tensor_train import fresh_tensor_train
from .embedding.uniform import Uniform
from .fm import FM
from .kernels.dropout import number_dropout
from .linear import Linear

Values = dict[str, Any]  # checked settings, by their published names
Sizes = tuple[int, ...]  # rows of each field

MODELS: dict[str, Callable[[Any, Sizes, Values], ClickModel]] = {
    "linear": lambda embedding, sizes, v: Linear(sum(sizes)),
    "fm": lambda embedding, sizes, v: FM(embedding),
    "deepfm": lambda embedding, sizes, v: DeepFM(embedding, v["mlp_dims"], v["dropout"]),
    "autoint": lambda embedding, sizes, v: AutoInt(
        embedding, len(sizes),
        Attention(v["atten_embed_dim"], v["num_heads"], v["num_layers"], v["att_dropout"],
                  v["has_residual"]),
        v["mlp_dims"] if v["full_part"] else None, v["dropout"], v["with_linear"]),
    "dlrm": lambda embedding, sizes, v: DLRM(
        embedding, v["num_dense"],
        Shape(v["arch_mlp_bot"], v["arch_mlp_top"], v["arch_interaction_op"])),
}
READ_DENSE = ("dlrm",)  # models that read a data set's numbers as they are, beside its categories

Popularity = Callable[[], Tensor]  # () -> (N,) how often each feature occurs in the training rows

EMBEDDINGS: dict[str, Callable[[Draw, Sizes, Values, Popularity], TableEmbedding]] = {
    "uniform": lambda draw, sizes, v,
    popularity: Uniform(draw(sum(sizes), v["latent_dim"]), len(sizes)),
    "pep": lambda draw, sizes, v, popularity: Pep(
        draw(sum(sizes), v["latent_dim"]), sizes,
        Thresholds(v["threshold_type"], v["threshold_init"], v["g_type"], v["gk"],
                   v.get("threshold_decay", "coupled"), v.get("threshold_gradient", True))),
    "darts": lambda draw, sizes, v,
    popularity: Darts(sum(sizes), v["darts_widths"], draw, len(sizes)),
    "mde": lambda draw, sizes, v, popularity: mde(
        popularity(), v["mde_blocks"], v["mde_alpha"], v["latent_dim"], draw, len(sizes)),
    "mgqe": lambda draw, sizes, v, popularity: mgqe(
        popularity(), v["mgqe_subspaces"], v["mgqe_centroids"], v["latent_dim"], draw, len(sizes)),
    "hash": lambda draw, sizes, v,
    popularity: Hash(draw(sum(sizes), v["latent_dim"]), v["hash_rows"], len(sizes)),
    "qr": lambda draw, sizes, v,
    popularity: Qr(draw(sum(sizes), v["latent_dim"]), sizes, v["qr_collisions"]),
    "tt": lambda draw, sizes, v, popularity: fresh_tensor_train(
        sum(sizes), v["latent_dim"], v["tt_rank"], draw, len(sizes)),
}


def _not_counted() -> Tensor:
    raise ValueError(
        "this embedding needs to know how often each feature occurs; give `popularity`"
    )


def build_embedding(field_sizes: Sizes, values: Values, seed: int,
                    popularity: Popularity = _not_counted) -> TableEmbedding | None:
    """A fresh embedding, None for `linear`; the same seed gives the same V0 under every scheme of
    one table, and every model but `dlrm`.

    Raises:
        ValueError: the scheme needs counts and none are given, these or its settings do not fit the
            table.
    """
    if values["model"] == "linear":
        return None
    generator = torch.Generator().manual_seed(seed)
    return EMBEDDINGS[values["embedding"]](lambda rows,
                                           width: fresh_table(rows, width, field_sizes, values,
                                                              generator),
                                           field_sizes, values,
                                           lambda: _checked(popularity(), sum(field_sizes)))


def fresh_table(rows: int, width: int, field_sizes: Sizes, values: Values,
                generator: torch.Generator) -> Tensor:
    """V0 (rows, D): DLRM's own for its tables, `initial_table` for every other model and for tables
    of other rows."""
    if values["model"] == "dlrm" and rows == sum(field_sizes):
        return initial_tables(field_sizes, width, generator)
    return initial_table(rows, width, generator)


def _checked(counts: Tensor, num_rows: int) -> Tensor:
    wanted = f"popularity must be {num_rows} counts (int64, from 0 up), one for each feature in the order of the ids"
    if counts.shape != (num_rows,) or counts.dtype != torch.int64:
        raise ValueError(f"{wanted}; got {counts.dtype} of shape {tuple(counts.shape)}")
    if int(counts.min()) < 0:
        raise ValueError(f"{wanted}; got {int(counts.min())} for feature {int(counts.argmin())}")
    return counts


def build_mixed(width_of_row: Tensor, widths: Sizes, field_sizes: Sizes,
                seed: int) -> TableEmbedding:
    """Fresh vectors of `width_of_row` (N,), each one of `widths`, all projected to the largest."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.searchsorted(torch.tensor(widths), width_of_row)
    return Mixed(groups, widths, widths[-1], lambda rows,
                 width: initial_table(rows, width, generator),
                 len(field_sizes))


def build_model(field_sizes: Sizes, values: Values, seed: int, embedding: TableEmbedding | None,
                num_dense: int = 0) -> ClickModel:
    """A model around `embedding` (None for `linear`); its other parameters are drawn from `seed`
    alone.

    Args:
        num_dense: M, of the data set; for models that read them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[values["model"]](embedding, field_sizes, {**values, "num_dense": num_dense})
    number_dropout(model)
    return model


def num_embedding_params(model: ClickModel) -> int:
    """Embedding parameters left in a model; 0 for logistic regression."""
    return model.embedding.num_params() if model.embedding is not None else 0


def inference_bytes(model: ClickModel) -> int:
    """Bytes that the embedding of a model needs at inference; 0 for logistic regression."""
    return model.embedding.inference_bytes() if model.embedding is not None else 0
