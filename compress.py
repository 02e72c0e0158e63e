"""Make a trained model smaller: snapshots for the retrain scripts, or, of AFM and UMEC, runs.

    python train_movielens.py --embedding uniform             # prints the run's id
    python compress.py magnitude --run ID --budget 23675 --budget 6541   # the largest |V|
    python compress.py imp --run ID --budget 6541             # in rounds, rewound and retrained
    python compress.py random --run ID --budget 6541          # any entries
    python compress.py random --run ID --like SNAPSHOT.npz    # as many a field as there
    python compress.py random --run ID --like SNAPSHOT.npz --per feature
    python train_movielens_retrain.py --alias ALIAS           # it is printed, with its options
    python compress.py afm --run ID --emb-rank 8 --mlp-rank 16           # low rank: `afm --help`
    python compress.py umec --run ID --budget 0.5             # a DLRM: fewer fields and neurons
    python compress.py umec --run ID --budget 0.5 --budget 0.2 --one-descent
    python compress.py umec --run ID --budget 0.5 --method magnitude     # a baseline
    python compress.py waterline --run ID --bytes 20000       # a few bits an entry, retrained
    python compress.py lowbit --run ID --scheme uniform --bits 4         # what it is compared with
"""

import argparse
from pathlib import Path

from compression.afm import options as afm
from compression.lowbit import options as lowbit
from compression.pruning import KEEP
from compression.umec import task as umec
from compression.waterline import options as waterline
from engine import cli


def options() -> argparse.ArgumentParser:
    """The command line; each method says which function does its work."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = parser.add_subparsers(required=True)
    for name, what in (("magnitude", "one-shot magnitude pruning"),
                       ("imp", "iterative magnitude pruning, rewound"),
                       ("random", "a random mask")):
        method = methods.add_parser(name, help=what)
        method.set_defaults(work=prune, pruning=name, keep=KEEP, like=[], per=None)
        method.add_argument("--run", required=True,
                            help="id of a finished training of a uniform table, or its start")
        method.add_argument("--budget", type=int, action="append", default=[],
                            help="parameters left; may be repeated")
        cli.add_place_options(method)
        method.add_argument("--alias", help="name of the snapshot folder (default: dataset, "
                                            "method, width and seed)")
        method.add_argument("--overwrite", action="store_true",
                            help="take over another run's alias folder")
    methods.choices["imp"].add_argument("--keep", type=float, default=KEEP,
                                        help="share of the entries a round leaves")
    methods.choices["random"].add_argument("--like", type=Path, action="append", default=[],
                                           help="a snapshot whose number of entries in each field "
                                                "the mask gets too")
    methods.choices["random"].add_argument("--per", choices=("field", "feature"),
                                           help="with --like: count entries by field (default) or "
                                                "by feature")
    method = methods.add_parser("afm", help="factor table and layers", description=afm.__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    method.set_defaults(work=factor)
    afm.add_options(method)
    method = methods.add_parser("umec", help="a DLRM under a resource budget, and baselines")
    method.set_defaults(work=shrink)
    umec.add_options(method)
    method = methods.add_parser("waterline", help="a table at a number of bytes",
                                description=waterline.__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    method.set_defaults(work=to_bytes)
    waterline.add_options(method)
    method = methods.add_parser("lowbit", help="other schemes at few bits, with its retraining",
                                description=lowbit.__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    method.set_defaults(work=few_bits)
    lowbit.add_options(method)
    return parser


def prune(args: argparse.Namespace) -> None:
    """Write snapshots of a pruned table, and print how to retrain them."""
    from compression.loaded_run import load_uniform
    from compression.pruning import command as pruned
    from compression.pruning import methods
    from studies.scripts import retraining, script_of

    method = args.pruning
    if method == "random" and bool(args.budget) == bool(args.like):
        raise ValueError("random takes either --budget or --like")
    if args.per is not None and not args.like:
        raise ValueError(f"--per {args.per} says what --like takes over; give --like SNAPSHOT.npz "
                         f"too")
    for path in args.like:
        if not path.exists():
            raise FileNotFoundError(f"there is no snapshot {path} for --like")
    if args.like:
        method = f"random_per_{args.per or 'field'}"
    how = pruned.Pruning(method, args.budget, args.like, args.keep)
    context = cli.place_of(args, alias=args.alias, overwrite=args.overwrite)
    trained = load_uniform(args.run, context)
    methods.refuse_taken(trained, method, args.budget, context, how.how)
    tables = pruned.tables(trained, how, context)
    folder = methods.prune(trained, method, tables, context, how.how)
    print(f"snapshots of {', '.join(f'{count:,}' for count in tables)} parameters: {folder}")
    command = retraining(*script_of(trained.settings.data.dataset, args.data),
                         trained.settings.model.model, folder,
                         {**vars(args), "seed": trained.run.seed})
    print(f"to retrain them: {command}")


def factor(args: argparse.Namespace) -> None:
    """Factor a model by AFM, print the results, and write the page of this data set and model."""
    from compression.afm import command
    from studies import page, table
    from studies.collect import results_in
    from studies.figures import afm_page

    results, context = command.work(args)
    print(table.of_results(results))
    settings = results[0]["settings"]
    built = afm_page.build(results_in(context.out), context.out, settings["dataset"],
                           settings["model"])
    for path in page.write(built, context.out / "pages"):
        print(path)


def shrink(args: argparse.Namespace) -> None:
    """Compress a DLRM under its budgets, and print the results."""
    from compression.umec import command

    command.work(args)


def to_bytes(args: argparse.Namespace) -> None:
    """Compress a table to its numbers of bytes, and print a line for each."""
    from compression.waterline import command

    command.work(args)


def few_bits(args: argparse.Namespace) -> None:
    """Compress a table by another scheme at few bits, and print a line."""
    from compression.lowbit import command

    command.work(args)


def main() -> None:
    """The script."""
    args = options().parse_args()
    args.work(args)


if __name__ == "__main__":
    cli.main(options().parse_args, trains=False)  # --help answers at once
    cli.main(main)
