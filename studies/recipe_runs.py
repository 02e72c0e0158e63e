"""Running the trials of `studies.recipes`, and writing which of them validation chooses."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from engine import stages
from engine.run import RunContext
from engine.settings import parse
from studies import recipes, tuning
from studies.plan import PlannedRun
from studies.published import PRESETS


def run(given: argparse.Namespace, name: str, point: tuning.Point, seed: int,
        context: RunContext) -> dict[str, Any]:
    """Train one trial; a finished one is not run again."""
    recipe = recipes.known(given.dataset, name)
    settings = {**PRESETS[given.dataset], **recipes.OF_OTHERS, **recipes.LIMITS,
                "model": recipe.model, "embedding": "uniform", **point}
    return stages.train(parse(settings), seed, context)


def planned_run(given: argparse.Namespace, name: str, point: tuning.Point, seed: int) -> PlannedRun:
    """One trial of a plan."""
    return PlannedRun(f"{name} {tuning.describe(point)} seed {seed}",
                      (recipes.known(given.dataset, name).model, "uniform"),
                      partial(run, given, name, point, seed))


def of_all_seeds(given: argparse.Namespace) -> list[PlannedRun]:
    """Every recipe of a data set that is chosen, with all seeds."""
    out = Path(given.out)
    needs = []
    for name in recipes.RECIPES.get(given.dataset, {}):
        if point := recipes.settings_of(out, given.dataset, name):
            needs += [planned_run(given, name, point, seed) for seed in given.seeds]
        else:
            print(f"left out, because its settings are not chosen: {name} (python reproduce.py "
                  f"recipe --dataset {given.dataset} --model {name})")
    return needs
