"""Find out which runs a figure or table of the paper needs, run what is missing, and write its page.

    python reproduce.py tune --embedding mde               # a scheme's settings: the published grid, by validation
    python reproduce.py compare --model fm --seeds 1 2 3   # every scheme at its chosen settings
    python reproduce.py compare --scheme mde --dry-run     # what is missing, and how long it may take
    python reproduce.py fig10                              # Figure 10; also fig2 (with 3 and 4), fig5, fig6,
                                                           # fig8 (with 9), fig11, table3, table4
    python reproduce.py report                             # all that has been run, in one HTML file
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import compress
import compress_afm
import train_avazu
import train_criteo
import train_movielens
from engine import cli, plan, pruning, stages, tuning
from engine.plan import Need
from engine.run import Place
from engine.settings import parse
from reports import html_report, page
from reports.collect import results_in
from reports.pages import PAGES
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
    "tt": {"tt_rank": [4, 8, 16, 24], "l2_regularization": DECAYS},
    "pep": {**BUDGETS, "threshold_init": [-15.0, -8.0, -5.0]},
    **{name: {**BUDGETS, "l2_regularization": DECAYS} for name in PRUNED[1:]},
}
LR = "lr"  # logistic regression, without embeddings
RETRAINING = ("retrain_emb_param", "re_init", "rewind")  # settings of a retraining, not of the search before it
SHOWN = 23_675  # the budget that Figures 5, 8 and 10 look at: Figure 5's number
GRANULARITIES = ("feature_dim", "dimension", "feature", "global")  # Figure 10's
PEP_0 = {"fm": 6_541, "deepfm": 8_604, "autoint": 9_281}  # Table 4's parameters on MovieLens
MODELS = ("fm", "deepfm", "autoint")
LONG = {"max_epochs": 300, "tensorboard": False}  # early stopping ends a run, not this


def run(given: argparse.Namespace, scheme: str, point: tuning.Point, seed: int, place: Place) -> dict[str, Any]:
    """Train one scheme at one point of its grid; whatever is finished is not run again."""
    base = {**SCRIPTS[given.dataset], "model": given.model, "tensorboard": False}
    if scheme == LR:
        return stages.train(parse({**base, **LONG, "model": "linear"}), seed, place)
    if scheme not in PRUNED:
        return stages.train(parse({**base, **LONG, "embedding": scheme, **point}), seed, place)
    own = {name: value for name, value in point.items() if name not in RETRAINING}
    folder = _snapshots(given, scheme, own, seed, place)
    if "retrain_emb_param" not in point:
        return {}
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


def need(given: argparse.Namespace, scheme: str, point: tuning.Point, seed: int) -> Need:
    """One run of a plan."""
    model = "linear" if scheme == LR else given.model
    what = " ".join(part for part in (model, scheme, tuning.describe(point), f"seed {seed}") if part)
    kind = (model, "masked" if scheme in PRUNED else scheme)
    return Need(what, kind, lambda place: run(given, scheme, point, seed, place))


def comparison(given: argparse.Namespace) -> list[Need]:
    """Every scheme with all seeds as it was tuned; LR, and PEP and pruning even when they were not."""
    needs = []
    for scheme in given.scheme or [LR, *GRIDS]:
        path = tuning.file_of(Path(given.out), given.dataset, given.model, scheme)
        if scheme == LR:
            points: list[tuning.Point] = [{}]
        elif scheme in PRUNED and not path.exists():
            points = [{"retrain_emb_param": budget} for budget in BUDGETS["retrain_emb_param"]]
        elif not path.exists() and not given.scheme:
            print(f"left out, because it is not tuned: {scheme} (python reproduce.py tune --embedding {scheme})")
            continue
        else:
            points = [trial["settings"] for trial in tuning.chosen(path)]
        needs += [need(given, scheme, point, seed) for seed in given.seeds for point in points]
    return needs


def needs_of(given: argparse.Namespace, page: str) -> list[Need]:
    """The runs behind a figure or table of the paper."""
    shown = {"retrain_emb_param": SHOWN}
    points: dict[str, list[tuple[str, tuning.Point]]] = {
        "fig5": [("uniform", {}), ("pep", shown)],
        "fig6": [("pep", {})],
        "fig8": [("uniform", {}), ("pep", shown), ("pep", {**shown, "re_init": True})],
        "fig10": [("pep", {**shown, "threshold_type": kind}) for kind in GRANULARITIES],
        "fig11": [("uniform", {}), ("pep", {})],
        "table3": [(LR, {})],
        "table4": [(LR, {}), ("pep", {"retrain_emb_param": PEP_0.get(given.model, SHOWN)})],
    }
    if page == "afm":
        return [each for seed in given.seeds for each in compress_afm.study(
            partial(_base, given, seed), (given.model, seed))]
    if page not in points:
        return comparison(given)
    return [need(given, scheme, point, seed) for seed in given.seeds for scheme, point in points[page]]


def _base(given: argparse.Namespace, seed: int, place: Place) -> str:
    """The id of the base model's run, trained when it is not."""
    return run(given, "uniform", {}, seed, place)["run_id"]


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


def carry_out(needs: list[Need], given: argparse.Namespace, place: Place) -> None:
    """Print what is missing and, without --dry-run, run it."""
    wanted = plan.missing(needs, place)
    seconds = plan.seconds_of(wanted, results_in(place.out))
    print(plan.describe(wanted, seconds), flush=True)
    if not given.dry_run:
        plan.carry_out(wanted, seconds, place)


def draw(given: argparse.Namespace) -> None:
    """Write the page of a figure or table from what there is."""
    made = PAGES[given.what](results_in(Path(given.out)), Path(given.out), given.dataset, given.model)
    for path in page.write(made, Path(given.out) / "figures"):
        print(path)
    for line in made.missing:
        print(f"missing: {line}")


def report(given: argparse.Namespace) -> None:
    """One HTML file with every page of every data set and model."""
    out = Path(given.out)
    results = results_in(out)
    ran = [dataset for dataset in SCRIPTS if any(result["settings"]["dataset"] == dataset for result in results)]
    made = [build(results, out, dataset, model) for dataset in ran or [given.dataset] for build in PAGES.values()
            for model in MODELS]
    print(html_report.write(list({each.stem: each for each in made}.values()), out / "report.html"))


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", nargs="?", help=f"tune, compare, report, or one of {', '.join(PAGES)}")
    made.add_argument("--dataset", default="movielens", help=", ".join(SCRIPTS))
    made.add_argument("--model", default="fm", help="fm, deepfm or autoint")
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of everything but tune")
    made.add_argument("--scheme", action="append", help=f"of compare; may be repeated: {', '.join((LR, *GRIDS))}")
    made.add_argument("--embedding", help=f"of tune: {', '.join(GRIDS)}")
    made.add_argument("--trials", type=int, default=TRIALS, help="of tune: points of the grid")
    made.add_argument("--seed", type=int, default=1, help="of tune")
    made.add_argument("--data", help="the raw files, as for the scripts")
    made.add_argument("--out", default="tmp", help="where results go")
    made.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train")
    made.add_argument("--dry-run", action="store_true", help="list what would be run, and how long it may take")
    made.add_argument("--traceback", action="store_true", help="show where in the code an error comes from")
    return made


def main() -> None:
    """The script."""
    given = options().parse_args()
    if given.what is None:
        print(__doc__)
        return
    for name, value, known in (("command", given.what, ("tune", "compare", "report", *PAGES)),
                               ("dataset", given.dataset, SCRIPTS), ("model", given.model, MODELS),
                               *(("scheme", scheme, (LR, *GRIDS)) for scheme in given.scheme or ())):
        if value not in known:
            raise ValueError(unknown(name, value, known))
    place = Place(out=Path(given.out), data=given.data, device=given.device)
    if given.what == "tune":
        if given.embedding not in GRIDS:
            raise ValueError(unknown("embedding", given.embedding or "", GRIDS))
        tune(given, place)
        return
    if given.what == "report":
        report(given)
        return
    carry_out(comparison(given) if given.what == "compare" else needs_of(given, given.what), given, place)
    if given.what in PAGES and not given.dry_run:
        draw(given)


if __name__ == "__main__":
    cli.main(main)
