"""numba's loops where no folder can hold their cache: a read-only installation without HOME."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.kernels import jit

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = """
import logging, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout)
import data.raw.parse, data.raw.count, data.raw.ingest, data.synthetic.raw_draws
import models
from models.kernels.jit import njit
@njit(nogil=True)
def double(x):
    return 2 * x
print(double(3), double.stats.cache_path)
"""
SAID = "numba finds no folder that it may write its cache to"


def test_without_a_folder_for_the_cache_it_works_and_says_so_once(tmp_path):
    """The one locator that is left is for zip files, so numba finds none, whoever runs this."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator", "PYTHONPATH": str(ROOT),
                    "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, cwd=tmp_path,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(SAID) == 1
    assert done.stdout.splitlines()[-1] == "6 None"


def test_with_a_folder_the_cache_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(jit.numba.config, "CACHE_DIR", str(tmp_path))

    @jit.njit(nogil=True)
    def double(x):
        return 2 * x

    assert double(3) == 6
    assert Path(double.stats.cache_path).is_relative_to(tmp_path)
    assert any(tmp_path.rglob("*.nbi"))


def test_other_errors_are_not_swallowed(monkeypatch):
    def broken(**options):
        raise RuntimeError("something else")

    monkeypatch.setattr(jit.numba, "njit", broken)
    with pytest.raises(RuntimeError, match="something else"):
        jit.njit()(abs)
