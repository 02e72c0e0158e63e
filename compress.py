"""Make a trained model smaller. What comes out are ordinary snapshots for the retrain scripts; of a DLRM, runs.

    python train_movielens.py --embedding uniform                                   # prints the run's id
    python compress.py magnitude --run ID --budget 23675 --budget 6541              # the largest |V|
    python compress.py imp --run ID --budget 6541                                   # in rounds, rewound and retrained
    python compress.py random --run ID --budget 6541                                # any entries
    python compress.py random --run ID --like SNAPSHOT.npz                          # as many a field as there
    python compress.py random --run ID --like SNAPSHOT.npz --per feature            # or a feature
    python train_movielens_retrain.py --alias movielens_magnitude_d64_seed1         # the name that was printed
    python compress.py umec --run ID --budget 0.5                                   # a DLRM: fewer fields and neurons
    python compress.py umec --run ID --budget 0.5 --method magnitude                # a rival at the same budget
"""

import argparse
from pathlib import Path

import numpy as np

import compress_umec
from engine import cli, pruning, snapshots
from engine.pruning import Trained, load_trained
from engine.run import Place, derive
from transforms import random_mask

KEEP = 0.5  # share of the entries that a round of iterative pruning leaves


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = made.add_subparsers(dest="method_name", required=True)
    for name, what in (("magnitude", "one-shot magnitude pruning"), ("imp", "iterative magnitude pruning, rewound"),
                       ("random", "a random mask")):
        method = methods.add_parser(name, help=what)
        method.add_argument("--run", required=True, help="id of a finished training of a uniform table, or its start")
        method.add_argument("--budget", type=int, action="append", default=[], help="parameters left; may be repeated")
        method.add_argument("--data", help="the raw files, as for the training")
        method.add_argument("--out", default="tmp", help="where the run lies and snapshots go")
        method.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train")
        method.add_argument("--alias", help="name of the snapshot folder (default: dataset, method, width and seed)")
        method.add_argument("--overwrite", action="store_true", help="take over another run's alias folder")
        method.add_argument("--traceback", action="store_true", help="show where in the code an error comes from")
    methods.choices["imp"].add_argument("--keep", type=float, default=KEEP, help="share of the entries a round leaves")
    methods.choices["random"].add_argument("--like", type=Path, action="append", default=[],
                                           help="a snapshot whose number of entries in each field is taken over")
    methods.choices["random"].add_argument("--per", choices=("field", "feature"), default="field",
                                           help="with --like: of what the numbers of entries are taken over")
    compress_umec.add_options(methods.add_parser("umec", help="a DLRM under a resource budget, and rivals"))
    return made


def tables(trained: Trained, method: str, budgets: list[int], like: list[Path], keep: float,
           place: Place) -> dict[int, np.ndarray]:
    """The pruned tables (N, D) by their number of parameters.

    Args:
        method: magnitude, imp, random, random_per_field or random_per_feature.
        like: snapshots whose number of entries in each field or feature the last two take over.
        keep: share of the entries that a round of `imp` leaves.
    """
    if method == "magnitude":
        return pruning.by_magnitude(trained, budgets)
    if method == "imp":
        return pruning.iteratively(trained, budgets, keep, place)
    generator = np.random.default_rng(derive(trained.run.seed, "random mask"))
    if method == "random":
        trained.check(budgets)
        masks = [random_mask.uniform(trained.initial.shape, budget, generator) for budget in budgets]
    else:
        chosen = [_mask_of(path, trained) for path in like]
        masks = [random_mask.per_feature(mask, generator) if method == "random_per_feature" else
                 random_mask.per_field(mask, trained.dataset.schema.sizes, generator) for mask in chosen]
    return {int(mask.sum()): np.where(mask, trained.initial, 0) for mask in masks}


def _mask_of(path: Path, trained: Trained) -> np.ndarray:
    table = snapshots.read(path)[0].table
    if table.shape != trained.initial.shape:
        raise ValueError(f"{path} is of shape {table.shape}, the run's table of {trained.initial.shape}; name a "
                         "snapshot of the same data and width")
    return table != 0


def main() -> None:
    """The script."""
    given = options().parse_args()
    if given.method_name == "umec":
        compress_umec.work(given)
        return
    place = Place(out=Path(given.out), data=given.data, device=given.device, alias=given.alias,
                  overwrite=given.overwrite)
    method, like = given.method_name, getattr(given, "like", [])
    if method == "random" and bool(given.budget) == bool(like):
        raise ValueError("random takes either --budget or --like")
    if like:
        method = f"random_per_{given.per}"
    trained = load_trained(given.run, place)
    made = tables(trained, method, given.budget, like, getattr(given, "keep", KEEP), place)
    folder = pruning.prune(trained, method, made, place)
    print(f"snapshots of {', '.join(f'{count:,}' for count in made)} parameters: {folder}")
    print(f"retrain them with --model {trained.settings.model.model} --seed {trained.run.seed} --alias {folder.name}")


if __name__ == "__main__":
    cli.main(main)
