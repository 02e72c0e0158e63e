"""Eight trainings at once in one folder, some of them the same: each ends as it does alone."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture import works
from benchmarks.torture.kills import contents, differences, finish, start
from benchmarks.torture.trials import Outcome
from engine import stages

AT_ONCE = 8


def trial(seed: int, folder: Path) -> Outcome:
    """AT_ONCE trainings, of four or more kinds; who is kept out is started again."""
    rng = np.random.default_rng(seed)
    chosen = [int(number) for number in rng.integers(4, size=AT_ONCE)]
    out = folder / "together"
    shutil.rmtree(out, ignore_errors=True)
    with works.silent():
        for number in set(chosen):
            if not (folder / f"alone-{number}").exists():
                _train(number, folder / f"alone-{number}")
        codes = [finish(child) for child in
                 [start(partial(_train, number, out)) for number in chosen]]
        if odd := set(codes) - {0, 2}:
            return Outcome("traceback", f"{chosen} end with {odd}")
        for number in chosen:
            _train(number, out)
    alone: dict[str, Any] = {}
    for number in set(chosen):
        alone |= contents(folder / f"alone-{number}")
    wrong = differences(alone, contents(out))
    return Outcome("other bits", wrong) if wrong else Outcome("same bits")


def _train(number: int, out: Path) -> dict[str, Any]:
    """Two searches and two trainings, by number."""
    own = works.PEP if number % 2 else works.DENSE
    return stages.train(works.settings(**own), number, works.context(out))
