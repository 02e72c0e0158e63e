"""Eight trainings at once in one folder, some of them the same: each ends as it does alone. And 200
scorers of one exported model for five minutes: all answer as one does, and their memory is flat."""

import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture import works
from benchmarks.torture.kills import contents, differences, finish, start
from benchmarks.torture.long import GROWTH, WARM, held
from benchmarks.torture.trials import Outcome
from engine import stages
from models.serving.scorer import Scorer, load

AT_ONCE = 8
PROCESSES, THREADS = 4, 50
SECONDS = 300.0  # that they score
REQUESTS = 100  # of different rows
LOOKS = 20  # at a process's memory


def trial(seed: int, folder: Path) -> Outcome:
    """AT_ONCE trainings; the scorers for every fourth seed, from 1."""
    return _scorers(seed, folder) if seed % 4 == 1 else _trainings(seed, folder)


def _trainings(seed: int, folder: Path) -> Outcome:
    """Of four or more kinds; who is kept out is started again."""
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


def _scorers(seed: int, folder: Path) -> Outcome:
    """PROCESSES processes of THREADS threads, each thread with a scorer of its own."""
    with works.silent():
        works.export_run(folder / "exported")
    model = folder / "exported" / "model"
    rows = [{"user": f"u{row % 33}", "item": f"é {row % 13}", "price": row / 40}
            for row in range(200)]
    requests = [rows[first:first + size] for first, size in
                np.random.default_rng(seed).integers(1, 150, (REQUESTS, 2))]
    alone = load(model)
    answers = [alone.score(request) for request in requests]
    said = [folder / f"said-{number}" for number in range(PROCESSES)]
    children = [start(partial(_score, model, requests, answers), said=path) for path in said]
    codes = [finish(child, SECONDS + 120) for child in children]
    if any(codes):
        words = " ".join(path.read_text()[-200:] for path in said)
        return Outcome("scorers: other answers or growth", f"they end with {codes}: {words}")
    return Outcome("scorers: same answers, flat memory")


def _score(model: Path, requests: list[Any], answers: list[np.ndarray]) -> None:
    """The threads of one process.

    Raises:
        ArithmeticError: an answer is not what one scorer alone gives, or the process has grown.
    """
    stop, wrong = threading.Event(), []
    threads = [threading.Thread(target=_ask, args=(load(model), requests, answers, number, stop,
                                                   wrong))
               for number in range(THREADS)]
    for thread in threads:
        thread.start()
    seen = []
    for _ in range(LOOKS):
        time.sleep(SECONDS / LOOKS)
        seen.append(held()[2])
    stop.set()
    for thread in threads:
        thread.join()
    grown = max(seen) - seen[int(LOOKS * WARM)]
    if wrong or grown > GROWTH:
        raise ArithmeticError(f"{len(wrong)} wrong answers ({wrong[:1]}), {grown >> 20} MiB more")


def _ask(scorer: Scorer, requests: list[Any], answers: list[np.ndarray], seed: int,
         stop: threading.Event, wrong: list[str]) -> None:
    rng = np.random.default_rng(seed)
    while not stop.is_set():
        number = int(rng.integers(len(requests)))
        try:
            found = scorer.score(requests[number])
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
            return
        if not np.array_equal(found, answers[number]):
            wrong.append(f"request {number}: {np.abs(found - answers[number]).max()} apart")
