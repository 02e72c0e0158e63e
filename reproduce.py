"""What the comparisons of the README need, run from one command; what is finished is not run again.

    python reproduce.py tune --dataset movielens --embedding mde      # the published grid, chosen on validation
    python reproduce.py compare --dataset movielens --model fm        # every scheme at its chosen settings, all seeds
    python reproduce.py compare --dataset movielens --model fm --dry-run
"""

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import compress
import train_avazu
import train_criteo
import train_movielens
from engine import cli, pruning, stages, tuning
from engine.run import Place
from engine.settings import parse
from utils.names import unknown

SCRIPTS = {"movielens": train_movielens.SETTINGS, "criteo": train_criteo.SETTINGS, "avazu": train_avazu.SETTINGS}
TRIALS = 12  # of every scheme
DECAYS = [1e-5, 1e-6, 1e-4]  # l2_regularization; the first is the published one
BUDGETS = {"retrain_emb_param": [50_000, 23_675, 10_000, 6_541]}
PRUNED = ("pep", "magnitude", "imp", "random", "random_per_field")  # schemes that retrain snapshots
GRIDS: dict[str, dict[str, list[Any]]] = {  # the first setting sets the size; the grids of the paper's A.4.4, and ours
    "uniform": {"latent_dim": [2, 4, 8, 16, 32, 64], "l2_regularization": DECAYS[::2]},
    "mde": {"latent_dim": [4, 8, 16, 32], "mde_blocks": [8, 16], "mde_alpha": [0.1, 0.2, 0.3]},
    "mgqe": {"latent_dim": [8, 16, 32, 64], "mgqe_subspaces": [4, 8], "mgqe_centroids": [64, 128, 256, 512]},
    "darts": {"darts_widths": [[1, 2, 8], [2, 4, 16], [4, 8, 32], [8, 16, 64]], "l2_regularization": DECAYS},
    "hash": {"hash_rows": [256, 512, 1024, 2048], "l2_regularization": DECAYS},
    "qr": {"qr_collisions": [16, 8, 4, 2], "l2_regularization": DECAYS},
    "pep": {**BUDGETS, "threshold_init": [-15.0, -8.0, -5.0]},
    **{name: {**BUDGETS, "l2_regularization": DECAYS} for name in PRUNED[1:]},
}
LONG = {"max_epochs": 300, "tensorboard": False}  # early stopping ends a run, not this


def run(given: argparse.Namespace, scheme: str, point: tuning.Point, seed: int, place: Place) -> dict[str, Any]:
    """Train one scheme at one point of its grid; whatever is finished is not run again."""
    base = {**SCRIPTS[given.dataset], "model": given.model, "tensorboard": False}
    if scheme not in PRUNED:
        return stages.train(parse({**base, **LONG, "embedding": scheme, **point}), seed, place)
    own = {name: value for name, value in point.items() if name not in BUDGETS}
    folder = _snapshots(given, scheme, own, seed, place)
    [result] = stages.retrain(parse({**base, **LONG, **point}), seed, replace(place, alias=folder.name))
    return result


def _snapshots(given: argparse.Namespace, scheme: str, own: tuning.Point, seed: int, place: Place) -> Path:
    """The folder with a scheme's snapshots at all budgets, made when they are missing."""
    base = {**SCRIPTS[given.dataset], "model": given.model, "tensorboard": False}
    budgets = BUDGETS["retrain_emb_param"]
    changed = {name: value for name, value in own.items() if value != base.get(name)}
    suffix = "".join(f"_{name}_{value}" for name, value in changed.items())
    default = f"{given.dataset}_{scheme}{suffix}_d{base['latent_dim']}_seed{seed}"
    if scheme == "pep":
        settings = parse({**base, **own, "candidate_p": budgets if suffix else base["candidate_p"]})
        alias = default if suffix else None
        stages.train(settings, seed, replace(place, alias=alias))
        return stages.alias_folder(place.out, settings, seed, alias)
    result = stages.train(parse({**base, **LONG, "embedding": "uniform", **own}), seed, place)
    trained = pruning.load_trained(result["run_id"], place)
    like = []
    if scheme == "random_per_field":
        searched = _snapshots(given, "pep", {}, seed, place)
        like = [searched / f"{budget}.npz" for budget in budgets]
    tables = compress.tables(trained, scheme, budgets, like, compress.KEEP, place)
    return pruning.prune(trained, scheme, tables, replace(place, alias=default))


def tune(given: argparse.Namespace, place: Place) -> None:
    """Run one scheme's grid with one seed and write what validation chose."""
    wanted = tuning.points(GRIDS[given.embedding], given.trials)
    if given.dry_run:
        print("\n".join(tuning.describe(point) for point in wanted))
        return
    about = {"dataset": given.dataset, "model": given.model, "embedding": given.embedding, "seed": given.seed}
    path = tuning.file_of(place.out, given.dataset, given.model, given.embedding)
    tuning.tune(wanted, lambda point: run(given, given.embedding, point, given.seed, place), path, about)
    print(path)


def compare(given: argparse.Namespace, place: Place) -> None:
    """Run every scheme with all seeds at the settings that were chosen for it; pruning also without a tuning."""
    for scheme, seed in itertools.product(given.scheme or GRIDS, given.seeds):
        path = tuning.file_of(place.out, given.dataset, given.model, scheme)
        if scheme in PRUNED and not path.exists():
            points = [{"retrain_emb_param": budget} for budget in BUDGETS["retrain_emb_param"]]
        else:
            points = [trial["settings"] for trial in tuning.chosen(path)]
        for point in points:
            print(f"{scheme}, seed {seed}: {tuning.describe(point)}", flush=True)
            if not given.dry_run:
                run(given, scheme, point, seed, place)


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--traceback", action="store_true", help="show where in the code an error comes from")
    commands = made.add_subparsers(dest="command", required=True)
    for name, what in (("tune", "choose a scheme's settings on validation"),
                       ("compare", "run every scheme at its chosen settings")):
        command = commands.add_parser(name, help=what)
        command.add_argument("--dataset", default="movielens", help=", ".join(SCRIPTS))
        command.add_argument("--model", default="fm", help="fm, deepfm or autoint")
        command.add_argument("--data", help="the raw files, as for the scripts")
        command.add_argument("--out", default="tmp", help="where results go")
        command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train")
        command.add_argument("--dry-run", action="store_true", help="list what would be run")
    commands.choices["tune"].add_argument("--embedding", required=True, help=", ".join(GRIDS))
    commands.choices["tune"].add_argument("--trials", type=int, default=TRIALS, help="points of the grid")
    commands.choices["tune"].add_argument("--seed", type=int, default=1)
    commands.choices["compare"].add_argument("--scheme", action="append", help=", ".join(GRIDS))
    commands.choices["compare"].add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    return made


def main() -> None:
    """The script."""
    given = options().parse_args()
    if given.dataset not in SCRIPTS:
        raise ValueError(unknown("dataset", given.dataset, SCRIPTS))
    place = Place(out=Path(given.out), data=given.data, device=given.device)
    if given.command == "tune":
        if given.embedding not in GRIDS:
            raise ValueError(unknown("embedding", given.embedding, GRIDS))
        tune(given, place)
        return
    for scheme in given.scheme or []:
        if scheme not in GRIDS:
            raise ValueError(unknown("scheme", scheme, GRIDS))
    compare(given, place)


if __name__ == "__main__":
    cli.main(main)
