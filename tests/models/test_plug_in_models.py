"""`plug` in models that others wrote: torchfm's, DeepCTR-Torch's DeepFM, and that of
docs/plug.md."""

import importlib.util
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torchfm.model
from torch import nn
from torch.nn.functional import binary_cross_entropy

from models import Plugged, masked, snapshot, unplug
from models.kernels.expand import PADDING
from models.plug_in.plug import plug

ROOT = Path(__file__).resolve().parent.parent.parent
DIMS, WIDTH = [6, 5, 9, 4], 3
TORCHFM = {
    "afi.AutomaticFeatureInteractionModel": (DIMS, WIDTH, 4, 2, 1, (5,), (0.0, 0.0)),
    "afm.AttentionalFactorizationMachineModel": (DIMS, WIDTH, 4, (0.0, 0.0)),
    "afn.AdaptiveFactorizationNetwork": (DIMS, WIDTH, 4, (5,), (0.0, 0.0)),
    "dcn.DeepCrossNetworkModel": (DIMS, WIDTH, 2, (5,), 0.0),
    "dfm.DeepFactorizationMachineModel": (DIMS, WIDTH, (5,), 0.0),
    "ffm.FieldAwareFactorizationMachineModel": (DIMS, WIDTH),
    "fm.FactorizationMachineModel": (DIMS, WIDTH),
    "fnfm.FieldAwareNeuralFactorizationMachineModel": (DIMS, WIDTH, (5,), (0.0, 0.0)),
    "fnn.FactorizationSupportedNeuralNetworkModel": (DIMS, WIDTH, (5,), 0.0),
    "lr.LogisticRegressionModel": (DIMS,),
    "ncf.NeuralCollaborativeFiltering": (DIMS, np.array([0]), np.array([1]), WIDTH, (5,), 0.0),
    "nfm.NeuralFactorizationMachineModel": (DIMS, WIDTH, (5,), (0.0, 0.0)),
    "pnn.ProductNeuralNetworkModel": (DIMS, WIDTH, (5,), 0.0),
    "wd.WideAndDeepModel": (DIMS, WIDTH, (5,), 0.0),
    "xdfm.ExtremeDeepFactorizationMachineModel": (DIMS, WIDTH, (5,), 0.0, (4, 4)),
}
ONLY = {
    "lr.LogisticRegressionModel": "linear.fc",  # first-order weights are all it has
    # it has a first-order part as wide, and never reads it
    "pnn.ProductNeuralNetworkModel": "embedding.embedding",
}
FFM = [f"ffm.embeddings.{field}" for field in range(len(DIMS))]


def of_torchfm(name):
    module, _, kind = name.partition(".")
    torch.manual_seed(0)
    return getattr(importlib.import_module(f"torchfm.model.{module}"), kind)(*TORCHFM[name])


def batch(size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(rows, (size,), generator=generator) for rows in DIMS], 1)
    return ids, torch.randint(2, (size,), generator=generator).float()


def train(model, groups, steps):
    optimizer = torch.optim.Adam(groups, lr=0.01)
    model.train()
    for step in range(steps):
        ids, labels = batch(seed=step)
        optimizer.zero_grad()
        binary_cross_entropy(model(ids), labels).backward()
        optimizer.step()
    return model.eval()


def test_no_model_of_torchfm_is_left_out():
    found = set()
    for module in pkgutil.iter_modules(torchfm.model.__path__):
        classes = inspect.getmembers(importlib.import_module(f"torchfm.model.{module.name}"),
                                     inspect.isclass)
        found |= {f"{module.name}.{name}" for name, kind in classes
                  if issubclass(kind, nn.Module) and kind.__module__
                  == f"torchfm.model.{module.name}"}
    assert found - {"afn.LNN"} == set(TORCHFM)  # LNN is a layer without tables


@pytest.mark.parametrize("name", TORCHFM)
def test_torchfm(name):
    model, ids = of_torchfm(name).eval(), batch()[0]
    before = model(ids)
    plugged = plug(model, threshold_init=-150.0, only=ONLY.get(name))
    assert list(plugged.tables) == (FFM if name[:2] == "ff" or name[:3] == "fnf" else
                                    [ONLY.get(name, "embedding.embedding")])
    assert torch.equal(model(ids), before)
    unplug(model)
    assert torch.equal(model(ids), before)

    plugged = plug(model, threshold_init=-2.0, only=ONLY.get(name))
    initial = {table: module.values.detach().clone() for table, module in plugged.tables.items()}
    train(model, plugged.parameter_groups(), 60)
    budget = plugged.num_params() // 3
    cut = snapshot(model, budget)
    masked(model, cut)
    for table, module in plugged.tables.items():
        assert torch.equal(module.weight, initial[table] * (cut.values[table] != 0))
    train(model, plugged.parameter_groups(), 3)
    assert plugged.num_params() == cut.num_params() == budget
    with torch.no_grad():
        ticket = model(ids)
    assert not torch.equal(ticket, before)
    compact = unplug(model, compact=True)
    assert torch.equal(model(ids), ticket)
    assert sum(table.num_params() for table in compact.values()) == budget
    for table, module in unplug(model).items():
        assert type(module) is nn.Embedding
        assert torch.equal(module.weight == 0, cut.values[table] == 0)
    assert torch.equal(model(ids), ticket)


def test_a_table_that_is_never_read_is_named(caplog):
    model = of_torchfm("pnn.ProductNeuralNetworkModel")
    train(model, plug(model, threshold_init=-2.0).parameter_groups(), 20)
    caplog.clear()
    snapshot(model)
    assert "the thresholds of linear.fc stand where they started" in caplog.text


@pytest.fixture
def deepctr(monkeypatch):
    """DeepCTR-Torch with stand-ins for tensorflow's callbacks and for `requests`, by which it asks
    for new versions."""
    if importlib.util.find_spec("deepctr_torch") is None:
        pytest.skip("deepctr-torch is not installed: pip install --no-deps deepctr-torch==0.2.9")

    class Nothing:
        def __init__(self, *_):
            pass

        def set_model(self, model):
            self.model = model

        def on_train_begin(self, *_):
            pass

        on_epoch_begin = on_epoch_end = on_train_end = on_train_begin

    names = ("CallbackList", "EarlyStopping", "ModelCheckpoint", "History")
    for name in ("tensorflow", "tensorflow.python", "tensorflow.python.keras",
                 "tensorflow.python.keras.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    vars(sys.modules[name]).update({kind: type(kind, (Nothing,), {}) for kind in names})
    monkeypatch.setitem(sys.modules, "requests", types.ModuleType("requests"))
    return importlib.import_module("deepctr_torch.inputs"), importlib.import_module(
        "deepctr_torch.models"
    ).DeepFM


def test_deepfm_of_deepctr_torch_under_its_own_loop(deepctr):
    inputs, DeepFM = deepctr
    columns = [inputs.SparseFeat("user", 30, 4),
               inputs.SparseFeat("item", 20, 4, embedding_name="thing"),
               inputs.SparseFeat("shown", 20, 4, embedding_name="thing"),
               inputs.DenseFeat("age", 1),
               inputs.VarLenSparseFeat(inputs.SparseFeat("history", 15, 4), maxlen=3,
                                       combiner="mean")]
    model = DeepFM(columns, columns, dnn_hidden_units=(8,), init_std=0.5)
    rng = np.random.default_rng(0)
    x = {"user": rng.integers(30, size=64), "item": rng.integers(20, size=64),
         "shown": rng.integers(20, size=64),
         "age": rng.random(64), "history": rng.integers(15, size=(64, 3))}
    y = rng.integers(2, size=64).astype(float)

    def fit(plugged):
        model.compile(torch.optim.Adam(plugged.parameter_groups(), lr=0.01), "binary_crossentropy")
        model.fit(dict(x), y, batch_size=16, epochs=2, verbose=0)

    before = model(torch.zeros(2, 7))
    plugged = plug(model, threshold_init=-150.0)
    assert torch.equal(model(torch.zeros(2, 7)), before)
    unplug(model)
    plugged = plug(model, threshold_init=-2.0)
    assert list(plugged.tables) == ["embedding_dict.user", "embedding_dict.thing",
                                    "embedding_dict.history"]
    regularised = []
    for weights, *_ in model.regularization_weight:
        regularised += weights
    assert all(any(weight is table.values for weight in regularised)
               for table in plugged.tables.values())
    fit(plugged)
    assert all(table.has_moved() for table in plugged.tables.values())
    masked(model, snapshot(model, 100))
    fit(plugged)
    assert Plugged(model).num_params() == 100
    ticket = model.predict(dict(x), 16)
    unplug(model)
    np.testing.assert_array_equal(model.predict(dict(x), 16), ticket)
    assert sum(int(model.embedding_dict[name].weight.count_nonzero())
               for name in ("user", "thing", "history")) == 100


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that `pip install . --target` fills, of a copy, so that nothing is built among the
    sources."""
    pytest.importorskip("setuptools", minversion="77")  # what pip would fetch for the build
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    shutil.copytree(ROOT / "models", source / "models",
                    ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--no-deps",
               "--no-build-isolation", "--no-index", "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


def run(code, folder, installed):
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_docs_example_runs_as_it_is_printed_on_the_installed_package(installed, tmp_path):
    page = (ROOT / "docs" / "plug.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    modules = [".".join(path.relative_to(installed).with_suffix("").parts)
               for path in (installed / "pep").rglob("*.py") if path.name != "__init__.py"]
    where = (f"import {', '.join(modules)}\n"  # each imports without the rest of the repository
             "import pep; print(pep.__file__)\nimport torch; torch.manual_seed(0)\n")
    rows = "\nprint(*(int(table.table().any(dim=1).sum()) for table in tables.values()))"
    place, search, ticket, size, kept = run(where + code + rows, tmp_path, installed).splitlines()
    assert Path(place).is_relative_to(installed)
    chance = np.log(256 / 50)  # an item of the right group, guessed among the batch's
    assert chance < float(search.split()[1]) < chance + 0.6
    assert chance < float(ticket.split()[1]) < chance + 0.5
    # values; 16 bits for each row with some and for the empty ones; places; an array by width
    masks = 2 * (sum(map(int, kept.split())) + 2)
    expected = 4 * (12_000 + 2 * PADDING) + masks + 2 * 1500 + 2 * 8 * 17
    assert size == f"{expected} bytes, 96,000 before"
    assert (tmp_path / "cut.npz").exists()
