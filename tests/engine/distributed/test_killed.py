"""When one of several processes is killed, the others end within 10 seconds and say so."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from worlds import free_port

from engine import cli
from engine.distributed import world as worlds
from engine.distributed.world import World
from engine.hooks import Checkpoint

SECONDS = 10.0
LONG = 120.0


def exchange(world, until):
    while time.monotonic() < until:
        world.gather(torch.zeros(1000))


def compute(world, until):
    """As in a long evaluation, or between exchanges."""
    while time.monotonic() < until:
        torch.ones(100, 100) @ torch.ones(100, 100)


class NeverSent:
    """As what gloo sends at the moment when a connection breaks: it stays on its way."""

    def wait(self, timeout=None):
        time.sleep(LONG if timeout is None else timeout.total_seconds())
        raise RuntimeError("timed out")


def unsent(world, until):
    """As `exchange`, and the last words to a process that has died do not arrive."""
    worlds.dist.isend = lambda *arguments, **named: NeverSent()
    exchange(world, until)


WORK = {"exchange": exchange, "compute": compute, "unsent": unsent}


def rank_of(rank, size, port, kind, out):
    """One process of a run, as a training is one: signals are noted, and errors printed."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}
    worlds.GRACE = 0.5
    os.dup2(os.open(out / f"error{rank}", os.O_WRONLY | os.O_CREAT), 2)

    def work():
        world = World(4)
        with Checkpoint(lambda state: None, LONG).listening():
            world.wait()
            (out / f"ready{rank}").touch()
            if kind:
                WORK[kind](world, time.monotonic() + LONG)
            else:  # ends by itself, before the others
                time.sleep(2.0 * rank)

    cli.main(work, shared=True)


def started(size, kind, out: Path):
    port = free_port()
    out.mkdir()
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["engine.stages"])
    processes = [forking.Process(target=rank_of, args=(rank, size, port, kind, out))
                 for rank in range(size)]
    for process in processes:
        process.start()
    while len(list(out.glob("ready*"))) < size:
        assert all(process.is_alive() for process in processes)
        time.sleep(0.02)
    return processes


@pytest.mark.parametrize(("kind", "victim"), [
    ("exchange", 0), ("exchange", 1), ("compute", 0), ("unsent", 1)])
def test_the_other_ends_within_ten_seconds_with_a_message(tmp_path, kind, victim):
    processes = started(2, kind, tmp_path / kind)
    os.kill(processes[victim].pid, signal.SIGKILL)
    killed = time.monotonic()
    other = processes[1 - victim]
    os.kill(other.pid, signal.SIGTERM)  # by torchrun; a training ends so at its next step
    try:
        other.join(max(killed + SECONDS - time.monotonic(), 0.1))
        assert other.exitcode == 2
    finally:
        other.kill()
    said = (tmp_path / kind / f"error{1 - victim}").read_text()
    assert f"error: rank {1 - victim} has lost " in said
    assert "the same command goes on from the last checkpoint" in said


def test_a_signal_to_end_does_not_cut_the_message_short():
    """It may come at any moment after the exchange has failed."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (pytest.raises(ConnectionError),
              Checkpoint(lambda state: None, LONG).listening()):
            raise ConnectionError("rank 1 has lost another process")
        os.kill(os.getpid(), signal.SIGTERM)  # would end the suite
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_process_that_ends_before_the_others_ends_none_of_them(tmp_path):
    processes = started(2, None, tmp_path / "end")
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.read_text() for path in sorted((tmp_path / "end").glob("error*"))] == ["", ""]
