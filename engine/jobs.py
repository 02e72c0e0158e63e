"""Several runs: one after the other, or as many at once as there are processes, with one bar over
all of them.

Side by side each process computes with one thread, so that a run gives the same bits as it does
alone in a process of one thread. One after the other the runs share this process and its threads.
How the sum of many numbers is rounded depends on the number of threads, so between the two the last
bits of a result may differ; every result says in `threads` how many it was computed with.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from tqdm import tqdm

from engine.distributed import launch
from engine.progress import BAR, BESIDE_DESCRIPTION, Report, fitting
from engine.record import pick_device
from engine.run import Interrupted, RunContext
from utils.signals import handling

log = logging.getLogger("pep")

MOST_A_CORE = 4  # processes; more only wait for each other and fill the memory
EXPECTED = (ValueError, OSError, FloatingPointError)  # bad input and the like: one line is enough
NAMED = 5  # runs that the message on failures names
PATIENCE = 10.0  # seconds that a process without a job has to end
POLL = 0.2  # seconds between two looks for a Ctrl-C


class RunsFailed(ValueError):
    """Some of several runs failed; all others are finished."""


@dataclass(frozen=True)
class Job:
    """One of several runs.

    Args:
        what: it in words, for the bar and for messages.
        run: runs it with a context; what is finished is not run again. For several processes a
            function of a module, or a `functools.partial` of one.
        weight: how long it takes, in any unit that is the same for all.
        alone: it measures times, so nothing may run beside it.
    """

    what: str
    run: Callable[[RunContext], Any]
    weight: float = 1.0
    alone: bool = False


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes(asked: int | None, device: str) -> int:
    """How many runs go side by side: as many as --jobs says, else one a core, and one on a GPU.

    Args:
        asked: --jobs, None when it was not given.
        device: --device: auto, cpu or cuda.

    Raises:
        ValueError: it is below 1 or above MOST_A_CORE a core, or torchrun has started this process.
    """
    if launch.launched():
        if asked is not None:
            raise ValueError(f"--jobs {asked} and torchrun both start processes: with torchrun all "
                             f"of them share each run; leave --jobs away")
        return 1
    if asked is None:
        return cores() if pick_device(device).type == "cpu" else 1
    most = MOST_A_CORE * cores()
    if not 1 <= asked <= most:
        raise ValueError(f"--jobs must be between 1 and {most} ({MOST_A_CORE} for each of the "
                         f"{cores()} cores), got {asked}")
    return asked


def run_all(jobs: Sequence[Job], context: RunContext, at_once: int = 1) -> list[Any]:
    """Run all jobs; returns their results in the same order.

    A job that fails does not end the others. With one process a Ctrl-C ends the job that runs, with
    several it ends all of them; each keeps a checkpoint, from which the same call goes on.

    Args:
        jobs: to run. Those that are `alone` come first.
        context: for all of them.
        at_once: processes, see `processes`.

    Raises:
        RunsFailed: some failed; the message names them. A single job raises its own error.
        Interrupted: the user ended it.
    """
    board = _Board(jobs, shown=not context.rank)
    outcomes: dict[int, _Outcome] = {}
    own = [index for index, job in enumerate(jobs) if job.alone]
    others = [index for index, job in enumerate(jobs) if not job.alone]
    if min(at_once, len(others)) < 2:
        own, others = [*own, *others], []
    try:
        for index in own:
            outcomes[index] = _here(jobs, index, context, board)
        if others:
            with _Pool([jobs[index] for index in others], context, at_once) as pool:
                for place, outcome in pool.outcomes(lambda place, report: board.report(
                        others[place], report)):
                    outcomes[others[place]] = outcome
                    board.done(others[place], outcome)
    finally:
        board.close()
    failed = {index: outcome for index, outcome in outcomes.items() if outcome.failed}
    if failed:
        raise RunsFailed(_message(jobs, failed))
    return [outcomes[index].result for index in range(len(jobs))]


@dataclass(frozen=True)
class _Outcome:
    """What came of a job.

    Args:
        result: of a job that was finished.
        failed: the error's message, else "".
        busy: the message of a job that needs a run which another process is at, else "".
        interrupted: the message of a job that was ended by the user, else "".
    """

    result: Any = None
    failed: str = ""
    busy: str = ""
    interrupted: str = ""


def _message(jobs: Sequence[Job], failed: dict[int, _Outcome]) -> str:
    """The failures, those of one message together."""
    names: dict[str, list[str]] = {}
    for index, outcome in sorted(failed.items()):
        names.setdefault(outcome.failed, []).append(jobs[index].what)
    lines = [f"{len(failed)} of {len(jobs)} runs failed; the others are finished, and the same "
             f"command runs these again:"]
    for message, whats in names.items():
        more = f" and {len(whats) - NAMED} more" if len(whats) > NAMED else ""
        lines.append(f"  {'; '.join(whats[:NAMED])}{more}: {message}")
    return "\n".join(lines)


def _here(jobs: Sequence[Job], index: int, context: RunContext, board: "_Board") -> _Outcome:
    """Run a job in this process."""
    board.start(index)
    own = replace(context, report=lambda report: board.report(index, report))
    try:
        outcome = _Outcome(jobs[index].run(own))
    except EXPECTED as error:
        if len(jobs) == 1:
            raise
        outcome = _Outcome(failed=str(error) or repr(error))
    except Interrupted as stop:
        if len(jobs) == 1:
            raise
        raise Interrupted(f"{jobs[index].what}: {stop}") from stop
    board.done(index, outcome)
    return outcome


class _Board:
    """One bar over all jobs, whose time left counts them by their weight; lines without a
    terminal."""

    def __init__(self, jobs: Sequence[Job], shown: bool = True) -> None:
        self.jobs = jobs
        self.shares: dict[int, float] = {}  # of the jobs that run
        self.ends: list[float] = []  # shares at which finished runs had stopped
        self.finished = 0
        self.weight_done = 0.0
        self.auc: float | None = None
        self.bar = tqdm(total=sum(job.weight for job in jobs), bar_format=BAR, smoothing=0,
                        disable=None if shown else True, dynamic_ncols=True, file=sys.stderr)

    def start(self, index: int) -> None:
        """A job begins in this process."""
        self.shares[index] = 0.0
        self._show()

    def report(self, index: int, report: Report) -> None:
        """A job has come further."""
        self.shares[index] = report.share
        self.auc = report.auc if report.auc is not None else self.auc
        if self.bar.disable and report.evaluation:
            log.info("%s%s: %s", self._place(index), self.jobs[index].what, report.evaluation)
        self._show()

    def done(self, index: int, outcome: _Outcome) -> None:
        """A job has ended."""
        share = self.shares.pop(index, 0.0)
        self.finished += 1
        if share:
            self.ends.append(share)
            self.weight_done += self.jobs[index].weight
        else:  # it had been finished before and took no time
            self.bar.total -= self.jobs[index].weight
        if outcome.failed:
            log.error("%s failed: %s", self.jobs[index].what, outcome.failed)
        elif self.bar.disable and len(self.jobs) > 1:
            log.info("%d of %d done: %s", self.finished, len(self.jobs), self.jobs[index].what)
        self._show()

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()

    def _place(self, index: int) -> str:
        return f"{index + 1} of {len(self.jobs)}, " if len(self.jobs) > 1 else ""

    def _show(self) -> None:
        if self.bar.disable:
            return
        # early stopping ends runs at about the share at which it ended those before
        end = sum(self.ends) / len(self.ends) if self.ends else 1.0
        running = sum(self.jobs[index].weight * min(share / end, 0.99)
                      for index, share in self.shares.items())
        self.bar.n = min(self.weight_done + running, self.bar.total)
        columns = self.bar.ncols or 80
        at = sorted(self.shares)
        whats = [f"{index + 1} of {len(self.jobs)}: {self.jobs[index].what}" for index in at]
        if len(at) > 1:
            whats = [f"{self.finished} of {len(self.jobs)} done, {len(at)} running"]
        auc = [f"AUC {self.auc:.4f}"] if self.auc is not None else []
        description = "".join(whats)[:max(columns - BESIDE_DESCRIPTION - len("AUC 0.0000"), 10)]
        self.bar.set_description_str(description, refresh=False)
        room = columns - BESIDE_DESCRIPTION - len(description)
        names = [self.jobs[index].what for index in at] if len(at) > 1 else []
        self.bar.set_postfix_str(fitting([*auc, *names], room)[2:], refresh=False)
        self.bar.refresh()


class _Worker:
    """A process that takes jobs, and the job that it is at."""

    def __init__(self, jobs: Sequence[Job], context: RunContext) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.connection, theirs = spawning.Pipe()
        self.process: BaseProcess = spawning.Process(target=_work, args=(theirs, jobs, context))
        # a Ctrl-C reaches every process of a terminal; these learn of it from their parent
        with handling(signal.SIG_IGN):
            self.process.start()
        theirs.close()
        self.place: int | None = None
        self.dead = False
        self.told = False

    def give(self, place: int) -> None:
        """Let it run a job."""
        self.place = place
        with contextlib.suppress(OSError):  # it is dead: `receive` will tell
            self.connection.send(place)

    def receive(self) -> Any:
        """Its next message; an outcome when it is dead."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.dead = True
            self.process.join()
            if self.told:
                return _Outcome(interrupted="it had not begun")
            return _Outcome(failed=f"its process died (exit code {self.process.exitcode}; -9 is "
                                   f"often too little memory: take fewer --jobs)")

    def tell_to_end(self) -> None:
        """Let it save its job and end."""
        if not self.told:
            self.told = True
            self.process.terminate()

    def end(self) -> None:
        """Wait until it has ended, and kill it when that takes long."""
        self.connection.close()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class _Pool:
    """Processes that share a list of jobs.

    Two jobs may need the same run before their own (tickets of one search). A job that finds it in
    the hands of another process is put off until another job has ended.
    """

    def __init__(self, jobs: Sequence[Job], context: RunContext, at_once: int) -> None:
        self.jobs = jobs
        self.context = replace(context, report=None)
        self.waiting = deque(range(len(jobs)))
        self.put_off: dict[int, str] = {}  # by job, what it waits for
        self.stopping = False
        self.workers = [_Worker(jobs, self.context) for _ in range(min(at_once, len(jobs)))]

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            if worker.place is not None:  # after an error, or a second Ctrl-C
                worker.process.kill()
            worker.end()

    def outcomes(self, report: Callable[[int, Report], None]) -> Iterator[tuple[int, _Outcome]]:
        """Run all jobs; yields each outcome as it comes.

        Args:
            report: takes the reports of the jobs that run.

        Raises:
            Interrupted: the user ended it, and every process has saved what it had.
        """
        with handling(self._stop):
            self._hand_out()
            while at := {worker.connection: worker for worker in self._running()}:
                for connection in wait(list(at), POLL):
                    worker = at[connection]  # type: ignore[index]
                    place, message = worker.place, worker.receive()
                    assert place is not None
                    if isinstance(message, Report):
                        report(place, message)
                    elif isinstance(message, _Outcome):
                        worker.place = None
                        if not self._again(place, message):
                            yield place, message
                    else:
                        log.log(*message)
                self._hand_out()
        if self.stopping:
            raise Interrupted("interrupted; what was under way is saved, and the same command goes "
                              "on from there")
        for place, message in self.put_off.items():  # nothing is left that they could wait for
            yield place, _Outcome(failed=message)

    def _stop(self, number: int, frame: object) -> None:
        """Ctrl-C, or SIGTERM: the first lets all processes save and end, the second kills them."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def _again(self, place: int, outcome: _Outcome) -> bool:
        """Whether a job has to be run again later."""
        if outcome.interrupted:
            self.stopping = True
        if outcome.busy:
            self.put_off[place] = outcome.busy
        else:
            self.waiting.extendleft(reversed(self.put_off))
            self.put_off = {}
        return bool(outcome.interrupted or outcome.busy)

    def _running(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.place is not None]

    def _hand_out(self) -> None:
        """Give jobs to idle processes, in the place of dead ones to new ones; when it is over, tell
        all to end."""
        if self.stopping:
            for worker in self._running():
                worker.tell_to_end()
            return
        for number, worker in enumerate(self.workers):
            if worker.place is None and self.waiting:
                if worker.dead:
                    worker.end()
                    worker = self.workers[number] = _Worker(self.jobs, self.context)
                worker.give(self.waiting.popleft())


def _raise_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


class _ToParent(logging.Handler):
    """Sends log records to the process that has the bar."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        _send(self.connection, (record.levelno, "%s", record.getMessage()))


def _send(connection: Connection, message: Any) -> None:
    """Send a message; without anybody who takes it, end as after Ctrl-C: with a checkpoint."""
    try:
        connection.send(message)
    except OSError:
        signal.raise_signal(signal.SIGTERM)


def _work(connection: Connection, jobs: Sequence[Job], context: RunContext) -> None:
    """What a process of the pool does: one job after the other, as it is told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _raise_interrupt)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as `engine.cli.main` does
    logger = logging.getLogger()
    logger.handlers = [_ToParent(connection)]
    logger.setLevel(logging.INFO)
    own = replace(context, report=lambda report: _send(connection, report))
    try:
        while True:
            place = connection.recv()
            _send(connection, _outcome(jobs[place], own))
    except (EOFError, OSError, KeyboardInterrupt):  # there are no more
        return


def _outcome(job: Job, context: RunContext) -> _Outcome:
    try:
        return _Outcome(job.run(context))
    except BlockingIOError as error:
        return _Outcome(busy=str(error))
    except EXPECTED as error:
        return _Outcome(failed=str(error) or repr(error))
    except Interrupted as stop:
        return _Outcome(interrupted=str(stop))
    except KeyboardInterrupt:
        return _Outcome(interrupted="it had not begun")
    except Exception:
        return _Outcome(failed=traceback.format_exc())
