"""What the training scripts do with their dict.

The command line is read before anything heavy is imported, so that --help answers at once.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import cli
from studies import published, script_options
from studies.published import Preset

if TYPE_CHECKING:
    from engine.run import RunContext
    from engine.settings import Settings

BUDGET_SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # of an own table, where no budget is named


def search(description: str, script: Preset) -> None:
    """Train as the dict and the command line say, print the result, and end the process with an
    exit code where that fails.

    Args:
        description: the script's own words, for --help.
        script: its settings.
    """
    options = _options(description, script, retraining=False)
    cli.main(lambda: _settings(options, script) if options.settings else _search(options, script),
             shared=True)


def retrain(description: str, script: Preset) -> None:
    """Retrain the snapshots of a search as lottery tickets, print the results, and draw them with
    all results of the same data set and model.

    Args:
        description, script: as for `search`.
    """
    options = _options(description, script, retraining=True)
    cli.main(lambda: _settings(options, script) if options.settings else _retrain(options, script),
             shared=True)


def _options(description: str, script: Preset, retraining: bool) -> argparse.Namespace:
    return script_options.parser(description, _variants(script, retraining), retraining,
                                 own_table="label" in script).parse_args()


def _variants(script: Preset, retraining: bool) -> script_options.Variants:
    found = published.VARIANTS.get(script.get("dataset", ""), {})
    if not retraining:
        return found
    # a retraining has the embedding of its snapshot
    return {option: {name: value for name, value in changed.items() if name != "embedding"}
            for option, changed in found.items()}


def _usual(script: Preset) -> Preset:
    """The settings that aliases are named against."""
    own = published.OWN_TABLE if "label" in script else script
    return published.PRESETS.get(script.get("dataset", ""), own)


def _read(options: argparse.Namespace,
          script: Preset) -> "tuple[Settings, RunContext, frozenset[str]]":
    settings, context, explicit = script_options.read(
        options, script, _variants(script, options.retraining), _usual(script))
    if not options.retraining:
        return settings, context, explicit
    # a retraining's dict names some settings; one that is added is asked for, as by --set
    named = (published.RETRAIN_OWN_TABLE if options.own_table
             else published.RETRAIN.get(script.get("dataset", ""), script))
    return settings, context, explicit | (script.keys() - named.keys())


def _settings(options: argparse.Namespace, script: Preset) -> None:
    """Print the settings as the run would have them."""
    from engine.settings import described

    if options.own_table:
        options.data = options.data or "table.csv"  # which table makes no difference here
    settings, *_ = _read(options, script)
    print(described(settings.flat()))


def _search(options: argparse.Namespace, script: Preset) -> None:
    from engine import jobs, stages
    from engine.run import open_data
    from studies import table

    if options.jobs is not None and not options.encode_only:
        raise ValueError(f"--jobs {options.jobs} goes with --encode-only, where several processes "
                         f"read a raw file; a search of several starts with torchrun (see "
                         f"docs/scale.md)")
    settings, context, _ = _read(options, script)
    if options.own_table:
        settings = _shown(settings, context)
    if options.encode_only:
        if not options.own_table:
            asked = options.jobs
            processes = 1 if asked is None else jobs.processes(asked, options.device)
            print(open_data(settings, context, processes)[0].describe())
    else:
        result = stages.train(settings, options.seed, context)
        print(table.of_results([result]))
        if result.get("snapshots"):
            folder = stages.alias_folder(context.out, settings, options.seed, context.alias)
            command = retraining(Path(sys.argv[0]), [], settings.model.model, folder,
                                 vars(options))
            print(f"snapshots: {folder}\nto retrain them: {command}")


def _shown(settings: "Settings", context: "RunContext") -> "Settings":
    """Print what an own table became; a search without budgets gets shares of the table."""
    from data.table.encode import describe
    from engine.run import open_data
    from engine.settings import PEP

    dataset, _ = open_data(settings, context)
    print(describe(dataset))
    if settings.scheme != PEP or settings.search.candidate_p:
        return settings
    entries = dataset.schema.num_rows * settings.model.latent_dim
    budgets = tuple(dict.fromkeys(max(int(share * entries), 1) for share in BUDGET_SHARES))
    print(f"table of {dataset.schema.num_rows:,} x {settings.model.latent_dim} = {entries:,} "
          f"parameters; budgets: {', '.join(f'{budget:,}' for budget in budgets)}")
    return replace(settings, search=replace(settings.search, candidate_p=budgets))


def script_of(dataset: str, data: str | None) -> tuple[Path, list[str]]:
    """The script that searches on a data set, beside the one that runs, and the words that it needs
    to find the data set.

    Args:
        data: the --data of the command; without it an own table is found by its name.
    """
    from data.registry import DATASETS

    folder = Path(sys.argv[0])
    if dataset not in DATASETS:
        return folder.with_name("train_table.py"), [] if data else ["--set", f"name={dataset}"]
    if dataset in published.RETRAIN:
        return folder.with_name(f"train_{dataset}.py"), []
    return folder.with_name("train_movielens.py"), ["--set", f"dataset={dataset}"]


def retraining(search: Path, words: Sequence[str], model: str, folder: Path,
               given: Mapping[str, Any]) -> str:
    """The command that retrains the snapshots in a folder.

    Args:
        search, words: see `script_of`.
        given: the options that the snapshots were made with, by name.

    >>> retraining(Path("train_criteo.py"), [], "fm", Path("tmp/embedding/a b"), {"seed": 2})
    "python train_criteo_retrain.py --model fm --alias 'a b' --seed 2"
    """
    command = ["python", str(search.with_name(f"{search.stem}_retrain.py")), *words,
               "--model", model, "--alias", folder.name]
    usual = {"seed": 1, "data": None, "out": "tmp", "cache": None, "split": None, "device": "auto"}
    for name, default in usual.items():
        if (value := given.get(name, default)) != default:
            command += [f"--{name}", str(value)]
    return shlex.join(command)


def _retrain(options: argparse.Namespace, script: Preset) -> None:
    from engine import jobs, stages
    from studies import table
    from studies.collect import results_in
    from studies.figures import budget_curve

    settings, context, explicit = _read(options, script)
    at_once = jobs.processes(options.jobs, options.device)
    names = stages.tickets(settings, options.seed, context, explicit)
    tickets = [jobs.Job(f"retrain {settings.model.model} {name}",
                        partial(stages.retrain, settings, options.seed, explicit=explicit,
                                only=name))
               for name in names]
    results = [result for [result] in jobs.run_all(tickets, context, at_once)]
    if context.rank:
        return
    ran = results[0]["settings"]
    figure = budget_curve.draw(results_in(context.out), ran["dataset"], ran["model"],
                               context.out / "figures", of=results)
    print(f"{table.of_results(results)}\nfigure: {figure}")
