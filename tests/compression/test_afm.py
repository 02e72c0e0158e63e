"""AFM on models of every kind: what stays the same, what is exact, what shrinks, and what is
refused."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchfm.model.dcn import DeepCrossNetworkModel

from compression.afm import factor
from compression.afm.compress import Choice, compress
from compression.afm.low_rank import decompose
from compression.afm.statistics import layer_moments, least_codes, table_moments
from compression.afm.structure import empty_like, multiply_adds, parameters_by_part, structure_of
from models.build import build_embedding, build_model
from models.embedding.low_rank import LowRank
from models.embedding.masked import Masked

SIZES, WIDTH = (40, 3, 25, 12), 6
VALUES = {"embedding": "uniform", "latent_dim": WIDTH, "mlp_dims": (9, 8, 7), "dropout": 0.2,
          "num_heads": 2,
          "num_layers": 2, "att_dropout": 0.1, "atten_embed_dim": 8, "has_residual": True,
          "full_part": True,
          "with_linear": True, "arch_mlp_bot": (5,), "arch_mlp_top": (9, 8),
          "arch_interaction_op": "cat"}
DEEP = ("deepfm", "autoint")


def dense(model="deepfm", kind=torch.float32, **values):
    """A model that has seen some data, so that its batch norms are not the identity."""
    values = {**VALUES, "model": model, **values}
    made = build_model(SIZES, values, 1, build_embedding(SIZES, values, 1))
    with torch.no_grad():
        drawn = torch.randn(made.embedding.weight.shape, generator=torch.Generator().manual_seed(2))
        made.embedding.weight += 0.3 * drawn + 0.2
    for seed in range(3):
        made.train()(ids_of(64, seed))
    return made.to(kind).eval()


class Dcn(nn.Module):
    """torchfm's, called with ids that count through all fields, as everything here is."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.inner = DeepCrossNetworkModel(list(SIZES), WIDTH, 2, (9, 8), 0.1)
        self.register_buffer("starts", torch.tensor([0, *itertools.accumulate(SIZES[:-1])]))

    def forward(self, ids):
        return self.inner(ids - self.starts)


class Plain(nn.Module):
    """Anybody's two nn.Sequentials around the house's embedding, with other inputs before the
    vectors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embedding = build_embedding(SIZES, {**VALUES, "model": "fm"}, 1)
        self.bottom = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(4 + self.embedding.deep_width, 9), nn.ReLU(),
                                 nn.Linear(9, 8, bias=False),
                                 nn.ReLU(), nn.Linear(8, 1))

    def forward(self, ids):
        numbers = self.bottom((ids[:, :2] / 10).to(self.embedding.table().dtype))
        return self.top(torch.cat([numbers, self.embedding.deep_input(ids, self.embedding(ids))],
                                  1))[:, 0]


MODELS = {"fm": lambda kind: dense("fm", kind), "deepfm": lambda kind: dense("deepfm", kind),
          "autoint": lambda kind: dense("autoint", kind), "dcn": lambda kind: Dcn().to(kind).eval(),
          "plain": lambda kind: Plain().to(kind).eval(), "dlrm": lambda kind: dense("dlrm", kind)}
PATHS = {"dcn": "inner.embedding.embedding"}


def ids_of(rows=200, seed=0):
    return factor.probe(nn.Linear(1, 1), SIZES, rows + seed)[seed:]


def spectra(model, path="embedding"):
    module = model.get_submodule(path)
    table = module.weight if isinstance(module, nn.Embedding) else module.table()
    counts = torch.bincount(ids_of().flatten(), minlength=sum(SIZES))
    return [decompose(moments) for moments in table_moments(table.detach(), counts, SIZES)]


def factored(model, rank, path="embedding"):
    return factor.factor_table(model, [spectrum.first(rank) for spectrum in spectra(model, path)],
                               SIZES, path)


def thin(model, names, rank=None, **how):
    found = layer_moments(model, [ids_of()], names)
    for name in names:
        spectrum = decompose(found[name])
        model = factor.factor_layer(model, name, spectrum.first(rank or len(spectrum.values)),
                                    **how)
    return model


@pytest.mark.parametrize(("kind", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", MODELS)
def test_full_rank_gives_the_dense_models_logits(name, kind, close):
    model, ids = MODELS[name](kind), ids_of()
    before = copy.deepcopy(model.state_dict())
    layers = list(factor.mlp_layers(model))
    assert len(layers) == {"fm": 0, "deepfm": 4, "autoint": 4, "dcn": 2, "plain": 5,
                           "dlrm": 3}[name]
    made = [factored(model, WIDTH, PATHS.get(name, "embedding"))]
    made += [thin(made[0], layers)] if layers else []
    if factor.deep_readers(made[0], ids):
        made += [factor.fuse(each, ids) for each in made[:1]]
        made.append(thin(made[-1], layers))
    assert len(made) == {"fm": 1, "dcn": 2}.get(name, 4)
    with torch.no_grad():
        for each in made:
            torch.testing.assert_close(each(ids), model(ids), rtol=0, atol=close)
    # it is not touched
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("rank", range(1, WIDTH + 1))
@pytest.mark.parametrize("name", [*DEEP, "plain", "dlrm"])
def test_fused_gives_the_logits_of_unfused_at_every_rank(name, rank):
    low, ids = factored(MODELS[name](torch.float32), rank), ids_of()
    fused = factor.fuse(low, ids)
    with torch.no_grad():
        torch.testing.assert_close(fused(ids), low(ids), rtol=0, atol=1e-5)
        torch.testing.assert_close(fused.embedding(ids), low.embedding(ids))
    assert fused.embedding.deep_width == rank * len(SIZES)


def test_fields_of_several_ranks_and_of_none_are_fused_too():
    model, ids = dense(), ids_of()
    low = factor.factor_table(model, [spectrum.first(rank) for spectrum, rank in
                                   zip(spectra(model), (4, 0, 2, 4), strict=True)], SIZES)
    fused = factor.fuse(low, ids)
    with torch.no_grad():
        torch.testing.assert_close(fused(ids), low(ids), rtol=0, atol=1e-5)
        table = low.embedding.table()
    # the field of rank 0 is a constant, folded into the layer
    assert (table[40:43] - table[40]).abs().max() == 0
    assert fused.embedding.deep_width == 10
    assert factor.linear_at(fused, "mlp.mlp.0").in_features == 10


def test_a_table_loses_what_its_spectrum_says():
    model, counts = dense(), torch.bincount(ids_of().flatten(), minlength=sum(SIZES))
    for rank in range(1, WIDTH):
        low = factored(model, rank)
        parts = zip(model.embedding.table().split(SIZES), low.embedding.table().split(SIZES),
                    counts.split(SIZES),
                    spectra(model), strict=True)
        for before, after, weights, spectrum in parts:
            lost = float((weights.double() @ (before - after).double().square().sum(1))
                         / weights.sum())
            assert lost == pytest.approx(spectrum.lost(rank), rel=1e-4, abs=1e-10)


@pytest.mark.parametrize("rank", [8, 5, 2])
def test_the_shifted_start_keeps_the_function_and_the_published_one_does_not(rank):
    model, ids, name = dense(kind=torch.float64), ids_of(), "mlp.mlp.4"
    spectrum = decompose(layer_moments(model, [ids], [name])[name])
    linear = factor.factor_layer(model, name, spectrum.first(rank))
    published = factor.factor_layer(model, name, spectrum.first(rank), "relu")
    shifted = factor.factor_layer(model, name, spectrum.first(rank), "relu",
                               lambda original,
                                  project: least_codes(original, [ids], name, project))
    with torch.no_grad():
        torch.testing.assert_close(shifted(ids), linear(ids), rtol=0, atol=1e-5)
        assert (published(ids) - linear(ids)).abs().max() > 1e-3
    assert isinstance(published.get_submodule(name)[1], nn.ReLU)


def test_attentions_products_with_weights_are_counted():
    fields, width = len(SIZES), VALUES["atten_embed_dim"]
    counts = multiply_adds(dense("autoint"), ids_of(1))
    # query, key, value; way out
    assert counts["attention"] == VALUES["num_layers"] * fields * (3 + 1) * width * width
    assert counts["project"] == counts["residual"] == fields * WIDTH * width


@pytest.mark.parametrize("rank", [1, 3])
def test_counters_are_the_closed_forms_and_the_state_dict(rank, tmp_path):
    model, ids = dense(), ids_of(1)
    low = factor.fuse(factored(model, rank), ids_of())
    low = thin(low, ["mlp.mlp.4", "mlp.mlp.8"], rank)
    rows, fields, hidden = sum(SIZES), len(SIZES), VALUES["mlp_dims"]
    parts, before = parameters_by_part(low), parameters_by_part(model)
    assert before["embedding"] == rows * WIDTH
    assert parts["embedding"] == rank * rows + fields * rank * WIDTH + fields * WIDTH
    thin_pairs = [rank * (n + m) + rank + m for n, m in itertools.pairwise(hidden)]
    full = [n * m + m for n, m in itertools.pairwise(hidden)]
    saved = (WIDTH - rank) * fields * hidden[0]
    assert parts["mlp"] == before["mlp"] - saved + sum(thin_pairs) - sum(full)
    assert parts["linear"] == before["linear"] == rows + 1
    assert multiply_adds(low, ids) == {
        "embedding": fields * rank * WIDTH,
        "mlp": fields * rank * hidden[0]
        + sum(rank * (n + m) for n, m in itertools.pairwise(hidden)) + hidden[-1]}
    assert multiply_adds(model, ids)["mlp"] == fields * WIDTH * hidden[0] + sum(
        n * m for n, m in itertools.pairwise(hidden)) + hidden[-1]
    state = low.state_dict()
    trained = {key for key, _ in low.named_parameters()}
    assert sum(value.numel() for key, value in state.items()
               if key in trained) == sum(parts.values())
    assert low.embedding.num_params() == sum(int(each.count_nonzero())
                                             for each in low.embedding.parameters())
    # a field of 3 rows has nothing in a third direction
    assert parts["embedding"] - low.embedding.num_params() <= 3
    assert low.embedding.inference_bytes() == 4 * parts["embedding"]
    # it shrinks by d / k
    assert low.embedding.codes[0].weight.numel() * WIDTH == model.embedding.weight.numel() * rank


def on_devices():
    return ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(),
                                                                 reason="needs a GPU"))]


@pytest.mark.parametrize("device", on_devices())
@pytest.mark.parametrize("name", ["fm", *DEEP])
def test_a_factored_model_is_written_and_read_back_whole(name, device, tmp_path):
    model, ids = dense(name).to(device), ids_of().to(device)
    low = factor.factor_table(model, [spectrum.first(rank) for spectrum, rank in
                                   zip(spectra(dense(name)), (2, 1, 2, 0), strict=True)], SIZES)
    if name in DEEP:
        low = thin(factor.fuse(low, ids), ["mlp.mlp.4"], 3,
                   act="relu") if device == "cpu" else factor.fuse(low, ids)
    save_file(low.state_dict(), tmp_path / "low.safetensors")
    fresh = empty_like(dense(name), structure_of(low), SIZES)
    fresh.load_state_dict(load_file(tmp_path / "low.safetensors"), strict=True)
    with torch.no_grad():
        assert torch.equal(fresh.to(device)(ids), low(ids))
    assert not [key for key, value in low.state_dict().items()
                if tuple(value.shape) == (sum(SIZES), WIDTH)]


def test_a_pruned_table_is_factored():
    model, ids = dense(), ids_of()
    table = model.embedding.table()
    model.embedding = Masked.of_table(torch.where(table.abs() > 0.3, table, 0.0), len(SIZES))
    torch.testing.assert_close(factored(model, WIDTH)(ids), model(ids), rtol=0, atol=1e-5)


def test_the_published_choice_of_layers_spares_the_first_and_the_output():
    assert factor.choose_layers(dense(), None) == ["mlp.mlp.4", "mlp.mlp.8"]
    assert factor.choose_layers(Plain(), None) == ["bottom.2", "top.2"]
    assert factor.choose_layers(Plain(), ["1", "top.2"]) == ["bottom.0", "top.0", "top.2"]
    assert factor.choose_layers(dense("fm"), None) == []
    with pytest.raises(ValueError,
                       match=r"no layer '5' to factor; the model has 1 \(mlp.mlp.0\), 2"):
        factor.choose_layers(dense(), ["2", "5"])


def test_svd_of_weights_loses_least_of_the_weights_and_more_of_the_outputs():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(9, 8)).double().eval()
    inputs = torch.randn(300, 9, dtype=torch.float64) * torch.logspace(1, -1, 9,
                                                                       dtype=torch.float64)
    spectrum = decompose(layer_moments(model, [inputs], ["0"])["0"])
    for rank in (2, 4, 6):
        one, other = factor.factor_layer(model, "0",
                                         spectrum.first(rank)), factor.svd_layer(model, "0", rank)
        lost = [float((made(inputs) - model(inputs)).detach().square().sum(1).mean())
                for made in (one, other)]
        assert lost[0] == pytest.approx(spectrum.lost(rank), rel=1e-6)
        assert lost[0] < lost[1]
        pair = other[0]
        kept = torch.linalg.svdvals(pair.lift.weight.detach() @ pair.project.weight.detach())[:rank]
        torch.testing.assert_close(kept, torch.linalg.svdvals(model[0].weight.detach())[:rank])


@pytest.mark.parametrize("sequential", [False, True])
def test_layers_are_measured_in_the_dense_model_or_behind_what_is_factored_already(sequential):
    model, ids, asked = dense(), ids_of(), []
    fields = table_moments(model.embedding.table(),
                           torch.bincount(ids.flatten(), minlength=sum(SIZES)), SIZES)

    def measure(current, names):
        asked.append((structure_of(current), names))
        return layer_moments(current, [ids], names)

    made = compress(model, Choice(emb_rank=2, mlp_rank=3, sequential=sequential), fields,
                    SimpleNamespace(fields=tuple("abcd"), sizes=SIZES), measure, lambda: [ids], 1)
    bare, table = {"layers": {}, "act": "none"}, {"ranks": [2] * 4, "fused": True}
    one, other = "mlp.mlp.4", "mlp.mlp.8"
    assert asked == ([({**bare, **table}, [one]), ({**bare, **table, "layers": {one: 3}}, [other])]
                     if sequential else [(bare, [one, other])])
    assert structure_of(made.model) == {**bare, **table, "layers": {one: 3, other: 3}}
    spectrum = decompose(layer_moments(model, [ids], [one])[one]).values.tolist()
    assert (made.spectra["layers"][one] == pytest.approx(spectrum, rel=1e-4,
                                                         abs=1e-9)) != sequential


def test_bad_input_is_refused():
    model, ids = dense(), ids_of()
    with pytest.raises(ValueError, match="training mode"):
        layer_moments(dense().train(), [ids], ["mlp.mlp.4"])
    with pytest.raises(ValueError, match="training mode"):
        factor.deep_readers(dense().train(), ids)
    with pytest.raises(ValueError, match="no calibration data"):
        layer_moments(model, [], ["mlp.mlp.4"])
    with pytest.raises(ValueError,
                       match=r"no linear layer 'mlp.mlp.5'; the model has: mlp.mlp.0, "):
        layer_moments(model, [ids], ["mlp.mlp.5"])
    spectrum = decompose(layer_moments(model, [ids], ["mlp.mlp.4"])["mlp.mlp.4"])
    with pytest.raises(ValueError, match=r"between 1 and the width 8, got 0"):
        factor.factor_layer(model, "mlp.mlp.4", spectrum.first(0))
    with pytest.raises(ValueError, match="gives out 7 numbers, the factor is of 8"):
        factor.factor_layer(model, "mlp.mlp.8", spectrum.first(2))
    with pytest.raises(ValueError, match="nothing can be fused"):
        factor.fuse(factored(dense("fm"), 2), ids)
    with pytest.raises(ValueError, match="no table 'table'"):
        factor.factor_table(model, [], SIZES, "table")
    with pytest.raises(ValueError, match="padding row"):
        factor.factor_table(nn.ModuleDict({"table": nn.Embedding(4, 2, padding_idx=0)}), [], (4,),
                            "table")


def test_a_deep_input_that_others_read_too_is_not_fused():
    class Twice(Plain):
        def forward(self, ids):
            deep = self.embedding.deep_input(ids, self.embedding(ids))
            return self.top(torch.cat([deep[:, :4] * 0, deep], 1))[:, 0] + deep[:, -1]

    with pytest.raises(ValueError, match="cannot be fused: something else"):
        factor.fuse(factored(Twice().eval(), 2), ids_of())
    assert isinstance(factored(Twice().eval(), 2).embedding, LowRank)
