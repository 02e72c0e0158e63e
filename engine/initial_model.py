"""Models before their first step, from the settings and the seed of a run."""

import numpy as np

from data import feature_counts
from engine.distributed import launch
from engine.run import Run, derive
from models.base import ClickModel
from models.build import build_embedding, build_model


def fresh_model(run: Run) -> ClickModel:
    """The model of a run before its first step; the same seed gives the same one.

    Where several processes share the run, no process need have memory for the whole table.
    """
    sizes, values = run.dataset.schema.sizes, run.settings.flat()
    embedding = build_embedding(sizes, values, derive(run.seed, "table"),
                                lambda: feature_counts.count(run.dataset),
                                launch.folder_of_tables(run.folder))
    return build_model(sizes, values, derive(run.seed, f"{run.stage}:model"), embedding,
                       run.dataset.num_dense)


def initial_values(model: ClickModel) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """V0 (N, D) of a model of one table, and, for rewind="all", every other value by name;
    copies."""
    others = {name: value.cpu().numpy().copy() for name, value in model.state_dict().items()
              if not name.startswith("embedding.")}
    return model.embedding.weight.detach().cpu().numpy().copy(), others
