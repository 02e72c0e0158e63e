"""One process at a time, and never a lock that outlives its holder."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils import locks
from utils.locks import locked

ROOT = Path(locks.__file__).parent.parent
HOLD = """
import logging, pathlib, sys
from utils.locks import locked
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
path = pathlib.Path(sys.argv[1])
with locked(path, wait=True):
    note = path.parent / "note"
    print("held", note.read_text() if note.exists() else "", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def in_time():
    """To wait for ever is a failure, not a test without end."""
    def late(number, frame):
        raise TimeoutError("waited for half a minute")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def holder(tmp_path):
    """Start a process that takes the lock, and holds it until its input ends."""
    started = []

    def start():
        started.append(subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")],
                                        cwd=ROOT, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def free(path):
    with locked(path, wait=False):
        return True


def test_without_waiting_a_lock_that_another_process_holds_is_an_error(tmp_path, holder):
    process = holder()
    assert process.stdout.readline() == "held \n"
    with pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pytest.fail("both hold it")
    process.communicate()
    assert process.returncode == 0
    assert free(tmp_path / "lock")


def test_waiting_says_so_and_goes_on_when_the_other_process_is_done(tmp_path, holder):
    with locked(tmp_path / "lock", wait=False):
        process = holder()
        assert (process.stdout.readline()
                == f"waiting for another process that holds {tmp_path / 'lock'}\n")
        (tmp_path / "note").write_text("the first is done")
    assert process.stdout.readline() == "held the first is done\n"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_lets_go(tmp_path, holder, end):
    process = holder()
    assert process.stdout.readline() == "held \n"
    process.send_signal(end)
    process.wait()
    assert free(tmp_path / "lock")


def test_it_is_held_until_the_block_ends_also_by_an_error(tmp_path):
    def interrupted():
        with locked(tmp_path / "lock", wait=False):
            with pytest.raises(BlockingIOError):
                free(tmp_path / "lock")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert free(tmp_path / "lock")


def test_two_locks_do_not_hinder_each_other(tmp_path):
    with locked(tmp_path / "one", wait=False):
        assert free(tmp_path / "other")


WINDOWS = """
import fcntl, sys, types

def locking(handle, mode, count):
    assert (mode, count) == (2, 1)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError when another holds it

sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
sys.modules["fcntl"] = None
"""


def test_windows_has_no_fcntl_and_locks_by_msvcrt(tmp_path):
    """A process that sees the modules of Windows alone waits, and gives up, as others do."""
    def start(wait):
        code = WINDOWS + HOLD.replace("wait=True", f"wait={wait}")
        return subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], cwd=ROOT,
                                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    with locked(tmp_path / "lock", wait=False):
        refused = start(wait=False)
        assert "BlockingIOError" in refused.communicate()[1]
        waiting = start(wait=True)
        said = waiting.stdout.readline()
        assert said == f"waiting for another process that holds {tmp_path / 'lock'}\n"
    try:
        assert waiting.stdout.readline() == "held \n"
        with pytest.raises(BlockingIOError):
            free(tmp_path / "lock")
    finally:
        waiting.communicate()
    assert free(tmp_path / "lock")


EVERYTHING = """
import importlib, pathlib, pkgutil, subprocess, sys, types  # subprocess looks for msvcrt itself
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for folder in ("utils", "data", "engine", "models", "compression", "studies"):
    for module in pkgutil.walk_packages([folder], folder + "."):
        importlib.import_module(module.name)
for script in ("train_movielens", "compress", "reproduce", "demo"):
    importlib.import_module(script)
import torch
from engine import record
read_text = pathlib.Path.read_text
def without_proc(self, *arguments, **named):
    if str(self).startswith("/proc"):
        raise FileNotFoundError(self)
    return read_text(self, *arguments, **named)
pathlib.Path.read_text = without_proc
print(record.peak_memory_bytes(torch.device("cpu")))
"""


@pytest.mark.slow
def test_every_module_is_imported_without_the_modules_that_windows_lacks():
    done = subprocess.run([sys.executable, "-c", EVERYTHING], cwd=ROOT, text=True,
                          capture_output=True)
    assert (done.stdout, done.returncode) == ("None\n", 0), done.stderr[-2000:]


def test_the_folder_is_made_and_the_lock_file_stays(tmp_path):
    """Were it removed, a process that waits and one that comes would hold two different files."""
    path = tmp_path / "new" / "folder" / "lock"
    assert free(path)
    assert path.exists()
    assert free(path)
