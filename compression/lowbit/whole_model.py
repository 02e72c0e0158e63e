"""The rest of a model at 8 bits: what a user ships is more than the table."""

import copy

import numpy as np
import torch

from models.base import ClickModel
from models.build import MODELS
from models.embedding.quantised import Quantiser, step_groups
from models.options import Sizes

BITS = 8
FLOAT = 4  # bytes of a value that stays as it is


@torch.no_grad()
def coded(model: ClickModel, name: str, seen: np.ndarray,
          field_sizes: Sizes) -> tuple[ClickModel, int]:
    """A copy of a model with its other weights at 8 bits, and what these take.

    First-order weights share a step by field, and those of rows that were never seen are zero and
    not stored, as the rows of the table; the rows of a matrix have a step each, and inputs that are
    zero in the whole table are not stored. Biases and batch norms stay float32.

    Args:
        model: whose embedding is coded already.
        name: of the model in the registry.
        seen: (N,) whether training has seen the row.
        field_sizes: rows of each field, in order.

    Returns:
        The copy, and the bytes of all but its embedding.
    """
    copied, total = copy.deepcopy(model), 0
    readers = MODELS[name].vector_weights
    reads_vectors = {id(weight) for weight in (readers(copied) if readers is not None else [])}
    live = _live(copied, field_sizes)
    for key, weight in copied.named_parameters():
        if key.startswith("embedding."):
            continue
        if weight.dim() < 2:
            total += FLOAT * weight.numel()
        elif len(weight) == len(seen):
            bits = np.where(seen, BITS, 0)[:, None].repeat(weight.shape[1], axis=1)
            total += _code(weight, bits, field_sizes)
        else:
            bits = np.full(weight.shape, BITS)
            if id(weight) in reads_vectors:
                bits[:, ~_inputs(live, weight.shape[1])] = 0
            total += _code(weight, bits, (1,) * len(weight))
    for key, value in copied.named_buffers():
        if not key.startswith("embedding.") and value.is_floating_point():
            total += FLOAT * value.numel()
    return copied, total


def _live(model: ClickModel, field_sizes: Sizes) -> np.ndarray:
    """(F, D) whether any row of a field is not zero in the column."""
    table = model.embedding.table().cpu()
    return np.stack([(rows != 0).any(dim=0).numpy() for rows in table.split(field_sizes)])


def _inputs(live: np.ndarray, width: int) -> np.ndarray:
    """Whether each input of a weight that reads vectors is ever other than zero."""
    return live.reshape(-1) if width == live.size else np.asarray(live.any(axis=0))


def _code(weight: torch.Tensor, bits: np.ndarray, parts: tuple[int, ...]) -> int:
    """Round a matrix to its levels in place; returns the bytes of codes and steps."""
    groups = step_groups(bits, parts)
    quantiser = Quantiser(weight.detach().cpu(), bits, groups).to(weight.device)
    weight.copy_(quantiser(weight))
    return int(bits.sum()) // 8 + int(groups.max(initial=-1)) + 1
