"""Models before their first step, from the settings and the seed of a run."""

import logging

import numpy as np

from data import feature_counts
from engine.run import Run, derive
from models.base import ClickModel
from models.build import build_embedding, build_model
from models.memory import GIB, require_memory

log = logging.getLogger("pep")


def fresh_model(run: Run) -> ClickModel:
    """The model of a run before its first step; the same seed gives the same one.

    Raises:
        ValueError: the memory does not hold the parameters and what their training needs.
    """
    sizes, values = run.dataset.schema.sizes, run.settings.flat()
    embedding = build_embedding(sizes, values, derive(run.seed, "table"),
                                lambda: feature_counts.count(run.dataset))
    model = build_model(sizes, values, derive(run.seed, f"{run.stage}:model"), embedding,
                        run.dataset.num_dense)
    _require_room(model, values["optimizer"], values["table_update"])
    return model


def _require_room(model: ClickModel, optimizer: str, table_update: str) -> None:
    """Say what the training of large tables needs beside them, before it is taken."""
    tables = sum(each.nbytes for each in model.parameters())
    moments = 2 * tables if optimizer == "adam" else 0
    gradient = tables if table_update == "dense" else 0
    if tables + moments + gradient > GIB:
        log.info("tables of %.2f GiB; their moments take %.2f GiB more, their gradient %.2f",
                 tables / GIB, moments / GIB, gradient / GIB)
    require_memory(moments + gradient, f"training tables of {tables / GIB:.2f} GiB with "
                   f"optimizer={optimizer} and table_update={table_update}")


def initial_values(model: ClickModel) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """V0 (N, D) of a model of one table, and, for rewind="all", every other value by name;
    copies."""
    others = {name: value.cpu().numpy().copy() for name, value in model.state_dict().items()
              if not name.startswith("embedding.")}
    return model.embedding.weight.detach().cpu().numpy().copy(), others
