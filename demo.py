"""PEP on synthetic data whose true widths are known: search, retrain, table and figure, without a
download.

    python demo.py                # half a minute on one core; a second call reuses finished runs
    python demo.py --seed 2

A teacher factorisation machine draws the labels. Each field uses a planted number of coordinates,
some fields none. The search does not know these numbers; the widths that it leaves are compared
with them.
"""

import argparse
from pathlib import Path

from engine import cli

SETTINGS = {
    "dataset": "planted",
    "model": "fm",
    "embedding": "pep",
    "latent_dim": 16,  # twice the widest planted field: 650 x 16 = 10,400 parameters
    # s rises by at most lr a step, so pruning begins within the first epochs
    "threshold_init": -8.0,
    # decay lets s rise to 0 and no further, so g ends at gk / 2 = 1; the learned entries are that
    # large
    "gk": 2.0,
    "candidate_p": [2_750, 1_375, 900],  # 1,375 is what the teacher itself has
    "batch_size": 1024,
    "lr": 1e-2,  # ten times that of the data sets: 78 steps an epoch have to do
    # it moves the thresholds; lower, and the smallest budget is not reached
    "l2_regularization": 1.5e-4,
    "weight_decay": 1e-5,  # of the other parameters, which move no threshold
    "max_epochs": 40,
    "eval_interval": 1,
    "early_stop": 6,
    "tensorboard": False,
}


def options() -> argparse.Namespace:
    """The command line."""
    read = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--seed", type=cli.seed, default=1,
                      help="of initial values and batch order; the data stay the same")
    read.add_argument("--out", type=Path, default=Path("tmp/demo"),
                      help="where runs and figure go (tmp/demo)")
    read.add_argument("--force", action="store_true", help="run again what is finished")
    read.add_argument("--traceback", action="store_true",
                      help="show where in the code an error comes from")
    return read.parse_args()


def main() -> None:
    """Run everything, print the table, draw the figure."""
    given = options()
    from studies.figures import demo

    demo.run(SETTINGS, given.seed, given.out, given.force)


if __name__ == "__main__":
    cli.main(options, trains=False)  # --help answers at once
    cli.main(main)
