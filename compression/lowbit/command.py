"""The work of `compress.py lowbit`, whose options stand in `compression.lowbit.options`."""

import argparse
from typing import Any

from compression.loaded_run import LoadedRun
from compression.lowbit import schemes
from compression.lowbit.retraining import (
    Retraining,
    describe,
    retrain,
    retraining_of,
    run_of,
)
from compression.lowbit.schemes import Scheme
from engine import cli


def work(args: argparse.Namespace) -> None:
    """Run the command and print a line."""
    scheme = Scheme(args.scheme, args.bits, args.width, args.keep, args.bytes,
                    args.subspaces, args.centroids,
                    not args.no_rotation)
    trained = schemes.load(args.run, scheme, cli.place_of(args, force=args.force))
    print(describe(compress(trained, scheme,
                            retraining_of(args, trained.settings.model.model))))


def compress(trained: LoadedRun, scheme: Scheme, how: Retraining) -> dict[str, Any]:
    """The result of a scheme; raises as `schemes.make`."""
    run = run_of(trained, how, scheme.identity())
    return retrain(run, lambda: schemes.make(trained, scheme), lambda model: {})
