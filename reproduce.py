"""Find out which runs a figure or table of the paper needs, run what is missing, and write its
page.

    python reproduce.py tune --embedding mde               # a scheme's settings: the published grid, by validation
    python reproduce.py tune --embedding mde --model deepfm --settings-of fm   # or those chosen for another model
    python reproduce.py compare --model fm --seeds 1 2 3   # every scheme at its chosen settings
    python reproduce.py compare --scheme mde --dry-run     # what is missing, and how long it may take
    python reproduce.py fig10                              # Figure 10; also fig2, fig5, fig6, fig8, fig11, table1
                                                           # to table4; fig3, fig4, fig9 are 2 and 8
                                                           of other data
    python reproduce.py thresholds                         # beyond the paper: what moves the thresholds; also
                                                           # stability (the same sizes twice?),
                                                           extreme (budgets)
    python reproduce.py fig2 --dataset criteo --planted    # on a made file that stands in for Criteo's
    python reproduce.py plan --dataset all                 # runs and hours of all this, and how much is open
    python reproduce.py umec-fig2 --dataset criteo         # UMEC's Figures 2 and 3; also --dataset planted_fields
    python reproduce.py report                             # all that has been run, in one HTML file
"""

import argparse
from pathlib import Path

from engine import cli, tuning
from engine.run import RunContext, open_data
from engine.settings import parse
from studies import plan, planned_runs, schemes, synthetic_data, table, written
from studies.collect import results_in
from studies.figures import fig2, fig8
from studies.pages import PAGES
from studies.plan import PlannedRun
from studies.published import PRESETS
from studies.schemes import LR, TRIALS
from utils.files import require_writable
from utils.text import unknown

OF_OTHER_DATA = {f"fig{number}": (name, dataset)  # figures that the paper numbers by data set
                 for name, page in (("fig2", fig2), ("fig8", fig8)) for dataset,
                 number in page.NUMBER.items()
                 if f"fig{number}" != name}
FIGURES = (*PAGES, *OF_OTHER_DATA)  # and tables


def cost(given: argparse.Namespace, context: RunContext) -> None:
    """Print what everything costs, by data set and model."""
    lines = []
    for dataset in PRESETS if given.dataset == "all" else [given.dataset]:
        for model in planned_runs.MODELS:
            one = argparse.Namespace(**{**vars(given), "dataset": dataset, "model": model})
            own = [result for result in results_in(context.out)
                   if result["settings"]["dataset"] == dataset]
            lines += [(dataset, model, *line)
                      for line in plan.cost(planned_runs.everything(one), own, context)]
    print(table.plain(("data set", "model", *plan.COST_HEAD), lines))


def tune(given: argparse.Namespace, context: RunContext) -> None:
    """Run one scheme's trials with one seed and write what validation chose."""
    given = with_size(given, context)
    wanted = schemes.points(given, given.embedding, given.trials, given.settings_of)
    if given.dry_run:
        print("\n".join(tuning.describe(point) for point in wanted))
        return
    about = {"dataset": given.dataset, "model": given.model, "embedding": given.embedding,
             "seed": given.seed}
    if given.settings_of is not None:
        about["settings_of"] = given.settings_of
    path = tuning.file_of(context.out, given.dataset, given.model, given.embedding)
    tuning.tune(wanted, lambda point: schemes.run(given, given.embedding, point, given.seed,
                                                  context), path, about,
                lambda point: schemes.training(given, given.embedding, point))
    print(path)


def with_size(given: argparse.Namespace, context: RunContext) -> argparse.Namespace:
    """The options with `dense`, the parameters of the whole table.

    Raises:
        FileNotFoundError: the data set is not there.
    """
    settings = parse({**PRESETS[given.dataset], "model": given.model})
    data, _ = open_data(settings, context)
    return argparse.Namespace(**{**vars(given),
                                 "dense": data.schema.num_rows * settings.model.latent_dim})


def run_all(needs: list[PlannedRun], given: argparse.Namespace, context: RunContext) -> None:
    """Print what is missing and, without --dry-run, run it."""
    wanted = plan.missing(needs, context)
    seconds = plan.seconds_of(wanted, [result for result in results_in(context.out)
                                       if result["settings"]["dataset"] == given.dataset])
    print(plan.describe(wanted, seconds), flush=True)
    if not given.dry_run:
        plan.run_all(wanted, seconds, context)


def reproduce(given: argparse.Namespace, context: RunContext) -> None:
    """One command on one data set; one that is not there is skipped, and drawn from what was run
    before."""
    if given.planted is not None:
        context = synthetic_data.planted(context, given.dataset, given.planted,
                                         given.planted_values,
                                       write=not given.dry_run)
    given = argparse.Namespace(**{**vars(given), "out": str(context.out)})
    try:
        if given.planted is None:
            synthetic_data.require_real(context, given.dataset)
        if given.planted is None or Path(str(context.data)).exists():  # a dry run writes no file
            given = with_size(given, context)
    except FileNotFoundError as error:
        print(f"skipped: {given.dataset} is not there ({error})")
    else:
        needs = (
            schemes.comparison(given)
            if given.what == "compare"
            else planned_runs.needs_of(given, given.what)
        )
        run_all(needs, given, context)
    if given.what in PAGES and not given.dry_run:
        print("\n".join(written.draw(given.what, context.out, given.dataset, given.model,
                                     given.planted is not None)))


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", nargs="?",
                      help=f"tune, compare, report, plan, or one of {', '.join(FIGURES)}")
    made.add_argument("--dataset", help=f"{', '.join(PRESETS)}, or all; movielens when absent")
    made.add_argument("--planted", type=int, nargs="?", const=synthetic_data.ROWS, metavar="ROWS",
                      help="let a made file of so many rows stand in for criteo or avazu, kept "
                           "apart and marked")
    made.add_argument("--planted-values", type=int, metavar="N",
                      help="at most so many values of a category in it, so that a short file can "
                           "be learned")
    made.add_argument("--model", default="fm", help="fm, deepfm or autoint")
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3],
                      help="of everything but tune")
    made.add_argument("--scheme", action="append",
                      help=f"of compare; may be repeated: {', '.join((LR, *schemes.GRIDS))}")
    made.add_argument("--embedding", help=f"of tune: {', '.join(schemes.GRIDS)}")
    made.add_argument("--trials", type=int, default=TRIALS, help="of tune: points of the grid")
    made.add_argument("--settings-of", metavar="MODEL",
                      help="of tune: no grid, but the settings that were chosen for this model, as "
                           "they are")
    made.add_argument("--seed", type=int, default=1, help="of tune")
    made.add_argument("--data", help="the raw files, as for the scripts")
    made.add_argument("--out", default="tmp", help="where results go")
    cli.add_cache_option(made)
    made.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                      help="where to train")
    made.add_argument("--dry-run", action="store_true",
                      help="list what would be run, and how long it may take")
    made.add_argument("--traceback", action="store_true",
                      help="show where in the code an error comes from")
    made.set_defaults(dense=None)  # parameters of the whole table, once the data are open
    return made


def main() -> None:
    """The script."""
    given = options().parse_args()
    if given.what is None:
        print(__doc__)
        return
    what, dataset = OF_OTHER_DATA.get(given.what, (given.what, given.dataset or "movielens"))
    if given.dataset not in (None, dataset):
        raise ValueError(f"{given.what} is {what} of {dataset}; for {given.dataset} ask for {what} "
                         f"--dataset {given.dataset}")
    given.what, given.dataset = what, dataset
    for name, value, known in (
        ("command", given.what, ("tune", "compare", "report", "plan", *FIGURES)),
        ("dataset", given.dataset, (*PRESETS, "all")),
        ("model", given.model, planned_runs.MODELS),
        *(("model", model, planned_runs.MODELS) for model in [given.settings_of] if model),
        *(("scheme", scheme, (LR, *schemes.GRIDS)) for scheme in given.scheme or ()),
    ):
        if value not in known:
            raise ValueError(unknown(name, value, known))
    if given.what == "tune":
        if given.embedding not in schemes.GRIDS:
            raise ValueError(unknown("embedding", given.embedding or "", schemes.GRIDS))
        if given.dataset == "all" or given.scheme:
            raise ValueError("tune is of one data set and one --embedding; --dataset all and "
                             "--scheme are of the pages")
    elif given.embedding is not None:
        raise ValueError(f"--embedding {given.embedding} is of tune; compare takes --scheme")
    given.seeds, given.scheme = (list(dict.fromkeys(values)) if values else values
                                 for values in (given.seeds, given.scheme))
    if given.settings_of is not None and (given.what != "tune" or given.settings_of == given.model):
        raise ValueError(f"--settings-of {given.settings_of} is of tune, and of another model than "
                         f"--model {given.model}")
    if given.planted_values is not None and given.planted is None:
        raise ValueError("--planted-values is of a planted file; give --planted ROWS too")
    if given.planted is not None and given.cache is not None:
        raise ValueError("--planted keeps what it encodes under --out, apart from other data; "
                         f"leave out --cache {given.cache}")
    context = cli.place_of(given)
    require_writable(context.out)
    if given.what == "tune":
        if given.planted is not None:
            context = synthetic_data.planted(context, given.dataset, given.planted,
                                             given.planted_values, write=True)
        tune(given, context)
        return
    if given.what == "plan":
        cost(given, context)
        return
    if given.what == "report":
        print(written.report(context.out, context.out / synthetic_data.FOLDER, list(PRESETS),
                             planned_runs.MODELS))
        return
    for dataset in PRESETS if given.dataset == "all" else [given.dataset]:
        reproduce(argparse.Namespace(**{**vars(given), "dataset": dataset}), context)


if __name__ == "__main__":
    cli.main(main)
