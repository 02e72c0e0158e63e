"""Any finished run with its trained model: a baseline, a retrained ticket, a compressed model."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compression.afm.structure import empty_like
from compression.loaded_run import (
    find_result,
    load_model,
    model_of,
    run_of_record,
    weights_of,
    with_weights,
)
from compression.lowbit import schemes
from compression.lowbit.start import start_of
from compression.waterline.shape import ORDER, PACKED
from engine.run import ALGORITHM_VERSION, Run, RunContext
from models.base import ClickModel
from models.build import build_model
from models.dlrm import DLRM, Layers
from models.embedding.per_field import PerField
from models.embedding.uniform import Uniform
from models.kernels.quantise import quantise
from models.packed_table import PackedTable
from models.packed_table import load as load_packed

STAGES = ("train", "retrain", "finetune", "quantise")


@dataclass(frozen=True)
class TrainedModel:
    """A finished run.

    Args:
        run: with its data.
        model: as validation chose it, in evaluation mode.
        result: the run's record.
        packed: the table as the water line has packed it, and where each id stands in it, (N,).
    """

    run: Run
    model: ClickModel
    result: dict[str, Any]
    packed: tuple[PackedTable, np.ndarray] | None = None


def load_trained(run_id: str, context: RunContext) -> TrainedModel:
    """A finished run by its id, or the beginning of it; its folder is only read.

    Raises:
        FileNotFoundError: there is no such finished run, it kept no weights, or its data are not
            there.
        ValueError: it is a search, which has nothing to serve; it was made by another version of
            this code; or its data have changed.
    """
    result = find_result(run_id, context)
    name = f"run {result['run_id']}"
    version = result["identity"].get("algorithm_version")
    if version != ALGORITHM_VERSION:
        raise ValueError(f"{name} was made by another version of this code (version {version}, "
                         f"this is {ALGORITHM_VERSION}), which would build another model; export "
                         "it with that version, or train it again with --force")
    if result["stage"] not in STAGES:
        raise ValueError(f"{name} is a {result['stage']}, which has no model to serve; export a "
                         "retraining of its snapshots, a baseline or a compressed model")
    # a compressed model that was only measured has 0 epochs, which no training may have
    epochs = max(result["settings"]["max_epochs"], 1)
    run = run_of_record({**result, "settings": {**result["settings"], "max_epochs": epochs}},
                        context)
    weights = weights_of(context.out / "runs" / result["run_id"])
    if result["stage"] in ("train", "retrain"):
        model, packed = model_of(run, result, weights), None
    else:
        model, packed = _compressed(run, result, weights, context)
    model = with_weights(model, weights, result["run_id"])
    return TrainedModel(run, _with_plain_table(model), result, packed)


def _compressed(run: Run, result: dict[str, Any], weights: dict[str, Tensor],
                context: RunContext) -> tuple[Any, tuple[PackedTable, np.ndarray] | None]:
    """A model of the shape that a compression gave; its values mean nothing."""
    made = result["compression"]
    if "base" in made:  # UMEC and its baselines
        return _shrunk(run, result, weights), None
    if made.get("method") == "lowbit":
        scheme = schemes.of_record(made)
        return schemes.make(schemes.load(made["source"], scheme, context), scheme)[0], None
    loaded = load_model(made["source"], context)
    source = loaded.model
    if "structure" in made:
        return empty_like(source, made["structure"], run.dataset.schema.sizes), None
    if "embedding.quantiser.step" in weights:
        model: Any = copy.deepcopy(source) if "width" not in made else start_of(
            loaded, False, np.arange(made["width"])).model
        model.embedding = _Levels(weights, run.dataset.schema.num_fields)
        folder = context.out / "runs" / result["run_id"]
        if not (folder / PACKED).exists():
            return model, None
        order = np.load(folder / ORDER, allow_pickle=False)
        return model, (load_packed(folder / PACKED), order)
    if made.get("method") != "dense":
        raise ValueError(f"run {result['run_id']} was made by {made.get('method')}, of which there "
                         "is no exported form yet; add one to serving/runs.py")
    return copy.deepcopy(source), None


def _shrunk(run: Run, result: dict[str, Any], weights: dict[str, Tensor]) -> DLRM:
    """A DLRM without fields, columns and neurons: all sizes stand in its weights, but for the
    widths of fields."""
    settings, sizes = run.settings, run.dataset.schema.sizes
    whole: Any = build_model(sizes, settings.flat(), 0, Uniform(torch.zeros(
        sum(sizes), settings.model.latent_dim), len(sizes)), run.dataset.num_dense)
    widths = result["compression"]["widths"]
    # which columns they are is all one to a model that reads them side by side
    kept = [tuple(range(widths[field])) for field in run.dataset.schema.fields]
    whole.embedding = PerField(torch.zeros(sum(sizes), settings.model.latent_dim), sizes, kept)
    whole.top, whole.bottom = _layers(weights, "top"), _layers(weights, "bottom")
    whole.num_dense = whole.num_dense if len(whole.bottom) else 0
    return whole


def _layers(weights: dict[str, Tensor], name: str) -> Layers:
    made = Layers()
    while (weight := weights.get(f"{name}.{len(made)}.weight")) is not None:
        made.append(nn.Linear(weight.shape[1], weight.shape[0]))
    return made


class _Levels(nn.Module):
    """The parameters of a quantised table."""

    quantiser: Any

    def __init__(self, weights: dict[str, Tensor], num_fields: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights["embedding.weight"].clone())
        self.quantiser = nn.Module()
        for name in ("step", "bound"):
            self.quantiser.register_buffer(name, weights[f"embedding.quantiser.{name}"].clone())
        self.num_fields = num_fields


@torch.no_grad()
def _with_plain_table(model: Any) -> ClickModel:
    """The model with a quantised table as the plain table of its levels."""
    if isinstance(model.embedding, _Levels):
        own = model.embedding
        levels = quantise(own.weight, own.quantiser.step, own.quantiser.bound)
        model.embedding = Uniform(levels, own.num_fields)
    return model.eval()
