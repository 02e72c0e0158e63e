"""Shared fixtures, and an honest last line about real data."""

import contextlib
import functools
import gc
import os
import signal
from pathlib import Path

import hypothesis
import pytest
import torch
from makers import write_movielens

from engine.optim.gpu import rowwise
from engine.optim.step import Step

torch.set_flush_denormal(True)
# made data is too small for more, and on a busy machine threads wait for each other
torch.set_num_threads(1)
# no power cut threatens what tests write to temporary folders
os.fsync = lambda file: None
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None,
                                     max_examples=50)
hypothesis.settings.load_profile("suite")


gc.disable()  # until all is imported, which makes little garbage


def pytest_collection_finish():
    """What has been imported stays; looking through it for garbage took a tenth of the suite."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    gc.enable()


def pytest_collection_modifyitems(items):
    if not os.environ.get("PEP_DATA"):
        skip = pytest.mark.skip(reason="needs real data: PEP_DATA is not set")
        for item in items:
            if "real" in item.keywords:
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    skipped = [report.nodeid for report in terminalreporter.stats.get("skipped", [])
               if "real" in report.keywords]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} real-data tests were skipped (set PEP_DATA to "
                                    f"run them):")
        for name in skipped:
            terminalreporter.write_line(f"  {name}")
    else:
        terminalreporter.write_line("no real-data test was skipped")


@pytest.fixture(autouse=True)
def interrupts():
    """A command that was interrupted ignores further interrupts; the suite does not."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def dead_process():
    """The number of a process that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


@pytest.fixture
def real_data() -> Path:
    return Path(os.environ["PEP_DATA"])


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory) -> Path:
    """Where MovieLens-1M is encoded once, for all workers of a session."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "real-cache"


@pytest.fixture(scope="session")
def made_data(tmp_path_factory) -> Path:
    """A small made folder in the original MovieLens format, to be read and never written."""
    return write_movielens(tmp_path_factory.mktemp("made") / "ml-1m")


@pytest.fixture(params=["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def compiler(request, monkeypatch):
    """Compile steps by a backend that traces them into one graph and runs that as it is, in a tenth
    of the time; under `slow` by the one that runs use."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=request.param))
    return request.param


@pytest.fixture
def on_device(monkeypatch):
    """Take the steps of a GPU on this CPU. Plain torch takes a late step as long as any, so rows
    stay behind for 8 steps instead of 32, and rates are computed for 32 steps ahead."""
    monkeypatch.setattr(Step, "as_on_device", True)
    monkeypatch.setattr(rowwise, "AHEAD", 32)
    monkeypatch.setitem(rowwise.INTERVALS, "deferred", (8,))


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures are made and not drawn, which takes a second each: a picture is its first bytes."""
    def save(figure, file, **options):
        with contextlib.ExitStack() as stack:
            writer = file if hasattr(file, "write") else stack.enter_context(open(file, "wb"))
            writer.write(b"\x89PNG")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)


@pytest.fixture
def one_thread():
    """Small tensors are slower on many threads, and very much so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
