"""`compress.py lowbit`: what the water line is compared with, with the same retraining.

    python compress.py lowbit --run ID --scheme uniform --bits 4 --width 16
    python compress.py lowbit --run ID --scheme mask --bits 4 --width 16 --keep 20000
    python compress.py lowbit --run ID --scheme mask --bits 4 --width 16 --bytes 20000
    python compress.py lowbit --run ID --scheme mask --bits 4        # the run is a retrained ticket
    python compress.py lowbit --run ID --scheme pq --bits 4 --subspaces 4 --centroids 256
    python compress.py lowbit --run ID --scheme qr --bits 4          # the run's embedding is qr
    python compress.py lowbit --run ID --scheme mde --bits 4         # the run's embedding is mde
"""

import argparse
from typing import Any

from compression.loaded_run import LoadedRun
from compression.lowbit import schemes
from compression.lowbit.retraining import (
    Retraining,
    add_retraining_options,
    describe,
    retrain,
    retraining_of,
    run_of,
)
from compression.lowbit.schemes import Scheme
from engine import cli


def add_options(method: argparse.ArgumentParser) -> None:
    """Of the command line."""
    method.add_argument("--run", required=True,
                        help="id of a finished training, or its start: of a uniform table, or of "
                             "the embedding whose own values are quantised")
    method.add_argument("--scheme", required=True, choices=schemes.SCHEMES, help="which scheme")
    method.add_argument("--bits", type=int, required=True, help="of every stored value")
    method.add_argument("--width", type=int, help="uniform, mask, pq: the first columns alone")
    method.add_argument("--keep", type=int, help="mask: entries that are kept, of a uniform table")
    method.add_argument("--bytes", type=int, help="mask: as many entries as these bytes hold")
    method.add_argument("--subspaces", type=int, help="pq: codes of a row")
    method.add_argument("--centroids", type=int, help="pq: values of a code")
    method.add_argument("--no-rotation", action="store_true", help="leave the table as it is")
    add_retraining_options(method)
    cli.add_place_options(method)
    method.add_argument("--force", action="store_true", help="run again what is finished")


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
