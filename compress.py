"""Make a trained model smaller. What comes out are ordinary snapshots, which the retrain scripts take.

    python train_movielens.py --embedding uniform                                   # prints the run's id
    python compress.py magnitude --run ID --budget 23675 --budget 6541              # the largest |V|
    python compress.py imp --run ID --budget 6541                                   # in rounds, rewound and retrained
    python compress.py random --run ID --budget 6541                                # any entries
    python compress.py random --run ID --like tmp/embedding/fm/ALIAS/6541.npz       # as many a field as there
    python compress.py afm --run ID --emb-rank 8 --mlp-rank 16                      # low rank, see `afm --help`
    python train_movielens_retrain.py --alias movielens_magnitude_d64_seed1         # the name that was printed
"""

import argparse
from pathlib import Path

import numpy as np

import compress_afm
from engine import cli, pruning, snapshots
from engine.pruning import Trained, load_trained
from engine.run import Place, derive
from transforms import random_mask

KEEP = 0.5  # share of the entries that a round of iterative pruning leaves


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = made.add_subparsers(dest="method", required=True)
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
    afm = methods.add_parser("afm", help="factor table and layers", description=compress_afm.__doc__,
                             formatter_class=argparse.RawDescriptionHelpFormatter)
    compress_afm.add_options(afm)
    methods.choices["imp"].add_argument("--keep", type=float, default=KEEP, help="share of the entries a round leaves")
    methods.choices["random"].add_argument("--like", type=Path, action="append", default=[],
                                           help="a snapshot whose number of entries in each field is taken over")
    return made


def tables(trained: Trained, method: str, budgets: list[int], like: list[Path], keep: float,
           place: Place) -> dict[int, np.ndarray]:
    """The pruned tables (N, D) by their number of parameters.

    Args:
        method: magnitude, imp, random or random_per_field.
        like: snapshots whose number of entries in each field `random_per_field` takes over.
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
        masks = [random_mask.per_field(_mask_of(path, trained), trained.dataset.schema.sizes, generator)
                 for path in like]
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
    if given.method == "afm":
        compress_afm.work(given)
        return
    place = Place(out=Path(given.out), data=given.data, device=given.device, alias=given.alias,
                  overwrite=given.overwrite)
    method, like = given.method, getattr(given, "like", [])
    if method == "random" and bool(given.budget) == bool(like):
        raise ValueError("random takes either --budget or --like")
    if like:
        method = "random_per_field"
    trained = load_trained(given.run, place)
    made = tables(trained, method, given.budget, like, getattr(given, "keep", KEEP), place)
    folder = pruning.prune(trained, method, made, place)
    print(f"snapshots of {', '.join(f'{count:,}' for count in made)} parameters: {folder}")
    print(f"retrain them with --model {trained.settings.model.model} --seed {trained.run.seed} --alias {folder.name}")


if __name__ == "__main__":
    cli.main(main)
