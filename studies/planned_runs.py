"""Which runs a figure or table needs."""

import argparse
import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import bench_epoch
from compression.umec import command as umec
from compression.umec.dynamics import Dynamics
from compression.umec.task import Task
from engine import stages
from engine.run import RunContext
from engine.settings import parse
from studies import (
    afm_runs,
    plan,
    pooling,
    recipe_runs,
    recipes,
    schemes,
    starts,
    tuning,
    waterline_runs,
)
from studies.collect import results_in
from studies.figures import PAGES, extreme, table4, umec_fig2, umec_fig3
from studies.page import Page
from studies.plan import PlannedRun
from studies.published import PRESETS

# most parameters that Figures 5, 8 and 10 show
SHOWN = {"movielens": 23_675, "criteo": 100_000, "avazu": 100_000, "frappe": 20_000,
         "movielens_ids": 100_000}
GRANULARITIES = ("feature_dim", "dimension", "feature", "global")  # Figure 10's
# a scheme each, and the settings that differ from the script's
Points = list[tuple[str, tuning.Point]]
WITHOUT_TICKETS: dict[str, Points] = {"fig6": [("pep", {})],
                                      "fig11": [("uniform", {}), ("pep", {})],
                                      "table3": [(schemes.LR, {})], "stability": [("pep", {})]}
WITH_TICKETS = ("fig5", "fig8", "fig10", "thresholds", "extreme", "table4")
CAUSES: list[tuning.Point] = [{}, {"threshold_decay": "decoupled"}, {"threshold_decay": "none"},
                              # searches with one cause of pruning taken away
                              {"threshold_gradient": False}]
TRAINS = (32, 16)  # ranks of tensor trains that AFM's page has trained from scratch
UMEC_FIGURES = {"umec-fig2": (True, umec_fig2.METHODS, tuple(umec_fig2.PAPER)),
                "umec-fig3": (False, umec_fig3.METHODS, tuple(umec_fig3.PAPER))}
UMEC_BASE = {"max_epochs": 20, "early_stop": 3, "tensorboard": False}
UMEC_STEPS = 1500  # of a descent, to the nearest epoch, and one epoch at least
# fields that older searches lack
RECORDS = {"fig6": "sparsity", "stability": "sparsity", "thresholds": "thresholds"}
# what the paper shows of Criteo or Avazu, beside Figures 3 and 4
ELSEWHERE = ("table2", "table3", "table4", "fig8", "fig11")


def runs_behind(given: argparse.Namespace, name: str) -> list[PlannedRun]:
    """The runs behind a figure or table of the paper."""
    if name == "table2":
        return [bench_epoch.planned_run(PRESETS[given.dataset])]
    if name == "table1":
        return [bench_epoch.planned_run(PRESETS[given.dataset]), *schemes.comparison(given)]
    if name == "afm":
        return _of_afm(given)
    if name == "leaderboard":
        return recipe_runs.of_all_seeds(given)
    if name == "waterline":
        return waterline_runs.needs(given)
    if name == "starts":
        return _of_starts(given)
    if name in UMEC_FIGURES:
        return _of_umec(given, name)
    if name not in (*WITHOUT_TICKETS, *WITH_TICKETS):
        return schemes.comparison(given)
    points = WITHOUT_TICKETS.get(name) or _with_tickets(given, name)
    field = RECORDS.get(name)
    needs = []
    for seed in given.seeds:
        for scheme, point in points:
            one = schemes.planned_run(given, scheme, point, seed)
            if field and "retrain" not in one.what:
                one = plan.recorded(field, one)
            needs.append(one)
    return needs


def _of_afm(given: argparse.Namespace) -> list[PlannedRun]:
    """All seeds of one compression, then of the next; tensor trains from scratch come last."""
    studies = [afm_runs.study(partial(_base, given, seed), (given.model, seed))
               for seed in given.seeds]
    needs: list[PlannedRun] = []
    for same in zip(*studies, strict=True):
        needs += same
    for rank in TRAINS:
        needs += [schemes.planned_run(given, "tt", {"tt_rank": rank}, seed) for seed in given.seeds]
    return needs


def _of_starts(given: argparse.Namespace) -> list[PlannedRun]:
    """What the folder lacks of every start with the first seed at the smallest budget (AutoInt's
    also with the first-order part), and of the published start and the one that is best so far with
    all seeds at all budgets: the command is given again when the first runs are there."""
    sizes = schemes.budgets(given)
    # a start that prunes at once passes the largest long before the others
    groups = [sizes[1:], sorted({*starts.LARGER, sizes[0]}, reverse=True)]
    page = Page("starts", given.dataset, given.model, "")  # collects notes that nobody reads here
    known, shipped = (starts.by_start(starts.runs_of_every_start(
        page, results_in(Path(given.out), shipped=also), given.model)) for also in (False, True))
    first = given.seeds[0]
    parts = (False, True) if given.model == "autoint" else (False,)
    wanted = {(starts.Start(init, penalty, "all", part), sizes[-1], first): None
              for part, init, penalty in itertools.product(parts, starts.INITS, starts.PENALTIES)}
    best = starts.first_choice(shipped.get(sizes[-1], {}), first)
    chosen = [starts.PUBLISHED, *([best] if best else [])]
    wanted |= dict.fromkeys(itertools.product(chosen, [*sizes[::-1], *starts.LARGER], given.seeds))
    return [schemes.planned_run(given, "pep", {
                "threshold_init": start.init, "l2_penalty": start.penalty,
                **({"with_linear": True} if start.first_order else {}),
                "candidate_p": next(group for group in groups if budget in group),
                "retrain_emb_param": budget}, seed)
            for start, budget, seed in wanted
            if seed not in pooling.seeds_of(known.get(budget, {}).get(start, []))]


def _of_umec(given: argparse.Namespace, name: str) -> list[PlannedRun]:
    joint, methods, budgets = UMEC_FIGURES[name]
    dynamics = Dynamics(joint=joint, by_embedding=True)
    needs = []
    for seed, budget, method in itertools.product(given.seeds, budgets, methods):
        if method == "dense" and budget != budgets[0]:  # the dense model has no budget
            continue
        task = Task(budget, method, dynamics=dynamics)
        needs.append(PlannedRun(f"dlrm {method} at {budget:g} seed {seed}", ("dlrm", "uniform"),
                                partial(compressed, given, task, seed)))
    return needs


def _with_tickets(given: argparse.Namespace, name: str) -> Points:
    """The runs of one of WITH_TICKETS."""
    budgets = schemes.budgets(given)
    most = SHOWN.get(given.dataset, SHOWN["movielens"])
    shown = {"retrain_emb_param": next((budget for budget in budgets if budget <= most),
                                       budgets[-1])}
    causes = itertools.product(budgets, (CAUSES[0], CAUSES[-1]))
    pruned = itertools.product(("pep", "magnitude"), extreme.BUDGETS)
    points: dict[str, Points] = {
        "fig5": [("uniform", {}), ("pep", shown)],
        "fig8": [("uniform", {}), ("pep", shown), ("pep", {**shown, "re_init": True})],
        "fig10": [("pep", {**shown, "threshold_type": kind}) for kind in GRANULARITIES],
        "thresholds": [*(("pep", cause) for cause in CAUSES),
                       *(("pep", {**cause, "retrain_emb_param": budget})
                         for budget, cause in causes)],
        "extreme": [("pep", {"candidate_p": [*extreme.BUDGETS]}),
                    *((scheme, {"candidate_p": [*extreme.BUDGETS], "retrain_emb_param": budget})
                      for scheme, budget in pruned),
                    *(("uniform", {"latent_dim": width}) for width in extreme.WIDTHS)],
        "table4": [(schemes.LR, {}), ("pep", {"retrain_emb_param": budgets[-1]}),
                   *_autoint_with_lr(given, budgets)],
    }
    return points[name]


def _autoint_with_lr(given: argparse.Namespace, budgets: list[int]) -> Points:
    """Table 4's AutoInt+LR, which the paper has for Criteo and Avazu."""
    cell = table4.PAPER.get(given.dataset, {}).get(table4.AUTOINT_LR)
    if given.model != "autoint" or cell is None:
        return []
    own = {"with_linear": True, "candidate_p": [*budgets[:-1], cell.params]}
    return [("pep", {**own, "retrain_emb_param": cell.params})]


def everything(given: argparse.Namespace) -> list[PlannedRun]:
    """The runs behind all that the paper shows of a data set and a model, and what goes beyond it,
    with the tunings.

    Sizes that no tuning has chosen yet are counted with the first of their settings.
    """
    needs = []
    for name in (given.model, recipes.LINEAR):
        if name in recipes.RECIPES.get(given.dataset, {}):
            needs += [recipe_runs.planned_run(given, name, point, 1)
                      for point in recipes.trials(given.dataset, name)]
    for scheme in schemes.COMPARED.get(given.dataset, tuple(schemes.GRIDS)):
        if scheme == schemes.LR:
            continue
        grid = schemes.grid(given, scheme)
        points = tuning.points(grid, tuning.TRIALS)
        path = tuning.found(Path(given.out), given.dataset, given.model, scheme)
        size = next(iter(grid))
        first = list({str(point[size]): point for point in reversed(points)}.values())
        chosen = [trial["settings"] for trial in tuning.chosen(path)] if path.exists() else first
        needs += [schemes.planned_run(given, scheme, point, 1) for point in points]
        for point in chosen:
            needs += [schemes.planned_run(given, scheme, point, seed) for seed in given.seeds]
    pages = PAGES if given.model == "fm" else ("table4",)
    shown = [name for name in pages if given.dataset == "movielens" or name in ELSEWHERE]
    # with the tunings above, or of the sibling systems
    counted = ("fig2", "table1", "afm", "leaderboard", *UMEC_FIGURES)
    for name in shown:
        if name not in counted:
            needs += runs_behind(given, name)
    return needs


def compressed(given: argparse.Namespace, task: Task, seed: int,
               context: RunContext) -> dict[str, Any]:
    """A DLRM as published, trained and made smaller by one method at one budget."""
    base = {**PRESETS[given.dataset], **umec.PUBLISHED, **UMEC_BASE}
    result = stages.train(parse(base), seed, context)
    epochs = max(round(UMEC_STEPS * umec.PUBLISHED["batch_size"] / (0.8 * result["data"]["rows"])),
                 1)
    task = replace(task, epochs=epochs, finetune_epochs=-(-epochs // 2),
                   budget=1.0 if task.method == "dense" else task.budget)
    loaded = umec.load(result["run_id"], task.groups, replace(context, dry_run=False))
    return umec.compress(loaded, task, context)


def _base(given: argparse.Namespace, seed: int, context: RunContext) -> str:
    """The id of the base model's run, with the published settings; it is trained if need be."""
    own = {"max_epochs": PRESETS[given.dataset]["max_epochs"]}
    return schemes.run(given, "uniform", own, seed, context)["run_id"]
