"""Make a trained model smaller. What comes out are ordinary snapshots for the retrain scripts; of a
DLRM, runs.

    python train_movielens.py --embedding uniform                                   # prints the run's id
    python compress.py magnitude --run ID --budget 23675 --budget 6541              # the largest |V|
    python compress.py imp --run ID --budget 6541                                   # in rounds, rewound and retrained
    python compress.py random --run ID --budget 6541                                # any entries
    python compress.py random --run ID --like SNAPSHOT.npz                          # as many a field as there
    python compress.py random --run ID --like SNAPSHOT.npz --per feature            # or a feature
    python compress.py afm --run ID --emb-rank 8 --mlp-rank 16                      # low rank, see `afm --help`
    python train_movielens_retrain.py --alias movielens_magnitude_d64_seed1         # the name that was printed
    python compress.py umec --run ID --budget 0.5                                   # a DLRM: fewer fields and neurons
    python compress.py umec --run ID --budget 0.5 --budget 0.2 --one-descent        # saved on the way to the least
    python compress.py umec --run ID --budget 0.5 --method magnitude                # a rival at the same budget
"""

import argparse
from pathlib import Path

from compression.afm import command as afm
from compression.pruning import command as pruned
from compression.pruning import methods
from compression.pruning.methods import load_trained
from compression.umec import command as umec
from engine import cli
from studies import page, table
from studies.collect import results_in
from studies.figures import afm_page


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = made.add_subparsers(dest="method_name", required=True)
    for name, what in (("magnitude", "one-shot magnitude pruning"),
                       ("imp", "iterative magnitude pruning, rewound"),
                       ("random", "a random mask")):
        method = methods.add_parser(name, help=what)
        method.add_argument("--run", required=True,
                            help="id of a finished training of a uniform table, or its start")
        method.add_argument("--budget", type=int, action="append", default=[],
                            help="parameters left; may be repeated")
        cli.add_place_options(method)
        method.add_argument("--alias", help="name of the snapshot folder (default: dataset, "
                                            "method, width and seed)")
        method.add_argument("--overwrite", action="store_true",
                            help="take over another run's alias folder")
    afm.add_options(methods.add_parser("afm", help="factor table and layers",
                                       description=afm.__doc__,
                                       formatter_class=argparse.RawDescriptionHelpFormatter))
    methods.choices["imp"].add_argument("--keep", type=float, default=pruned.KEEP,
                                        help="share of the entries a round leaves")
    methods.choices["random"].add_argument("--like", type=Path, action="append", default=[],
                                           help="a snapshot whose number of entries in each field "
                                                "is taken over")
    methods.choices["random"].add_argument("--per", choices=("field", "feature"),
                                           help="with --like: of what (default: field) the numbers "
                                                "are taken over")
    umec.add_options(methods.add_parser("umec", help="a DLRM under a resource budget, and rivals"))
    return made


def factor(given: argparse.Namespace) -> None:
    """AFM's subcommand: print what it made, and write the page of this data set and model."""
    results, place = afm.work(given)
    print(table.of_results(results))
    settings = results[0]["settings"]
    built = afm_page.build(results_in(place.out), place.out, settings["dataset"], settings["model"])
    for path in page.write(built, place.out / "pages"):
        print(path)


def main() -> None:
    """The script."""
    given = options().parse_args()
    if given.method_name == "afm":
        factor(given)
        return
    if given.method_name == "umec":
        umec.work(given)
        return
    place = cli.place_of(given, alias=given.alias, overwrite=given.overwrite)
    method, like = given.method_name, getattr(given, "like", [])
    if method == "random" and bool(given.budget) == bool(like):
        raise ValueError("random takes either --budget or --like")
    if method == "random" and given.per is not None and not like:
        raise ValueError(f"--per {given.per} says what --like takes over; give --like SNAPSHOT.npz "
                         f"too")
    for path in like:
        if not path.exists():
            raise FileNotFoundError(f"there is no snapshot {path} for --like")
    if like:
        method = f"random_per_{given.per or 'field'}"
    keep = getattr(given, "keep", pruned.KEEP)
    trained = load_trained(given.run, place)
    made = pruned.tables(trained, method, given.budget, like, keep, place)
    folder = methods.prune(trained, method, made, place, pruned.how(method, like, keep))
    print(f"snapshots of {', '.join(f'{count:,}' for count in made)} parameters: {folder}")
    print(f"retrain them with --model {trained.settings.model.model} --seed {trained.run.seed} "
          f"--alias {folder.name}")


if __name__ == "__main__":
    cli.main(main)
