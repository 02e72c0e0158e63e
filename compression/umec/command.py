"""UMEC and its baselines on a trained DLRM: `python compress.py umec --run ID --budget 0.5` (see
`compress.py`).

Descend under the budget, set to zero what is removed, build the small model, fine-tune it. Each
stage is an ordinary run: a finished one is not run again, a killed one resumes.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any, cast

from torch import Tensor

from compression.loaded_run import LoadedRun, load_model
from compression.umec import baselines
from compression.umec.constraint import ResourceConstraint
from compression.umec.dynamics import Dynamics
from compression.umec.resources import Layout, Resource, layout_of, of_model
from compression.umec.shrink import shrink, zero
from compression.umec.task import AS_UMEC, DENSE, Task
from data.loader import Loader
from engine import cli
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.evaluate import measure
from engine.initial_model import fresh_model
from engine.run import Run, RunContext, derive
from engine.settings import CONSTANT, Settings, TrainSettings, parse, parse_assignment
from engine.trainer import Trainer, execute
from models.dlrm import DLRM
from utils.text import unknown

log = logging.getLogger("pep")

# the model and its training
PUBLISHED: dict[str, Any] = {"model": "dlrm", "embedding": "uniform", "latent_dim": 16,
                             "arch_mlp_bot": [512, 256, 64],
                             "arch_mlp_top": [512, 256], "arch_interaction_op": "cat",
                             "optimizer": "sgd", "lr": 0.1,
                             "batch_size": 128, "l2_regularization": 0.0, "eval_interval": 1}
TRAIN_ON = ("umec", "group-lasso")  # their descent has trained the weights that are left
# of a task, what the run id of its descent depends on
IDENTITY = ("base", "method", "resource", "groups", "dynamics", "epochs", "budget", "strength",
            "keep_fields")
# settings of the training that a compression may change; the base's data and model stay
CHANGEABLE = tuple(each.name for each in fields(TrainSettings)
                   if each.name not in ("max_epochs", "lanes"))
FILE = "compressed.safetensors"  # of a descent's run folder: weights and what is kept


@dataclass(frozen=True)
class LoadedDLRM:
    """A trained DLRM, and the sizes of its layers."""

    trained: LoadedRun
    layout: Layout

    @property
    def run(self) -> Run:
        """The training."""
        return self.trained.run

    @property
    def model(self) -> DLRM:
        """As validation chose it."""
        return cast(DLRM, self.trained.model)  # `load` refuses any other


def load(run_id: str, groups: str, context: RunContext) -> LoadedDLRM:
    """Load a trained DLRM by its run's id.

    Raises:
        FileNotFoundError, ValueError: as `compression.loaded_run.load_model`; or the run is no DLRM
            whose layers can be taken apart.
    """
    trained = load_model(run_id, context).with_one_value_a_field("UMEC")
    layout = layout_of(cast(DLRM, trained.model), trained.dataset.schema.sizes, groups)
    kind = trained.settings.model.embedding
    if kind != "uniform":
        raise ValueError(f"run {trained.run_id} has {kind} tables; only uniform ones can be "
                         "compressed by UMEC. Train one with --embedding uniform")
    return LoadedDLRM(trained, layout)


def compress(base: LoadedDLRM, task: Task, context: RunContext,
             changes: dict[str, Any] | None = None, descend_again: bool = True) -> dict[str, Any]:
    """Choose what stays, build the small model and train it.

    Args:
        changes: settings of the descent and of the training after it that differ from the base's,
            of those in CHANGEABLE.
        descend_again: whether --force holds for the descent too.

    Returns:
        The result of the small model's training; `compression` says how it was made.

    Raises:
        ValueError: another setting would be changed.
    """
    changes, own = changes or {}, base.run.settings.flat()
    for name in changes:  # of an unknown one `parse` says what is near
        if name in own and name not in CHANGEABLE:
            raise ValueError(f"--set {name}: the descent and the training after it have the base's "
                             f"data and model, and --epochs and --finetune-epochs say how long "
                             f"they are; settings that may differ: {', '.join(CHANGEABLE)}")
    # these stages run in one process, whatever the base's training did
    lanes = {"lanes": 0} if {"optimizer", "ema", "precision", "table_update"} & {*changes} else {}
    settings = parse({**own, "eval_interval": 1, **changes, **lanes})
    task = replace(task, dynamics=replace(task.dynamics, keep=_units(base, task.keep_fields)))
    about = {"base": base.trained.run_id, **asdict(task), "dynamics": _identity(task)}
    if not task.along:
        del about["along"]  # older runs have no such key
    kept, model, record = _kept(base, task, settings, context, descend_again)
    scratch = task.scratch or task.method == "handmade"
    epochs = task.finetune_epochs
    if task.method not in TRAIN_ON:
        epochs += task.epochs  # as many as UMEC's descent
    if scratch:
        epochs += base.trained.epochs
    of_small = replace(settings, train=replace(settings.train, max_epochs=epochs))
    run = replace(base.run, settings=of_small, context=context, stage="finetune", extra=about)
    if (result := run.finished()) is not None:
        return result
    small = shrink(model, base.layout, kept, derive(base.run.seed, "scratch") if scratch else None)
    whole = Resource(base.layout, task.resource).whole
    spent = of_model(small, task.resource) / whole
    record = {**about, **record, "resource_left": spent, **_left(base, kept)}
    if spent > task.budget and task.method != "dense":
        log.warning("the model spends %.4f of its %s, %.4f above the budget", spent, task.resource,
                    spent - task.budget)
    return execute(run, small, lambda trainer: [], lambda trainer: {"compression": record},
                   keep_best=True)


def _kept(base: LoadedDLRM, task: Task, settings: Settings, context: RunContext,
          descend_again: bool) -> tuple[Tensor, DLRM, dict[str, Any]]:
    """What stays, (L, G), the model to take it from, and what the descent recorded, if there was
    one."""
    resource = Resource(base.layout, task.resource)
    if task.method in ("umec", "group-lasso", AS_UMEC):
        force = context.force and descend_again
        return _descended(base, task, settings, replace(context, force=force))
    if task.method == "dense" or context.dry_run:
        return resource.valid, base.model, {}
    kept = baselines.choose(task.method, base.model, resource, task.budget, task.dynamics,
                            lambda: _batches(base), derive(base.run.seed, "random"))
    return kept, base.model, {}


def _descended(base: LoadedDLRM, task: Task, settings: Settings,
               context: RunContext) -> tuple[Tensor, DLRM, dict[str, Any]]:
    """As `_kept`, by a descent of its own run, which is not run again when it is finished."""
    # averages and schedule of the learning rate are the small model's
    settings = replace(settings, train=replace(settings.train, max_epochs=task.epochs, ema=0.0,
                                               lr_schedule=CONSTANT))
    method = "umec" if task.method == AS_UMEC else task.method
    descent = replace(task, method=method, budget=min(task.along, default=task.budget))
    named = {**asdict(descent), "base": base.trained.run_id, "dynamics": _identity(descent)}
    keys = (*IDENTITY, "along") if task.along else IDENTITY
    run = replace(base.run, settings=settings, context=context, stage="compress",
                  extra={key: named[key] for key in keys})
    result = run.finished() or _descend(run, base, descent)
    record = {**result["compression"], "descent": run.run_id}
    path = run.folder / _file(task.budget, descent.budget)
    if not path.is_file():
        raise FileNotFoundError(f"the descent {run.run_id} has finished, and {path} is gone; make "
                                "it again with --force")
    found = load_checkpoint(path)
    kept = found["kept"].bool()
    if task.method == AS_UMEC:
        resource = Resource(base.layout, task.resource)
        kept = baselines.of_counts(base.model, resource, kept, task.dynamics.keep)
        return kept, base.model, record
    model = cast(DLRM, fresh_model(base.run))
    model.load_state_dict(found["model"])
    return kept, model, record


def _descend(run: Run, base: LoadedDLRM, task: Task) -> dict[str, Any]:
    """Train under the constraint (or under group LASSO), and write weights and masks."""
    model, hooks = cast(DLRM, fresh_model(base.run)), list[Any]()
    model.load_state_dict(base.model.state_dict())

    def save(budget: float, kept: Tensor) -> None:
        whole = {name: value.clone() for name, value in model.state_dict().items()}
        zero(model, Resource(base.layout, task.resource, kept.device), kept)
        save_checkpoint(run.folder / _file(budget, task.budget),
                        {"model": model.state_dict(), "kept": kept.int()})
        model.load_state_dict(whole)

    def hooks_for(trainer: Trainer) -> list[Any]:
        resource = Resource(base.layout, task.resource, trainer.device)
        if task.method == "umec":
            steps = trainer.loader.batches * task.epochs
            passing = [budget for budget in task.along if budget > task.budget]
            hooks.append(ResourceConstraint(resource, task.budget, task.dynamics, steps, passing,
                                            save))
        else:
            hooks.append(baselines.GroupLasso(task.strength, resource))
        return hooks

    def finish(trainer: Trainer) -> dict[str, Any]:
        resource = Resource(base.layout, task.resource, trainer.device)
        record: dict[str, Any] = {}
        if task.method == "umec":
            hook = hooks[0]
            kept = hook.kept(model)
            record = {"feasible_at": int(hook.feasible_at), "resource_at_end": float(hook.spent),
                      "history": hook.history}
            if task.along:
                record["passed"] = hook.finish(model)
        else:
            kept = baselines.choose(task.method, model, resource, task.budget, task.dynamics, list,
                                    0)
        before = measure(model, trainer.validation)
        zero(model, resource, kept)
        after = measure(model, trainer.validation)
        record |= {"validation_auc_before_zero": before.auc, "validation_auc_after_zero": after.auc}
        save_checkpoint(run.folder / FILE, {"model": model.state_dict(), "kept": kept.int()})
        return {"compression": record}

    return execute(run, model, hooks_for, finish, keep_best=False)


def _file(budget: float, last: float) -> str:
    """Name of what a descent leaves under a budget; the last one has the plain name."""
    return FILE if budget == last else f"compressed_{budget:.15g}.safetensors"


def _batches(base: LoadedDLRM) -> list[tuple[Any, Tensor]]:
    """Training batches, by which Taylor's importance is measured."""
    train, dataset = base.run.settings.train, base.run.dataset
    loader = Loader(*dataset.split("train"), train.batch_size, derive(base.run.seed, "taylor"),
                    dense=dataset.dense_of("train") if base.model.num_dense else None)
    return list(islice(loader.epoch(0), baselines.BATCHES))


def _identity(task: Task) -> dict[str, Any]:
    """The dynamics that matter to the method, for a run's id."""
    dynamics, named = task.dynamics, asdict(task.dynamics)
    if task.method not in ("umec", AS_UMEC):
        named = {name: named[name] for name in ("joint", "min_keep", "punit")}
    if dynamics.min_fields > dynamics.min_keep:  # no key in older runs: they kept min_keep
        named["min_fields"] = dynamics.min_fields
    return named


def _names(base: LoadedDLRM) -> list[str]:
    """Names of the fields, the branch of the dense features first where there is one."""
    fields = list(base.run.dataset.schema.fields)
    dense = f"{DENSE} (dense)" if DENSE in fields else DENSE
    return [dense, *fields] if base.layout.dense else fields


def _units(base: LoadedDLRM, names: Sequence[str]) -> tuple[int, ...]:
    """Units of the first layer that belong to fields."""
    known = _names(base)
    each = base.layout.width // base.layout.size
    units: list[int] = []
    for name in names:
        if name not in known:
            raise ValueError(unknown("field", name, known))
        first = known.index(name) * each
        units += range(first, first + each)
    return tuple(units)


def _left(base: LoadedDLRM, kept: Tensor) -> dict[str, Any]:
    """Widths of the fields that are left, by name, and neurons by layer."""
    layout, names = base.layout, _names(base)
    columns = kept[0, :layout.counts[0]].cpu().view(len(names), -1).sum(1) * layout.size
    return {"widths": dict(zip(names, columns.tolist(), strict=True)),
            "neurons": kept[1:].sum(1).tolist()}


def work(args: argparse.Namespace) -> None:
    """Compress to each budget and print the results."""
    context = cli.place_of(args, force=args.force)
    by_embedding = args.score == "weight_x_emb_rms" or (args.score is None and not args.faithful)
    dynamics = Dynamics(args.slr, args.ylr, args.zlr, args.sl2wd, args.zclamp, args.punit,
                        args.min_keep, joint=args.mode == "joint", faithful=args.faithful,
                        by_embedding=by_embedding)
    if args.score and args.method not in ("umec", AS_UMEC):
        raise ValueError(f"--score changes nothing for {args.method}; it is of umec and {AS_UMEC}. "
                         "Leave it out")
    names = tuple(name for name in args.keep_fields.split(",") if name)
    changes = dict(parse_assignment(text) for text in args.set)
    base = load(args.run, args.groups, replace(context, force=False))
    budgets = list(dict.fromkeys(args.budget))
    along = tuple(sorted(budgets, reverse=True)) if args.one_descent else ()
    tasks = [Task(budget, args.method, args.resource, args.groups, dynamics, names, args.epochs,
                  args.finetune_epochs, args.finetune_from == "scratch", args.strength, along)
             for budget in budgets]
    keep = _units(base, names)
    limits = replace(dynamics, keep=keep).limits(base.layout.counts, base.layout.dense_units)
    resource = Resource(base.layout, args.resource)
    for task in tasks:  # check all of them before the first is run
        baselines.attainable(task.budget, resource, limits, keep)
    for task in tasks:
        print(describe(compress(base, task, context, changes, not along or task is tasks[0])))


def describe(result: dict[str, Any]) -> str:
    """One line on a compressed model."""
    about = result["compression"]
    fields = sum(width > 0 for width in about["widths"].values())
    return (f"{about['method']} budget {about['budget']:g}: {about['resource_left']:.4f} of "
            f"{about['resource']}, {fields} of {len(about['widths'])} fields, neurons "
            f"{about['neurons']}; test AUC {result['test_auc']:.4f}, log-loss "
            f"{result['test_logloss']:.4f}, accuracy {result['test_accuracy']:.4f}; run "
            f"{result['run_id']}")
