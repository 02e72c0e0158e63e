"""A trained model as it is exported."""

import copy

import numpy as np
import torch

from models.base import ClickModel
from models.serving.model import ServedModel
from models.serving.values import check_type
from serving.parts import served_parts
from serving.tables import served_table


@torch.no_grad()
def served(model: ClickModel, values: str) -> tuple[ServedModel, np.ndarray]:
    """A model of the registry in its exported form.

    Args:
        model: trained.
        values: float32, float16 or int8.

    Returns:
        The exported model, and for each row of the training's table its row there, (N,).

    Raises:
        ValueError: there is no exported form of the model or its embedding, or a value does not
            fit the type.

    >>> from models.embedding.uniform import Uniform
    >>> from models.fm import FM
    >>> small, new_ids = served(FM(Uniform(torch.eye(3), 1)), "float16")
    >>> small(torch.from_numpy(new_ids)[:, None]).shape
    torch.Size([3])
    """
    check_type(values)
    model = copy.deepcopy(model).cpu().eval()
    table, new_ids = served_table(model.embedding, values)
    return ServedModel(table, served_parts(model, new_ids, values), model.num_dense), new_ids
