"""Retrain the pruned tables of a search on Avazu as lottery tickets.

    python train_avazu_retrain.py                                    # every budget of the default search
    python train_avazu_retrain.py --coarse                           # of the one with --coarse
    python train_avazu_retrain.py --set retrain_emb_param=1479
"""

import train_avazu
from engine import cli
from train_movielens_retrain import retrain

SETTINGS = {
    **train_avazu.SETTINGS,  # model settings are read from the snapshot; these say where it is
    "retrain_emb_param": "all",  # a number of parameters, a budget, or all
    "re_init": False,  # True: same mask, fresh random values instead of the initial ones
    # all: everything restarts at the search's initial values, as published; embedding: the rest
    # fresh
    "rewind": "all",
}


def main() -> None:
    """The script."""
    retrain(__doc__, SETTINGS, train_avazu.VARIANTS)


if __name__ == "__main__":
    cli.main(main)
