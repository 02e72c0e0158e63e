"""What `pip install .` gives: it imports alone and lightly, and its description's example runs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import models

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = ("numba", "scipy", "pandas", "sklearn", "torchfm", "engine", "utils")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the package has its installed name."""
    made = tmp_path_factory.mktemp("site")
    (made / "pep").symlink_to(ROOT / "models")
    return made


def example():
    text = (ROOT / "models" / "README.md").read_text()
    assert not re.search(r"!\[|\]\((?!http)", text)  # no picture and no link that a registry lacks
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return code


def test_the_example_of_its_description_runs():
    found: dict = {}
    exec(example().replace("from pep", "from models"), found)
    [table] = found["tables"].values()
    assert 0 < table.num_params() <= 2_000
    assert set(models.__all__) <= set(dir(models))  # what completes a name


def test_it_needs_torch_and_numpy_alone(folder):
    absent = "".join(f"sys.modules[{name!r}] = None\n" for name in HEAVY)  # importing them fails
    code = (f"import sys\n{absent}sys.path.insert(0, {str(folder)!r})\nimport pep\n"
            f"print(pep.__version__, 'torch' in sys.modules)\n{example().replace('200)', '20)')}\n"
            "[table] = tables.values()\nprint(table.num_params())")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, with_torch, left = done.stdout.split()
    assert (version, with_torch) == (models.__version__, "False")  # read before torch is needed
    assert 0 < int(left) <= 2_000


def test_every_package_is_listed_and_the_typing_marker_ships():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {".".join(("pep", *path.parent.relative_to(ROOT / "models").parts))
             for path in (ROOT / "models").rglob("__init__.py")}
    assert listed == there
    assert (ROOT / "models" / "py.typed").exists()
    assert project["project"]["readme"] == "models/README.md"
