"""Find out which runs a figure or table of the paper needs, run what is missing, and write its
page.

    python reproduce.py tune --embedding mde        # a scheme's settings: its grid, by validation
    python reproduce.py compare --seeds 1 2 3       # every scheme at its tuned settings
    python reproduce.py compare --dry-run           # what is missing, and how long it may take
    python reproduce.py fig10                       # a figure or table of the paper
    python reproduce.py thresholds       # beyond the paper; also stability, extreme, starts, afm
    python reproduce.py recipe --dataset frappe --model fm    # training settings, by validation
    python reproduce.py leaderboard --dataset frappe          # models beside a public leaderboard
    python reproduce.py frappe --model fm           # all schemes on Frappe; ids: MovieLens with ids
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
from pathlib import Path

from engine import cli
from studies.figures import OF_OTHER_DATA, PAGES
from studies.names import MODELS
from studies.published import LEADERBOARDS, PRESETS
from studies.tuning import TRIALS
from utils.files import require_writable
from utils.text import unknown

FIGURES = (*PAGES, *OF_OTHER_DATA)  # and tables
COMMANDS = ("recipe", "tune", "compare", "plan", "report", "summary", *FIGURES)
OF_EVERY_MODEL = ("table2", "table3", "umec-fig2", "umec-fig3", "leaderboard")  # or of DLRM alone
PLANTED_ROWS = 1_000_000  # of --planted without a number
NO_SET = ("reproduce.py runs the published and the tuned settings, so it takes no --set; to run "
          "other settings: python train_movielens.py --set {}")


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

    own = command("recipe", "choose how a model is trained on data without published settings")
    own.add_argument("--seed", type=cli.seed, default=1, help="of all trials")
    _add_runs(own, seeds=False)
    own = command("tune", "choose the settings of one scheme on validation rows")
    own.add_argument("--embedding",
                     help="the scheme: pep, uniform, mde, ...; without it all are listed")
    own.add_argument("--trials", type=int, default=TRIALS, help="points of the grid")
    own.add_argument("--settings-of", metavar="MODEL",
                     help="no grid, but the settings that were chosen for this model")
    own.add_argument("--seed", type=cli.seed, default=1, help="of all trials")
    _add_runs(own, seeds=False)
    own = command("compare", "run every scheme at its tuned settings")
    own.add_argument("--scheme", action="append",
                     help="this one alone; may be repeated: lr, pep, uniform, mde, ...")
    _add_runs(own)
    own = command("plan", "count the runs and hours of everything")
    own.add_argument("--dataset", help=f"{', '.join(PRESETS)} or all (default: movielens)")
    own.add_argument("--seeds", type=cli.seed, nargs="+", default=[1, 2, 3], help="of every run")
    command("report", "write all that has been run into one HTML file")
    own = command("summary", "print all results of a folder as a table")
    own.add_argument("folder", type=Path, nargs="?",
                     help="of the results (default: that of --out); experiments holds the shipped")
    for name in FIGURES:
        page, dataset = OF_OTHER_DATA.get(name, (name, ""))
        _add_runs(command(name, f"{page} of {dataset}" if dataset else f"run and draw {name}"),
                  model=page not in OF_EVERY_MODEL)
    return made


def _add_runs(own: argparse.ArgumentParser, seeds: bool = True, model: bool = True) -> None:
    """The options of a command that runs what is missing."""
    own.add_argument("--dataset", help=f"{', '.join(PRESETS)}, or all (default: movielens)")
    own.set_defaults(model=MODELS[0])
    if model:
        own.add_argument("--model", help=f"{', '.join(MODELS)} (default: {MODELS[0]})")
    if seeds:
        own.add_argument("--seeds", type=cli.seed, nargs="+", default=[1, 2, 3],
                         help="of every run")
    own.add_argument("--planted", type=int, nargs="?", const=PLANTED_ROWS, metavar="ROWS",
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
    usual = LEADERBOARDS[0] if given.what == "leaderboard" else "movielens"
    what, dataset = OF_OTHER_DATA.get(given.what, (given.what, given.dataset or usual))
    if given.dataset not in (None, dataset):
        raise ValueError(f"{given.what} is {what} of {dataset}; for {given.dataset} ask for {what} "
                         f"--dataset {given.dataset}")
    given.what, given.dataset = what, dataset
    _require("dataset", given.dataset, LEADERBOARDS if what == "leaderboard" else
             (*PRESETS, "all"))
    if given.what == "plan":
        return given
    if given.what == "recipe":
        from studies import recipes

        recipes.known(given.dataset, given.model)
        if given.planted is not None or given.planted_values is not None:
            raise ValueError("a recipe is of real data: leave --planted away")
        return given
    _require("model", given.model, MODELS)
    if given.what == "tune":
        _check_tune(given)
    else:
        given.seeds = list(dict.fromkeys(given.seeds))
    if given.scheme:
        from studies.schemes import GRIDS, LR

        given.scheme = list(dict.fromkeys(given.scheme))
        for scheme in given.scheme:
            _require("scheme", scheme, (LR, *GRIDS))
    if given.planted_values is not None and given.planted is None:
        raise ValueError("--planted-values is of a planted file; give --planted ROWS too")
    if given.planted is not None and given.cache is not None:
        raise ValueError("--planted keeps what it encodes under --out, apart from other data; "
                         f"leave out --cache {given.cache}")
    return given


def _require(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(unknown(kind, name, known))


def _check_tune(given: argparse.Namespace) -> None:
    from studies import schemes

    if given.embedding is None:
        raise ValueError(f"tune chooses the settings of one scheme: name it, as in `python "
                         f"reproduce.py tune --embedding mde`. Known: {', '.join(schemes.GRIDS)}")
    _require("embedding", given.embedding, tuple(schemes.GRIDS))
    if given.dataset == "all":
        raise ValueError(f"tune is of one data set: give --dataset {' or '.join(PRESETS)}")
    if given.settings_of is not None:
        _require("model", given.settings_of, MODELS)
        if given.settings_of == given.model:
            raise ValueError(f"--settings-of {given.settings_of} takes the settings of another "
                             f"model than --model {given.model}; name another, or leave it out")


def work(given: argparse.Namespace) -> None:
    """Do what a checked command line says."""
    if given.what is None:
        print(__doc__)
        return
    if given.what == "summary":
        from studies import summary

        print(summary.of_folder(given.folder or Path(given.out)))
        return
    from studies import pages, run_figures, synthetic_data

    context = cli.place_of(given)
    require_writable(context.out)
    if given.what == "recipe":
        run_figures.choose_recipe(given, context)
    elif given.what == "tune":
        run_figures.tune(given, context)
    elif given.what == "plan":
        run_figures.cost(given, context)
    elif given.what == "report":
        print(pages.report(context.out, context.out / synthetic_data.FOLDER))
    else:
        for dataset in run_figures.datasets(given):
            run_figures.reproduce(run_figures.with_options(given, dataset=dataset), context)


def main() -> None:
    """The script."""
    work(read(sys.argv[1:]))


if __name__ == "__main__":
    cli.main(lambda: read(sys.argv[1:]), trains=False)  # --help and wrong options answer at once
    cli.main(main)
