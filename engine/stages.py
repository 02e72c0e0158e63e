"""The two stages: train (a PEP search or a baseline) and retrain a search's snapshots as lottery
tickets."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.store import Dataset
from engine import feature_counts, snapshots
from engine.darts import search_and_train
from engine.evaluate import measure, measure_test
from engine.initial_model import fresh_model, initial_values
from engine.pep.budgets import SaveAtBudgets
from engine.pep.clock import Unfold
from engine.pep.search_start import announce_pruning, check_start
from engine.pep.sparsity_trace import SparsityTrace
from engine.pep.threshold_trace import Clock, ThresholdTrace
from engine.run import Run, RunContext, Trainer, derive, execute, open_data
from engine.settings import PUBLISHED_PATIENCE, SNAPSHOT_DECIDES, Settings, parse
from models.base import ClickModel
from models.build import build_model, fresh_table
from models.embedding.masked import Masked
from models.pruned_tables import PrunedTables
from utils.files import atomic_path, sha256_of
from utils.recorded import translate

log = logging.getLogger("pep")

# of a search's run folder: how often each feature occurs in the training rows
POPULARITY = "popularity.npy"


def alias_folder(out: Path, settings: Settings, seed: int, alias: str | None) -> Path:
    """tmp/embedding/<model>/<alias>; the default alias names dataset, embedding, width and seed.

    A granularity other than feature_dim is named too, as the paper's budgets come from two
    searches, and so is the published protocol.
    """
    model = settings.model
    if alias is not None and (not alias or Path(alias).name != alias or alias in (".", "..")):
        raise ValueError(f"--alias must be a plain folder name, got {alias!r}")
    coarse = "" if model.threshold_type == "feature_dim" else f"_{model.threshold_type}"
    published = "_published" if settings.train.early_stop_metric == PUBLISHED_PATIENCE else ""
    default = f"{settings.data.dataset}_{model.embedding}{coarse}{published}_d{model.latent_dim}_seed{seed}"
    return out / "embedding" / model.model / (alias or default)


def train(settings: Settings, seed: int, context: RunContext) -> dict[str, Any]:
    """Train from scratch. With the PEP embedding this is the search, which leaves snapshots in its
    alias folder.

    A finished run is not run again; asked for under another alias, its snapshots are copied there.
    Counts of popularity that are read from a file enter the run's id by what they are, not by the
    file's name.

    Raises:
        ValueError: no budget lies within the table's size, the embedding is `masked`, or its
            popularity is unusable.
        FileExistsError: the alias folder belongs to another search.
    """
    if settings.model.embedding == "masked":
        raise ValueError("embedding 'masked' needs a snapshot's mask: use the retrain script")
    searching = settings.model.embedding == "pep" and settings.model.model != "linear"
    if searching and not settings.search.candidate_p:
        raise ValueError("candidate_p is empty: name at least one budget to search for")
    folder = alias_folder(context.out, settings, seed, context.alias)
    counts = feature_counts.given(settings.model)
    extra = {"popularity": sha256_of(counts.numpy().tobytes())[:16]} if counts is not None else {}
    dataset, _ = open_data(settings, context)
    if searching:
        return _search(Run(settings, seed, context, dataset, "search", {}), folder)
    run = Run(settings, seed, context, dataset, "train", extra)
    if settings.model.embedding == "darts" and settings.model.model != "linear":
        return search_and_train(run)
    return run.finished() or execute(run, fresh_model(run, counts), lambda trainer: [],
                                     lambda trainer: {},
                                     keep_best=True)


def _search(run: Run, folder: Path) -> dict[str, Any]:
    """Run a PEP search that leaves its snapshots in `folder`."""
    settings, context = run.settings, run.context
    targets = _usable_targets(settings, run.dataset)
    owner = {"run_id": run.run_id, "settings": settings.flat(), "seed": run.seed,
             "manifest": run.dataset.hash}
    result = run.finished()
    if result is not None and _copy_snapshots(result, folder, owner, context):
        log.info("the snapshots are in %s", folder)
        return result
    model = fresh_model(run)
    check_start(model.embedding, settings, targets)
    announce_pruning(model.embedding.weight, settings,
                     -(-run.dataset.counts[0] // settings.train.batch_size))
    model.embedding.fold()
    saver: list[SaveAtBudgets] = []
    counts = feature_counts.count(run.dataset)
    trajectory = SparsityTrace(model.embedding, counts, settings.train.eval_interval)
    trajectory.record(0)
    course = ThresholdTrace(model.embedding, Clock(settings), settings.train.eval_interval)
    course.record(0, 0)

    def hooks_for(trainer: Trainer) -> list:  # called when the run's lock is held
        snapshots.claim(folder, owner, context.overwrite, empty=context.force)
        _save_initial(folder, model, run.run_id)
        if not context.force:
            _bring_along(folder, run.run_id)
        saver.append(SaveAtBudgets(model.embedding, targets, settings.search.budget == "exact",
                                   lambda name, table,
                                   meta: _save(trainer, folder, name, table, meta)))
        # unfolded first: the others use the thresholds
        return [Unfold(model.embedding), *saver, trajectory, course]

    def finish(trainer: Trainer) -> dict[str, Any]:
        unmet = saver[0].finish(trainer.state)
        epoch = trainer.state.epoch + round(trainer.state.batch / trainer.loader.batches, 3)
        trajectory.record(epoch)
        course.record(epoch, trainer.state.step)
        with atomic_path(run.folder / POPULARITY) as temporary, temporary.open("wb") as file:
            np.save(file, counts.numpy())
        return {"alias": folder.name, "budgets_not_reached": unmet,
                "differing": saver[0].differing, "snapshots": snapshots.names(folder),
                "sparsity": trajectory.result(), "thresholds": course.result()}

    return execute(run, model, hooks_for, finish, keep_best=False)


def retrain(settings: Settings, seed: int, context: RunContext,
            explicit: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """Retrain the snapshots that `retrain_emb_param` names; one result each, most parameters first.

    Model and data settings come from the search that made the snapshots. `explicit` names those
    that the user set by
    hand: one that contradicts the search is an error.

    Raises:
        FileNotFoundError: no such alias folder or snapshot; the existing ones are listed.
        ValueError: a snapshot is corrupt, was made from other data, or contradicts an explicit
            setting.
    """
    folder = alias_folder(context.out, settings, seed, context.alias)
    owner = snapshots.owner_of(folder)
    if owner is None:
        near = sorted(path.parent.name for path in folder.parent.glob("*/search.json"))
        raise FileNotFoundError(f"there is no search in {folder}; run the search first, or name "
                                f"one with --alias (in {folder.parent} there are: "
                                f"{', '.join(near) or 'none'})")
    settings = _as_searched(settings, owner, explicit)
    wanted = snapshots.resolve(folder, settings.retrain.retrain_emb_param)
    tickets = {name: snapshots.read(folder / f"{name}.npz")[0] for name in wanted}
    initial, others = snapshots.read(folder / f"{snapshots.INITIAL}.npz")
    dataset, _ = open_data(settings, context)
    if owner["manifest"] != dataset.hash:
        raise ValueError(f"the snapshots in {folder} were made from other data (manifest "
                         f"{owner['manifest']}, this is {dataset.hash}); use the same raw files, "
                         f"or run the search again")
    return [retrain_one(settings, seed, context, dataset, ticket, initial.table, others)
            for ticket in tickets.values()]


def retrain_one(settings: Settings, seed: int, context: RunContext, dataset: Dataset,
                ticket: PrunedTables,
                initial: np.ndarray, others: dict[str, np.ndarray]) -> dict[str, Any]:
    """Train under a snapshot's mask, from `initial` (N, D) or fresh values; a finished run is not
    run again.

    Args:
        others: initial values of all other parameters, for rewind="all".
    """
    sizes, values = dataset.schema.sizes, settings.flat()
    extra = {"mask": snapshots.mask_hash(ticket)}
    if settings.retrain.re_init:
        generator = torch.Generator().manual_seed(derive(seed, "re_init"))
        start = fresh_table(initial.shape[0], initial.shape[1], sizes, values, generator)
    else:
        start = torch.from_numpy(initial)
        extra["initial"] = sha256_of(initial.tobytes())[:16]
    run = Run(settings, seed, context, dataset, "retrain", extra)
    if (result := run.finished()) is not None:
        return result
    embedding = Masked(start, torch.from_numpy(ticket.table != 0), len(sizes))
    model = build_model(sizes, values, derive(seed, "retrain:model"), embedding, dataset.num_dense)
    if settings.retrain.rewind == "all":
        model.load_state_dict({name: torch.from_numpy(value) for name, value in others.items()},
                              strict=False)
    return execute(run, model, lambda trainer: [], lambda trainer: {"snapshot": ticket.meta},
                   keep_best=True)


def _usable_targets(settings: Settings, dataset: Dataset) -> tuple[int, ...]:
    targets, size = settings.search.candidate_p, dataset.schema.num_rows * settings.model.latent_dim
    usable = tuple(target for target in targets if target <= size)
    if not usable:
        raise ValueError(f"no budget of candidate_p {list(targets)} lies within the table's {size} "
                         f"parameters")
    if len(usable) < len(targets):
        log.warning("budgets above the table's %d parameters are skipped: %s", size,
                    [target for target in targets if target > size])
    return usable


def _save_initial(folder: Path, model: ClickModel, run_id: str) -> None:
    initial, others = initial_values(model)  # taken before the first step
    snapshots.save(folder, snapshots.INITIAL, initial, {"run_id": run_id}, **others)


def _bring_along(folder: Path, run_id: str) -> None:
    """Copy what the same search, stopped, had saved under another alias: resumed, it will not save
    those again."""
    for record in folder.parent.glob("*/search.json"):
        owner = snapshots.owner_of(record.parent)
        if record.parent != folder and owner is not None and owner["run_id"] == run_id:
            for name in snapshots.names(record.parent):
                shutil.copyfile(record.parent / f"{name}.npz", folder / f"{name}.npz")


def _save(trainer: Trainer, folder: Path, name: str, table: np.ndarray,
          meta: dict[str, Any]) -> None:
    """Save a snapshot with what its table scores in the search's own model, before any
    retraining."""
    searched = trainer.model.embedding
    trainer.model.embedding = Masked.of_table(torch.from_numpy(table),
                                              searched.num_fields).to(trainer.device)
    try:
        validation = measure(trainer.model, trainer.validation)
        test = measure_test(trainer.model, trainer.test, trainer.loader.batch_size)
    finally:
        trainer.model.embedding = searched
    scores = {"validation_auc": validation.auc, "validation_logloss": validation.logloss, **test}
    snapshots.save(folder, name, table,
                   {**meta, "run_id": trainer.run.run_id, "without_retraining": scores})


def _copy_snapshots(result: dict[str, Any], folder: Path, owner: dict[str, Any],
                    context: RunContext) -> bool:
    """Have a finished search's snapshots in `folder`; False when they are gone and the search must
    run again."""
    source = folder.parent / result["alias"]
    holder = snapshots.owner_of(source)
    files = [f"{name}.npz" for name in (snapshots.INITIAL, *result["snapshots"])]
    if holder is None or holder["run_id"] != owner["run_id"] or not all((source / file).exists()
                                                                        for file in files):
        log.warning("run %s is finished, but its snapshots are no longer in %s: searching again",
                    owner["run_id"],
                    source)
        return False
    if folder != source:
        snapshots.claim(folder, owner, context.overwrite)
        for file in files:
            shutil.copyfile(source / file, folder / file)
    return True


def _as_searched(settings: Settings, owner: dict[str, Any], explicit: frozenset[str]) -> Settings:
    """The settings with model and data as in the search."""
    flat = settings.flat()
    searched = parse(translate(owner["settings"])).flat()
    if "embedding" in explicit and flat["embedding"] != searched["embedding"]:
        raise ValueError(f"embedding={flat['embedding']!r} was given, but the snapshot was made "
                         f"with {searched['embedding']!r}; leave embedding away, or run another "
                         f"search")
    for name in SNAPSHOT_DECIDES:
        if name in explicit and flat[name] != searched[name]:
            raise ValueError(f"{name}={flat[name]!r} was given, but the snapshot was made with "
                             f"{searched[name]!r}; leave {name} away, or run another search")
        flat[name] = searched[name]
    kept = parse(flat)
    return replace(kept, model=replace(kept.model, embedding="masked"))
