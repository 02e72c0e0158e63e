"""The models and embeddings by name, and how each is made from plain values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .autoint import Attention, AutoInt
from .deepfm import DeepFM
from .embedding.base import initial_table
from .embedding.pep import Pep, Thresholds
from .embedding.uniform import Uniform
from .fm import FM
from .linear import Linear

Values = dict[str, Any]  # checked settings, by their published names
Initial = Callable[[int, int], Tensor]  # (N, D) -> V0

MODELS: dict[str, Callable[[Any, int, Values], nn.Module]] = {
    "linear": lambda embedding, num_fields, v: Linear(embedding),
    "fm": lambda embedding, num_fields, v: FM(embedding),
    "deepfm": lambda embedding, num_fields, v: DeepFM(embedding, v["mlp_dims"], v["dropout"]),
    "autoint": lambda embedding, num_fields, v: AutoInt(
        embedding, num_fields,
        Attention(v["atten_embed_dim"], v["num_heads"], v["num_layers"], v["att_dropout"], v["has_residual"]),
        v["mlp_dims"] if v["full_part"] else None, v["dropout"], v["with_linear"]),
}

EMBEDDINGS: dict[str, Callable[[Tensor, tuple[int, ...], Values], nn.Module]] = {
    "uniform": lambda initial, sizes, v: Uniform(initial, len(sizes)),
    "pep": lambda initial, sizes, v: Pep(
        initial, sizes, Thresholds(v["threshold_type"], v["threshold_init"], v["g_type"], v["gk"])),
}


def build_embedding(field_sizes: tuple[int, ...], values: Values, seed: int) -> nn.Module:
    """A fresh embedding; the same seed gives the same V0 under every model and scheme."""
    generator = torch.Generator().manual_seed(seed)
    initial = initial_table(sum(field_sizes), values["latent_dim"], generator)
    return EMBEDDINGS[values["embedding"]](initial, field_sizes, values)


def build_model(field_sizes: tuple[int, ...], values: Values, seed: int, embedding: nn.Module | None) -> nn.Module:
    """A model around `embedding` (None for `linear`); its other parameters are drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        injected = sum(field_sizes) if values["model"] == "linear" else embedding
        return MODELS[values["model"]](injected, len(field_sizes), values)


def num_embedding_params(model: nn.Module) -> int:
    """Embedding parameters left in a model; 0 for logistic regression."""
    return model.embedding.num_params() if model.embedding is not None else 0
