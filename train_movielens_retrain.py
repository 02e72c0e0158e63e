"""Retrain the pruned tables of a search on MovieLens-1M as lottery tickets.

    python train_movielens_retrain.py                                    # every budget of the default search
    python train_movielens_retrain.py --set retrain_emb_param=6541
    python train_movielens_retrain.py --set re_init=true                 # same masks, fresh values
"""

from typing import Any

import train_movielens
from engine import cli, stages
from studies import table
from studies.collect import results_in
from studies.figures import budget_curve

SETTINGS = {
    **train_movielens.SETTINGS,  # model settings are read from the snapshot; these say where it is
    "retrain_emb_param": "all",  # a number of parameters, a budget, or all
    "re_init": False,  # True: same mask, fresh random values instead of the initial ones
    # all: everything restarts at the search's initial values, as published; embedding: the rest
    # fresh
    "rewind": "all",
    "max_epochs": 300,  # small tables still gain after 150
}


def retrain(description: str, script: dict[str, Any], variants: cli.Variants) -> None:
    """Read the command line, retrain, print the results, draw them with what there is of this data
    set and model."""
    options = cli.parser(description, variants).parse_args()
    settings, place, explicit = cli.read(options, script, variants)
    results = stages.retrain(settings, options.seed, place, explicit)
    print(table.of_results(results))
    ran = results[0]["settings"]
    print("figure:", budget_curve.draw(results_in(place.out), ran["dataset"], ran["model"],
                                       place.out / "figures",
                                       of=results))


def main() -> None:
    """The script."""
    retrain(__doc__, SETTINGS, train_movielens.VARIANTS)


if __name__ == "__main__":
    cli.main(main)
