"""UMEC and its rivals on a trained DLRM: `python compress.py umec --run ID --budget 0.5` (see
`compress.py`).

Descend under the budget, set to zero what is removed, build the small model, train it on. Each
stage is an ordinary
run: finished ones are not run again, killed ones resume.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from compression.loaded_run import find_result, load_model
from compression.umec import baselines
from compression.umec.constraint import ResourceConstraint
from compression.umec.dynamics import Dynamics
from compression.umec.resources import GROUPS, KINDS, Layout, Resource, layout_of, of_model
from compression.umec.shrink import shrink, zero
from data.loader import Loader
from engine import cli
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.evaluate import measure
from engine.initial_model import fresh_model
from engine.run import Run, RunContext, derive
from engine.settings import parse, parse_assignment
from engine.trainer import Trainer, execute
from models.dlrm import DLRM
from utils.text import unknown

log = logging.getLogger("pep")

AS_UMEC = "as-umec"  # magnitude, with as many units of each layer as UMEC has left
# the model and its training
PUBLISHED: dict[str, Any] = {"model": "dlrm", "embedding": "uniform", "latent_dim": 16,
                             "arch_mlp_bot": [512, 256, 64],
                             "arch_mlp_top": [512, 256], "arch_interaction_op": "cat",
                             "optimizer": "sgd", "lr": 0.1,
                             "batch_size": 128, "l2_regularization": 0.0, "eval_interval": 1}
METHODS = ("umec", *baselines.METHODS, AS_UMEC, "dense")
NUMBERS = "numbers"  # the branch of the numbers, among the names of fields
FILE = "compressed.safetensors"  # of a descent's run folder: weights and what is kept


@dataclass(frozen=True)
class Task:
    """What to make of a trained DLRM.

    Args:
        budget: B, a fraction of the whole model's `resource`.
        method: one of METHODS.
        resource, groups: see `compression.umec.resources`.
        dynamics: of UMEC; its limits hold for the rivals too.
        keep_fields: names of fields that stay.
        epochs: of the descent; a rival without one is trained so much longer afterwards.
        finetune_epochs: of the training of the small model, at most; validation chooses among them.
        scratch: train it from fresh values, not from the ones that are left.
        strength: of group LASSO.
        along: budgets that one descent goes through, this one among them; none: the descent has
            this budget alone.
    """

    budget: float
    method: str = "umec"
    resource: str = "flops_top"
    groups: str = "field"
    dynamics: Dynamics = field(default_factory=Dynamics)
    keep_fields: tuple[str, ...] = ()
    epochs: int = 2
    finetune_epochs: int = 2
    scratch: bool = False
    strength: float = 0.01
    along: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.along and (self.method not in ("umec", AS_UMEC) or self.budget not in self.along):
            raise ValueError(f"one descent through the budgets {self.along} is for umec and "
                             f"{AS_UMEC} at one of them; this is {self.method} at {self.budget}")
        if self.method not in METHODS:
            raise ValueError(unknown("method", self.method, METHODS))
        if min(self.epochs, self.finetune_epochs) < 1:
            raise ValueError(f"epochs and finetune_epochs must be at least 1, got {self.epochs} "
                             f"and {self.finetune_epochs}")


@dataclass(frozen=True)
class Base:
    """A trained DLRM: its run, folder, weights and layout."""

    run: Run
    folder: Path
    model: DLRM
    layout: Layout
    epochs: int


def load(run_id: str, groups: str, context: RunContext) -> Base:
    """Find a trained DLRM by its run's id.

    Raises:
        FileNotFoundError, ValueError: as `compression.loaded_run.load_model`; or the run is no DLRM
        that can be taken apart.
    """
    trained = load_model(run_id, context)
    model = cast(DLRM, trained.model)  # `layout_of` refuses any other
    layout = layout_of(model, trained.run.dataset.schema.sizes, groups)
    kind = trained.run.settings.model.embedding
    if kind != "uniform":
        raise ValueError(f"run {trained.run_id} has {kind} tables; only uniform ones are taken "
                         "apart here. Train one with --embedding uniform")
    return Base(trained.run, context.out / "runs" / trained.run_id, model, layout,
                find_result(trained.run_id, context)["epochs"])


def compress(base: Base, task: Task, context: RunContext,
             changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The result of the small model's training, with what was done under `compression`.

    Args:
        changes: settings of the descent and of the training after it that differ from the base's.
    """
    settings = parse({**base.run.settings.flat(), "eval_interval": 1, **(changes or {})})
    task = replace(task, dynamics=replace(task.dynamics, keep=_units(base, task.keep_fields)))
    about = {"base": base.folder.name, **asdict(task), "dynamics": _named(task)}
    # older runs have no such key
    about = {key: value for key, value in about.items() if key != "along" or value}
    shared = ("base", "method", "resource", "groups", "dynamics", "epochs", "budget", "strength",
              "keep_fields")
    model, record, extra_epochs = base.model, dict[str, Any](), task.epochs
    resource = Resource(base.layout, task.resource)
    kept = resource.valid
    if task.method in ("umec", "group-lasso", AS_UMEC):
        of_descent = replace(settings, train=replace(settings.train, max_epochs=task.epochs))
        descending = replace(task, method="umec" if task.method == AS_UMEC else task.method,
                             budget=min(task.along, default=task.budget))
        named = {**asdict(descending), "base": base.folder.name, "dynamics": _named(descending)}
        extra = {key: named[key] for key in (*shared, *(["along"] if task.along else []))}
        run = replace(base.run, settings=of_descent, context=context, stage="compress", extra=extra)
        record = {**(run.finished() or _descend(run, base, descending))["compression"],
                  "descent": run.run_id}
        found = load_checkpoint(run.folder / _file(task.budget, descending.budget))
        kept = found["kept"].bool()
        if task.method == AS_UMEC:
            kept = baselines.of_counts(base.model, resource, kept, task.dynamics.keep)
        else:
            model, extra_epochs = cast(DLRM, fresh_model(base.run)), 0
            model.load_state_dict(found["model"])
    elif task.method != "dense" and not context.dry:
        kept = baselines.choose(task.method, base.model, resource, task.budget, task.dynamics,
                                lambda: _batches(base),
                             derive(base.run.seed, "random"))
    scratch = task.scratch or task.method == "handmade"
    epochs = task.finetune_epochs + extra_epochs + base.epochs * scratch
    of_small = replace(settings, train=replace(settings.train, max_epochs=epochs))
    run = replace(base.run, settings=of_small, context=context, stage="finetune", extra=about)
    if (result := run.finished()) is not None:
        return result
    if context.dry:
        # says that it is not finished
        return execute(run, model, lambda trainer: [], lambda trainer: {}, keep_best=True)
    small = shrink(model, base.layout, kept, derive(base.run.seed, "scratch") if scratch else None)
    spent = of_model(small, task.resource) / resource.whole
    record = {**about, **record, "resource_left": spent, **_left(base, kept)}
    if spent > task.budget and task.method != "dense":
        log.warning("the model spends %.4f of its %s, %.4f above the budget", spent, task.resource,
                    spent - task.budget)
    return execute(run, small, lambda trainer: [], lambda trainer: {"compression": record},
                   keep_best=True)


def _descend(run: Run, base: Base, task: Task) -> dict[str, Any]:
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
        hook, resource = hooks[0], Resource(base.layout, task.resource, trainer.device)
        if task.method == "umec":
            kept = hook.kept(model)
            record = {"feasible_at": int(hook.feasible_at), "resource_at_end": float(hook.spent),
                      "history": hook.history,
                      **({"passed": hook.finish(model)} if task.along else {})}
        else:
            kept, record = baselines.choose(task.method, model, resource, task.budget,
                                            task.dynamics, list, 0), {}
        before = measure(model, trainer.validation)
        zero(model, resource, kept)
        after = measure(model, trainer.validation)
        record |= {"validation_auc_before_zero": before.auc, "validation_auc_after_zero": after.auc}
        save_checkpoint(run.folder / FILE, {"model": model.state_dict(), "kept": kept.int()})
        return {"compression": record}

    return execute(run, model, hooks_for, finish, keep_best=False)


def _file(budget: float, last: float) -> str:
    """Of what a descent leaves under a budget; the last has the plain name."""
    return FILE if budget == last else f"compressed_{budget:g}.safetensors"


def _batches(base: Base) -> list[tuple[Any, Tensor]]:
    """Training batches, by which Taylor's importance is measured."""
    train, dataset = base.run.settings.train, base.run.dataset
    loader = Loader(*dataset.split("train"), train.batch_size, derive(base.run.seed, "taylor"),
                    numbers=dataset.numbers("train") if base.model.num_dense else None)
    return [batch for _, batch in zip(range(baselines.BATCHES), loader.epoch(0), strict=False)]


def _named(task: Task) -> dict[str, Any]:
    """The rates that matter to the method, for a run's id."""
    dynamics, named = task.dynamics, asdict(task.dynamics)
    if task.method not in ("umec", AS_UMEC):
        named = {name: named[name] for name in ("joint", "min_keep", "punit")}
    if dynamics.min_fields > dynamics.min_keep:  # no key in older runs: they kept min_keep
        named["min_fields"] = dynamics.min_fields
    return named


def _units(base: Base, names: Sequence[str]) -> tuple[int, ...]:
    """Units of the first layer that belong to fields."""
    layout, fields = base.layout, list(base.run.dataset.schema.fields)
    known = [NUMBERS, *fields] if layout.dense else fields
    for name in names:
        if name not in known:
            raise ValueError(unknown("field", name, known))
    each = layout.width // layout.size
    return tuple(unit for name in names for context in [known.index(name)]
                 for unit in range(context * each, (context + 1) * each))


def _left(base: Base, kept: Tensor) -> dict[str, Any]:
    """Widths of the fields that are left, by name, and neurons by layer."""
    layout, fields = base.layout, base.run.dataset.schema.fields
    names = [*([NUMBERS] if layout.dense else []), *fields]
    columns = kept[0, :layout.counts[0]].cpu().view(len(names), -1).sum(1) * layout.size
    return {"widths": dict(zip(names, columns.tolist(), strict=True)),
            "neurons": kept[1:].sum(1).tolist()}


def add_options(made: argparse.ArgumentParser) -> None:
    """The options of `compress.py umec`."""
    rates = Dynamics()
    made.add_argument("--run", required=True,
                      help="id of a finished training of a DLRM, or its start")
    made.add_argument("--budget", type=float, action="append", required=True,
                      help="fraction of the resource that may be spent; may be repeated")
    made.add_argument("--one-descent", action="store_true",
                      help="to the least budget, through the others on the way")
    made.add_argument("--method", default="umec", choices=METHODS, help="umec or a rival")
    made.add_argument("--mode", default="joint", choices=("joint", "fields"),
                      help="neurons too, or fields alone")
    made.add_argument("--groups", default="field", choices=GROUPS,
                      help="whole fields, or a width for each field")
    made.add_argument("--resource", default="flops_top", choices=KINDS,
                      help="what the budget is of")
    for name, what in (("slr", "rate of s"), ("ylr", "rate of y"), ("zlr", "rate of z"),
                       ("sl2wd", "decay of s")):
        made.add_argument(f"--{name}", type=float, default=getattr(rates, name), help=what)
    for name, what in (("punit", "neurons are removed in multiples of it; with --faithful so many "
                        "fields stay at least"), ("min-keep", "units each layer keeps")):
        made.add_argument(f"--{name}", type=int, default=1, help=what)
    made.add_argument("--keep-fields", default="",
                      help=f"names of fields that stay, with commas; also {NUMBERS}")
    made.add_argument("--zclamp", action="store_true",
                      help="faithful: bound z by what holds the hardest layer")
    made.add_argument("--faithful", action="store_true",
                      help="the published dynamics; the budget may be exceeded")
    made.add_argument("--score", choices=("weight", "weight_x_emb_rms"),
                      help="what orders fields: the energy of their "
                      "weights (published, and the default of --faithful), or this times their "
                      "vectors' mean square")
    made.add_argument("--epochs", type=int, default=Task.epochs, help="of the descent")
    made.add_argument("--finetune-epochs", type=int, default=Task.finetune_epochs,
                      help="of the small model, at most")
    made.add_argument("--finetune-from", default="pruned", choices=("pruned", "scratch"),
                      help="its first values")
    made.add_argument("--strength", type=float, default=Task.strength, help="of group LASSO")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                      help="change a setting of the base")
    made.add_argument("--force", action="store_true", help="run again what is finished")
    cli.add_place_options(made)


def work(given: argparse.Namespace) -> None:
    """Compress to each budget and print what came of it."""
    context = cli.place_of(given, force=given.force)
    default = "weight" if given.faithful else "weight_x_emb_rms"
    dynamics = Dynamics(given.slr, given.ylr, given.zlr, given.sl2wd, given.zclamp, given.punit,
                        given.min_keep,
                        joint=given.mode == "joint", faithful=given.faithful,
                        by_embedding=(given.score or default) == "weight_x_emb_rms")
    names = tuple(name for name in given.keep_fields.split(",") if name)
    changes = dict(parse_assignment(text) for text in given.set)
    base = load(given.run, given.groups, replace(context, force=False))
    along = tuple(sorted(set(given.budget), reverse=True)) if given.one_descent else ()
    tasks = [Task(budget, given.method, given.resource, given.groups, dynamics, names, given.epochs,
                  given.finetune_epochs, given.finetune_from == "scratch", given.strength, along)
             for budget in given.budget]
    for task in tasks:  # all of them, before the first is run
        limits = replace(dynamics, keep=_units(base, names)).limits(base.layout.counts)
        baselines.attainable(task.budget, Resource(base.layout, task.resource), limits,
                             _units(base, names))
    for task in tasks:
        print(describe(compress(base, task, context, changes)))


def describe(result: dict[str, Any]) -> str:
    """One line on a compressed model."""
    made = result["compression"]
    fields = sum(width > 0 for width in made["widths"].values())
    return (f"{made['method']} budget {made['budget']:g}: {made['resource_left']:.4f} of "
            f"{made['resource']}, {fields} of {len(made['widths'])} fields, neurons "
            f"{made['neurons']}; test AUC {result['test_auc']:.4f}, log-loss "
            f"{result['test_logloss']:.4f}, accuracy {result['test_accuracy']:.4f}; run "
            f"{result['run_id']}")
