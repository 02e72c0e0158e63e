"""The models and embeddings by name, and how each is made from plain values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .autoint import Attention, AutoInt
from .base import ClickModel
from .deepfm import DeepFM
from .embedding.base import TableEmbedding, initial_table
from .embedding.pep import Pep, Thresholds
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
        Attention(v["atten_embed_dim"], v["num_heads"], v["num_layers"], v["att_dropout"], v["has_residual"]),
        v["mlp_dims"] if v["full_part"] else None, v["dropout"], v["with_linear"]),
}

EMBEDDINGS: dict[str, Callable[[Tensor, Sizes, Values], TableEmbedding]] = {
    "uniform": lambda initial, sizes, v: Uniform(initial, len(sizes)),
    "pep": lambda initial, sizes, v: Pep(
        initial, sizes, Thresholds(v["threshold_type"], v["threshold_init"], v["g_type"], v["gk"])),
}


def build_embedding(field_sizes: Sizes, values: Values, seed: int) -> TableEmbedding | None:
    """A fresh embedding, None for `linear`; the same seed gives the same V0 under every model and scheme."""
    if values["model"] == "linear":
        return None
    generator = torch.Generator().manual_seed(seed)
    initial = initial_table(sum(field_sizes), values["latent_dim"], generator)
    return EMBEDDINGS[values["embedding"]](initial, field_sizes, values)


def build_model(field_sizes: Sizes, values: Values, seed: int, embedding: TableEmbedding | None) -> ClickModel:
    """A model around `embedding` (None for `linear`); its other parameters are drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[values["model"]](embedding, field_sizes, values)
    number_dropout(model)
    return model


def num_embedding_params(model: ClickModel) -> int:
    """Embedding parameters left in a model; 0 for logistic regression."""
    return model.embedding.num_params() if model.embedding is not None else 0
