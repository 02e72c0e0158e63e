"""The runs behind the water line's page: dense models by the recipe, the method at each budget, its
ablations, and every baseline with trials of its own at each budget."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from compression.loaded_run import LoadedRun, load_uniform
from compression.lowbit import command as lowbit
from compression.lowbit import schemes as lowbit_schemes
from compression.lowbit.retraining import Retraining, usual
from compression.lowbit.schemes import Scheme
from compression.waterline import command as waterline
from compression.waterline.shape import COUNTS, FIELD, NOTHING, Shape
from engine import stages
from engine.run import RunContext
from engine.settings import parse
from studies import recipes, schemes
from studies.plan import PlannedRun
from studies.published import PRESETS, RECIPES

FIVE = (20_000, 10_000, 35_000, 70_000, 135_000)  # bytes; what says most comes first
BUDGETS = {"fm": FIVE, "deepfm": (20_000, 10_000, 35_000), "autoint": (20_000, 35_000)}
BUDGETS_OF = {("frappe", "deepfm"): FIVE}  # where others are wanted
ABLATED = 20_000  # bytes at which the ablations are taken
# by what is left away or put in its place
ABLATIONS: dict[str, Shape] = {
    "no rotation": Shape(rotation=False),
    "rows by counts alone": Shape(rows=COUNTS),
    "counts only": Shape(rows=COUNTS, columns=FIELD),
    "columns only": Shape(rows=NOTHING),
    "by field only": Shape(rows=NOTHING, columns=FIELD),
    "one rung of 2 bits": Shape(rung=2), "one rung of 4 bits": Shape(rung=4),
    "one rung of 8 bits": Shape(rung=8), "at most 4 bits": Shape(most=4)}
METHOD = waterline.METHOD
MOVIELENS = "movielens"  # whose recipes are presets
BASELINES = ("uniform", "pq", "mask", "mgqe", "qr", "mde", "pep")
WINDOW = 1.7  # of a budget: a baseline may take that much more
FORMS = 4  # of a scheme at a budget, each with three retrainings
# of the best trial of those
FURTHER: dict[str, Callable[[Retraining], Retraining]] = {
    "at twice the rate": lambda how: replace(how, lr=2 * how.lr),
    "for twice as long": lambda how: replace(how, epochs=2 * how.epochs)}
WIDTHS = (4, 8, 12, 16, 24, 32, 48)  # columns of the water line that are tried, and all
BITS, FAR = 1.25, 1.7  # of an entry, that they should leave; and powers of two away from it
PEP_ENTRIES = {"movielens": (50_000, 23_675, 10_000, 6_541),
               "frappe": (50_000, 20_000, 10_000, 5_000)}  # of its searches
WIDTH = 64  # of dense tables that are trained by `studies.recipes`


@dataclass(frozen=True)
class Trial:
    """One retraining of a baseline.

    Args:
        scheme: its form.
        source: settings of the run that it starts from which are not the recipe's.
        how: its retraining.
    """

    scheme: Scheme
    how: Retraining
    source: tuple[tuple[str, Any], ...] = field(default=())

    @property
    def words(self) -> str:
        """For a plan."""
        given = {**self.scheme.identity(), **dict(self.source)}
        del given["method"]
        return _words(given, self.how)


@dataclass(frozen=True)
class OwnTrial:
    """One retraining of the water line: its bytes, what its bits follow, how it is retrained."""

    budget: int
    shape: Shape
    how: Retraining

    @property
    def words(self) -> str:
        """For a plan."""
        return _words(self.shape.identity(), self.how)


def _words(form: dict[str, Any], how: Retraining) -> str:
    decay = {} if how.decay is None else {"decay": f"{how.decay:g}"}
    given = {**form, "lr": f"{how.lr:g}", "epochs": how.epochs, **decay}
    return " ".join(f"{name}={value}" for name, value in given.items())


def needs(given: argparse.Namespace) -> list[PlannedRun]:
    """All runs of a data set and a model; finished ones are not run again."""
    model, about = given.model, (given.model, "uniform")
    budgets = BUDGETS_OF.get((given.dataset, model), BUDGETS[model])
    first, *others = given.seeds
    entries = (_rows(given) or math.inf) * _recipe(given)["latent_dim"]
    found = [PlannedRun(f"{model} recipe seed {seed}", about, partial(dense, given, seed))
             for seed in given.seeds]
    for name, budget in product((METHOD, *BASELINES), budgets):
        what, every = f"{model} {name} near {budget} bytes,", trials(given, name, budget)
        found += [PlannedRun(f"{what} {trial.words}, seed {first}", about,
                             partial(run, given, trial, first)) for trial in every]
        found += [PlannedRun(f"{what} the best trial {words}, seed {first}", about,
                             partial(_further, given, name, budget, words))
                  for words in FURTHER if every]
        found += [PlannedRun(f"{what} the best trial of all, seed {seed}", about,
                             partial(_best, given, name, budget, seed))
                  for seed in others if every]
    plain = OwnTrial(ABLATED, Shape(), usual(model))
    found += [PlannedRun(f"{model} {METHOD} {ABLATED} bytes, nothing changed, seed {seed}", about,
                         partial(run, given, plain, seed)) for seed in given.seeds]
    found += [PlannedRun(f"{model} {METHOD} {ABLATED} bytes, {name}, seed {first}", about,
                         partial(run, given, replace(plain, shape=shape), first))
              for name, shape in ABLATIONS.items()
              # a narrow table of few bits may have fewer bytes in all
              if not shape.rung or entries * shape.rung / 8 > ABLATED]
    return list({need.what: need for need in found}.values())


def _rows(given: argparse.Namespace) -> int:
    """Of the table; 0 where the data are not open, as in a plan of everything."""
    return (given.dense or 0) // PRESETS[given.dataset]["latent_dim"]


def _recipe(given: argparse.Namespace) -> dict[str, Any]:
    """The training that validation chose: of MovieLens a named preset, of others in a file.

    Raises:
        ValueError: none is chosen for the data set.
    """
    if given.dataset not in (MOVIELENS, *recipes.RECIPES):
        raise ValueError(f"the schemes are compared from a training that validation chose, and for "
                         f"{given.dataset} none is chosen; give --dataset "
                         f"{' or '.join((MOVIELENS, *recipes.RECIPES))}")
    if given.dataset == MOVIELENS:
        return {**PRESETS[given.dataset], **RECIPES[given.model], "tensorboard": False}
    recipes.require(Path(given.out), given.dataset, given.model)
    return {**PRESETS[given.dataset], **recipes.OF_OTHERS, **recipes.LIMITS, "model": given.model,
            "embedding": "uniform", "latent_dim": WIDTH,
            **recipes.training_of(Path(given.out), given.dataset, given.model)}


def dense(given: argparse.Namespace, seed: int, context: RunContext) -> str:
    """The id of the dense run by the recipe, trained if need be."""
    return stages.train(parse(_recipe(given)), seed, context)["run_id"]


def narrower(given: argparse.Namespace, budget: int) -> list[Shape]:
    """The water line with the three numbers of columns, fewer than all, that leave the entries
    nearest to BITS bits each."""
    width, rows = _recipe(given)["latent_dim"], _rows(given)
    if not rows:
        return []
    away = {each: abs(math.log2(8 * budget / (rows * each) / BITS))
            for each in WIDTHS if each < width}
    near = sorted((each for each in away if away[each] <= FAR), key=lambda each: away[each])
    return [Shape(width=each) for each in near[:FORMS - 1]]


def _ways(model: str) -> list[Retraining]:
    own = usual(model)
    return [own, Retraining(own.epochs, own.lr / 2), Retraining(own.epochs, own.lr, 1e-4)]


def _loaded(run_id: str, context: RunContext) -> LoadedRun:
    found = _read(run_id, context.out, context.cache, context.data, context.device)
    return replace(found, run=replace(found.run, context=context))


@lru_cache(maxsize=2)  # all runs of a seed start from the same model
def _read(run_id: str, out: Path, cache: Path, data: str | None, device: str) -> LoadedRun:
    return load_uniform(run_id, RunContext(out, cache, data, device))


def trials(given: argparse.Namespace, name: str, budget: int) -> Sequence[OwnTrial | Trial]:
    """At most 12 trials of a scheme near a budget, 15 of a magnitude mask: forms, each with three
    retrainings.

    Forms of the water line are all columns and fewer; of a baseline what takes least above the
    budget. The best trial by validation gets two more retrainings, FURTHER.
    """
    if name == METHOD:
        return [OwnTrial(budget, shape, how) for shape, how in
                product([Shape(), *narrower(given, budget)], _ways(given.model))]
    width = _recipe(given)["latent_dim"]
    forms = _forms(name, budget, _rows(given), width, PEP_ENTRIES.get(given.dataset, ()))
    return [Trial(scheme, how, source)
            for (scheme, source), how in product(forms, _ways(given.model))]


Form = tuple[Scheme, tuple[tuple[str, Any], ...]]


def _forms(name: str, budget: int, rows: int, width: int, entries: Sequence[int]) -> list[Form]:
    """Those of a scheme near a budget.

    Args:
        rows, width: of the dense table.
        entries: of PEP's tickets.
    """
    widths = [each for each in (4, 8, 16, 32, 64) if each <= width]
    if name == "mask":
        wide = sorted({max(width // part, 1) for part in (1, 2, 4)})
        # a narrow table may have fewer bytes in all
        fitting = [(bits, each) for bits, each in product((4, 8), wide)
                   if rows * each * bits / 8 > budget][:FORMS]
        narrow = [(4, width // 8)] if rows * (width // 8) * 4 / 8 > budget else []
        return [(Scheme("mask", bits, each, bytes=budget), ())
                for bits, each in (*narrow, *fitting)]
    if name == "pep":
        return [(Scheme("mask", bits), (("retrain_emb_param", kept),))
                for bits, kept in product((4, 8), entries)
                if budget <= kept * bits / 8 + kept / 8 <= WINDOW * budget]
    sized: list[tuple[float, Form]] = []
    if name == "uniform":
        sized = [(rows * each * bits / 8, (Scheme("uniform", bits, each), ()))
                 for each, bits in product(widths, (2, 3, 4, 8))]
    if name in lowbit_schemes.CODED:
        # of MGQE, nine codes in ten are two bits shorter
        sizes, less = ((64, 128, 256, 512), 1.8) if name == "mgqe" else ((64, 256), 0)
        sized = [(rows * parts * (math.log2(size) - less) / 8 + size * each * 4 / 8,
                  # rotated where columns are left away; all columns are better as they are
                  (Scheme(name, 4, each, subspaces=parts, centroids=size, rotation=each < width),
                   ()))
                 for each, parts, size in product(widths[-2:], (1, 2, 4, 8, 16), sizes)
                 if parts <= each]
    if name == "qr":
        sized = [(rows / collisions * each * bits / 8,
                  (Scheme("qr", bits), (("embedding", "qr"), ("latent_dim", each),
                                        ("qr_collisions", collisions))))
                 for each, collisions, bits in product(widths, (2, 4, 8), (4, 8))]
    if name == "mde":
        sized = [(0.8 * rows * each * bits / 8,
                  (Scheme("mde", bits), (("embedding", "mde"), ("latent_dim", each),
                                         ("mde_alpha", alpha))))
                 for each, alpha, bits in product(widths, (0.1, 0.3), (4, 8))]
    near = [(size, number) for number, (size, _) in enumerate(sized)
            if budget <= size <= WINDOW * budget]
    return [sized[number][1] for _, number in sorted(near)[:FORMS]]


def run(given: argparse.Namespace, trial: OwnTrial | Trial, seed: int,
        context: RunContext) -> dict[str, Any]:
    """The result of a trial, with all that has to be run before it."""
    if isinstance(trial, OwnTrial):
        trained = _loaded(dense(given, seed, context), context)
        [result] = waterline.compress(trained, trial.shape, [trial.budget], trial.how)
        return result
    source = dict(trial.source)
    if "retrain_emb_param" in source:
        run_id = _ticket(given, source["retrain_emb_param"], seed, context)
    elif source:
        run_id = stages.train(parse({**_recipe(given), **source}), seed, context)["run_id"]
    else:
        run_id = dense(given, seed, context)
    reading = replace(context, dry_run=False, force=False)
    trained = lowbit_schemes.load(run_id, trial.scheme, reading)
    trained = replace(trained, run=replace(trained.run, context=context))
    return lowbit.compress(trained, trial.scheme, trial.how)


def _ticket(given: argparse.Namespace, entries: int, seed: int, context: RunContext) -> str:
    """The id of PEP's ticket of so many entries, retrained with the recipe's averages; on MovieLens
    all else is as published."""
    point = {"retrain_emb_param": entries}
    [result] = [schemes.run(given, "pep", {**point, **_averaged(given)}, seed, context)]
    return result["run_id"]


def _averaged(given: argparse.Namespace) -> dict[str, Any]:
    return {"ema": _recipe(given)["ema"]}


def chosen(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one with the best validation AUC."""
    return max(results, key=lambda result: result["validation_auc"])


def _further(given: argparse.Namespace, name: str, budget: int, words: str,
             context: RunContext) -> dict[str, Any]:
    """A scheme's best trial with another retraining, with the first seed."""
    first = given.seeds[0]
    best = _best_of(given, trials(given, name, budget), context)
    return run(given, replace(best, how=FURTHER[words](best.how)), first, context)


def _best(given: argparse.Namespace, name: str, budget: int, seed: int,
          context: RunContext) -> dict[str, Any]:
    """A scheme's best trial by validation of the first seed, with another seed."""
    best = _best_of(given, trials(given, name, budget), context)
    every = [best, *(replace(best, how=change(best.how)) for change in FURTHER.values())]
    return run(given, _best_of(given, every, context), seed, context)


def _best_of(given: argparse.Namespace, every: Sequence[OwnTrial | Trial],
             context: RunContext) -> OwnTrial | Trial:
    """The best trial by validation of the first seed."""
    reading = replace(context, force=False)
    results = [run(given, trial, given.seeds[0], reading) for trial in every]
    return every[results.index(chosen(results))]
