"""Rotating a table to its principal axes, and a model with it."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from models.base import ClickModel
from models.build import MODELS
from models.options import Sizes


def principal_axes(table: np.ndarray, field_sizes: Sizes) -> np.ndarray:
    """The axes of the largest field's vectors: eigenvectors of the sum of v v^T, by falling
    eigenvalue.

    Args:
        table: (N, D).
        field_sizes: rows of each field, in order.

    Returns:
        R (D, D), orthogonal; `table @ R` has its energy in the first columns. The largest entry of
        each axis is positive, so that the axes do not depend on the library that finds them.

    >>> principal_axes(np.array([[0.0, 2.0], [1.0, 0.0], [9.0, 9.0]]), (2, 1)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    starts = np.concatenate([[0], np.cumsum(field_sizes)])
    largest = int(np.argmax(field_sizes))
    rows = table[starts[largest]:starts[largest + 1]].astype(np.float64)
    _, axes = np.linalg.eigh(rows.T @ rows)
    axes = axes[:, ::-1]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return axes * signs


def vector_weights(model: ClickModel, name: str) -> list[Tensor]:
    """The weights of a model that read its vectors.

    Args:
        name: of the model in the registry.

    Raises:
        ValueError: the model's logits change when its vectors are rotated.
    """
    found = MODELS[name].vector_weights
    if found is None:
        able = [each for each, entry in MODELS.items() if entry.vector_weights is not None]
        raise ValueError(f"the logits of {name} change when its vectors are rotated, so its "
                         f"columns must stay as they are: add --no-rotation and leave --width "
                         f"away, or take one of {', '.join(able)}")
    return found(model)


@torch.no_grad()
def rotate(model: ClickModel, name: str, axes: np.ndarray) -> None:
    """Multiply the weights that read the vectors by R, in place; with a table V R the model gives
    the logits that it gave with V.

    Args:
        name: of the model in the registry.
        axes: R (D, D), orthogonal.
    """
    turn = torch.from_numpy(axes)
    for weight in vector_weights(model, name):
        blocks = weight.double().view(len(weight), -1, len(axes)) @ turn.to(weight.device)
        weight.copy_(blocks.reshape(weight.shape).float())


def of_fields(field_sizes: Sizes) -> list[slice]:
    """The rows of each field.

    >>> of_fields((2, 3))
    [slice(0, 2, None), slice(2, 5, None)]
    """
    ends = np.concatenate([[0], np.cumsum(field_sizes)]).tolist()
    return [slice(first, last) for first, last in pairwise(ends)]
