"""The fused layers of MLP and attention against the modules that define them, in values, gradients
and random draws."""

import copy

import pytest
import torch
from torch import nn

from models.kernels.attention import attention, attention_plain
from models.kernels.batch_rows import distinct
from models.kernels.dropout import LEVELS
from models.mlp import Mlp


def perceptron(dropout):
    torch.manual_seed(0)
    mlp = Mlp(12, (20, 7), dropout).train()
    for module in mlp.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return mlp


def trained(mlp, forward, x):
    x = x.clone().requires_grad_()
    torch.manual_seed(5)
    out = forward(x)
    (out[:, 0] * torch.linspace(-1, 1, len(x))).sum().backward()
    grads = {name: parameter.grad for name, parameter in mlp.named_parameters()}
    return {"out": out.detach(), "x": x.grad, **grads, **dict(mlp.named_buffers())}


@pytest.mark.parametrize("dropout", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("rows", [2, 33])
def test_hidden_layers_are_their_modules_one_after_the_other(dropout, rows):
    fused = perceptron(dropout)
    plain = copy.deepcopy(fused)
    x = torch.randn(rows, 12, generator=torch.Generator().manual_seed(1)) * 3 + 1
    one, other = trained(fused, fused, x), trained(plain, plain.mlp, x)
    assert one.keys() == other.keys()
    assert len(one) == 18
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=2e-5, msg=name)
    assert torch.equal(fused.eval()(x), fused.mlp(x))


def test_hidden_layers_show_a_broken_value():
    x = torch.ones(4, 12)
    x[2, 3] = torch.nan
    assert perceptron(0.0)(x).isnan().all()


@pytest.mark.parametrize(("fields", "width", "heads"), [(7, 64, 2), (1, 3, 1), (3, 6, 3)])
@pytest.mark.parametrize("dropped", [0, LEVELS // 3])
def test_attention_is_its_definition_in_values_and_gradient(fields, width, heads, dropped):
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(9, fields, 3 * width, generator=generator) * 2
    weights = torch.randn(9, fields, width, generator=generator)
    found = []
    for function in (attention, attention_plain):
        own = mixed.clone().requires_grad_()
        torch.manual_seed(3)
        out = function(own, heads, dropped)
        found.append((out.detach(), *torch.autograd.grad((out * weights).sum(), own)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_attention_of_products_in_bfloat16_gives_float32():
    mixed = torch.randn(2, 3, 12).bfloat16().requires_grad_()
    out = attention(mixed, 2, 0)
    out.sum().backward()
    assert out.dtype == torch.float32
    assert mixed.grad.dtype == torch.bfloat16


def test_distinct_ids_and_their_places():
    ids = torch.randint(50, (30, 4), dtype=torch.int32)
    unique, places = distinct(ids, 50)
    assert len(set(unique.tolist())) == len(unique)
    assert torch.equal(unique[places.long()], ids)
    with pytest.raises(IndexError, match="the id 50 is out of range"):
        distinct(torch.tensor([[3, 50]]), 50)
