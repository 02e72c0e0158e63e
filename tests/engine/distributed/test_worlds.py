"""One run in 1, 2 and 4 processes leaves the same bits, and goes on in any number of them."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiny
import worlds
from shipped import ROOT
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


@pytest.mark.slow
def test_lanes_have_the_same_bits_whatever_the_shell_says_of_threads(tmp_path):
    """OpenMP gives a new thread of a pool as many threads of its own as there are cores."""
    rng = np.random.default_rng(0)
    pd.DataFrame({"click": rng.integers(0, 2, 4000), "price": rng.normal(size=4000).round(4),
                  **{f"f{size}": rng.zipf(1.5, 4000) % size for size in (40, 30, 20, 10, 6)}}
                 ).to_csv(tmp_path / "t.csv", index=False)
    left = []
    for threads in (None, "1"):
        words = ["train_table.py", "--data", str(tmp_path / "t.csv"), "--label", "click", "--model",
                 "deepfm", "--embedding", "uniform", "--out", str(tmp_path / f"{threads}"),
                 "--cache", str(tmp_path / "cache"), "--device", "cpu"]
        for setting in ("latent_dim=8", "batch_size=256", "max_epochs=4", "eval_interval=1",
                        "lanes=4", "lr=0.02", "tensorboard=false"):
            words += ["--set", setting]
        given = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
        given |= {"OMP_NUM_THREADS": threads} if threads else {}
        subprocess.run([sys.executable, *words], cwd=ROOT, env=given, check=True,
                       capture_output=True)
        [weights] = (tmp_path / f"{threads}").glob("runs/*/model.safetensors")
        left.append(weights.read_bytes())
    assert left[0] == left[1]
