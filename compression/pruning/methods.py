"""Pruning after training: a trained uniform table is cut at budgets, and the cuts become ordinary
snapshots."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compression.loaded_run import LoadedRun, weights_of
from engine import snapshots
from engine.run import RunContext
from engine.settings import parse
from engine.stages import alias_folder, retrain_one

log = logging.getLogger("pep")


def check_budgets(trained: LoadedRun, budgets: Sequence[int]) -> None:
    """Raise ValueError unless there is a budget, and each lies within the table."""
    size = trained.table.size
    wrong = [budget for budget in budgets if not 0 < budget <= size]
    if wrong or not budgets:
        raise ValueError(f"a budget must lie between 1 and the table's {size} parameters, got "
                         f"{wrong or 'none'}")


def prune(trained: LoadedRun, method: str, tables: dict[int, np.ndarray], context: RunContext,
          how: str = "") -> Path:
    """Write the pruned tables, by budget, as snapshots into the method's alias folder; returns the
    folder.

    In a dry run nothing is written.

    Args:
        how: options that change these tables against the method's defaults; kept with them.

    Raises:
        FileExistsError: the folder belongs to another run, or has another table at one of the
            budgets.
    """
    run, settings = trained.run, trained.settings
    folder, run_id = _folder_of(trained, method, context)
    if context.dry_run:
        return folder
    owner = {"run_id": run_id, "settings": settings.flat(), "seed": run.seed,
             "manifest": run.dataset.hash, "values_hash": run.dataset.values_hash}
    snapshots.claim(folder, owner, context.overwrite)
    if not context.overwrite:
        for budget, table in tables.items():
            _refuse_another(folder / f"{budget}.npz", table)
    initial, others = trained.initial
    snapshots.save(folder, snapshots.INITIAL, initial, {"run_id": run.run_id}, **others)
    for budget, table in tables.items():
        meta = {"source": method, "budgets": [budget], "run_id": run.run_id,
                "num_embedding_params": int(np.count_nonzero(table))}
        if how:
            meta["how"] = how
        snapshots.save(folder, str(budget), table, meta)
    return folder


def refuse_taken(trained: LoadedRun, method: str, budgets: Sequence[int], context: RunContext,
                 how: str) -> None:
    """Raise FileExistsError where the alias folder is another run's or has tables of other options.

    `prune` refuses the same, but after the tables were made, which may have taken trainings.
    """
    folder, run_id = _folder_of(trained, method, context)
    if context.overwrite or context.dry_run:
        return
    snapshots.require_own(folder, run_id)
    for path in (folder / f"{budget}.npz" for budget in budgets):
        if path.exists() and snapshots.read(path)[0].meta.get("how", "") != how:
            raise _another(path)


def _folder_of(trained: LoadedRun, method: str, context: RunContext) -> tuple[Path, str]:
    """The method's alias folder, and the id of the run that it belongs to."""
    run, settings = trained.run, trained.settings
    default = (f"{settings.data.dataset}_{method}_d{settings.model.latent_dim}_"
               f"seed{run.seed}")
    folder = alias_folder(context.out, settings, run.seed, context.alias or default)
    return folder, f"{run.run_id}-{method}"


def _refuse_another(path: Path, table: np.ndarray) -> None:
    """Raise FileExistsError where a snapshot exists and holds another table."""
    if path.exists() and not np.array_equal(snapshots.read(path)[0].table, table):
        raise _another(path)


def _another(path: Path) -> FileExistsError:
    return FileExistsError(f"{path} holds another table, of other options or drawn beside other "
                           "budgets; choose another --alias, or give --overwrite to replace it")


def by_magnitude(trained: LoadedRun, budgets: Sequence[int]) -> dict[int, np.ndarray]:
    """One-shot magnitude pruning: the entries of the trained table with the largest |V|."""
    check_budgets(trained, budgets)
    table = trained.table
    return {budget: snapshots.cut_to(table, np.abs(table), budget) for budget in budgets}


def iteratively(trained: LoadedRun, budgets: Sequence[int], keep: float,
                context: RunContext) -> dict[int, np.ndarray]:
    """Iterative magnitude pruning (Frankle & Carbin 2019): keep a share, rewind every weight,
    train, repeat.

    Each round is a retraining like any ticket's, with the run's own settings; finished rounds are
    not run again. A budget is cut from the last round above it, so that one descent serves all.

    Args:
        keep: share of the entries that a round leaves, between 0 and 1.
    """
    check_budgets(trained, budgets)
    if not 0 < keep < 1:
        raise ValueError(f"the share that a round keeps must lie between 0 and 1, got {keep}")
    settings = parse({**trained.settings.flat(), "embedding": "masked", "rewind": "all",
                      "re_init": False, "retrain_emb_param": "all"})
    initial, others = trained.initial
    table, tables, round_number = trained.table, {}, 0
    for budget in sorted(budgets, reverse=True):
        while np.count_nonzero(table) * keep > budget:
            round_number += 1
            count = int(np.count_nonzero(table) * keep)
            log.info("round %d: %d parameters", round_number, count)
            ticket = snapshots.pruned_table(
                snapshots.cut_to(table, np.abs(table), count),
                {"source": "imp_round", "round": round_number, "run_id": trained.run.run_id,
                 "budgets": [count]})
            result = retrain_one(settings, trained.run.seed, context, trained.dataset, ticket,
                                 initial, others)
            weights = weights_of(trained.run.folder.parent / result["run_id"])
            table = (weights["embedding.weight"] * weights["embedding.mask"]).numpy()
        tables[budget] = snapshots.cut_to(table, np.abs(table), budget)
    return tables
