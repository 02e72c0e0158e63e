"""Model parts against explicit sums and against the layers that they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchfm.layer import FeaturesLinear, MultiLayerPerceptron

from models.autoint import Attention, SelfAttention
from models.build import build_model
from models.embedding.uniform import Uniform
from models.linear import FirstOrder

SIZES = (4, 3, 5)


def model_of(name, embedding, **values):
    return build_model(SIZES, {"model": name, **values}, 1, embedding)


def values_of(model):
    return {name: value.detach().double().numpy() for name, value in model.state_dict().items()}


def pairwise(vectors):
    """(F, D) -> the sum over all i < j of the products of vector i and vector j."""
    total = 0.0
    for i in range(len(vectors)):
        for j in range(i + 1, len(vectors)):
            total += float(vectors[i] @ vectors[j])
    return total


@given(st.integers(1, 6), st.integers(0, 1000))
def test_fm_is_bias_plus_weights_plus_all_pairs(width, seed):
    generator = torch.Generator().manual_seed(seed)
    model = model_of("fm", Uniform(torch.randn(sum(SIZES), width, generator=generator), len(SIZES)))
    ids = torch.tensor([[0, 4, 7], [3, 6, 11], [1, 4, 9]], dtype=torch.int32)
    table, first = model.embedding.table().double().numpy(), values_of(model.linear)
    expected = [first["layer.bias"][0] + first["layer.fc.weight"][row, 0].sum()
                + pairwise(table[row]) for row in ids.numpy()]
    np.testing.assert_allclose(model(ids).detach(), expected, rtol=1e-5, atol=1e-5)


def test_first_order_part_is_torchfms_layer_in_values_and_gradients():
    ids = torch.tensor([[0, 4, 7], [3, 4, 7]])
    ours = FirstOrder(sum(SIZES))
    layer = FeaturesLinear([sum(SIZES)])
    layer.load_state_dict(ours.layer.state_dict())
    assert torch.equal(ours(ids), layer(ids).squeeze(1))
    weights = torch.tensor([2.0, 3.0])
    (ours(ids) * weights).sum().backward()
    (layer(ids).squeeze(1) * weights).sum().backward()
    assert torch.equal(ours.layer.fc.weight.grad, layer.fc.weight.grad)
    assert torch.equal(ours.layer.bias.grad, layer.bias.grad)


def test_first_order_weights_start_standard_normal_and_the_bias_at_zero():
    torch.manual_seed(0)
    layer = FirstOrder(20_000).layer
    assert layer.fc.weight.detach().std() == pytest.approx(1, rel=0.02)
    assert layer.bias.item() == 0


def test_deepfm_is_fm_plus_torchfms_mlp_on_the_flattened_vectors():
    embedding = Uniform(torch.randn(sum(SIZES), 4), len(SIZES))
    model = model_of("deepfm", embedding, mlp_dims=(6, 5), dropout=0.3).eval()
    with torch.no_grad():
        for name, value in model.mlp.named_buffers():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    mlp = MultiLayerPerceptron(len(SIZES) * 4, (6, 5), 0.3).eval()
    mlp.load_state_dict(model.mlp.state_dict())
    fm = model_of("fm", embedding)
    fm.load_state_dict(model.state_dict(), strict=False)
    ids = torch.tensor([[0, 4, 7], [3, 6, 11]])
    expected = fm(ids) + mlp(embedding(ids).flatten(1)).squeeze(1)
    torch.testing.assert_close(model(ids), expected)
    assert not torch.allclose(model(ids), fm(ids))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_self_attention_is_torchs_multihead_attention_in_values_and_gradients(heads):
    ours = SelfAttention(Attention(width=8, heads=heads, layers=1, dropout=0.4)).eval()
    theirs = torch.nn.MultiheadAttention(8, heads, dropout=0.4, batch_first=True).eval()
    theirs.load_state_dict(ours.layer.state_dict())
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    theirs.load_state_dict(ours.layer.state_dict())
    x = torch.randn(5, 7, 8)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    one, other = ours(inputs[0]), theirs(inputs[1], inputs[1], inputs[1], need_weights=False)[0]
    torch.testing.assert_close(one, other)
    upstream = torch.randn_like(one)
    one.backward(upstream)
    other.backward(upstream)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for (name, mine), (_, their) in zip(ours.layer.named_parameters(), theirs.named_parameters(),
                                        strict=True):
        torch.testing.assert_close(mine.grad, their.grad, msg=name)


def test_attention_dropout_acts_on_the_attention_weights_in_training_only():
    layer = SelfAttention(Attention(width=4, heads=1, layers=1, dropout=0.5))
    x = torch.randn(3, 6, 4)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("linear", [True, False])
def test_autoint_written_out(residual, deep, linear):
    embedding = Uniform(torch.randn(sum(SIZES), 3), len(SIZES))
    values = {"atten_embed_dim": 4, "num_heads": 2, "num_layers": 2, "att_dropout": 0.3,
              "has_residual": residual,
              "mlp_dims": (5,), "dropout": 0.2, "full_part": deep, "with_linear": linear}
    model = model_of("autoint", embedding, **values).eval()
    weights = values_of(model)
    ids = np.array([[0, 4, 7], [3, 6, 11]])
    vectors = weights["embedding.weight"][ids]

    def layer(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    crossed = layer("project", vectors)
    for number in range(2):
        attention = model.attention[number].layer
        with torch.no_grad():
            x = torch.tensor(crossed, dtype=torch.float32)
            crossed = attention(x, x, x, need_weights=False)[0].double().numpy()
    if residual:
        crossed = crossed + layer("residual", vectors)
    logits = layer("output", np.maximum(crossed, 0).reshape(2, -1))[:, 0]
    if deep:
        with torch.no_grad():
            logits = (
                logits
                + model.mlp(torch.tensor(vectors, dtype=torch.float32).flatten(1))[:, 0]
                .double()
                .numpy()
            )
    if linear:
        logits = (logits + weights["linear.layer.fc.weight"][ids, 0].sum(1)
                  + weights["linear.layer.bias"])
    np.testing.assert_allclose(model(torch.tensor(ids)).detach(), logits, atol=1e-5)


@pytest.mark.parametrize("residual", [True, False])
def test_autoint_with_the_papers_layers_written_out(residual):
    """Equations 5 to 8 of Song et al. 2019, head by head; our products are divided by the root of a
    head's width."""
    embedding = Uniform(torch.randn(sum(SIZES), 3), len(SIZES))
    values = {"atten_embed_dim": 4, "num_heads": 2, "num_layers": 2, "att_dropout": 0.3,
              "has_residual": residual, "att_layer": "paper", "full_part": False,
              "with_linear": False}
    model = model_of("autoint", embedding, **values).eval()
    weights = values_of(model)
    ids = np.array([[0, 4, 7], [3, 6, 11]])
    first, logits = weights.get("attention.0.residual.weight"), []
    for row in weights["embedding.weight"][ids]:
        fields = row  # e_1 .. e_M
        for number in range(2):
            query, key, value = np.split(weights[f"attention.{number}.mixing.weight"], 3)
            passed = []
            for m in range(len(fields)):
                read = []
                for head in (slice(0, 2), slice(2, 4)):
                    psi = np.array([query[head] @ fields[m] @ (key[head] @ fields[k])
                                    for k in range(len(fields))]) / np.sqrt(2)
                    alpha = np.exp(psi) / np.exp(psi).sum()
                    read.append(sum(alpha[k] * (value[head] @ fields[k])
                                    for k in range(len(fields))))
                own = 0
                if residual:
                    own = fields[m] if number else first @ fields[m]
                passed.append(np.maximum(np.concatenate(read) + own, 0))
            fields = np.array(passed)
        logits.append(weights["output.weight"][0] @ fields.ravel() + weights["output.bias"][0])
    np.testing.assert_allclose(model(torch.tensor(ids)).detach(), logits, atol=1e-5)
