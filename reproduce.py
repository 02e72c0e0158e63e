"""Find out which runs a figure or table of the paper needs, run what is missing, and write its
page.

    python reproduce.py tune --embedding mde        # a scheme's settings: its grid, by validation
    python reproduce.py compare --seeds 1 2 3       # every scheme at its tuned settings
    python reproduce.py compare --dry-run           # what is missing, and how long it may take
    python reproduce.py fig10                       # a figure or table of the paper
    python reproduce.py thresholds                  # beyond the paper; also stability, extreme, afm
    python reproduce.py frappe --data DIR           # every scheme on Frappe, AUC against parameters
    python reproduce.py umec-fig2 --dataset criteo  # UMEC's figures; also --dataset planted_fields
    python reproduce.py fig2 --dataset criteo --planted    # on a synthetic file in Criteo's format
    python reproduce.py plan --dataset all          # runs and hours of all this, done and open
    python reproduce.py summary                     # a table of all results in tmp
    python reproduce.py report                      # all that has been run, in one HTML file

`python reproduce.py COMMAND --help` lists the options of a command. Figures 3, 4 and 9 are Figures
2 and 8 of other data sets.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine import cli, jobs, tuning
from engine.run import RunContext, open_data
from engine.settings import parse
from studies import pages, plan, planned_runs, schemes, summary, synthetic_data, table
from studies.collect import results_in
from studies.figures import fig2, fig8
from studies.pages import PAGES
from studies.plan import PlannedRun
from studies.published import PRESETS
from studies.schemes import LR, TRIALS
from utils.files import require_writable
from utils.text import unknown

# figures that the paper numbers by data set: name -> (that of the page, data set)
OF_OTHER_DATA = {f"fig{number}": ("fig2", dataset) for dataset, number in fig2.NUMBER.items()}
OF_OTHER_DATA |= {f"fig{number}": ("fig8", dataset) for dataset, number in fig8.NUMBER.items()}
OF_OTHER_DATA = {name: page for name, page in OF_OTHER_DATA.items() if name != page[0]}
# no paper's figure: every scheme on a leaderboard's split
OF_OTHER_DATA["frappe"] = ("fig2", "frappe")
FIGURES = (*PAGES, *OF_OTHER_DATA)  # and tables
COMMANDS = ("tune", "compare", "plan", "report", "summary", *FIGURES)
NO_SET = ("reproduce.py runs the published and the tuned settings, so it takes no --set; to run "
          "other settings: python train_movielens.py --set {}")


def cost(given: argparse.Namespace, context: RunContext) -> None:
    """Print what everything costs, by data set and model."""
    results = results_in(context.out, shipped=True)
    lines = []
    for dataset in _datasets(given):
        own = [result for result in results if result["settings"]["dataset"] == dataset]
        for model in planned_runs.MODELS:
            needs = planned_runs.everything(_with(given, dataset=dataset, model=model))
            lines += [(dataset, model, *line) for line in plan.cost(needs, own, context)]
    print(table.plain(("data set", "model", *plan.COST_HEAD), lines))


def tune(given: argparse.Namespace, context: RunContext) -> None:
    """Run one scheme's trials with one seed and write what validation chose."""
    if given.planted is not None:
        context = synthetic_data.planted(context, given.dataset, given.planted,
                                         given.planted_values, write=True)
    given = with_size(given, context)
    wanted = schemes.points(given, given.embedding, given.trials, given.settings_of)
    path = tuning.file_of(context.out, given.dataset, given.model, given.embedding)
    tuning.require_no_fewer(path, wanted)
    run_all([schemes.need(given, given.embedding, point, given.seed) for point in wanted], given,
            context)
    if given.dry_run:
        return
    about = {"dataset": given.dataset, "model": given.model, "embedding": given.embedding,
             "seed": given.seed}
    if given.settings_of is not None:
        about["settings_of"] = given.settings_of
    with plan.quiet():  # all of them are finished now
        tuning.tune(wanted, lambda point: schemes.run(given, given.embedding, point, given.seed,
                                                      context),
                    path, about, partial(schemes.training, given, given.embedding))
    print(path)


def with_size(given: argparse.Namespace, context: RunContext) -> argparse.Namespace:
    """The options with `dense`, the number of parameters of the whole table.

    Raises:
        FileNotFoundError: the data set is not there.
    """
    settings = parse({**PRESETS[given.dataset], "model": given.model})
    data, _ = open_data(settings, context)
    return _with(given, dense=data.schema.num_rows * settings.model.latent_dim)


def run_all(needs: list[PlannedRun], given: argparse.Namespace, context: RunContext) -> None:
    """Print what is missing and, without --dry-run, run it."""
    at_once = jobs.processes(given.jobs, given.device)
    wanted = plan.missing(needs, context)
    seconds = plan.seconds_of(wanted, [result for result in results_in(context.out, shipped=True)
                                       if result["settings"]["dataset"] == given.dataset])
    print(plan.describe(wanted, seconds), flush=True)
    if not given.dry_run:
        plan.run_all(wanted, seconds, context, at_once)


def reproduce(given: argparse.Namespace, context: RunContext) -> None:
    """One command on one data set. One that is not there is skipped; its page is drawn from the
    runs that there are."""
    if given.planted is not None:
        context = synthetic_data.planted(context, given.dataset, given.planted,
                                         given.planted_values, write=not given.dry_run)
    given = _with(given, out=str(context.out))
    try:
        if given.planted is None:
            synthetic_data.require_real(context, given.dataset)
        if given.planted is None or Path(str(context.data)).exists():  # a dry run writes no file
            given = with_size(given, context)
    except FileNotFoundError as error:
        print(f"skipped: {given.dataset} is not there ({error})")
    else:
        compare = given.what == "compare"
        run_all(schemes.comparison(given) if compare else planned_runs.needs_of(given, given.what),
                given, context)
    if given.what in PAGES and not given.dry_run:
        print("\n".join(pages.draw(given.what, context.out, given.dataset, given.model,
                                   given.planted is not None)))


def _with(given: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(given), **changes})


def _datasets(given: argparse.Namespace) -> list[str]:
    return list(PRESETS) if given.dataset == "all" else [given.dataset]


def options() -> argparse.ArgumentParser:
    """The command line: each command has its own options."""
    made = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    # what every command has; `dense`: parameters of the whole table, once the data are open
    made.set_defaults(dense=None, scheme=None, settings_of=None, planted=None, planted_values=None,
                      dry_run=False, set=[])
    commands = made.add_subparsers(dest="what", metavar="COMMAND", title="commands")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        own = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
        own.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
        cli.add_place_options(own)
        return own

    own = command("tune", "choose the settings of one scheme on validation rows")
    own.add_argument("--embedding", help=f"the scheme: {', '.join(schemes.GRIDS)}")
    own.add_argument("--trials", type=int, default=TRIALS, help="points of the grid")
    own.add_argument("--settings-of", metavar="MODEL",
                     help="no grid, but the settings that were chosen for this model")
    own.add_argument("--seed", type=int, default=1, help="of all trials")
    _add_runs(own, seeds=False)
    own = command("compare", "run every scheme at its tuned settings")
    own.add_argument("--scheme", action="append",
                     help=f"this one alone; may be repeated: {', '.join((LR, *schemes.GRIDS))}")
    _add_runs(own)
    own = command("plan", "count the runs and hours of everything")
    own.add_argument("--dataset", help=f"{', '.join(PRESETS)} or all (default: movielens)")
    own.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of every run")
    command("report", "write all that has been run into one HTML file")
    own = command("summary", "print all results of a folder as a table")
    own.add_argument("folder", type=Path, nargs="?",
                     help="of the results (default: that of --out); experiments holds the shipped")
    for name in FIGURES:
        page, dataset = OF_OTHER_DATA.get(name, (name, ""))
        _add_runs(command(name, f"{page} of {dataset}" if dataset else
                          f"run and draw {name}"))
    return made


def _add_runs(own: argparse.ArgumentParser, seeds: bool = True) -> None:
    """The options of a command that runs what is missing."""
    own.add_argument("--dataset", help=f"{', '.join(PRESETS)}, or all (default: movielens)")
    own.add_argument("--model", default="fm",
                     help=f"{', '.join(planned_runs.MODELS)} (default: fm)")
    if seeds:
        own.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of every run")
    own.add_argument("--planted", type=int, nargs="?", const=synthetic_data.ROWS, metavar="ROWS",
                     help="on a synthetic file of so many rows in the format of criteo or avazu; "
                          "its results are kept apart and marked")
    own.add_argument("--planted-values", type=int, metavar="N",
                     help="at most so many values of a category in it, so that a short file can "
                          "be learned")
    own.add_argument("--dry-run", action="store_true",
                     help="list what would be run, and how long it may take")
    cli.add_jobs_option(own)


def read(words: Sequence[str]) -> argparse.Namespace:
    """The checked command line; `what` is None without a command.

    Raises:
        ValueError: a command, data set, model or scheme is unknown, or options contradict each
            other.
    """
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise ValueError(unknown("command", words[0], COMMANDS))
    given = options().parse_args(words)
    if given.set:
        raise ValueError(NO_SET.format(" --set ".join(given.set)))
    if given.what in (None, "report", "summary"):
        return given
    what, dataset = OF_OTHER_DATA.get(given.what, (given.what, given.dataset or "movielens"))
    if given.dataset not in (None, dataset):
        raise ValueError(f"{given.what} is {what} of {dataset}; for {given.dataset} ask for {what} "
                         f"--dataset {given.dataset}")
    given.what, given.dataset = what, dataset
    _require("dataset", given.dataset, (*PRESETS, "all"))
    if given.what == "plan":
        return given
    _require("model", given.model, planned_runs.MODELS)
    if given.what == "tune":
        _check_tune(given)
    else:
        given.seeds = list(dict.fromkeys(given.seeds))
    if given.scheme:
        given.scheme = list(dict.fromkeys(given.scheme))
        for scheme in given.scheme:
            _require("scheme", scheme, (LR, *schemes.GRIDS))
    if given.planted_values is not None and given.planted is None:
        raise ValueError("--planted-values is of a planted file; give --planted ROWS too")
    if given.planted is not None and given.cache is not None:
        raise ValueError("--planted keeps what it encodes under --out, apart from other data; "
                         f"leave out --cache {given.cache}")
    jobs.processes(given.jobs, given.device)
    return given


def _require(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(unknown(kind, name, known))


def _check_tune(given: argparse.Namespace) -> None:
    if given.embedding is None:
        raise ValueError(f"tune chooses the settings of one scheme: name it, as in `python "
                         f"reproduce.py tune --embedding mde`. Known: {', '.join(schemes.GRIDS)}")
    _require("embedding", given.embedding, tuple(schemes.GRIDS))
    if given.dataset == "all":
        raise ValueError(f"tune is of one data set: give --dataset {' or '.join(PRESETS)}")
    if given.settings_of is not None:
        _require("model", given.settings_of, planned_runs.MODELS)
        if given.settings_of == given.model:
            raise ValueError(f"--settings-of {given.settings_of} takes the settings of another "
                             f"model than --model {given.model}; name another, or leave it out")


def main() -> None:
    """The script."""
    given = read(sys.argv[1:])
    if given.what is None:
        print(__doc__)
        return
    if given.what == "summary":
        print(summary.of_folder(given.folder or Path(given.out)))
        return
    context = cli.place_of(given)
    require_writable(context.out)
    if given.what == "tune":
        tune(given, context)
    elif given.what == "plan":
        cost(given, context)
    elif given.what == "report":
        print(pages.report(context.out, context.out / synthetic_data.FOLDER))
    else:
        for dataset in _datasets(given):
            reproduce(_with(given, dataset=dataset), context)


if __name__ == "__main__":
    cli.main(main)
