"""Try to break the project, and count what comes of it.

    python -m benchmarks.torture                        # everything: hours on 2 cores, resumable
    python -m benchmarks.torture files rows --trials 500
    python -m benchmarks.torture --short                # a few minutes
    python -m benchmarks.torture --report               # the counts so far into docs/reliability.md

Counts, seeds and the first faults of each part stand in OUT/<part>.json. A part goes on from there;
delete its file, or name another --out, to start again. The exit code is 1 when there is a fault.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.torture import disk, files, kills, load, long, report, rows, settings, trials


@dataclass(frozen=True)
class Part:
    """A kind of trial, and how many of them there are.

    Args:
        trial: see `trials.run`.
        whole, short: numbers of trials.
    """

    trial: trials.Trial
    whole: int
    short: int


PARTS = {"kills": Part(kills.trial, 2000, 18), "disk": Part(disk.trial, 500, 15),
         "files": Part(files.trial, 190_000, 280), "rows": Part(rows.trial, 2000, 30),
         "settings": Part(settings.trial, 10_000, 40), "load": Part(load.trial, 8, 1),
         "long": Part(long.trial, 2, 0)}


def main(words: list[str] | None = None) -> None:
    """Run the parts that are named, or all."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.torture",
                                      description=__doc__.partition("\n")[0])
    options.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options.add_argument("--trials", type=int, metavar="N", help="of each part")
    options.add_argument("--short", action="store_true", help="few trials of each part")
    options.add_argument("--out", type=Path, default=Path("tmp/torture"), help="where counts go")
    options.add_argument("--report", action="store_true",
                         help="only write what was counted into docs/reliability.md")
    given = options.parse_args(words)
    if odd := sorted(set(given.parts) - set(PARTS)):
        options.error(f"unknown part {', '.join(odd)}; there are: {', '.join(PARTS)}")
    if given.report:
        report.write(given.out)
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    faults = 0
    for name in given.parts or PARTS:
        part = PARTS[name]
        number = given.trials or (part.short if given.short else part.whole)
        if not number:
            continue
        done = trials.run(name, part.trial, number, given.out.resolve())
        faults += done["faults"]
        print(f"{name}: {done['trials']} trials, {done['faults']} faults; "
              + ", ".join(f"{kind} {count}" for kind, count in done["outcomes"].items()))
        for fault in done["first_faults"]:
            print(f"  seed {fault['seed']}: {fault['fault']}")
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    main()
