"""Several runs at once: the results of one after the other, failures by name, one end for all."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from functools import partial

import pytest
import tiny
import torch

from data.registry import DATASETS
from engine import jobs, progress, stages
from engine.checkpoint import only_one
from engine.jobs import Job, RunsFailed
from engine.progress import Report
from engine.run import Interrupted

SEARCH = {"candidate_p": [500, 300, 100], "l2_regularization": 1e-3, "threshold_init": -3.0,
          "max_epochs": 5}


def doubled(value, context):
    if value < 0:
        raise ValueError("negative")
    context.report(Report(0.5, 0.8, f"evaluated {value}"))
    return 2 * value, torch.get_num_threads(), os.getpid()


def dies(context):
    os._exit(7)


def broken(context):
    raise TypeError("a mistake in the code")


def needs_another(folder, value, context):
    """Hold what all of these need, as the tickets of one search do."""
    with only_one(folder):
        time.sleep(0.3)
        return value


def waits(folder, context):
    """A training that saves itself when it is told to end."""
    told = []
    signal.signal(signal.SIGTERM, lambda *others: told.append(1))
    (folder / f"{os.getpid()}.began").touch()
    for _ in range(600):
        time.sleep(0.05)
        if told:
            (folder / f"{os.getpid()}.saved").touch()
            raise Interrupted("interrupted at step 3")
    raise AssertionError("nobody told it to end")


def retrained(out, name, context):
    """A ticket on the tiny set, in a process that has only what its import made."""
    DATASETS["movielens"] = lambda *arguments: tiny.dataset()
    return stages.retrain(tiny.settings(**SEARCH), 1, context, only=name)


@pytest.fixture
def copied(monkeypatch):
    """Processes begin as copies of one that has imported torch and nothing of this one: a tenth of
    a second each instead of seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine.stages"])
    monkeypatch.setattr(jobs.multiprocessing, "get_context", lambda method: context)


def test_side_by_side_gives_what_one_thread_gives_in_sequence(tmp_path, monkeypatch, one_thread):
    tiny.install(monkeypatch, tiny.dataset())
    settings = tiny.settings(**SEARCH)
    stages.train(settings, 1, tiny.context(tmp_path))
    names = stages.tickets(settings, 1, tiny.context(tmp_path))
    assert names == ["500", "300", "100"]
    wanted = [Job(name, partial(retrained, tmp_path, name)) for name in names]
    in_sequence = jobs.run_all(wanted, tiny.context(tmp_path, force=True))
    # two jobs that need the same run, as tickets of one search do, wait for each other
    shared = [Job(str(value), partial(needs_another, tmp_path / "search", value))
              for value in range(2)]
    others = [Job(str(value), partial(doubled, value)) for value in range(2)]
    made = jobs.run_all([*shared, *wanted, *others], tiny.context(tmp_path, force=True), at_once=2)
    assert made[:2] == [0, 1]
    for [one], [other] in zip(in_sequence, made[2:5], strict=True):
        assert tiny.without_times(one) == tiny.without_times(other)
    assert [result["num_embedding_params"] for [result] in made[2:5]] == [500, 300, 100]
    assert [(value, threads) for value, threads, _ in made[5:]] == [(0, 1), (2, 1)]
    assert os.getpid() not in [process for _, _, process in made[5:]]


def test_one_process_is_this_one(tmp_path):
    made = jobs.run_all([Job(str(value), partial(doubled, value)) for value in range(2)],
                        tiny.context(tmp_path))
    assert [(value, process) for value, _, process in made] == [(0, os.getpid()), (2, os.getpid())]


def test_a_failure_names_its_run_and_the_others_are_finished(tmp_path, caplog):
    values = [1, -1, 2, -2]
    with caplog.at_level(logging.INFO, "pep"), pytest.raises(RunsFailed) as error:
        jobs.run_all([Job(f"run {value}", partial(doubled, value)) for value in values],
                     tiny.context(tmp_path))
    assert str(error.value).splitlines() == [
        "2 of 4 runs failed; the others are finished, and the same command runs these again:",
        "  run -1; run -2: negative"]
    assert sum("done: run" in line for line in caplog.messages) == 2
    assert "run -1 failed: negative" in caplog.messages


def test_a_single_run_raises_its_own_error(tmp_path):
    with pytest.raises(ValueError, match=r"^negative$"):
        jobs.run_all([Job("run", partial(doubled, -1))], tiny.context(tmp_path), 2)


@pytest.mark.usefixtures("copied")
def test_a_process_that_fails_or_dies_loses_its_run_alone(tmp_path, caplog):
    wanted = [Job("killed", dies), Job("wrong", broken), Job("refused", partial(doubled, -1)),
              Job("held", partial(needs_another, tmp_path / "search", 0)),
              *(Job(f"good {value}", partial(doubled, value)) for value in range(2))]
    with (only_one(tmp_path / "search"), caplog.at_level(logging.INFO, "pep"),
          pytest.raises(RunsFailed) as error):
        jobs.run_all(wanted, tiny.context(tmp_path), at_once=2)
    message = str(error.value)
    assert "4 of 6 runs failed" in message
    assert "killed: its process died (exit code 7;" in message
    assert "TypeError: a mistake in the code" in message  # with its traceback
    assert "in broken" in message
    assert "refused: negative" in message
    assert f"held: {tmp_path / 'search'} is in use by another process" in message
    for name in ("good 0", "good 1"):
        assert any(line.endswith(f"done: {name}") for line in caplog.messages)


@pytest.mark.usefixtures("copied")
def test_an_interrupt_lets_all_save_and_ends_with_one_message(tmp_path):
    def press():
        while len(list(tmp_path.glob("*.began"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(Interrupted, match=r"^interrupted; what was under way is saved"):
        jobs.run_all([Job(str(value), partial(waits, tmp_path)) for value in range(3)],
                     tiny.context(tmp_path), at_once=2)
    assert len(list(tmp_path.glob("*.saved"))) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("asked", [0, -3, 10**6])
def test_numbers_of_processes_out_of_bounds_are_refused(asked):
    most = jobs.MOST_A_CORE * jobs.cores()
    with pytest.raises(ValueError, match=rf"--jobs must be between 1 and {most} .* got {asked}"):
        jobs.processes(asked, "cpu")


def test_without_a_number_there_is_a_process_a_core():
    assert jobs.processes(None, "cpu") == jobs.cores()
    assert jobs.processes(1, "cpu") == 1


class Terminal:
    """A standard error that is a terminal of so many columns."""

    def __init__(self, columns):
        self.columns = columns
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        """There is nothing to do."""

    def isatty(self):
        return True


def terminal_of(columns, monkeypatch):
    """A terminal in the place of standard error; the test itself must set it, not a fixture."""
    made = Terminal(columns)
    monkeypatch.setattr("sys.stderr", made)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    return made


def test_the_bar_over_all_runs_names_budget_and_place_at_80_columns(monkeypatch, tmp_path):
    terminal = terminal_of(80, monkeypatch)
    jobs.run_all([Job(f"retrain deepfm {budget}", partial(doubled, budget))
                  for budget in (100_000, 50_000, 23_675)], tiny.context(tmp_path))
    lines = [line for line in terminal.text.replace("\n", "\r").split("\r") if line.strip()]
    shown = next(line for line in lines if "3 of 3: retrain deepfm 23675" in line and "AUC" in line)
    assert "AUC 0.8000" in shown
    assert " left" in shown
    assert len(shown.partition("|")[2].partition("|")[0]) >= 8  # the bar itself
    assert max(map(len, lines)) <= 80


def test_log_lines_stand_above_the_bar(monkeypatch):
    terminal = terminal_of(80, monkeypatch)
    logger = logging.getLogger("test of lines")
    logger.handlers = [progress.LogHandler()]
    with progress.tqdm(total=10, desc="bar", file=terminal) as bar:
        terminal.text = ""
        logger.warning("a line")
        bar.refresh()
    before, _, after = terminal.text.partition("a line\n")
    assert before.strip("\r \x1b[A") == ""  # the bar was wiped first
    assert "bar" in after


def test_piped_output_has_a_line_an_evaluation(tmp_path, monkeypatch, caplog):
    tiny.install(monkeypatch, tiny.dataset())
    with caplog.at_level(logging.INFO, "pep"):
        tiny.train(tmp_path, embedding="uniform", max_epochs=2)
    lines = [line for line in caplog.messages if "validation AUC" in line]
    assert [line.split(",")[0] for line in lines] == [
        "train fm/uniform: epoch 1 of at most 2", "train fm/uniform: epoch 2 of at most 2"]


def test_a_run_of_several_reports_in_the_place_of_its_own_bar(tmp_path, monkeypatch, caplog):
    tiny.install(monkeypatch, tiny.dataset())
    reports = []
    with caplog.at_level(logging.INFO, "pep"):
        tiny.train(tmp_path, embedding="uniform", max_epochs=2,
                   places={"report": reports.append})
    assert [report.share for report in reports if report.evaluation] == [0.5, 1.0]
    assert not [line for line in caplog.messages if "validation AUC" in line]


