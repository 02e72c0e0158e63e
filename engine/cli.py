"""The command line that all training scripts share.

Torch, and what imports it, is imported in the functions that need it: --help does not.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def parser(description: str, variants: Variants,
           retraining: bool = False) -> argparse.ArgumentParser:
    """The options of a training script.

    Args:
        variants: the script's own options that change several settings at once.
        retraining: for a script that retrains snapshots rather than one that searches or trains.
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
    options.add_argument("--seed", type=int, default=1,
                         help="of initial values, batch order and dropout")
    options.add_argument("--tuned", type=int, metavar="N",
                         help="take the settings that `reproduce.py tune` chose "
                         "for at most N parameters")
    for name, changed in variants.items():
        options.add_argument(f"--{name}", action="store_true",
                             help=f"short for these settings: {changed}".replace("%", "%%"))
    options.add_argument("--data", help="folder with the raw files; for Criteo and Avazu also the "
                                        "file itself")
    options.add_argument("--split",
                         help="random (80/10/10), or ids:FILE, an .npz of row numbers for train, "
                         "validation and test")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                         help="where to train")
    options.add_argument("--alias", help="name of the snapshot folder (default: dataset, "
                                         "embedding, changed settings, width and seed)")
    options.add_argument("--out", default="tmp", help="where snapshots and results go")
    add_cache_option(options)
    options.add_argument("--force", action="store_true", help="run again what is finished")
    options.set_defaults(encode_only=False, overwrite=False, retraining=retraining)
    if retraining:
        add_jobs_option(options)
    else:
        options.add_argument("--encode-only", action="store_true",
                             help="encode the raw files, and stop")
        options.add_argument("--overwrite", action="store_true",
                             help="take over another search's alias folder")
    options.add_argument("--traceback", action="store_true",
                         help="show where in the code an error comes from")
    return options


def add_cache_option(options: argparse.ArgumentParser) -> None:
    """`--cache`, for every command that opens a data set; `cache_folder` reads what it gives."""
    options.add_argument("--cache", metavar="DIR", help="where encoded data sets are kept "
                         "(default: $PEP_CACHE, else data/cache beside the scripts)")


def add_jobs_option(options: argparse.ArgumentParser) -> None:
    """`--jobs`, for every command that runs several trainings; `engine.jobs.processes` reads it."""
    options.add_argument("--jobs", type=int, metavar="N",
                         help="so many runs at once, each in a process with one thread (default: "
                         "one a core; on a GPU one); 1: one after the other, with all threads")


def add_place_options(options: argparse.ArgumentParser) -> None:
    """What a command on a finished run takes: what `place_of` reads, and --traceback."""
    options.add_argument("--data", help="the raw files, as for the training")
    options.add_argument("--out", default="tmp", help="where the run lies and results go")
    add_cache_option(options)
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                         help="where to train")
    options.add_argument("--traceback", action="store_true",
                         help="show where in the code an error comes from")


def place_of(options: argparse.Namespace, **others: Any) -> "RunContext":
    """The place that --out, --cache, --data and --device name; `others` are its other fields."""
    from engine.record import cache_folder
    from engine.run import RunContext

    return RunContext(out=Path(options.out), cache=cache_folder(options.cache), data=options.data,
                      device=options.device, rank=launch.rank(), **others)


def read(options: argparse.Namespace, script: dict[str, Any], variants: Variants,
         usual: Mapping[str, Any]) -> "tuple[Settings, RunContext, frozenset[str]]":
    """Checked settings, places, and the names that the user set by hand.

    What the user sets goes before what was tuned, this before the variants that were asked for, and
    these before the script's dict.

    Args:
        usual: settings that the default alias of a search does not name.

    Raises:
        ValueError: a setting is unknown or wrong, or was set by hand and is another embedding's or
            model's than the run's.
    """
    from engine import tuning
    from engine.settings import MASKED, PEP, parse, parse_assignment, require_used
    from engine.stages import NAMED, default_alias

    by_hand = dict(parse_assignment(text) for text in options.set)
    named = {"model": options.model, "embedding": options.embedding, "split": options.split}
    explicit = by_hand | {name: value for name, value in named.items() if value}
    chosen = [changed for name, changed in variants.items() if vars(options)[name]]
    if "published" in variants and options.published:
        log.info(NOT_REPRODUCED)
    given = {"lanes": launch.LANES, **script} if launch.launched() else dict(script)
    for changed in chosen:
        given |= changed
    given |= explicit
    alias, tuned = options.alias, {}
    if options.tuned is not None:
        flat = parse(given).flat()
        path = tuning.found(Path(options.out), flat["dataset"], flat["model"], flat["embedding"])
        point, training = tuning.chosen_for(path, options.tuned)
        own = tuning.of_search(point)
        if flat["embedding"] == "pep" and alias is None and tuning.departs(usual, own):
            alias = tuning.alias_of({**usual, "latent_dim": flat["latent_dim"]}, "pep", own,
                                    options.seed)
        tuned = {**training, **point}
    settings = parse({**given, **tuned, **explicit})
    if alias is None and not options.retraining:
        base = dict(usual)
        for changed in chosen:
            base |= changed
        same = {name: settings.flat()[name] for name in NAMED}
        alias = default_alias(settings, options.seed, parse({**base, **same}))
    require_used(settings, by_hand, also=(MASKED, PEP) if options.retraining else ())
    context = place_of(options, alias=alias, force=options.force, overwrite=options.overwrite)
    return settings, context, frozenset(explicit)


def main(work: Callable[[], None], shared: bool = False) -> None:
    """Run a script's work: messages on standard error, bad input as one line (exit code 2), 130
    after an interrupt.

    Args:
        shared: whether several processes may share the work under torchrun; only the first of them
            prints and logs then, and the others their errors.
    """
    import torch

    from engine.progress import LogHandler
    from engine.run import Interrupted

    logging.basicConfig(level=logging.ERROR if launch.rank() else logging.INFO,
                        format="%(message)s", handlers=[LogHandler()])
    if launch.rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    # rows without data decay into denormals, which many processors handle slowly
    torch.set_flush_denormal(True)
    try:
        if not shared:
            launch.refuse(f"{Path(sys.argv[0]).name}")
        work()
    except Interrupted as stop:
        sys.exit(_say(str(stop), 130))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted; finished runs stay, and a run under way goes on from its last "
                      "checkpoint when it is started again", 130))
    except (ValueError, OSError, FloatingPointError) as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(_say(f"error: {error}", 2))


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


