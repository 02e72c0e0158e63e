"""The command line that all training scripts share."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine import tuning
from engine.record import cache_folder
from engine.run import Interrupted, RunContext
from engine.settings import PUBLISHED_PATIENCE, Settings, parse, parse_assignment

log = logging.getLogger("pep")

Variants = dict[str, dict[str, Any]]  # option -> the settings that it changes
NO_END = 100_000  # epochs: the published code has no end but its budgets (search) and its patience
PUBLISHED: dict[str, Any] = {  # what --published sets for every data set; the scripts add the rest
    "candidate_p": [50_000, 30_000, 20_000], "budget": "as_reached", "log_interval": 1,
    "early_stop_metric": PUBLISHED_PATIENCE, "max_epochs": NO_END}
NOT_REPRODUCED = (
    "--published: as in the published scripts, but for the random numbers (initial values, order "
    "of the batches, dropout); the split, which is the data set's here and moves with the seed "
    "there; the ids, encoded after ratings of 3 are dropped and before it there; counts, taken "
    "after a step here and one step late there; evaluations, at the end of an epoch here and after "
    "the first batch of one there; and the weights that are kept, which validation chooses here "
    "and nothing does there. A run has no end but its budgets (search) or its patience on test AUC")


def parser(description: str, variants: Variants) -> argparse.ArgumentParser:
    """The options of every training script, and the script's own variants of its settings."""
    options = argparse.ArgumentParser(description=description,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", help="linear, fm, deepfm, autoint or dlrm")
    options.add_argument("--embedding",
                         help="pep, or a baseline: uniform, mde, mgqe, darts, hash, qr, tt")
    options.add_argument("--seed", type=int, default=1,
                         help="of initial values, batch order and dropout")
    options.add_argument("--data", help="folder with the raw files; for Criteo and Avazu also the "
                                        "file itself")
    options.add_argument("--split",
                         help="random (80/10/10), or ids:FILE, an .npz of row numbers for train, "
                         "validation and test")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                         help="where to train")
    options.add_argument("--alias", help="name of the snapshot folder (default: dataset, "
                                         "embedding, width and seed)")
    options.add_argument("--out", default="tmp", help="where snapshots and results go")
    add_cache_option(options)
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                         help="change one setting")
    options.add_argument("--tuned", type=int, metavar="N",
                         help="take the settings that `reproduce.py tune` chose "
                         "for at most N parameters")
    options.add_argument("--encode-only", action="store_true",
                         help="encode the raw files, and stop")
    for name, changed in variants.items():
        options.add_argument(f"--{name}", action="store_true",
                             help=f"short for these settings: {changed}".replace("%", "%%"))
    options.add_argument("--force", action="store_true", help="run again what is finished")
    options.add_argument("--overwrite", action="store_true",
                         help="take over another search's alias folder")
    options.add_argument("--traceback", action="store_true",
                         help="show where in the code an error comes from")
    return options


def add_cache_option(options: argparse.ArgumentParser) -> None:
    """`--cache`, for every command that opens a data set; `cache_folder` reads what it gives."""
    options.add_argument("--cache", metavar="DIR", help="where encoded data sets are kept "
                         "(default: $PEP_CACHE, else data/cache beside the scripts)")


def add_place_options(options: argparse.ArgumentParser) -> None:
    """What a command on a finished run takes: what `place_of` reads, and --traceback."""
    options.add_argument("--data", help="the raw files, as for the training")
    options.add_argument("--out", default="tmp", help="where the run lies and results go")
    add_cache_option(options)
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                         help="where to train")
    options.add_argument("--traceback", action="store_true",
                         help="show where in the code an error comes from")


def place_of(options: argparse.Namespace, **others: Any) -> RunContext:
    """The place that --out, --cache, --data and --device name; `others` are its other fields."""
    return RunContext(out=Path(options.out), cache=cache_folder(options.cache), data=options.data,
                 device=options.device, **others)


def read(options: argparse.Namespace, script: dict[str, Any],
         variants: Variants) -> tuple[Settings, RunContext, frozenset[str]]:
    """Checked settings, places, and the names that the user set by hand.

    What the user sets goes before what was tuned, this before the variants that were asked for, and
    these before the script's dict.
    """
    explicit = dict(parse_assignment(text) for text in options.set)
    explicit |= {name: getattr(options, name) for name in ("model", "embedding", "split")
                 if getattr(options, name)}
    varied = {key: value for name, changed in variants.items() if getattr(options, name)
              for key, value in changed.items()}
    if getattr(options, "published", False):
        log.info(NOT_REPRODUCED)
    given = {**script, **varied, **explicit}
    alias, tuned = options.alias, {}
    if options.tuned is not None:
        flat = parse(given).flat()
        path = tuning.file_of(Path(options.out), flat["dataset"], flat["model"], flat["embedding"])
        point, training = tuning.chosen_for(path, options.tuned)
        own = tuning.of_search(point)
        if flat["embedding"] == "pep" and alias is None and tuning.departs(script, own):
            alias = tuning.alias_of({**script, "latent_dim": flat["latent_dim"]}, "pep", own,
                                    options.seed)
        tuned = {**training, **point}
    settings = parse({**given, **tuned, **explicit})
    context = place_of(options, alias=alias, force=options.force, overwrite=options.overwrite)
    return settings, context, frozenset(explicit)


def main(work: Callable[[], None]) -> None:
    """Run a script's work: messages on standard error, bad input as one line (exit code 2), 130
    after an interrupt."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # rows without data decay into denormals, which many processors handle slowly
    torch.set_flush_denormal(True)
    try:
        work()
    except Interrupted as stop:
        sys.exit(_say(str(stop), 130))
    except (ValueError, OSError, FloatingPointError) as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(_say(f"error: {error}", 2))


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


