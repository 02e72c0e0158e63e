"""Running what a figure or table of the paper needs, and writing its page: the work of
`reproduce.py`, whose command line each function takes as `given`."""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine import jobs
from engine.record import pick_device
from engine.run import RunContext, open_data
from engine.settings import parse
from studies import (
    names,
    pages,
    plan,
    planned_runs,
    recipe_runs,
    recipes,
    schemes,
    synthetic_data,
    table,
    tuning,
)
from studies.collect import results_in
from studies.figures import PAGES
from studies.plan import PlannedRun
from studies.published import PRESETS

log = logging.getLogger("pep")


@dataclass(frozen=True)
class ChoiceFile:
    """The file of a choice: where it is, what it says of itself, and of the training of a trial."""

    path: Path
    about: dict[str, Any]
    training: Callable[[tuning.Point], tuning.Point]


def cost(given: argparse.Namespace, context: RunContext) -> None:
    """Print what everything costs, by data set and model."""
    results = results_in(context.out, shipped=True)
    lines = []
    for model in names.MODELS:
        for dataset in datasets(with_options(given, model=model)):
            own = [result for result in results if result["settings"]["dataset"] == dataset]
            needs = planned_runs.everything(with_options(given, dataset=dataset, model=model))
            lines += [(dataset, model, *line) for line in plan.cost(needs, own, context)]
    lines.sort(key=lambda line: list(PRESETS).index(line[0]))
    print(table.plain(("data set", "model", *plan.COST_HEAD), lines))


def choose_recipe(given: argparse.Namespace, context: RunContext) -> None:
    """Run the trials of a recipe and write what validation chose."""
    _try_out(recipes.trials(given.dataset, given.model),
             lambda point: recipe_runs.planned_run(given, given.model, point, given.seed),
             ChoiceFile(recipes.own_file(context.out, given.dataset, given.model),
                     {"dataset": given.dataset, "model": given.model, "seed": given.seed},
                     lambda point: {"max_epochs": recipes.LIMITS["max_epochs"],
                                    **recipes.OF_OTHERS}), given, context)


def tune(given: argparse.Namespace, context: RunContext) -> None:
    """Run one scheme's trials with one seed and write what validation chose."""
    if given.planted is not None:
        context = synthetic_data.planted(context, given.dataset, given.planted,
                                         given.planted_values, write=True)
    given = with_options(given, out=str(context.out))
    recipes.require(context.out, given.dataset, given.model)
    given = with_size(given, context)
    wanted = schemes.points(given, given.embedding, given.trials, given.settings_of)
    path = tuning.file_of(context.out, given.dataset, given.model, given.embedding)
    tuning.require_no_fewer(path, wanted)
    about = {"dataset": given.dataset, "model": given.model, "embedding": given.embedding,
             "seed": given.seed}
    if given.settings_of is not None:
        about["settings_of"] = given.settings_of
    _try_out(wanted,
             lambda point: schemes.planned_run(given, given.embedding, point, given.seed),
             ChoiceFile(path, about, partial(schemes.training, given, given.embedding)),
             given, context)


def _try_out(points: list[tuning.Point], planned: Callable[[tuning.Point], PlannedRun],
             file: ChoiceFile, given: argparse.Namespace, context: RunContext) -> None:
    """Run what is missing of these trials and write what validation chose, as `tuning.tune` says.

    A trial that diverges is over: it ends neither the others nor the choice, and is not run again.
    """
    needs = {tuning.key(point): planned(point) for point in points}
    over = tuning.diverged(file.path, file.about)
    ran = run_all([replace(need, run=partial(_or_diverged, need)) for each, need in needs.items()
                   if each not in over], given, context)
    if given.dry_run:
        return
    for each, need in needs.items():
        if tuning.DIVERGED in ran.get(need.what, {}):
            over[each] = ran[need.what][tuning.DIVERGED]

    def result(point: tuning.Point) -> dict[str, Any]:
        own = tuning.key(point)
        return {tuning.DIVERGED: over[own]} if own in over else needs[own].run(context)

    with plan.quiet():  # all of them are finished now
        tuning.tune(points, result, file.path, file.about, file.training)
    print(file.path)


def _or_diverged(need: PlannedRun, context: RunContext) -> dict[str, Any]:
    """The run's result, or what was said when its training diverged."""
    try:
        return need.run(context)
    except FloatingPointError as error:
        log.warning("%s diverged and is never chosen: %s", need.what, error)
        return {tuning.DIVERGED: str(error)}


def with_size(given: argparse.Namespace, context: RunContext) -> argparse.Namespace:
    """The options with `dense`, the number of parameters of the whole table.

    Raises:
        FileNotFoundError: the data set is not there.
    """
    settings = parse({**PRESETS[given.dataset], "model": given.model})
    data, _ = open_data(settings, context)
    return with_options(given, dense=data.schema.num_rows * settings.model.latent_dim)


def run_all(needs: list[PlannedRun], given: argparse.Namespace, context: RunContext
            ) -> dict[str, Any]:
    """Print what is missing and, without --dry-run, run it; the results by the runs' words."""
    at_once = jobs.processes(given.jobs, given.device)
    wanted = plan.missing(needs, context)
    earlier = results_in(context.out, shipped=True) if wanted else []
    seconds = plan.seconds_of(wanted, [result for result in earlier
                                       if result["settings"]["dataset"] == given.dataset],
                              pick_device(given.device).type == "cuda")
    print(plan.describe(wanted, seconds), flush=True)
    if given.dry_run:
        return {}
    results = plan.run_all(wanted, seconds, context, at_once)
    return {need.what: result for need, result in zip(wanted, results, strict=True)}


def reproduce(given: argparse.Namespace, context: RunContext) -> None:
    """One command on one data set. One that is not there is skipped; its page is drawn from the
    runs that there are."""
    if given.planted is not None:
        context = synthetic_data.planted(context, given.dataset, given.planted,
                                         given.planted_values, write=not given.dry_run)
    given = with_options(given, out=str(context.out))
    if given.what != "leaderboard":
        recipes.require(context.out, given.dataset, given.model, recipes.LINEAR)
    try:
        if given.planted is None:
            synthetic_data.require_real(context, given.dataset)
        if given.planted is None or Path(str(context.data)).exists():  # a dry run writes no file
            given = with_size(given, context)
    except FileNotFoundError as error:
        print(f"skipped: {given.dataset} is not there ({error})")
    else:
        if given.what == "compare":
            needs = schemes.comparison(given)
        else:
            needs = planned_runs.runs_behind(given, given.what)
        run_all(needs, given, context)
    if given.what in PAGES and not given.dry_run:
        print("\n".join(pages.draw(given.what, context.out, given.dataset, given.model,
                                   given.planted is not None)))


def datasets(given: argparse.Namespace) -> list[str]:
    """Those that --dataset names; `all` names those left out for want of a recipe."""
    if given.dataset != "all":
        return [given.dataset]
    found = []
    for name in PRESETS:
        try:
            recipes.require(Path(given.out), name, given.model, recipes.LINEAR)
            found.append(name)
        except FileNotFoundError as error:
            print(f"skipped: {name} ({error})")
    return found


def with_options(given: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    """The command line with some options changed."""
    return argparse.Namespace(**{**vars(given), **changes})
