"""The first layer of an MLP, once for each distinct row."""

import pytest
import torch
from torch import nn

from models.autoint import Attention, AutoInt
from models.embedding.uniform import Uniform
from models.kernels import field_linear as module
from models.kernels.field_linear import field_linear, field_linear_plain
from models.mlp import Mlp


def case(rows=9, width=5, batch=40, fields=3, hidden=4, seed=0):
    """Rows that several fields share, and many batches' rows that have the same one."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(rows, width, generator=generator)
    places = torch.randint(rows, (batch, fields), generator=generator, dtype=torch.int32)
    linear = nn.Linear(fields * width, hidden)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return table.requires_grad_(), places, linear


def with_gradients(function, table, places, linear):
    out = function(table, places, linear)
    weights = torch.linspace(-1, 2, out.numel()).view(out.shape)
    return out.detach(), *torch.autograd.grad((out * weights).sum(), [table, *linear.parameters()])


@pytest.fixture
def only_fast(monkeypatch):
    """The definition may not take the place of the loops."""
    monkeypatch.setattr(module, "lookup", None)


@pytest.mark.parametrize(("rows", "fields", "width", "hidden"),
                         [(9, 3, 5, 4), (1, 1, 1, 1), (30, 7, 64, 100), (2, 4, 3, 1)])
def test_values_and_gradients_are_those_of_the_definition(rows, fields, width, hidden):
    given = case(rows, width, 40, fields, hidden)
    fast, plain = (with_gradients(function, *given) for function in (field_linear,
                                                                     field_linear_plain))
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_two_calls_have_the_same_bits(only_fast):
    first, second = (with_gradients(field_linear, *case(50, 16, 300)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_rows_of_other_numbers_and_products_in_bfloat16_take_the_same_path(only_fast):
    table, places, linear = case()
    out = field_linear(table, places, linear)
    assert torch.equal(field_linear(table, places.long(), linear), out)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(field_linear(table, places, linear), out)


@pytest.mark.parametrize("wrong", [-1, 9])
def test_an_id_outside_is_named(wrong):
    table, places, linear = case()
    places[2, 1] = wrong
    with pytest.raises(IndexError, match=f"row 2 of the batch has the id {wrong} in field 1"):
        field_linear(table, places, linear)


def test_rows_that_the_batch_does_not_have_change_no_bit(only_fast):
    table, places, linear = case(rows=9, batch=40)
    more = torch.cat([table.detach(), torch.ones(500, 5)]).requires_grad_()
    one, other = (with_gradients(field_linear, each, places, linear) for each in (table, more))
    assert not other[1][9:].any()
    for mine, theirs in zip(one, (other[0], other[1][:9], *other[2:]), strict=True):
        assert torch.equal(mine, theirs)


def test_a_first_layer_that_is_watched_or_replaced_is_called():
    table, places, _ = case()
    mlp, seen = Mlp(15, (4,), 0.0).eval(), []
    expected = mlp.of_rows(table, places)
    handle = mlp.mlp[0].register_forward_hook(lambda *given: seen.append(given))
    torch.testing.assert_close(mlp.of_rows(table, places), expected)
    assert len(seen) == 1
    handle.remove()
    mlp.mlp[0] = nn.Sequential(mlp.mlp[0])
    torch.testing.assert_close(mlp.of_rows(table, places), expected)


@pytest.mark.parametrize("residual", [True, False])
def test_attention_reads_what_is_computed_once_a_row(residual, monkeypatch):
    """AutoInt's layers before the first attention, against the same model that is watched."""
    initial = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    model = AutoInt(Uniform(initial, 3), 3, Attention(8, 2, 2, 0.0, residual), (4,), 0.0, False)
    _, ids, _ = case()
    made = []
    whole = AutoInt._crossed_by_row
    monkeypatch.setattr(AutoInt, "_crossed_by_row", lambda *given: made.append(1) or whole(*given))
    found = []
    for watched in (False, True):
        if watched:
            model.project.register_forward_hook(lambda *given: None)
        logits = model(ids)
        grads = torch.autograd.grad(logits @ torch.linspace(-1, 2, len(ids)),
                                    list(model.parameters()))
        found.append([logits.detach(), *grads])
    assert len(made) == 1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
