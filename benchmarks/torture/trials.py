"""Seeded trials of one kind, counted by what came out, in a file that a stopped campaign goes on
from."""

import json
import os
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from engine.record import commit, device_name
from engine.run import Interrupted
from utils.files import write_json

KEPT = 20  # faults whose words are kept, of each kind
SAVED_EVERY = 10  # trials


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Args:
        kind: how it ended, a word that outcomes are counted by.
        fault: what is wrong with it; empty where nothing is.
    """

    kind: str
    fault: str = ""


Trial = Callable[[int, Path], Outcome]


def run(name: str, trial: Trial, trials: int, folder: Path) -> dict[str, Any]:
    """Make the trials of one kind that `folder` does not hold yet.

    Args:
        name: of the kind.
        trial: takes its seed and a folder that it may write to. An exception that it lets out is a
            fault: the caller of a command would see its traceback.
        trials: their number; the seeds are 0 to trials - 1.
        folder: of the campaign.

    Returns:
        the counts by kind of outcome, the number of faults, and the words of the first ones.
    """
    path = folder / f"{name}.json"
    done = json.loads(path.read_text()) if path.exists() else {
        "trials": 0, "outcomes": {}, "faults": 0, "first_faults": [], "commits": [],
        "machines": []}
    counts = Counter(done["outcomes"])
    for seed in tqdm(range(done["trials"], trials), desc=name, disable=None):
        try:
            outcome = trial(seed, folder / name)
        except Interrupted:
            raise  # the campaign itself was told to end
        except Exception as error:
            words = "".join(traceback.format_exception_only(error)).strip()
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome = Outcome("traceback", f"{words} ({Path(where.filename).name}:{where.lineno})")
        counts[outcome.kind] += 1
        if outcome.fault:
            done["faults"] += 1
            if len(done["first_faults"]) < KEPT:
                done["first_faults"].append({"seed": seed, "fault": outcome.fault[:400]})
        done |= {"trials": seed + 1, "outcomes": dict(sorted(counts.items()))}
        if (seed + 1) % SAVED_EVERY == 0 or seed + 1 == trials:
            done["commits"] = sorted({*done["commits"], commit() or "unknown"})
            machine = f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores"
            done["machines"] = sorted({*done["machines"], machine})
            write_json(path, done)
    return done
