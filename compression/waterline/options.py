"""`compress.py waterline`: a table at a number of bytes, retrained and packed.

    python train_movielens.py --recipe_fm                    # a dense model; prints the run's id
    python compress.py waterline --run ID --bytes 20000
    python compress.py waterline --run ID --bytes 10000 --bytes 35000
    python compress.py waterline --run ID --bytes 10000 --width 16 --width 32   # fewer columns
    python compress.py waterline --run ID --bytes 20000 --most 4    # ablations: see --help
"""

import argparse

from compression.lowbit.options import add_retraining_options
from engine import cli

ENERGY, COUNTS, NOTHING = "energy", "counts", "nothing"  # what a row's class follows
COLUMN, FIELD = "column", "field"  # what a column's number follows


def add_options(method: argparse.ArgumentParser) -> None:
    """Of the command line."""
    method.add_argument("--run", required=True,
                        help="id of a finished training of a uniform table, or its start")
    method.add_argument("--bytes", type=int, action="append", required=True,
                        help="everything stored of the table; may be repeated")
    method.add_argument("--no-rotation", action="store_true",
                        help="leave the table as it is: of a model that no rotation leaves alone")
    method.add_argument("--width", type=int, action="append",
                        help="the first columns alone, after the rotation (fm, deepfm, autoint); "
                             "worth trying where the bytes are few, and may be repeated: each "
                             "width is a run, and the validation AUC says which is best (default: "
                             "all columns)")
    method.add_argument("--rows", choices=(ENERGY, COUNTS, NOTHING),
                        default=ENERGY, help="what a row's bits follow: count and energy "
                        "(default), its count alone, or nothing")
    method.add_argument("--columns", choices=(COLUMN, FIELD), default=COLUMN,
                        help="what a column's bits follow: itself (default), or its field")
    method.add_argument("--most", type=int, help="bits of an entry at most")
    method.add_argument("--rung", type=int, default=0,
                        help="every entry has so many bits or none")
    add_retraining_options(method)
    cli.add_place_options(method)
    method.add_argument("--force", action="store_true", help="run again what is finished")
