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
GRIDS: dict[str, dict[str, list[Any]]] = {  # the first setting sets the size; the grids of the paper's A.4.4, and ours
    "uniform": {"latent_dim": [2, 4, 8, 16, 32, 64], "l2_regularization": DECAYS[::2]},
    "mde": {"latent_dim": [4, 8, 16, 32], "mde_blocks": [8, 16], "mde_alpha": [0.1, 0.2, 0.3]},
    "mgqe": {"latent_dim": [8, 16, 32, 64], "mgqe_subspaces": [4, 8], "mgqe_centroids": [64, 128, 256, 512]},
    "darts": {"darts_widths": [[1, 2, 8], [2, 4, 16], [4, 8, 32], [8, 16, 64]], "l2_regularization": DECAYS},
    "hash": {"hash_rows": [256, 512, 1024, 2048], "l2_regularization": DECAYS},
    "qr": {"qr_collisions": [16, 8, 4, 2], "l2_regularization": DECAYS},
}
PRUNED = ("pep", "magnitude", "imp", "random", "random_per_field")  # schemes that retrain snapshots
BUDGETS = [50_000, 23_675, 10_000, 6_541]  # of pruning; a PEP search has its own
LONG = {"max_epochs": 300, "tensorboard": False}  # early stopping ends a run, not this


def settings_of(given: argparse.Namespace, embedding: str, point: tuning.Point) -> dict[str, Any]:
    """The script's dict with what a trial changes."""
    return {**SCRIPTS[given.dataset], **LONG, "model": given.model, "embedding": embedding, **point}


def tune(given: argparse.Namespace, place: Place) -> None:
    """Run one scheme's grid with one seed and write what validation chose."""
    wanted = tuning.points(GRIDS[given.embedding], given.trials)
    if given.dry_run:
        print("\n".join(tuning.describe(point) for point in wanted))
        return
    about = {"dataset": given.dataset, "model": given.model, "embedding": given.embedding, "seed": given.seed}
    path = tuning.file_of(place.out, given.dataset, given.model, given.embedding)

    def run(point: tuning.Point) -> dict[str, Any]:
        return stages.train(parse(settings_of(given, given.embedding, point)), given.seed, place)

    tuning.tune(wanted, run, path, about)
    print(path)


def compare(given: argparse.Namespace, place: Place) -> None:
    """Run every scheme at the settings that were chosen for it, with all seeds."""
    schemes = given.scheme or [*GRIDS, *PRUNED]
    for scheme, seed in itertools.product(schemes, given.seeds):
        print(f"{scheme}, seed {seed}", flush=True)
        if given.dry_run:
            continue
        if scheme in GRIDS:
            _at_chosen_settings(given, scheme, seed, place)
        else:
            _snapshots_and_retrain(given, scheme, seed, place)


def _at_chosen_settings(given: argparse.Namespace, scheme: str, seed: int, place: Place) -> None:
    for trial in tuning.chosen(tuning.file_of(place.out, given.dataset, given.model, scheme)):
        stages.train(parse(settings_of(given, scheme, trial["settings"])), seed, place)


def _snapshots_and_retrain(given: argparse.Namespace, scheme: str, seed: int, place: Place) -> None:
    script = {**SCRIPTS[given.dataset], "model": given.model, "tensorboard": False}
    searched = parse(script)
    folder = stages.alias_folder(place.out, searched, seed, None)
    if scheme in ("pep", "random_per_field"):  # the second is like the first's snapshots
        stages.train(searched, seed, place)
    if scheme != "pep":
        result = stages.train(parse(settings_of(given, "uniform", {})), seed, place)
        trained = pruning.load_trained(result["run_id"], place)
        like = [folder / f"{budget}.npz" for budget in BUDGETS]
        folder = pruning.prune(trained, scheme, compress.tables(trained, scheme, BUDGETS, like, compress.KEEP, place),
                               place)
    for budget in BUDGETS:
        wanted = parse({**script, **LONG, "retrain_emb_param": budget})
        stages.retrain(wanted, seed, replace(place, alias=folder.name))


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
    commands.choices["compare"].add_argument("--scheme", action="append", help=", ".join((*GRIDS, *PRUNED)))
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
        if scheme not in (*GRIDS, *PRUNED):
            raise ValueError(unknown("scheme", scheme, (*GRIDS, *PRUNED)))
    compare(given, place)


if __name__ == "__main__":
    cli.main(main)
