"""Every scheme that makes a table smaller, as runs: its grid of settings, and how one point of it
is trained."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from compression.loaded_run import load_uniform
from compression.pruning import command as pruned
from compression.pruning import methods
from engine import stages
from engine.run import RunContext
from engine.settings import parse
from models.build import EMBEDDINGS
from models.embedding.base import DECAYS
from studies import recipes, tuning
from studies.plan import PlannedRun
from studies.published import COMPARED, PRESETS

# as published; the grids below vary the embedding's own decay alone
OF_OTHERS = recipes.OF_OTHERS
# of PEP and pruning, in parameters, by data set and model; the last are the paper's PEP-0, its
# Table 4
BUDGETS = {
    ("movielens", "fm"): [50_000, 23_675, 10_000, 6_541],
    ("movielens", "deepfm"): [50_000, 23_675, 15_000, 8_604],
    ("movielens", "autoint"): [50_000, 23_675, 15_000, 9_281],
    ("criteo", "fm"): [300_000, 100_000, 10_000, 1_067],
    ("criteo", "deepfm"): [300_000, 100_000, 10_000, 1_227],
    ("criteo", "autoint"): [300_000, 100_000, 10_000, 3_116],
    ("avazu", "fm"): [300_000, 100_000, 10_000, 1_479],
    ("avazu", "deepfm"): [300_000, 100_000, 10_000, 2_215],
    ("avazu", "autoint"): [300_000, 100_000, 10_000, 2_805],
    **{("frappe", model): [50_000, 20_000, 10_000, 5_000] for model in ("fm", "deepfm", "autoint")},
    **{("movielens_ids", model): [200_000, 100_000, 50_000, 23_675]
       for model in ("fm", "deepfm", "autoint")},
}
# retrain snapshots
PRUNED = ("pep", "magnitude", "imp", "random", "random_per_field", "random_per_feature")
# Of tuning, by scheme: an embedding's own from the registry, pruning's here. The first setting sets
# the size, but for PRUNED.
GRIDS: dict[str, dict[str, Sequence[Any]]] = {
    **{name: dict(entry.grid) for name, entry in EMBEDDINGS.items() if entry.grid},
    **{name: {"l2_regularization": DECAYS} for name in PRUNED[1:]}}
# Of the table that PEP cuts, where no paper gives one. They are tried in the place of later starts,
# which were worse for FM at every size.
WIDTHS = {"movielens_ids": [64, 16, 8]}
DECAY = "l2_regularization"
LR = "lr"  # logistic regression, without embeddings
LONG = recipes.LIMITS


def budgets(given: argparse.Namespace) -> list[int]:
    """Of PEP and pruning on a data set and a model, falling; but those that the table,
    `given.dense`, is too small for.

    Raises:
        ValueError: it is too small for all of them.
    """
    wanted = BUDGETS.get((given.dataset, given.model), BUDGETS["movielens", given.model])
    fitting = [budget for budget in wanted if given.dense is None or budget <= given.dense]
    if not fitting:
        raise ValueError(f"the table has {given.dense} parameters, the budgets of {given.model} on "
                         f"{given.dataset} are {wanted}; give more --planted rows or values")
    return fitting


def grid(given: argparse.Namespace, scheme: str) -> dict[str, Sequence[Any]]:
    """What a scheme's tuning tries; the first setting sets the size.

    A grid lists the embedding's decay as if 1e-5 were published. Where another one was chosen for
    the data set, that one takes its place, and all others move by the same factor.
    """
    own = dict(GRIDS[scheme])
    if scheme == "pep" and given.dataset in WIDTHS:
        own = {"latent_dim": WIDTHS[given.dataset], "threshold_init": own["threshold_init"][:1]}
    chosen = recipes.training_of(Path(given.out), given.dataset, given.model)
    if chosen and DECAY in own:
        own[DECAY] = [float(f"{decay * chosen[DECAY] / DECAYS[0]:.6g}") for decay in own[DECAY]]
    return {"retrain_emb_param": budgets(given), **own} if scheme in PRUNED else own


def points(given: argparse.Namespace, scheme: str, trials: int,
           settings_of: str | None = None) -> list[tuning.Point]:
    """The trials of a scheme: of its grid, or the settings that were chosen for another model.

    Of pruned tables the sizes are the budgets of the model itself, with the settings of the other's
    by rank.

    Raises:
        FileNotFoundError: nothing has been tuned for that model.
    """
    if settings_of is None:
        found = tuning.points(grid(given, scheme), trials)
        return [point for point in found if _fits(given, point)]
    chosen = [trial["settings"] for trial in
              tuning.chosen(tuning.found(Path(given.out), given.dataset, settings_of, scheme))]
    if scheme in PRUNED:
        chosen = [{**point, "retrain_emb_param": budget}
                  for point, budget in zip(chosen, budgets(given)[::-1], strict=True)]
    size = next(iter(grid(given, scheme)))  # first again: a file's keys are sorted
    return [{size: point[size], **point} for point in chosen]


def _fits(given: argparse.Namespace, point: tuning.Point) -> bool:
    """Whether a table of the point's own width has as many parameters as its budget."""
    budget, width = point.get("retrain_emb_param"), point.get("latent_dim")
    if given.dense is None or budget is None or width is None:
        return True
    return bool(budget <= given.dense // PRESETS[given.dataset]["latent_dim"] * width)


def run(given: argparse.Namespace, scheme: str, point: tuning.Point, seed: int,
        context: RunContext) -> dict[str, Any]:
    """Train one scheme at one point of its grid; whatever is finished is not run again."""
    base = _base(given)
    if scheme == LR:
        own = recipes.settings_of(Path(given.out), given.dataset, recipes.LINEAR)
        base = {**PRESETS[given.dataset], **OF_OTHERS, **LONG, **own}
        return stages.train(parse({**base, "model": "linear"}), seed, context)
    if scheme not in PRUNED:
        return stages.train(parse({**base, **LONG, "embedding": scheme, **point}), seed, context)
    own = tuning.of_search(point)
    if "retrain_emb_param" not in point and scheme == "pep":
        return _search(given, own, seed, context)[0]
    folder = _snapshots(given, scheme, own, seed, context)
    if "retrain_emb_param" not in point:
        return {}
    [result] = stages.retrain(parse({**base, **LONG, **point}), seed,
                              replace(context, alias=folder.name))
    return result


def training(given: argparse.Namespace, scheme: str, point: tuning.Point) -> tuning.Point:
    """The settings of a point's run that are not the script's, beside the point's own; of PEP, of
    its search."""
    chosen = recipes.training_of(Path(given.out), given.dataset, given.model)
    others = {**(OF_OTHERS if DECAY in {**point, **chosen} else {}), **chosen}
    if scheme not in PRUNED:
        return {"max_epochs": LONG["max_epochs"], **others}
    own, others = tuning.of_search(point), tuning.of_search(others)
    departs = scheme == "pep" and tuning.departs(PRESETS[given.dataset], own)
    return {"candidate_p": budgets(given), **others} if departs else others


def _base(given: argparse.Namespace) -> dict[str, Any]:
    """The settings that a point's own are put over."""
    chosen = recipes.training_of(Path(given.out), given.dataset, given.model)
    return {**PRESETS[given.dataset], **OF_OTHERS, **chosen, "model": given.model,
            "tensorboard": False}


def _search(given: argparse.Namespace, own: tuning.Point, seed: int,
            context: RunContext) -> tuple[dict[str, Any], Path]:
    """PEP's search and the folder with its snapshots."""
    script = PRESETS[given.dataset]
    alias = tuning.alias_of(script, "pep", own, seed) if tuning.departs(script, own) else None
    settings = parse({**tuning.of_search(_base(given)), **training(given, "pep", own), **own})
    result = stages.train(settings, seed, replace(context, alias=alias))
    return result, stages.alias_folder(context.out, settings, seed, alias)


def _snapshots(given: argparse.Namespace, scheme: str, own: tuning.Point, seed: int,
               context: RunContext) -> Path:
    """The folder with a scheme's snapshots at all budgets, made when they are missing."""
    if scheme == "pep":
        return _search(given, own, seed, context)[1]
    base = _base(given)
    default, wanted = tuning.alias_of(base, scheme, own, seed), own.get("candidate_p",
                                                                        budgets(given))
    result = stages.train(parse({**base, **LONG, "embedding": "uniform", **own}), seed, context)
    trained = load_uniform(result["run_id"], context)
    like = []
    if scheme in ("random_per_field", "random_per_feature"):
        searched = _snapshots(given, "pep", {}, seed, context)
        like = [searched / f"{budget}.npz" for budget in wanted]
    how = pruned.Pruning(scheme, wanted, like)
    tables = pruned.tables(trained, how, context)
    return methods.prune(trained, scheme, tables, replace(context, alias=default))


def planned_run(given: argparse.Namespace, scheme: str, point: tuning.Point,
                seed: int) -> PlannedRun:
    """One run of a plan."""
    model = "linear" if scheme == LR else given.model
    words = tuning.describe({name: value for name, value in point.items() if name != "candidate_p"})
    if "candidate_p" in point and "retrain_emb_param" not in point:
        words += f"down to {min(point['candidate_p'])} parameters"
    what = " ".join(part for part in (model, scheme, words, f"seed {seed}") if part)
    kind = (model, "masked" if scheme in PRUNED and "retrain_emb_param" in point else scheme)
    return PlannedRun(what, kind, partial(run, given, scheme, point, seed))


def comparison(given: argparse.Namespace) -> list[PlannedRun]:
    """Every scheme with all seeds as it was tuned; LR, and PEP and pruning even when they were
    not."""
    needs = []
    for scheme in given.scheme or COMPARED.get(given.dataset, (LR, *GRIDS)):
        path = tuning.found(Path(given.out), given.dataset, given.model, scheme)
        if scheme == LR:
            points: list[tuning.Point] = [{}]
        elif scheme in PRUNED and not path.exists():
            points = [{"retrain_emb_param": budget} for budget in budgets(given)]
        elif not path.exists() and not given.scheme:
            print(f"left out, because it is not tuned: {scheme} (python reproduce.py tune "
                  f"--embedding {scheme})")
            continue
        else:
            points = [trial["settings"] for trial in tuning.chosen(path)]
        for seed in given.seeds:
            needs += [planned_run(given, scheme, point, seed) for point in points]
    return needs
