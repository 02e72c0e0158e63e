"""The command line of the training scripts: its options, and the settings that they make.

Torch, and what imports it, is imported in the functions that need it: --help does not.
"""

import argparse
import itertools
import logging
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.table.options import ALLOWED, own_name
from engine import cli
from engine.distributed import launch

if TYPE_CHECKING:
    from engine.run import RunContext
    from engine.settings import Settings

log = logging.getLogger("pep")

Variants = Mapping[str, dict[str, Any]]  # option -> the settings that it changes
NOT_REPRODUCED = (
    "--published: as in the published scripts, but for the random numbers (initial values, order "
    "of the batches, dropout); the split, which is the data set's here and moves with the seed "
    "there; the ids, encoded after ratings of 3 are dropped and before it there; counts, taken "
    "after a step here and one step late there; evaluations, at the end of an epoch here and after "
    "the first batch of one there; and the weights that are kept, which validation chooses here "
    "and nothing does there. A run has no end but its budgets (search) or its patience on test AUC")


def parser(description: str, variants: Variants, retraining: bool = False,
           own_table: bool = False) -> argparse.ArgumentParser:
    """The options of a training script.

    Args:
        variants: the script's own options that change several settings at once.
        retraining: for a script that retrains snapshots rather than one that searches or trains.
        own_table: for one of a user's own table.
    """
    options = argparse.ArgumentParser(description=description,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--settings", action="store_true",
                         help="list all settings with value, default, range and meaning, and stop")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                         help="change one setting")
    options.add_argument("--model", help="which model (--settings names them all)")
    options.add_argument("--embedding",
                         help="whose snapshots: the embedding that the search had" if retraining
                         else "pep, or a baseline (--settings names them all)")
    options.add_argument("--seed", type=cli.seed, default=1,
                         help="of initial values, batch order and dropout")
    options.add_argument("--tuned", type=int, metavar="N",
                         help="take the settings that `reproduce.py tune` chose "
                         "for at most N parameters")
    for name, changed in variants.items():
        options.add_argument(f"--{name}", action="store_true",
                             help=f"short for these settings: {changed}".replace("%", "%%"))
    if own_table:
        options.add_argument("--data", help="the table: CSV, TSV, Parquet, or a folder of parts")
        options.add_argument("--label", help="the column to predict")
        options.add_argument("--split", help=ALLOWED)
    else:
        options.add_argument("--data", help="folder with the raw files; for Criteo and Avazu also "
                                            "the file itself")
        options.add_argument("--split",
                             help="random (80/10/10), or ids:FILE, an .npz of row numbers for "
                             "train, validation and test")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                         help="where to train")
    options.add_argument("--alias", help="name of the snapshot folder (default: dataset, "
                                         "embedding, changed settings, width and seed)")
    options.add_argument("--out", default="tmp", help="where snapshots and results go")
    cli.add_cache_option(options)
    options.add_argument("--force", action="store_true", help="run again what is finished")
    options.set_defaults(encode_only=False, overwrite=False, jobs=None, retraining=retraining,
                         own_table=own_table)
    if retraining:
        cli.add_jobs_option(options)
    else:
        options.add_argument("--encode-only", action="store_true",
                             help="encode the raw files, and stop")
        if not own_table:
            options.add_argument("--jobs", type=int, metavar="N",
                                 help="with --encode-only: so many processes read a large, "
                                 "unpacked raw file (default: one, with a thread for each core)")
        options.add_argument("--overwrite", action="store_true",
                             help="take over another search's alias folder")
    options.add_argument("--traceback", action="store_true",
                         help="show where in the code an error comes from")
    return options


def _require_agreement(chosen: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError where two variants that are asked for set one key to different values."""
    for (one, settings), (other, others) in itertools.combinations(chosen.items(), 2):
        for name in sorted({*settings} & {*others}):
            if settings[name] != others[name]:
                raise ValueError(f"--{one} sets {name} to {settings[name]} and --{other} to "
                                 f"{others[name]}; give one of the two, and what you want of the "
                                 f"other by --set")


def read(options: argparse.Namespace, script: dict[str, Any], variants: Variants,
         usual: Mapping[str, Any]) -> "tuple[Settings, RunContext, frozenset[str]]":
    """Checked settings, places, and the names that were set by hand or, of a search, tuned.

    What the user sets goes before what was tuned, this before the variants that were asked for, and
    these before the script's dict.

    Args:
        usual: settings that the default alias of a search does not name.

    Raises:
        ValueError: a setting is unknown or wrong, or was set by hand and is another embedding's or
            model's than the run's.
    """
    from data.registry import DATASETS
    from engine.settings import MASKED, PEP, identity, parse, parse_assignment, require_used
    from engine.stages import NAMED, default_alias
    from studies import tuning

    by_hand = dict(parse_assignment(text) for text in options.set)
    named = {"model": options.model, "embedding": options.embedding, "split": options.split}
    if options.own_table:
        named["label"] = options.label
    explicit = by_hand | {name: value for name, value in named.items() if value}
    chosen = [changed for name, changed in variants.items() if vars(options)[name]]
    if "published" in variants and options.published:
        log.info(textwrap.fill(NOT_REPRODUCED, 80))
    given = {"lanes": launch.LANES, **script} if launch.launched() else dict(script)
    _require_agreement({name: variants[name] for name in variants if vars(options)[name]})
    for changed in chosen:
        given |= changed
    given |= explicit
    if options.own_table:
        if "dataset" in by_hand:
            raise ValueError("a table of your own has the name of its file, or that of --set "
                             "name=...; leave dataset away")
        given["dataset"] = own_name(options.data, given.get("name", ""), DATASETS)
    tuned: dict[str, Any] = {}
    alias, usual_alias = options.alias, None
    if options.tuned is not None:
        tuned, usual_alias = _tuned(options, given, usual)
    settings = parse({**given, **tuned, **explicit})
    same = {name: settings.flat()[name] for name in NAMED}
    # where nothing departs from what was tuned
    if alias is None and tuned and identity(parse({**script, **same, **tuned})) == identity(
            settings):
        alias = usual_alias
    if settings.scheme != PEP and not options.retraining and (alias or options.overwrite):
        raise ValueError(f"--{'alias' if alias else 'overwrite'} is of a search's folder of "
                         f"snapshots, and {settings.scheme} makes none; leave it out")
    if alias is None and not options.retraining:
        base = dict(usual)
        for changed in chosen:
            base |= changed
        alias = default_alias(settings, options.seed, parse({**base, **same}))
    require_used(settings, [*by_hand, *(["embedding"] if options.embedding else [])],
                 also=(MASKED, PEP) if options.retraining else ())
    context = cli.place_of(options, alias=alias, force=options.force, overwrite=options.overwrite)
    of_search = {name for name in tuned if name not in tuning.RETRAINING}
    return settings, context, frozenset({*explicit, *of_search})


def _tuned(options: argparse.Namespace, given: Mapping[str, Any],
           usual: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The settings of a tuned run that are not those of the script, and the name of its snapshots,
    where `reproduce.py` gives them one that is not the default.

    Args:
        given: the script's settings, with those of the command line.
        usual: as for `read`.
    """
    from engine.settings import PEP, parse
    from studies import recipes, tuning
    from studies.published import PRESETS

    flat = parse(dict(given)).flat()
    dataset, out = flat["dataset"], Path(options.out)
    path = tuning.found(out, dataset, flat["model"], flat["embedding"])
    point, training = tuning.chosen_for(path, options.tuned)
    # of another data set than the script's: its own preset lies below what was tuned
    other = usual.get("dataset") != dataset
    beside = dict(PRESETS.get(dataset, {})) if other else {}
    if options.retraining:
        recipe = recipes.training_of(out, dataset, flat["model"])
        beside |= {name: value for name, value in recipe.items() if name in tuning.RETRAINING}
        beside |= recipes.LIMITS if other else {}
    named = {"model": flat["model"], "embedding": flat["embedding"]}
    own = tuning.of_search(point)
    base = {**usual, **beside, "latent_dim": flat["latent_dim"], "dataset": dataset}
    alias = (tuning.alias_of(base, PEP, own, options.seed)
             if flat["embedding"] == PEP and tuning.departs(base, own) else None)
    return {**beside, **named, **training, **point}, alias
