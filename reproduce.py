"""Find out which runs a figure or table of the paper needs, run what is missing, and write its page.

    python reproduce.py tune --embedding mde               # a scheme's settings: the published grid, by validation
    python reproduce.py compare --model fm --seeds 1 2 3   # every scheme at its chosen settings
    python reproduce.py compare --scheme mde --dry-run     # what is missing, and how long it may take
    python reproduce.py fig10                              # Figure 10; also fig2 (with 3 and 4), fig5, fig6,
                                                           # fig8 (with 9), fig11, table1 to table4
    python reproduce.py thresholds                         # beyond the paper: what moves the thresholds; also
                                                           # stability (the same sizes twice?), extreme (budgets)
    python reproduce.py fig2 --dataset criteo --planted    # on a made file that stands in for Criteo's
    python reproduce.py plan --dataset all                 # runs and hours of all this, and how much is open
    python reproduce.py umec-fig2 --dataset criteo         # UMEC's Figures 2 and 3; also --dataset planted_fields
    python reproduce.py report                             # all that has been run, in one HTML file
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import compress
import compress_umec
import train_avazu
import train_criteo
import train_movielens
from benchmarks import bench_epoch
from compress_umec import Task
from engine import cli, plan, pruning, stages, stand_in, tuning
from engine.plan import Need
from engine.run import Place, open_data
from engine.settings import parse
from reports import extreme, table, umec_fig2, umec_fig3, written
from reports.collect import results_in
from reports.pages import PAGES
from transforms.umec import Dynamics
from utils.files import require_writable
from utils.names import unknown

SCRIPTS = {"movielens": train_movielens.SETTINGS, "criteo": train_criteo.SETTINGS, "avazu": train_avazu.SETTINGS,
           "planted_fields": {**train_movielens.SETTINGS, "dataset": "planted_fields"}}
TRIALS = 12  # of every scheme
DECAYS = [1e-5, 1e-6, 1e-4]  # l2_regularization; the first is the published one
BUDGETS = {"retrain_emb_param": [50_000, 23_675, 10_000, 6_541]}
PRUNED = ("pep", "magnitude", "imp", "random", "random_per_field", "random_per_feature")  # retrain snapshots
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
LR = "lr"  # logistic regression, without embeddings
RETRAINING = ("retrain_emb_param", "re_init", "rewind")  # settings of a retraining, not of the search before it
SHOWN = 23_675  # the budget that Figures 5, 8 and 10 look at: Figure 5's number
GRANULARITIES = ("feature_dim", "dimension", "feature", "global")  # Figure 10's
PEP_0 = {"fm": 6_541, "deepfm": 8_604, "autoint": 9_281}  # Table 4's parameters on MovieLens
CAUSES: list[tuning.Point] = [{}, {"threshold_decay": "decoupled"}, {"threshold_decay": "none"},
                              {"threshold_gradient": False}]  # searches with one cause of pruning taken away
UMEC_FIGURES = {"umec-fig2": (True, umec_fig2.METHODS, tuple(umec_fig2.PAPER)),
                "umec-fig3": (False, umec_fig3.METHODS, tuple(umec_fig3.PAPER))}
UMEC_BASE = {"max_epochs": 20, "early_stop": 3, "tensorboard": False}
UMEC_STEPS = 1500  # of a descent, to the nearest epoch, and one epoch at least
MODELS = ("fm", "deepfm", "autoint")
RECORDS = {"fig6": "sparsity", "stability": "sparsity", "thresholds": "thresholds"}  # fields that older searches lack
ELSEWHERE = ("table2", "table3", "table4", "fig8", "fig11")  # what the paper shows of Criteo or Avazu but Figures 3, 4
LONG = {"max_epochs": 300, "tensorboard": False}  # early stopping ends a run, not this


def run(given: argparse.Namespace, scheme: str, point: tuning.Point, seed: int, place: Place) -> dict[str, Any]:
    """Train one scheme at one point of its grid; whatever is finished is not run again."""
    base = {**SCRIPTS[given.dataset], "model": given.model, "tensorboard": False}
    if scheme == LR:
        return stages.train(parse({**base, **LONG, "model": "linear"}), seed, place)
    if scheme not in PRUNED:
        return stages.train(parse({**base, **LONG, "embedding": scheme, **point}), seed, place)
    own = {name: value for name, value in point.items() if name not in RETRAINING}
    if "retrain_emb_param" not in point and scheme == "pep":
        return _search(given, own, seed, place)[0]
    folder = _snapshots(given, scheme, own, seed, place)
    if "retrain_emb_param" not in point:
        return {}
    [result] = stages.retrain(parse({**base, **LONG, **point}), seed, replace(place, alias=folder.name))
    return result


def _search(given: argparse.Namespace, own: tuning.Point, seed: int, place: Place) -> tuple[dict[str, Any], Path]:
    """PEP's search and the folder with its snapshots."""
    base = {**SCRIPTS[given.dataset], "model": given.model, "tensorboard": False}
    default = _alias(given, "pep", own, seed)
    alias = None if default == _alias(given, "pep", {}, seed) else default
    settings = parse({**base, "candidate_p": BUDGETS["retrain_emb_param"] if alias else base["candidate_p"], **own})
    result = stages.train(settings, seed, replace(place, alias=alias))
    return result, stages.alias_folder(place.out, settings, seed, alias)


def _alias(given: argparse.Namespace, scheme: str, own: tuning.Point, seed: int) -> str:
    """Of a scheme's snapshots; it names the settings that differ from the script's."""
    base = SCRIPTS[given.dataset]
    suffix = "".join(f"_down_to_{min(value)}" if name == "candidate_p" else f"_{name}_{value}"
                     for name, value in own.items() if value != base.get(name))
    return f"{given.dataset}_{scheme}{suffix}_d{base['latent_dim']}_seed{seed}"


def _snapshots(given: argparse.Namespace, scheme: str, own: tuning.Point, seed: int, place: Place) -> Path:
    """The folder with a scheme's snapshots at all budgets, made when they are missing."""
    if scheme == "pep":
        return _search(given, own, seed, place)[1]
    base = {**SCRIPTS[given.dataset], "model": given.model, "tensorboard": False}
    default, budgets = _alias(given, scheme, own, seed), own.get("candidate_p", BUDGETS["retrain_emb_param"])
    result = stages.train(parse({**base, **LONG, "embedding": "uniform", **own}), seed, place)
    trained = pruning.load_trained(result["run_id"], place)
    like = []
    if scheme in ("random_per_field", "random_per_feature"):
        searched = _snapshots(given, "pep", {}, seed, place)
        like = [searched / f"{budget}.npz" for budget in budgets]
    tables = compress.tables(trained, scheme, budgets, like, compress.KEEP, place)
    return pruning.prune(trained, scheme, tables, replace(place, alias=default))


def need(given: argparse.Namespace, scheme: str, point: tuning.Point, seed: int) -> Need:
    """One run of a plan."""
    model = "linear" if scheme == LR else given.model
    told = tuning.describe({name: value for name, value in point.items() if name != "candidate_p"})
    if "candidate_p" in point and "retrain_emb_param" not in point:
        told += f"down to {min(point['candidate_p'])} parameters"
    what = " ".join(part for part in (model, scheme, told, f"seed {seed}") if part)
    kind = (model, "masked" if scheme in PRUNED and "retrain_emb_param" in point else scheme)
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


def needs_of(given: argparse.Namespace, name: str) -> list[Need]:
    """The runs behind a figure or table of the paper."""
    shown = {"retrain_emb_param": SHOWN}
    points: dict[str, list[tuple[str, tuning.Point]]] = {
        "fig5": [("uniform", {}), ("pep", shown)],
        "fig6": [("pep", {})],
        "fig8": [("uniform", {}), ("pep", shown), ("pep", {**shown, "re_init": True})],
        "fig10": [("pep", {**shown, "threshold_type": kind}) for kind in GRANULARITIES],
        "fig11": [("uniform", {}), ("pep", {})],
        "table3": [(LR, {})],
        "thresholds": [*(("pep", cause) for cause in CAUSES), *(("pep", {**cause, "retrain_emb_param": budget})
                       for budget in BUDGETS["retrain_emb_param"] for cause in (CAUSES[0], CAUSES[-1]))],
        "stability": [("pep", {})],
        "extreme": [("pep", {"candidate_p": [*extreme.BUDGETS]}),
                    *((scheme, {"candidate_p": [*extreme.BUDGETS], "retrain_emb_param": budget})
                      for scheme in ("pep", "magnitude") for budget in extreme.BUDGETS),
                    *(("uniform", {"latent_dim": width}) for width in extreme.WIDTHS)],
        "table4": [(LR, {}), ("pep", {"retrain_emb_param": PEP_0.get(given.model, SHOWN)})],
    }
    if name == "table2":
        return [bench_epoch.need(SCRIPTS[given.dataset])]
    if name == "table1":
        return [bench_epoch.need(SCRIPTS[given.dataset]), *comparison(given)]
    if name in UMEC_FIGURES:
        joint, methods, budgets = UMEC_FIGURES[name]
        return [Need(f"dlrm {method} at {budget:g} seed {seed}", ("dlrm", "uniform"),
                     partial(compressed, given, Task(budget, method, dynamics=Dynamics(joint=joint, by_embedding=True)),
                             seed))
                for seed in given.seeds for budget in budgets for method in methods
                if method != "dense" or budget == budgets[0]]
    if name not in points:
        return comparison(given)
    needs = [need(given, scheme, point, seed) for seed in given.seeds for scheme, point in points[name]]
    field = RECORDS.get(name)
    return [plan.recorded(field, one) if field and "retrain" not in one.what else one for one in needs]


def everything(given: argparse.Namespace) -> list[Need]:
    """The runs behind all that the paper shows of a data set and a model, and what goes beyond it, with the tunings.

    Sizes that no tuning has chosen yet are counted with the first of their settings.
    """
    needs = []
    for scheme, grid in GRIDS.items():
        points = tuning.points(grid, TRIALS)
        path = tuning.file_of(Path(given.out), given.dataset, given.model, scheme)
        size = next(iter(grid))
        first = list({str(point[size]): point for point in reversed(points)}.values())
        chosen = [trial["settings"] for trial in tuning.chosen(path)] if path.exists() else first
        needs += [need(given, scheme, point, 1) for point in points]
        needs += [need(given, scheme, point, seed) for point in chosen for seed in given.seeds]
    pages = PAGES if given.model == "fm" else ("table4",)
    shown = [name for name in pages if given.dataset == "movielens" or name in ELSEWHERE]
    return [*needs, *(one for name in shown if name not in ("fig2", "table1") for one in needs_of(given, name))]


def cost(given: argparse.Namespace, place: Place) -> None:
    """Print what everything costs, by data set and model."""
    lines = []
    for dataset in SCRIPTS if given.dataset == "all" else [given.dataset]:
        for model in MODELS:
            one = argparse.Namespace(**{**vars(given), "dataset": dataset, "model": model})
            own = [result for result in results_in(place.out) if result["settings"]["dataset"] == dataset]
            lines += [(dataset, model, *line) for line in plan.cost(everything(one), own, place)]
    print(table.plain(("data set", "model", *plan.COST_HEAD), lines))


def compressed(given: argparse.Namespace, task: Task, seed: int, place: Place) -> dict[str, Any]:
    """A DLRM as published, trained and made smaller by one method at one budget."""
    base = {**SCRIPTS[given.dataset], **compress_umec.PUBLISHED, **UMEC_BASE}
    result = stages.train(parse(base), seed, place)
    epochs = max(round(UMEC_STEPS * compress_umec.PUBLISHED["batch_size"] / (0.8 * result["data"]["rows"])), 1)
    task = replace(task, epochs=epochs, finetune_epochs=-(-epochs // 2),
                   budget=1.0 if task.method == "dense" else task.budget)
    loaded = compress_umec.load(result["run_id"], task.groups, replace(place, dry=False))
    return compress_umec.compress(loaded, task, place)


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


def reproduce(given: argparse.Namespace, place: Place) -> None:
    """One command on one data set; one that is not there is skipped, and drawn from what was run before."""
    if given.planted is not None:
        place = stand_in.planted(place, given.dataset, given.planted, write=not given.dry_run)
    given = argparse.Namespace(**{**vars(given), "out": str(place.out)})
    try:
        if given.planted is None:
            stand_in.require_real(place, given.dataset)
            open_data(parse({**SCRIPTS[given.dataset], "model": given.model}), place)
    except FileNotFoundError as error:
        print(f"skipped: {given.dataset} is not there ({error})")
    else:
        carry_out(comparison(given) if given.what == "compare" else needs_of(given, given.what), given, place)
    if given.what in PAGES and not given.dry_run:
        print("\n".join(written.draw(given.what, place.out, given.dataset, given.model, given.planted is not None)))


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", nargs="?", help=f"tune, compare, report, plan, or one of {', '.join(PAGES)}")
    made.add_argument("--dataset", default="movielens", help=f"{', '.join(SCRIPTS)}, or all")
    made.add_argument("--planted", type=int, nargs="?", const=stand_in.ROWS, metavar="ROWS",
                      help="let a made file of so many rows stand in for criteo or avazu, kept apart and marked")
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
    for name, value, known in (("command", given.what, ("tune", "compare", "report", "plan", *PAGES)),
                               ("dataset", given.dataset, (*SCRIPTS, "all")), ("model", given.model, MODELS),
                               *(("scheme", scheme, (LR, *GRIDS)) for scheme in given.scheme or ())):
        if value not in known:
            raise ValueError(unknown(name, value, known))
    place = Place(out=Path(given.out), data=given.data, device=given.device)
    require_writable(place.out)
    if given.what == "tune":
        if given.embedding not in GRIDS:
            raise ValueError(unknown("embedding", given.embedding or "", GRIDS))
        tune(given, stand_in.planted(place, given.dataset, given.planted, True) if given.planted is not None else place)
        return
    if given.what == "plan":
        cost(given, place)
        return
    if given.what == "report":
        print(written.report(place.out, place.out / stand_in.FOLDER, list(SCRIPTS), MODELS))
        return
    for dataset in SCRIPTS if given.dataset == "all" else [given.dataset]:
        reproduce(argparse.Namespace(**{**vars(given), "dataset": dataset}), place)


if __name__ == "__main__":
    cli.main(main)
