"""The work of `compress.py waterline`, whose options stand in `compression.waterline.options`."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from compression.loaded_run import LoadedRun, load_uniform
from compression.lowbit.retraining import (
    Retraining,
    describe,
    retrain,
    retraining_of,
    run_of,
)
from compression.lowbit.start import Start
from compression.waterline import shape as shapes
from compression.waterline.allocation import Allocation, allocate
from compression.waterline.shape import Shape
from engine import cli
from engine.run import Run

METHOD = "waterline"


def work(args: argparse.Namespace) -> None:
    """Run the command and print a line for each width and budget; all are checked before the first
    is trained."""
    most = Shape.most if args.most is None else args.most
    asked = [Shape(not args.no_rotation, width, args.rows, args.columns, most, args.rung)
             for width in dict.fromkeys(args.width or [None])]
    trained = load_uniform(args.run, cli.place_of(args, force=args.force))
    trained = trained.with_one_value_a_field(METHOD)
    how = retraining_of(args, trained.settings.model.model)
    for retrain_all in [_prepared(trained, shape, args.bytes, how) for shape in asked]:
        for result in retrain_all():
            print(describe(result))


def compress(trained: LoadedRun, shape: Shape, budgets: Sequence[int],
             how: Retraining) -> list[dict[str, Any]]:
    """The result of each budget; all budgets are checked before the first is trained.

    Raises:
        ValueError: as `allocate` and `shape.level_of`.
    """
    return _prepared(trained, shape, budgets, how)()


def _prepared(trained: LoadedRun, shape: Shape, budgets: Sequence[int],
              how: Retraining) -> Callable[[], list[dict[str, Any]]]:
    """Check every budget; returns a function that trains them."""
    if shape.width == trained.table.shape[1]:
        shape = replace(shape, width=None)
    runs = {budget: run_of(trained, how, {"method": METHOD, "bytes": budget, **shape.identity()})
            for budget in budgets}
    results = {budget: run.finished() for budget, run in runs.items()}
    if all(result is not None for result in results.values()):
        return lambda: [result for result in results.values() if result is not None]
    start, level = shapes.level_of(trained, shape)
    allocations = {budget: allocate(level, budget) for budget in budgets}
    return lambda: [results[budget] or _retrain(run, start, allocations[budget])
                    for budget, run in runs.items()]


def _retrain(run: Run, start: Start, allocation: Allocation) -> dict[str, Any]:
    return retrain(run, lambda: (shapes.quantised(start, allocation), start.seen),
                   lambda model: shapes.save(model.embedding, allocation, run.folder))
