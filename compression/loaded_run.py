"""Finished trainings that are loaded again: their records, their data, their models."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.store import Dataset
from engine import darts
from engine.checkpoint import load_checkpoint
from engine.initial_model import fresh_model, initial_values
from engine.run import WEIGHTS, Run, RunContext, open_data, read_result
from engine.settings import Settings, parse
from models.base import ClickModel
from models.build import build_mixed, build_model
from models.embedding.masked import Masked
from utils.files import folders_that_begin
from utils.recorded import shipped_words, translate


@dataclass(frozen=True)
class LoadedRun:
    """A finished training: its run, and its model as validation chose it."""

    run: Run
    model: ClickModel  # in evaluation mode
    run_id: str
    weights_bytes: int  # of its file
    epochs: int

    @property
    def settings(self) -> Settings:
        """Of the training."""
        return self.run.settings

    @property
    def dataset(self) -> Dataset:
        """Its rows."""
        return self.run.dataset

    @property
    def folder(self) -> Path:
        """Where the run's files are."""
        return self.run.context.out / "runs" / self.run_id

    @property
    def table(self) -> np.ndarray:
        """The trained table (N, D)."""
        return self.model.embedding.table().cpu().numpy()

    def with_one_value_a_field(self, method: str) -> "LoadedRun":
        """This run; a ValueError where a column of its data has several values in a cell.

        Args:
            method: that cannot do with it.
        """
        if self.dataset.schema.has_slots:
            raise ValueError(f"run {self.run_id} has a column with several values in a cell "
                             f"(multi), which {method} does not know; prune it (compress.py "
                             "magnitude), or train one without that column")
        return self

    @cached_property
    def initial(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """V0 (N, D) of a model of one table, and the initial values of all other parameters and
        buffers, by name."""
        return initial_values(fresh_model(self.run))


def find_result(run_id: str, context: RunContext) -> dict[str, Any]:
    """The record of a run by its id, or the beginning of it.

    Raises:
        FileNotFoundError: no such finished run.
        ValueError: no id, or several runs begin so, or the record is corrupt.
    """
    if not run_id:
        raise ValueError("the run's id is empty: name it, or its start")
    begun = folders_that_begin(context.out / "runs", run_id)
    found = [path for folder in begun if (path := folder / "result.json").exists()]
    if not found:
        if begun:
            raise FileNotFoundError(f"run {begun[0].name} is not finished (there is no result.json "
                                    f"in {begun[0]}); start its script again, which goes on where "
                                    "it was")
        raise FileNotFoundError(f"there is no finished run {run_id!r} in {context.out / 'runs'}."
                                f"{shipped_words(run_id)}")
    if len(found) > 1:
        raise ValueError(f"several runs begin with {run_id!r}: "
                         f"{', '.join(path.parent.name for path in found)}")
    return read_result(found[0])


def run_of_record(result: dict[str, Any], context: RunContext) -> Run:
    """The run of a record, with its data.

    Raises:
        ValueError: the data have changed since.
    """
    settings = parse(translate(result["settings"]))
    dataset, _ = open_data(settings, context, wanted=result)
    if other := dataset.other_than(result):
        raise ValueError(f"run {result['run_id']} was trained on other data ({other}); use the "
                         "same raw files")
    return Run(settings, result["seed"], context, dataset, result["stage"],
               result["identity"]["extra"])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The trained values of a run, by name.

    Raises:
        FileNotFoundError: it kept no weights.
    """
    path = folder / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"run {folder.name} has kept no weights ({path}); run it again "
                                f"with --force; `reproduce.py`, which has none, does so once "
                                f"{folder} is deleted")
    return load_checkpoint(path)["model"]


def model_of(run: Run, result: dict[str, Any], weights: dict[str, torch.Tensor]) -> ClickModel:
    """A model of the shape of a training or retraining; its values mean nothing.

    Raises:
        FileNotFoundError: it is DartsEmb's, and the widths that its search chose are gone.
        ValueError: they are corrupt.
    """
    sizes, settings = run.dataset.schema.sizes, run.settings
    embedding: Any
    if "embedding.mask" in weights:
        embedding = Masked(weights["embedding.weight"], weights["embedding.mask"] != 0, len(sizes))
    elif "search" in result:  # of DartsEmb
        path = run.context.out / "runs" / result["search"] / darts.CHOICE
        if not path.exists():
            raise FileNotFoundError(f"run {result['run_id']} has the widths that the search "
                                    f"{result['search']} chose, and {path} is gone; run it again "
                                    "with --force")
        widths = torch.from_numpy(darts.read_choice(path))
        embedding = build_mixed(widths, settings.embedding.darts_widths, sizes, 0)
    else:
        return fresh_model(run)
    return build_model(sizes, settings.flat(), 0, embedding, run.dataset.num_dense)


def with_weights(model: Any, weights: dict[str, torch.Tensor], run_id: str) -> Any:
    """The model with a run's weights; a ValueError where they are those of another model."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"run {run_id} has the weights of another model than its record says "
                         f"({error}); run it again with --force") from error
    return model


def load_model(run_id: str, context: RunContext) -> LoadedRun:
    """A trained baseline or a retrained ticket, with its weights; its folder is only read.

    Raises:
        FileNotFoundError: no such run, or it kept no weights.
        ValueError: it is neither; it has no embedding or DartsEmb's; its data have changed; or its
            weights are those of another model.
    """
    result = find_result(run_id, context)
    if result["stage"] not in ("train", "retrain") or result["settings"]["model"] == "linear":
        raise ValueError(f"run {result['run_id']} is a {result['stage']} of "
                         f"{result['settings']['model']}; only a trained or retrained model with "
                         f"an embedding can be made smaller")
    if result["settings"]["embedding"] == "darts":
        raise ValueError(f"run {result['run_id']} is DartsEmb's: its table of mixed widths cannot "
                         f"be made smaller")
    run = run_of_record(result, context)
    path = context.out / "runs" / result["run_id"] / WEIGHTS
    weights = weights_of(path.parent)
    model = with_weights(model_of(run, result, weights), weights, result["run_id"])
    return LoadedRun(run, model.eval(), result["run_id"], path.stat().st_size, result["epochs"])


def load_uniform(run_id: str, context: RunContext) -> LoadedRun:
    """A training of one uniform table, which can be pruned.

    Raises:
        FileNotFoundError: no such run, or it kept no weights.
        ValueError: it is another training; or as `load_model`.
    """
    result = find_result(run_id, context)
    kind = parse(translate(result["settings"])).scheme
    if result["stage"] != "train" or kind != "uniform":
        raise ValueError(f"run {result['run_id']} is a {result['stage']} with embedding {kind}; "
                         "only a trained uniform table can be pruned. Train one with --embedding "
                         "uniform and name its run")
    return load_model(result["run_id"], context)
