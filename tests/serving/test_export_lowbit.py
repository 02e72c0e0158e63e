"""Models of few bits an entry, exported at these."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from compression.loaded_run import load_model
from compression.lowbit import command
from compression.lowbit.retraining import Retraining
from compression.lowbit.schemes import Scheme, load
from engine import stages
from models import load as load_home
from models.serving.levels import LevelRows, read_rows
from serving.export import export
from serving.runs import load_trained

DATA = tiny.dataset()
SCHEMES = {
    "uniform": ({"embedding": "uniform", "latent_dim": 8}, Scheme("uniform", 3)),
    "narrow": ({"embedding": "uniform", "latent_dim": 8, "model": "deepfm"},
               Scheme("uniform", 4, width=4)),
    "mask": ({"embedding": "uniform", "latent_dim": 8}, Scheme("mask", 2, keep=90)),
    "pq": ({"embedding": "uniform", "latent_dim": 8},
           Scheme("pq", 5, subspaces=4, centroids=6)),
    "mgqe": ({"embedding": "uniform", "latent_dim": 8},
             Scheme("mgqe", 5, subspaces=4, centroids=6)),
    "qr": ({"embedding": "qr", "latent_dim": 8}, Scheme("qr", 4)),
    "mde": ({"embedding": "mde", "latent_dim": 8, "mde_blocks": 2}, Scheme("mde", 4)),
}


@pytest.fixture
def out(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    return tmp_path / "runs"


def compressed(out, settings, scheme):
    source = tiny.train(out, **settings)["run_id"]
    trained = load(source, scheme, tiny.context(out))
    return command.compress(trained, scheme, Retraining(1, 0.01))


def held(run_id, out, folder, values):
    """The exported model, held against the run on raw rows."""
    made = export(run_id, folder, values, tiny.context(out))
    ids = DATA.split("validation")[0][:200]
    raw = pd.DataFrame({field.name: [int(field.value(row)) for row in ids[:, place]]
                        for place, field in enumerate(DATA.vocabulary.fields)})
    model = load_trained(run_id, tiny.context(out)).model
    with torch.no_grad():
        wanted = torch.sigmoid(model(torch.from_numpy(np.array(ids)))).numpy()
    found = load_home(folder).score(raw)
    np.testing.assert_allclose(found, wanted, atol=1e-6 if values == "float32" else 1e-3)
    return made.manifest


@pytest.mark.parametrize("case", SCHEMES)
def test_every_scheme_comes_home_at_its_own_bits(case, out, tmp_path):
    result = compressed(out, *SCHEMES[case])
    manifest = held(result["run_id"], out, tmp_path / "home", "float32")
    stored = result["compression"]["stored"]["table"]
    # maps between widths are float32; rows that are there have a bit, shapes a few numbers, and a
    # mask a bit for each column
    rows = sum(tiny.SIZES.values())
    maps = 4 * 8 * 8 if case == "mde" else 0
    masks = rows if case == "mask" else 0
    # whole bytes for a row's codes, and of rare rows as many as of others
    codes = {"pq": rows, "mgqe": 2 * rows}.get(case, 0)
    assert manifest["bytes"]["table"] <= stored + 2 * (rows // 8 + 60) + maps + masks + codes


def test_small_types_change_first_order_weights_alone(out, tmp_path):
    result = compressed(out, *SCHEMES["uniform"])
    sizes = {values: held(result["run_id"], out, tmp_path / values, values)["bytes"]
             for values in ("float32", "float16")}
    assert sizes["float32"]["table"] == sizes["float16"]["table"]
    assert sizes["float16"]["first_order"] < sizes["float32"]["first_order"]


def test_a_ticket_of_few_bits_comes_home(out, tmp_path):
    tiny.train(out, embedding="pep", candidate_p=[300], lr=0.05, max_epochs=40)
    [ticket] = stages.retrain(tiny.settings(retrain_emb_param=300), 1, tiny.context(out))
    scheme = Scheme("mask", 8)
    result = command.compress(load(ticket["run_id"], scheme, tiny.context(out)), scheme,
                              Retraining(1, 0.01))
    held(result["run_id"], out, tmp_path / "home", "float32")


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("whole", [True, False])
def test_levels_through_a_file(bits, whole):
    rng = np.random.default_rng(0)
    parts, width = (70, 3, 9), 5
    kept = rng.random((82, width)) < 0.6
    if whole:
        kept = np.broadcast_to(rng.random((82, 1)) < 0.6, (82, width))
    steps = np.ones((82, width))
    steps[:70] = 2.0 ** np.arange(width)
    steps[70:73], steps[73:] = 0.5, 4.0
    codes = rng.integers(2**bits, size=(82, width))
    made = LevelRows.pack(codes, steps, kept, bits, parts)
    read = read_rows(made.tensors("t"), "t")
    wanted = np.where(kept, (codes - 2 ** (bits - 1) + 0.5) * steps, 0)
    np.testing.assert_allclose(read.data.numpy(), wanted, rtol=1e-6)
    size = sum(array.nbytes for array in made.tensors("t").values())
    there = int(kept.any(1).sum())
    assert size == 4 * 6 + width + 2 + -(-int(kept.sum()) * bits // 8) + 11 + there * (not whole)


def test_a_model_is_not_changed_by_its_export(out):
    result = compressed(out, *SCHEMES["qr"])
    model = load_trained(result["run_id"], tiny.context(out)).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    from serving.forms import served

    served(model, "float32")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert load_model(result["compression"]["source"], tiny.context(out)).table.shape[1] == 8
