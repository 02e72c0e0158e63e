"""One run in 1, 2 and 4 processes leaves the same bits, and goes on in any number of them."""

import shutil

import pytest
import tiny
import worlds
from worlds import CASES, bits


@pytest.fixture
def prepared(monkeypatch):
    """The small data set in the place of MovieLens; worlds of one process, this one."""
    tiny.install(monkeypatch, tiny.dataset(rows=600))


def same_in_all_worlds(out, alone, others):
    """Run in this process what `alone` names, beside worlds of (size, runs), and compare."""
    started = [(worlds.start(size, out / str(size), runs), out / str(size), dict(runs))
               for size, runs in others]
    for name in alone:
        worlds.run(name, out / "1" / name)
    left = bits(out / "1")
    for world, place, names in started:
        worlds.finish(world, place)
        found = bits(place)
        assert {path: found.get(path) == value for path, value in left.items()
                if path.split("/")[0] in names} == dict.fromkeys(found, True)


def test_worlds_of_1_2_and_4_leave_the_same_files_and_resume_each_other(tmp_path, prepared):
    worlds.run("fm", tmp_path / "killed", until=13)  # by one process, and resumed by four
    assert len(list(tmp_path.glob("killed/runs/*/checkpoint/13/content.json"))) == 1
    shutil.copytree(tmp_path / "killed", tmp_path / "4" / "fm")
    same_in_all_worlds(tmp_path, ["fm", "deepfm"], [
        (2, [("fm", None), ("deepfm", None)]), (4, [("fm", None)])])
    assert not list(tmp_path.glob("4/fm/runs/*/checkpoint*"))


@pytest.mark.slow
def test_every_case_in_worlds_of_1_2_and_4(tmp_path, prepared):
    runs = [(name, None) for name in CASES]
    same_in_all_worlds(tmp_path, list(CASES), [(2, runs), (4, runs)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fm", "deepfm"])
def test_killed_by_two_processes_it_goes_on_in_four_and_then_in_one(tmp_path, prepared, name):
    worlds.run(name, tmp_path / "1" / name)
    for size, until in ((2, 7), (4, 9)):
        worlds.finish(worlds.start(size, tmp_path / "parts", [(name, until)]), tmp_path / "parts")
    worlds.run(name, tmp_path / "parts" / name)
    assert bits(tmp_path / "parts") == bits(tmp_path / "1")
