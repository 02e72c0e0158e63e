"""Other schemes at few bits: what they keep, what they take, and what is refused."""

import math
import shutil

import numpy as np
import pytest
import tiny
import torch

from compression.loaded_run import load_model, load_uniform
from compression.lowbit import command, whole_model
from compression.lowbit.retraining import Retraining
from compression.lowbit.schemes import Scheme, load, make, mask_bytes, rows_bytes
from compression.lowbit.start import start_of
from data import feature_counts
from engine import stages
from models.embedding.quantised import Quantised
from models.packed_table import count_bytes

DATA = tiny.dataset()
ROWS, FIELDS, WIDTH = sum(tiny.SIZES.values()), len(tiny.SIZES), 8
HOW = Retraining(1, 0.01)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a trained uniform table, to be copied; its id."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        return out, tiny.train(out, embedding="uniform", latent_dim=WIDTH, max_epochs=4,
                               lr=0.02)["run_id"]


@pytest.fixture
def dense(source, tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    shutil.copytree(source[0], tmp_path, dirs_exist_ok=True)
    return load_uniform(source[1], tiny.context(tmp_path))


def seen_rows():
    return int((feature_counts.count(DATA) > 0).sum())


def steps_of(embedding):
    return sum(len(each.steps()) for each in embedding.modules() if hasattr(each, "steps"))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_uniform_bits_of_the_first_columns(dense, bits):
    model, seen = make(dense, Scheme("uniform", bits, width=4))
    table = model.embedding.table()
    assert table.shape == (ROWS, 4)
    assert not table[~seen].any()
    assert (table[seen] != 0).all()
    assert model.embedding.inference_bytes() == (
        rows_bytes(DATA.schema.sizes) + steps_of(model.embedding)
        + -(-seen_rows() * 4 * bits // 8))
    rotated = start_of(dense, True).table
    if bits == 8:
        torch.testing.assert_close(table[seen], rotated[seen, :4], atol=0.05, rtol=0)


def test_the_largest_entries_are_kept_and_their_mask_is_counted(dense):
    model, seen = make(dense, Scheme("mask", 4, keep=150))
    table, rotated = model.embedding.table(), start_of(dense, True).table * seen[:, None]
    assert model.embedding.num_params() == 150
    assert rotated[table != 0].abs().min() >= rotated[table == 0].abs().max()
    masks = sum(mask_bytes(rows != 0, 2) for rows in np.split(
        table.numpy(), np.cumsum(DATA.schema.sizes)[:-1]))
    assert model.embedding.inference_bytes() == 20 + masks + steps_of(model.embedding) + 75


def test_a_mask_of_a_number_of_bytes_takes_them(dense):
    for budget in (250, 400):
        model, _ = make(dense, Scheme("mask", 4, bytes=budget))
        assert budget <= model.embedding.inference_bytes() <= budget + 8
    with pytest.raises(ValueError, match=r"takes \d+ to [\d,]+ bytes, got --bytes 9999999"):
        make(dense, Scheme("mask", 4, bytes=9_999_999))
    with pytest.raises(ValueError, match="either --keep or --bytes"):
        Scheme("mask", 4, keep=3, bytes=300)


def test_a_ticket_keeps_its_own_mask(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    tiny.train(tmp_path, embedding="pep", candidate_p=[300], lr=0.05, max_epochs=40)
    [ticket] = stages.retrain(tiny.settings(retrain_emb_param=300), 1, tiny.context(tmp_path))
    scheme = Scheme("mask", 8)
    trained = load(ticket["run_id"], scheme, tiny.context(tmp_path))
    model, seen = make(trained, scheme)
    own = torch.from_numpy(trained.table * seen[:, None])
    assert torch.equal(model.embedding.table() != 0, own != 0)
    torch.testing.assert_close(model.embedding.table(), own, atol=0.02, rtol=0)
    result = command.compress(trained, scheme, HOW)
    assert result["compression"]["scheme"] == "mask"
    assert result["bytes_counted"] == "least that the scheme needs"


def test_product_quantisation_counts_codes_and_centroids(dense):
    model, seen = make(dense, Scheme("pq", 4, subspaces=2, centroids=16))
    table = model.embedding.table()
    for part in table.split(WIDTH // 2, dim=1):
        assert len(part.unique(dim=0)) <= 16
        assert not part[~seen].any()
    assert model.embedding.inference_bytes() == (
        rows_bytes(DATA.schema.sizes) + seen_rows() + 16 * WIDTH // 2
        + steps_of(model.embedding))


def test_mgqe_codes_rare_rows_with_a_quarter_of_the_centroids(dense):
    model, seen = make(dense, Scheme("mgqe", 4, subspaces=2, centroids=8))
    embedding, table = model.embedding, model.embedding.table()
    frequent = embedding.allowed[:, 0] == 8
    assert frequent.sum() == -(-len(table) // 10)
    counts = feature_counts.count(DATA)
    assert counts[frequent].min() >= counts[~frequent].max()
    for part in table[~frequent & torch.from_numpy(seen)].split(WIDTH // 2, dim=1):
        assert len(part.unique(dim=0)) <= 2
    codes = 2 * sum(3 if few else 1 for few, there in zip(frequent, seen, strict=True) if there)
    boundaries = FIELDS * count_bytes(max(DATA.schema.sizes))  # where a field's rare rows begin
    assert embedding.inference_bytes() == (
        rows_bytes(DATA.schema.sizes) + boundaries + -(-codes // 8) + 8 * WIDTH // 2
        + steps_of(embedding))
    least, _ = make(dense, Scheme("mgqe", 4, subspaces=2, centroids=2))
    assert least.embedding.centroids.shape == (2, 2, WIDTH // 2)
    result = command.compress(dense, Scheme("mgqe", 4, subspaces=2, centroids=8), HOW)
    assert result["compression"]["scheme"] == "mgqe"
    with pytest.raises(ValueError, match=r"--centroids \d+ leaves \d+ for the \d+ most frequent"):
        make(dense, Scheme("mgqe", 4, subspaces=2, centroids=int(seen.sum())))


@pytest.mark.parametrize("name", ["qr", "mde"])
def test_the_values_of_a_run_of_another_embedding(tmp_path, monkeypatch, name):
    tiny.install(monkeypatch, DATA)
    own = {"qr_collisions": 4} if name == "qr" else {"mde_blocks": 3, "mde_alpha": 0.4}
    run_id = tiny.train(tmp_path, embedding=name, latent_dim=WIDTH, **own)["run_id"]
    trained = load(run_id, Scheme(name, 8), tiny.context(tmp_path))
    before = load_model(run_id, tiny.context(tmp_path)).model.embedding
    fine, coarse = (make(trained, Scheme(name, bits))[0].embedding for bits in (8, 4))
    torch.testing.assert_close(fine.table(), before.table(), atol=0.03, rtol=0)
    values = sum(value.numel() for value in before.parameters())
    assert values < fine.inference_bytes() < values + 200
    assert coarse.inference_bytes() < fine.inference_bytes() - values // 3
    result = command.compress(trained, Scheme(name, 4), HOW)
    assert result["inference_bytes"] == coarse.inference_bytes()
    assert result["compression"]["stored"]["table"] == coarse.inference_bytes()


@pytest.mark.parametrize("model", ["fm", "deepfm", "autoint"])
def test_fewer_columns_of_any_invariant_model(tmp_path, monkeypatch, model):
    tiny.install(monkeypatch, DATA)
    run_id = tiny.train(tmp_path, model=model, embedding="uniform", latent_dim=WIDTH)["run_id"]
    trained = load_uniform(run_id, tiny.context(tmp_path))
    ids = torch.from_numpy(DATA.split("validation")[0][:50].astype(np.int32))
    with torch.no_grad():
        whole = trained.model(ids)
        for rotation in (False, True):
            permuted = start_of(trained, rotation, np.arange(WIDTH)[::-1].copy()).model
            torch.testing.assert_close(permuted(ids), whole, atol=1e-5, rtol=1e-5)
        narrow = start_of(trained, True, np.arange(3))
        rotated = start_of(trained, True)
        rotated.model.embedding.weight[:, 3:] = 0
        torch.testing.assert_close(narrow.model(ids), rotated.model(ids), atol=1e-5, rtol=1e-5)


def test_the_rest_of_a_model_is_coded_and_counted(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    run_id = tiny.train(tmp_path, model="deepfm", embedding="uniform", latent_dim=WIDTH)["run_id"]
    start = start_of(load_uniform(run_id, tiny.context(tmp_path)), True)
    seen = start.seen
    seen[3] = False
    start.model.embedding.weight.data[:, 5:] = 0
    before = {key: value.clone() for key, value in start.model.state_dict().items()}
    coded, total = whole_model.coded(start.model, "deepfm", seen, DATA.schema.sizes)
    assert all(torch.equal(value, before[key]) for key, value in start.model.state_dict().items())
    weight = coded.linear.layer.fc.weight
    assert not weight[~seen].any()
    first, inputs = seen.sum() + FIELDS, FIELDS * 5
    layers = (8 * inputs + 8) + (8 + 1)  # codes and steps
    floats = 1 + 8 + 1 + 2 * 8 + 2 * 8  # biases, batch norm with its statistics
    assert total == first + layers + 4 * floats
    ids = torch.from_numpy(DATA.split("validation")[0].astype(np.int32))
    ids = ids[(ids != 3).all(dim=1)]
    with torch.no_grad():
        apart = (coded(ids) - start.model(ids)).abs()
    assert 0 < apart.max() < 0.1


def test_masks_are_counted_in_the_smaller_form():
    rng = np.random.default_rng(0)
    assert mask_bytes(np.zeros((9, 4), bool), 2) == 0
    prefix = np.arange(64) < rng.integers(0, 5, 1000)[:, None]
    assert mask_bytes(prefix, 2) == 4 * (8 + 2)  # four patterns
    scattered = rng.random((1000, 64)) < 0.3
    numbers = len(np.unique(scattered.sum(axis=1)))
    assert mask_bytes(scattered, 2) == 8000 + 3 * numbers


@pytest.mark.parametrize(("given", "words"), [
    ({"name": "other", "bits": 4}, "there is no scheme 'other'"),
    ({"name": "uniform", "bits": 9}, "takes 1 to 8, got 9"),
    ({"name": "qr", "bits": 4, "width": 3}, "--width belongs to uniform, mask, pq, mgqe"),
    ({"name": "uniform", "bits": 4, "keep": 3}, "--keep belongs to mask"),
    ({"name": "mask", "bits": 4, "width": 3}, "mask takes a run's own mask as it is"),
    ({"name": "mask", "bits": 4, "rotation": False}, "leave --width and --no-rotation away"),
    ({"name": "pq", "bits": 4, "subspaces": -2, "centroids": 4}, "--subspaces must be positive"),
    ({"name": "pq", "bits": 4}, "pq needs --subspaces and --centroids")])
def test_options_that_do_not_belong_to_a_scheme_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        Scheme(**given)


@pytest.mark.parametrize(("given", "words"), [
    ({"name": "uniform", "bits": 4, "width": 99}, "--width must lie between 1 and 8"),
    ({"name": "mask", "bits": 4, "keep": 99_999}, "--keep must lie between 1 and"),
    ({"name": "pq", "bits": 4, "subspaces": 3, "centroids": 4}, "--subspaces must divide"),
    ({"name": "pq", "bits": 4, "subspaces": 2, "centroids": 999}, "--centroids must lie between")])
def test_options_that_do_not_fit_the_table_are_refused(dense, given, words):
    with pytest.raises(ValueError, match=words):
        make(dense, Scheme(**given))


def test_a_run_of_another_embedding_than_the_scheme_takes_is_refused(dense, tmp_path):
    with pytest.raises(ValueError, match="--keep must lie between 1 and"):
        make(load(dense.run_id, Scheme("mask", 4, keep=0), tiny.context(tmp_path)),
             Scheme("mask", 4, keep=0))
    for name, words in (("qr", "quantises a run of qr"), ("mask", "or cuts a uniform table")):
        with pytest.raises(ValueError, match=words):
            load(dense.run_id, Scheme(name, 4), tiny.context(tmp_path))
    qr = tiny.train(tmp_path, embedding="qr")["run_id"]
    with pytest.raises(ValueError, match="only a trained uniform table"):
        load(qr, Scheme("uniform", 4), tiny.context(tmp_path))


def test_retraining_options_are_checked():
    for wrong in ({"epochs": -1, "lr": 0.1}, {"epochs": 1, "lr": 0.0},
                  {"epochs": 1, "lr": math.inf}, {"epochs": 1, "lr": 0.1, "decay": math.nan},
                  {"epochs": 1, "lr": 0.1, "decay": -1.0}):
        with pytest.raises(ValueError, match="a retraining takes"):
            Retraining(**wrong)


def test_the_command_line(tmp_path, dense, capsys):
    from compress import options

    args = options().parse_args(["lowbit", "--run", dense.run_id, "--scheme", "uniform", "--bits",
                                 "4", "--epochs", "1", "--out", str(tmp_path), "--device", "cpu"])
    args.work(args)
    first = capsys.readouterr().out
    assert first.startswith("uniform: table ")
    args.work(args)
    assert capsys.readouterr().out == first
    assert isinstance(make(dense, Scheme("uniform", 4))[0].embedding, Quantised)
