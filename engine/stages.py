"""The two stages: train (a PEP search or a baseline) and retrain a search's snapshots as lottery
tickets."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data import feature_counts
from data.store import Dataset
from engine import snapshots
from engine.checkpoint import load_checkpoint
from engine.darts import search_and_train
from engine.distributed import launch
from engine.distributed.order import own_rows
from engine.initial_model import fresh_model, initial_values
from engine.loop import Hook
from engine.pep.budgets import SaveAtBudgets
from engine.pep.search_start import announce_pruning, check_start, start_by_rule
from engine.pep.sparsity_trace import SparsityTrace
from engine.pep.threshold_trace import DecayOnlyThreshold, ThresholdTrace
from engine.run import WEIGHTS, Run, RunContext, derive, open_data
from engine.settings import (
    CONSTANT,
    MASKED,
    PEP,
    PUBLISHED_PATIENCE,
    Settings,
    identity,
    known_settings,
    parse,
    snapshot_decides,
)
from engine.trainer import Trainer, execute
from models.build import build_model, empty_in, fresh_table
from models.embedding.masked import Masked
from models.embedding.pep import AUTO
from models.pruned_tables import PrunedTables
from utils.files import atomic_path, copy_file, sha256_of
from utils.recorded import shipped_words, translate

log = logging.getLogger("pep")

# in a search's run folder: how often each feature occurs in the training rows
FEATURE_COUNTS = "feature_counts.npy"
TABLE = "embedding.weight"  # of a model whose embedding is one table


# what the default alias names by itself
NAMED = ("dataset", "model", "embedding", "latent_dim", "threshold_type")
# and of how an own table is read, which a run's id holds as the hash of the data
OF_TABLES = ("fields", "dense", "bucket", "dates", "multi", "min_count", "ignore", "positive")
LONGEST = 90  # characters of changed settings in an alias; more become a hash


def default_alias(settings: Settings, seed: int, usual: Settings | None = None) -> str:
    """The name of a search's folder of snapshots: data set, embedding, width and seed.

    A granularity other than feature_dim is named too, as the paper's budgets come from two
    searches, and so is the published protocol. With `usual`, so is every other setting in which
    the search departs from it, so that a trial does not take the folder of another one.

    >>> usual = parse({"threshold_init": -15.0})
    >>> default_alias(parse({"threshold_init": -8.0}), 1, usual), default_alias(usual, 1, usual)
    ('movielens_pep_threshold_init_-8.0_d64_seed1', 'movielens_pep_d64_seed1')
    """
    model, kind = settings.model, settings.own[PEP].threshold_type
    parts = [settings.data.dataset, model.embedding]
    if kind != "feature_dim":
        parts.append(kind)
    if settings.train.early_stop_metric == PUBLISHED_PATIENCE:
        parts.append("published")
    changed = [] if usual is None else _departures(settings, usual)
    if len("_".join(changed)) > LONGEST:
        changed = ["changed", sha256_of(*changed)[:10]]
    return "_".join([*parts, *changed, f"d{model.latent_dim}", f"seed{seed}"])


def _departures(settings: Settings, usual: Settings) -> list[str]:
    """`name_value` of each setting that makes this another run than one with the usual settings."""
    own, others = (json.loads(identity(each)) for each in (settings, usual))
    values = settings.flat() | {"weight_decay": settings.train.decay_of_others}
    changed = []
    for name, known in sorted(known_settings().items()):
        in_id = known.rules["id_name"] or name
        if name not in NAMED and own.get(in_id) != others.get(in_id):
            value = values[name]
            if (name, value) != ("early_stop_metric", PUBLISHED_PATIENCE):  # which is named
                changed.append(f"{name}_{_as_name(value)}")
    changed += [f"{name}_{_as_name(value)}" for name in OF_TABLES
                if (value := getattr(settings.table, name)) != getattr(usual.table, name)]
    if settings.data.split != usual.data.split:
        changed.append(f"split_{Path(settings.data.split).stem.replace(':', '-')}")
    return changed


def _as_name(value: Any) -> str:
    """A setting's value as a part of a folder's name.

    >>> _as_name((9000, 400)), _as_name(-8.0), _as_name({"when": ("hour",)})
    ('9000-400', '-8.0', 'when-hour')
    """
    text = "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text.strip("{}[](),'\" "))


def _listed(value: Any) -> Any:
    """A tuple as --set takes it."""
    return list(value) if isinstance(value, tuple) else value


def alias_folder(out: Path, settings: Settings, seed: int, alias: str | None) -> Path:
    """tmp/embedding/<model>/<alias>; without an alias, that of `default_alias`."""
    if alias is not None and (not alias or Path(alias).name != alias or alias in (".", "..")
                              or alias.startswith("-")):
        raise ValueError(f"--alias must be a plain folder name, got {alias!r}")
    return out / "embedding" / settings.model.model / (alias or default_alias(settings, seed))


def train(settings: Settings, seed: int, context: RunContext) -> dict[str, Any]:
    """Train from scratch. With the PEP embedding this is the search, which leaves snapshots in its
    alias folder.

    A finished run is not run again. If it is called with another alias, the snapshots of the
    finished search are copied to that folder.

    Raises:
        ValueError: no budget lies within the table's size, the embedding is `masked`, or a search
            has an average of its weights or a schedule of its learning rate.
        FileExistsError: the alias folder belongs to another search.
    """
    if settings.model.embedding == MASKED:
        raise ValueError("embedding 'masked' needs a snapshot's mask: use the retrain script")
    searching = settings.scheme == PEP
    if searching and not settings.search.candidate_p:
        raise ValueError("candidate_p is empty: name at least one budget to search for")
    if searching and (settings.train.ema or settings.train.lr_schedule != CONSTANT):
        raise ValueError(f"a search takes ema 0 and lr_schedule {CONSTANT}, as its thresholds move "
                         f"by about lr at each step and its snapshots are of the weights "
                         f"themselves; got ema {settings.train.ema:g} and lr_schedule "
                         f"{settings.train.lr_schedule}. Give both to the retraining instead")
    folder = alias_folder(context.out, settings, seed, context.alias)
    dataset, _ = open_data(settings, context)
    if searching:
        if settings.embedding.threshold_init == AUTO:
            settings = _with_start(settings, seed, context, dataset)
        return _search(Run(settings, seed, context, dataset, "search", {}), folder)
    run = Run(settings, seed, context, dataset, "train", {})
    if settings.scheme == "darts":
        return search_and_train(run)
    if (result := run.finished()) is not None:
        return result
    return execute(run, fresh_model(run), lambda trainer: [], lambda trainer: {}, keep_best=True)


def _with_start(settings: Settings, seed: int, context: RunContext, dataset: Dataset) -> Settings:
    """The settings with a number for threshold_init="auto", by `start_by_rule`; a uniform table
    with the same settings is trained first, unless its run is finished."""
    dense = parse({**settings.flat(), "embedding": "uniform"})
    launch.refuse(f"threshold_init={AUTO}")
    log.info("threshold_init=auto: the start is read off a uniform table with the same settings")
    result = train(dense, seed, replace(context, alias=None))
    weights = context.out / "runs" / result["run_id"] / WEIGHTS
    if not weights.exists():
        raise FileNotFoundError(f"threshold_init=auto needs {weights}, which is gone; train it "
                                f"again: --embedding uniform --force")
    trained = load_checkpoint(weights)["model"]["embedding.weight"]
    batches = -(-dataset.counts[0] // settings.train.batch_size)
    settings = parse({**settings.flat(), "threshold_init": 0.0})  # a number, to build V0
    initial = fresh_model(Run(settings, seed, context, dataset, "search", {})).embedding.weight
    start = start_by_rule(initial, trained, result["selected_epoch"] * batches, settings,
                          max(_usable_targets(settings, dataset)))
    log.info("threshold_init=auto: %g (run %s is best after epoch %d)", start, result["run_id"],
             result["selected_epoch"])
    return parse({**settings.flat(), "threshold_init": start})


def _search(run: Run, folder: Path) -> dict[str, Any]:
    """Run a PEP search that leaves its snapshots in `folder`."""
    settings, context = run.settings, run.context
    targets = _usable_targets(settings, run.dataset)
    owner = {"run_id": run.run_id, "settings": settings.flat(), "seed": run.seed,
             "manifest": run.dataset.hash, "values_hash": run.dataset.values_hash}
    result = run.finished()
    if result is not None and _copy_snapshots(result, folder, owner, context):
        log.info("the snapshots are in %s", folder)
        return result
    model = fresh_model(run)
    check_start(model.embedding, settings, targets)
    announce_pruning(model.embedding.weight, settings,
                     -(-run.dataset.counts[0] // settings.train.batch_size))
    counts = feature_counts.count(run.dataset)
    sparsity = SparsityTrace(model.embedding, counts, settings.train.eval_interval)
    sparsity.record(0)
    thresholds = ThresholdTrace(model.embedding, DecayOnlyThreshold(settings),
                                settings.train.eval_interval)
    thresholds.record(0, 0)
    saver: SaveAtBudgets

    def hooks_for(trainer: Trainer) -> list[Hook]:  # called when the run's lock is held
        nonlocal saver
        if trainer.writes:
            snapshots.claim(folder, owner, context.overwrite, empty=context.force)
            if context.force:  # its snapshots are gone; so an interrupted search is gone on with
                (run.folder / "result.json").unlink(missing_ok=True)
        _save_initial(trainer, folder)
        if trainer.writes and not context.force:
            _copy_from_other_aliases(folder, run.run_id)
        saver = SaveAtBudgets(
            model.embedding, targets, settings.search.budget == "exact",
            lambda name, table, meta: _save(trainer, folder, name, table, meta),
            (lambda: snapshots.names(folder)) if trainer.writes else None)
        return [saver, sparsity, thresholds]

    def finish(trainer: Trainer) -> dict[str, Any]:
        unmet = saver.finish(trainer.state)
        epoch = trainer.state.epoch + round(trainer.state.batch / trainer.loader.batches, 3)
        sparsity.record(epoch)
        thresholds.record(epoch, trainer.state.step)
        if trainer.writes:
            path = run.folder / FEATURE_COUNTS
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, counts.numpy())
        return {"alias": folder.name, "budgets_not_reached": unmet,
                "differing": saver.differing, "snapshots": snapshots.names(folder),
                "sparsity": sparsity.result(), "thresholds": thresholds.result()}

    return execute(run, model, hooks_for, finish, keep_best=False)


def tickets(settings: Settings, seed: int, context: RunContext,
            explicit: frozenset[str] = frozenset()) -> list[str]:
    """Names of the snapshots that `retrain` retrains, most parameters first.

    All of them are read, so that a corrupt one is found before anything is trained; raises as
    `retrain` does.
    """
    return list(_read(settings, seed, context, explicit)[1])


def retrain(settings: Settings, seed: int, context: RunContext,
            explicit: frozenset[str] = frozenset(),
            only: str | None = None) -> list[dict[str, Any]]:
    """Retrain the snapshots that `retrain_emb_param` names; one result each, most parameters first.

    Model and data settings come from the search that made the snapshots.

    Args:
        explicit: names of the settings that the user set by hand. One that contradicts the search
            is an error.
        only: retrain the snapshot of this name alone (see `tickets`).

    Raises:
        FileNotFoundError: no such alias folder or snapshot; the existing ones are listed.
        ValueError: a snapshot is corrupt, was made from other data, or contradicts an explicit
            setting.
    """
    settings, read, folder, dataset = _read(settings, seed, context, explicit, only)
    initial, others = snapshots.read(folder / f"{snapshots.INITIAL}.npz")
    return [retrain_one(settings, seed, context, dataset, ticket, initial.table, others)
            for ticket in read.values()]


def _read(settings: Settings, seed: int, context: RunContext, explicit: frozenset[str],
          only: str | None = None) -> tuple[Settings, dict[str, PrunedTables], Path, Dataset]:
    """The settings of the tickets, the tickets by name, their folder and the data set."""
    if settings.flat().get("threshold_init") == AUTO:  # the search's record has the start it found
        explicit -= {"threshold_init"}
    folder, owner = _searched(settings, seed, context, explicit)
    settings = _as_searched(settings, owner, explicit)
    if only is None:
        if folder != alias_folder(context.out, settings, seed, context.alias):
            log.info("retraining the snapshots in %s", folder)
        _warn_of_unfinished(folder, owner, context)
    wanted = [only] if only else snapshots.resolve(folder, settings.retrain.retrain_emb_param)
    read = {name: snapshots.read(folder / f"{name}.npz")[0] for name in wanted}
    snapshots.read(folder / f"{snapshots.INITIAL}.npz")
    dataset, _ = open_data(settings, context)
    if other := dataset.other_than(owner):
        raise ValueError(f"the snapshots in {folder} were made from other data ({other}); use the "
                         "same raw files, or run the search again")
    return settings, read, folder, dataset


def _warn_of_unfinished(folder: Path, owner: dict[str, Any], context: RunContext) -> None:
    """Say where a search has no result, so that budgets may be missing among its snapshots."""
    if (context.out / "runs" / owner["run_id"] / "result.json").exists():
        return
    wanted = map(str, parse(translate(owner["settings"])).search.candidate_p)
    there = snapshots.names(folder)
    if absent := [name for name in wanted if name not in there]:
        log.warning("the search of %s (run %s) has no result: it is not finished, or went on under "
                    "another alias. Of its budgets these are not there: %s", folder,
                    owner["run_id"], ", ".join(absent))


def _searched(settings: Settings, seed: int, context: RunContext,
              explicit: frozenset[str]) -> tuple[Path, dict[str, Any]]:
    """A search's folder of snapshots and the record of the search.

    Without an alias it is that of the default alias, or else the one search of this data set, seed
    and these settings, whatever it is called.

    Raises:
        FileNotFoundError: there is none, or there are several; the existing ones are listed.
        ValueError: the search of the alias has another seed.
    """
    folder = alias_folder(context.out, settings, seed, context.alias)
    owner = snapshots.owner_of(folder)
    decisive = frozenset(snapshot_decides()) & explicit
    if context.alias is None and not _matches(owner, settings, seed, decisive):
        others = sorted(path.parent for path in folder.parent.glob("*/search.json"))
        owners = {path: snapshots.owner_of(path) for path in others}
        matching = [path for path in others if _matches(owners[path], settings, seed, decisive)]
        if len(matching) > 1:
            matching = [path for path in matching
                        if _matches(owners[path], settings, seed, explicit)] or matching
        if len(matching) > 1:
            raise FileNotFoundError(f"{len(matching)} searches in {folder.parent} fit; name one "
                                    f"with --alias: {', '.join(path.name for path in matching)}")
        if matching:
            [folder] = matching
            owner = owners[folder]
    if owner is None:
        near = sorted(path.parent.name for path in folder.parent.glob("*/search.json"))
        raise FileNotFoundError(f"there is no search in {folder}; run the search first, or name "
                                f"one with --alias (in {folder.parent} there are: "
                                f"{', '.join(near) or 'none'})."
                                f"{shipped_words(alias=folder.name, model=folder.parent.name)}")
    if owner["seed"] != seed:  # tickets of one mask would be averaged as of several seeds
        raise ValueError(f"the search in {folder} has seed {owner['seed']}, and --seed {seed} was "
                         f"asked for; give --seed {owner['seed']}")
    return folder, owner


def _matches(owner: dict[str, Any] | None, settings: Settings, seed: int,
             names: frozenset[str]) -> bool:
    """Whether a search has the seed, data set, embedding, width and granularity of these settings,
    and agrees with them in `names`."""
    if owner is None or owner["seed"] != seed:
        return False
    searched, wanted = parse(translate(owner["settings"])).flat(), settings.flat()
    always = {"dataset", "embedding", "latent_dim", "threshold_type"}
    return all(searched[name] == wanted[name] for name in always | names)


def retrain_one(settings: Settings, seed: int, context: RunContext, dataset: Dataset,
                ticket: PrunedTables, initial: np.ndarray,
                others: dict[str, np.ndarray]) -> dict[str, Any]:
    """Train under a snapshot's mask; a finished run is not run again.

    Args:
        ticket: whose mask is used.
        initial: (N, D), the values to start from; with re_init new ones are drawn.
        others: initial values of all other parameters, for rewind="all".
    """
    sizes, values = dataset.schema.sizes, settings.flat()
    extra = {"mask": snapshots.mask_hash(ticket)}
    if settings.retrain.re_init:
        generator = torch.Generator().manual_seed(derive(seed, "re_init"))
        start = fresh_table(initial.shape[0], initial.shape[1], sizes, values, generator,
                            empty_in(launch.folder_of_tables(context.out)))
    else:
        start = torch.from_numpy(initial)
        extra["initial"] = sha256_of(initial.reshape(-1).view(np.uint8).data)[:16]
    if settings.retrain.rewind == "all" and ticket.meta.get("source") not in snapshots.OF_SEARCHES:
        # these are of their seed alone, but a training draws others than a search
        extra["others"] = sha256_of(*(others[name].tobytes() for name in sorted(others)))[:16]
    run = Run(settings, seed, context, dataset, "retrain", extra)
    if (result := run.finished()) is not None:
        return result
    own = own_rows(len(initial), settings.train.lanes)
    embedding = Masked(start[own], torch.from_numpy(ticket.table[own] != 0), len(sizes))
    embedding.num_rows = len(initial)  # of the whole table, also where `own` is a part of it
    model = build_model(sizes, values, derive(seed, "retrain:model"), embedding, dataset.num_dense)
    if settings.retrain.rewind == "all":
        model.load_state_dict({name: torch.from_numpy(value) for name, value in others.items()},
                              strict=False)
    return execute(run, model, lambda trainer: [], lambda trainer: {"snapshot": ticket.meta},
                   keep_best=True)


def _usable_targets(settings: Settings, dataset: Dataset) -> tuple[int, ...]:
    """The budgets within the table's size, with a warning about the others."""
    targets = settings.search.candidate_p
    size = dataset.schema.num_rows * settings.model.latent_dim
    usable = tuple(target for target in targets if target <= size)
    if not usable:
        raise ValueError(f"no budget of candidate_p {list(targets)} lies within the table's {size} "
                         f"parameters")
    if len(usable) < len(targets):
        log.warning("budgets above the table's %d parameters are skipped: %s", size,
                    [target for target in targets if target > size])
    return usable


def _save_initial(trainer: Trainer, folder: Path) -> None:
    initial, others = initial_values(trainer.model)  # taken before the first step
    initial = trainer.whole(TABLE, initial)
    others = {name: trainer.whole(name, value) for name, value in others.items()}
    if trainer.writes:
        snapshots.save(folder, snapshots.INITIAL, initial, {"run_id": trainer.run.run_id}, **others)


def _copy_from_other_aliases(folder: Path, run_id: str) -> None:
    """Copy the snapshots that the same search saved under another alias before it was stopped, as
    it will not save them again."""
    for record in folder.parent.glob("*/search.json"):
        owner = snapshots.owner_of(record.parent)
        if record.parent != folder and owner is not None and owner["run_id"] == run_id:
            for name in snapshots.names(record.parent):
                copy_file(record.parent / f"{name}.npz", folder / f"{name}.npz")


def _save(trainer: Trainer, folder: Path, name: str, table: np.ndarray,
          meta: dict[str, Any]) -> None:
    """Save a snapshot with its scores in the search's own model, before any retraining."""
    searched = trainer.model.embedding
    trainer.model.embedding = Masked.of_table(torch.from_numpy(table),
                                              searched.num_fields).to(trainer.device)
    try:
        validation, test = trainer.measure(trainer.model)
    finally:
        trainer.model.embedding = searched
    scores = {"validation_auc": validation.auc, "validation_logloss": validation.logloss, **test}
    table = trainer.whole(TABLE, table)
    if trainer.writes:
        snapshots.save(folder, name, table,
                       {**meta, "run_id": trainer.run.run_id, "without_retraining": scores})


def _copy_snapshots(result: dict[str, Any], folder: Path, owner: dict[str, Any],
                    context: RunContext) -> bool:
    """Copy a finished search's snapshots to `folder`, if they are not there; False when they are
    gone and the search must run again."""
    named = [result["alias"], *result["snapshots"]]
    if odd := [name for name in named if not isinstance(name, str) or Path(name).name != name]:
        raise ValueError(f"the result of run {owner['run_id']} is corrupt: it names {odd[0]!r}, "
                         f"which is no plain file name; run it again with --force")
    source = folder.parent / result["alias"]
    there = snapshots.owner_of(source)
    files = [f"{name}.npz" for name in (snapshots.INITIAL, *result["snapshots"])]
    gone = not all((source / file).exists() for file in files)
    if there is None or there["run_id"] != owner["run_id"] or gone:
        log.warning("run %s is finished, but its snapshots are no longer in %s: searching again",
                    owner["run_id"], source)
        return False
    if folder != source and not context.rank:
        snapshots.claim(folder, owner, context.overwrite)
        for file in files:
            copy_file(source / file, folder / file)
    return True


def _as_searched(settings: Settings, owner: dict[str, Any], explicit: frozenset[str]) -> Settings:
    """The settings with model and data as in the search."""
    flat = settings.flat()
    searched = parse(translate(owner["settings"])).flat()
    if "embedding" in explicit and flat["embedding"] != searched["embedding"]:
        raise ValueError(f"embedding={flat['embedding']!r} was given, but the snapshot was made "
                         f"with {searched['embedding']!r}; leave embedding away, or run another "
                         f"search")
    for name in snapshot_decides():
        if name in explicit and flat[name] != searched[name]:
            raise ValueError(f"{name}={flat[name]!r} was given, but the snapshot was made with "
                             f"{searched[name]!r}; leave {name} away, or run another search")
        flat[name] = searched[name]
    for name in ("candidate_p", "budget"):  # a retraining has none of its own
        if name in explicit and flat[name] != searched[name]:
            raise ValueError(f"{name}={_listed(flat[name])} was given, and the search had "
                             f"{_listed(searched[name])}; to retrain one budget: --set "
                             f"retrain_emb_param=NUMBER")
    kept = parse(flat)
    return replace(kept, model=replace(kept.model, embedding=MASKED))
