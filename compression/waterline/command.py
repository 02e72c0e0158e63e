"""`compress.py waterline`: a table at a number of bytes, retrained and packed.

    python train_movielens.py --recipe_fm                    # a dense model; prints the run's id
    python compress.py waterline --run ID --bytes 20000
    python compress.py waterline --run ID --bytes 10000 --bytes 35000
    python compress.py waterline --run ID --bytes 20000 --most 4    # ablations: see --help
"""

import argparse
from collections.abc import Sequence
from typing import Any

from compression.loaded_run import LoadedRun, load_uniform
from compression.lowbit.retraining import (
    Retraining,
    add_retraining_options,
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


def add_options(method: argparse.ArgumentParser) -> None:
    """Of the command line."""
    usual = Shape()
    method.add_argument("--run", required=True,
                        help="id of a finished training of a uniform table, or its start")
    method.add_argument("--bytes", type=int, action="append", required=True,
                        help="everything stored of the table; may be repeated")
    method.add_argument("--no-rotation", action="store_true",
                        help="leave the table as it is: of a model that no rotation leaves alone")
    method.add_argument("--rows", choices=(shapes.ENERGY, shapes.COUNTS, shapes.NOTHING),
                        default=usual.rows, help="what a row's bits follow: count and energy "
                        "(default), its count alone, or nothing")
    method.add_argument("--columns", choices=(shapes.COLUMN, shapes.FIELD), default=usual.columns,
                        help="what a column's bits follow: itself (default), or its field")
    method.add_argument("--most", type=int, default=usual.most, help="bits of an entry at most")
    method.add_argument("--rung", type=int, default=usual.rung,
                        help="every entry has so many bits or none")
    add_retraining_options(method)
    cli.add_place_options(method)
    method.add_argument("--force", action="store_true", help="run again what is finished")


def work(args: argparse.Namespace) -> None:
    """Run the command and print a line a budget."""
    shape = Shape(not args.no_rotation, args.rows, args.columns, args.most, args.rung)
    trained = load_uniform(args.run, cli.place_of(args, force=args.force))
    how = retraining_of(args, trained.settings.model.model)
    for result in compress(trained, shape, args.bytes, how):
        print(describe(result))


def compress(trained: LoadedRun, shape: Shape, budgets: Sequence[int],
             how: Retraining) -> list[dict[str, Any]]:
    """The result of each budget; all budgets are checked before the first is trained.

    Raises:
        ValueError: as `allocate`, or the model is not invariant under the rotation.
    """
    runs = {budget: run_of(trained, how, {"method": METHOD, "bytes": budget, **shape.identity()})
            for budget in budgets}
    results = {budget: run.finished() for budget, run in runs.items()}
    if all(result is not None for result in results.values()):
        return [result for result in results.values() if result is not None]
    start, level = shapes.level_of(trained, shape)
    allocations = {budget: allocate(level, budget) for budget in budgets}
    return [results[budget] or _retrain(run, start, allocations[budget])
            for budget, run in runs.items()]


def _retrain(run: Run, start: Start, allocation: Allocation) -> dict[str, Any]:
    return retrain(run, lambda: (shapes.quantised(start, allocation), start.seen),
                   lambda model: shapes.save(model.embedding, allocation, run.folder))
