"""Pruning after training: a trained uniform table is cut at budgets, and the cuts become ordinary
snapshots."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compression.loaded_run import find_result, run_again, weights_of
from data.store import Dataset
from engine import snapshots
from engine.initial_model import fresh_model, initial_values
from engine.run import Run, RunContext
from engine.settings import Settings, parse
from engine.stages import alias_folder, retrain_one
from utils.recorded import translate

log = logging.getLogger("pep")


@dataclass(frozen=True)
class LoadedTable:
    """A finished training of a uniform table, with the values that it started from."""

    run: Run
    table: np.ndarray  # (N, D), as validation chose it
    initial: np.ndarray  # V0 (N, D)
    others: dict[str, np.ndarray]  # initial values of all other parameters and buffers, by name

    @property
    def settings(self) -> Settings:
        """Of the training."""
        return self.run.settings

    @property
    def dataset(self) -> Dataset:
        """Its rows."""
        return self.run.dataset

    def check(self, budgets: Sequence[int]) -> None:
        """Raise ValueError unless each budget lies within the table."""
        wrong = [budget for budget in budgets if not 0 < budget <= self.table.size]
        if wrong or not budgets:
            raise ValueError(f"a budget must lie between 1 and the table's {self.table.size} "
                             f"parameters, got {list(wrong) or 'none'}")


def load_trained(run_id: str, context: RunContext) -> LoadedTable:
    """Find a run by its id, or the beginning of it, and read what it has trained.

    Raises:
        FileNotFoundError: no such run, or it kept no weights.
        ValueError: several runs begin so, it is no training of a uniform table, or the data have
            changed.
    """
    result = find_result(run_id, context)
    settings = parse(translate(result["settings"]))
    kind = settings.scheme
    if result["stage"] != "train" or kind != "uniform":
        raise ValueError(f"run {result['run_id']} is a {result['stage']} with embedding {kind}; "
                         "only a trained uniform table can be pruned. Train one with --embedding "
                         "uniform and name its run")
    run = run_again(result, context)
    model = fresh_model(run)
    initial, others = initial_values(model)
    table = _table_of(run.folder.parent / result["run_id"])
    return LoadedTable(run, table, initial, others)


def prune(trained: LoadedTable, method: str, tables: dict[int, np.ndarray], context: RunContext,
          how: str = "") -> Path:
    """Write the pruned tables, by budget, as snapshots into the method's alias folder; returns the
    folder.

    At a dry place nothing is written.

    Args:
        how: what sets these tables apart from the method's usual ones of this run; it is kept with
            them.

    Raises:
        FileExistsError: the folder belongs to another run, or has another table at one of the
            budgets.
    """
    run = trained.run
    default = f"{trained.settings.data.dataset}_{method}_d{trained.settings.model.latent_dim}_seed{run.seed}"
    folder = alias_folder(context.out, trained.settings, run.seed, context.alias or default)
    if context.dry:
        return folder
    owner = {"run_id": f"{run.run_id}-{method}", "settings": trained.settings.flat(),
             "seed": run.seed,
             "manifest": run.dataset.hash}
    snapshots.claim(folder, owner, context.overwrite)
    for path in (folder / f"{budget}.npz" for budget in tables) if not context.overwrite else ():
        if path.exists() and not np.array_equal(snapshots.read(path)[0].table,
                                                tables[int(path.stem)]):
            raise FileExistsError(f"{path} holds another table, of other options or drawn beside "
                                  "other budgets; choose another --alias, or give --overwrite to "
                                  "replace it")
    snapshots.save(folder, snapshots.INITIAL, trained.initial, {"run_id": run.run_id},
                   **trained.others)
    for budget, table in tables.items():
        snapshots.save(
            folder,
            str(budget),
            table,
            {
                "source": method,
                "budgets": [budget],
                "run_id": run.run_id,
                "num_embedding_params": int(np.count_nonzero(table)),
                **({"how": how} if how else {}),
            },
        )
    return folder


def by_magnitude(trained: LoadedTable, budgets: Sequence[int]) -> dict[int, np.ndarray]:
    """One-shot magnitude pruning: the entries of the trained table with the largest |V|."""
    trained.check(budgets)
    return {budget: snapshots.cut_to(trained.table, np.abs(trained.table), budget)
            for budget in budgets}


def iteratively(trained: LoadedTable, budgets: Sequence[int], keep: float,
                context: RunContext) -> dict[int, np.ndarray]:
    """Iterative magnitude pruning (Frankle & Carbin 2019): keep a share, rewind every weight,
    train, repeat.

    Each round is a retraining like any ticket's, under the run's own settings: finished rounds are
    not run again. A budget is cut from the last round above it, so that one descent serves them
    all.

    Args:
        keep: share of the entries that a round leaves, between 0 and 1.
    """
    trained.check(budgets)
    if not 0 < keep < 1:
        raise ValueError(f"the share that a round keeps must lie between 0 and 1, got {keep}")
    settings = parse({**trained.settings.flat(), "embedding": "masked", "rewind": "all",
                      "re_init": False, "retrain_emb_param": "all"})
    table, tables, round_number = trained.table, {}, 0
    for budget in sorted(budgets, reverse=True):
        while np.count_nonzero(table) * keep > budget:
            round_number += 1
            count = int(np.count_nonzero(table) * keep)
            log.info("round %d: %d parameters", round_number, count)
            cut = snapshots.cut_to(table, np.abs(table), count)
            ticket = snapshots.Snapshot(cut, {"source": "imp_round", "round": round_number,
                                              "run_id": trained.run.run_id, "budgets": [count]})
            result = retrain_one(settings, trained.run.seed, context, trained.dataset, ticket,
                                 trained.initial,
                                 trained.others)
            table = _table_of(trained.run.folder.parent / result["run_id"])
        tables[budget] = snapshots.cut_to(table, np.abs(table), budget)
    return tables


def _table_of(folder: Path) -> np.ndarray:
    """The trained table (N, D) of a run, zero outside its mask where it has one."""
    weights = weights_of(folder)
    table = weights["embedding.weight"].numpy()
    mask = weights.get("embedding.mask")
    return table * mask.numpy() if mask is not None else table
