"""What the command lines of all scripts share.

Torch, and what imports it, is imported in the functions that need it: --help does not.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.distributed import launch

if TYPE_CHECKING:
    from engine.run import RunContext

def seed(text: str) -> int:
    """The value of --seed, for argparse: all generators take these.

    >>> seed("7")
    7
    """
    if not 0 <= (number := int(text)) < 1 << 63:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 2^63 - 1, got {text}")
    return number


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
    from data.store import cache_folder
    from engine.run import RunContext

    return RunContext(out=Path(options.out), cache=cache_folder(options.cache), data=options.data,
                      device=options.device, rank=launch.rank(), **others)


def main(work: Callable[[], object], trains: bool = True, shared: bool = False) -> None:
    """Run a script's work: messages on standard error, bad input as one line (exit code 2), 130
    after an interrupt.

    Args:
        trains: False for a command that reads records alone, and for a first look at the options:
            torch, which takes seconds, is not imported.
        shared: whether several processes may share the work under torchrun; only the first of them
            prints and logs then, and the others their errors.
    """
    if trains:
        import torch

        from engine.progress import LogHandler

        logging.basicConfig(level=logging.ERROR if launch.rank() else logging.INFO,
                            format="%(message)s", handlers=[LogHandler()])
        # rows without data decay into denormals, which many processors handle slowly
        torch.set_flush_denormal(True)
    if launch.rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        if not shared:
            launch.refuse(f"{Path(sys.argv[0]).name}")
        work()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output has read enough, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - or Python's own flush fails
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt as stop:  # a run's own says at which step
        _ignore_interrupts()
        sys.exit(_say(str(stop) or "interrupted; finished runs stay, and a run under way goes on "
                      "from its last checkpoint when it is started again", 130))
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(_say(f"error: {error}", 2))
    except (MemoryError, RuntimeError) as error:
        if "--traceback" in sys.argv or not _is_of_memory(error):
            raise
        why = (str(error) or type(error).__name__).splitlines()[0]
        sys.exit(_say(f"error: there is not enough memory ({why}); take a smaller latent_dim or "
                      "batch_size, or several processes (docs/scale.md)", 2))


def _is_of_memory(error: Exception) -> bool:
    """Whether it is of Python's, of torch's or of a GPU's memory."""
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or "can't allocate memory" in str(error))


def _ignore_interrupts() -> None:
    """A second Ctrl-C must not put a traceback in the place of the message."""
    with contextlib.suppress(ValueError):  # only the main thread may say so
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
