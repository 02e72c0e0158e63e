import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.kernels.dropout import LEVELS, Dropout, random_bits, replace_dropout
from models.kernels.lookup import lookup, lookup_plain, sum_rows, sum_rows_plain
from models.kernels.threshold import count_kept, soft_threshold, soft_threshold_plain


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def scatter_case(rows=50, fields=3, width=4, num_rows=11, dtype=torch.int64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(num_rows, (rows, fields), generator=generator).to(dtype)
    return torch.randn(rows, fields, width, generator=generator), ids, num_rows


@pytest.mark.parametrize("width", [1, 4, 7])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_scatter_is_its_plain_definition_bit_by_bit(dtype, width):
    grad, ids, num_rows = scatter_case(width=width, dtype=dtype)
    assert torch.equal(sum_rows(grad, ids, num_rows), sum_rows_plain(grad, ids, num_rows))


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 5), st.integers(1, 40),
       st.integers(0, 99))
def test_scatter_of_any_shape(rows, fields, width, num_rows, seed):
    grad, ids, num_rows = scatter_case(rows, fields, width, num_rows, seed=seed)
    out = sum_rows(grad, ids, num_rows)
    assert out.shape == (num_rows, width)
    expected = np.zeros((num_rows, width), np.float32)
    for position in np.ndindex(rows, fields):
        expected[ids[position]] += grad[position].numpy()
    assert np.array_equal(out.numpy(), expected)


def test_scatter_adds_rows_of_one_id_in_the_order_of_the_batch():
    grad = torch.tensor([1e8, 1.0, -1e8, 1.0]).view(4, 1, 1)
    assert sum_rows(grad, torch.zeros(4, 1, dtype=torch.int32), 2).tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("view", [lambda grad: grad.permute(1, 0, 2), lambda grad: grad[:, :, ::2],
                                  lambda grad: grad[:1, :1].expand(50, 3, 4)],
                         ids=["permuted", "strided", "expanded"])
def test_scatter_of_a_gradient_that_is_not_contiguous(view):
    grad, ids, num_rows = scatter_case()
    grad = view(grad)
    assert not grad.is_contiguous()
    ids = ids.T if grad.shape[:2] != ids.shape else ids
    assert torch.equal(sum_rows(grad, ids, num_rows), sum_rows_plain(grad, ids, num_rows))


def test_scatter_leaves_its_arguments_alone():
    grad, ids, num_rows = scatter_case()
    copies = grad.clone(), ids.clone()
    sum_rows(grad, ids, num_rows)
    assert torch.equal(grad, copies[0])
    assert torch.equal(ids, copies[1])


def test_scatter_gives_the_same_bits_each_time_with_several_threads(threads):
    grad, ids, num_rows = scatter_case(rows=3000, fields=7, width=16, num_rows=50)
    first = sum_rows(grad, ids, num_rows)
    assert all(torch.equal(sum_rows(grad, ids, num_rows), first) for _ in range(10))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_lookup_is_its_plain_definition_in_values_and_gradient(dtype):
    upstream, ids, num_rows = scatter_case(dtype=dtype)
    tables = [torch.randn(num_rows, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
              for _ in range(2)]
    for table, function in zip(tables, (lookup, lookup_plain), strict=True):
        rows = function(table, ids)
        assert torch.equal(rows, tables[0].detach()[ids.long()])
        rows.backward(upstream)
    torch.testing.assert_close(tables[0].grad, tables[1].grad)


def test_gradcheck_of_lookup_and_of_a_table_that_is_looked_up_twice():
    ids = torch.tensor([[0, 2], [2, 2], [4, 0]])
    table = torch.randn(5, 3, dtype=torch.float64,
                        generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: lookup(t, ids), (table,))
    assert torch.autograd.gradcheck(lambda t: lookup(t, ids) * lookup(t ** 2, ids.flip(0)),
                                    (table,))


@pytest.mark.parametrize("shape", [(), (4,), (6, 1), (6, 4)])
def test_kept_entries_are_counted_as_by_comparing_them(shape):
    generator = torch.Generator().manual_seed(2)
    values, gates = torch.randn(6, 4, generator=generator), torch.rand(shape, generator=generator)
    values[0, 0] = -gates.expand(6, 4)[0, 0]  # exactly at the threshold: pruned
    values[1, 1] = torch.nan  # kept, and seen
    kept = (values.abs() > gates) | values.isnan()
    assert int(count_kept(values, gates)) == int(kept.sum()) != 24


@pytest.mark.parametrize("shape", [(), (1,), (4,), (6, 1), (6, 4)])
def test_soft_threshold_is_its_plain_definition_in_values_and_all_gradients(shape):
    generator = torch.Generator().manual_seed(2)
    values, gates = torch.randn(6, 4, generator=generator), torch.rand(shape, generator=generator)
    values[0, 0] = gates.expand(6, 4)[0, 0]  # exactly at the threshold
    upstream = torch.randn(6, 4, generator=generator)
    results = []
    for function in (soft_threshold, soft_threshold_plain):
        inputs = values.clone().requires_grad_(), gates.clone().requires_grad_()
        out = function(*inputs)
        out.backward(upstream)
        results.append((out.detach(), inputs[0].grad, inputs[1].grad))
    for ours, plain in zip(*results, strict=True):
        assert ours.shape == plain.shape
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("function", [soft_threshold, soft_threshold_plain])
def test_a_broken_value_is_not_hidden_by_the_threshold(function):
    assert function(torch.tensor([float("nan"), 2.0]),
                    torch.tensor(1.0)).isnan().tolist() == [True, False]


@pytest.mark.parametrize("p", [0.1, 0.2, 0.4, 0.5, 0.9])
def test_dropped_share_and_scale(p):
    torch.manual_seed(0)
    layer, entries = Dropout(p).train(), 400_000
    out = layer(torch.ones(entries))
    share = (out == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / entries) ** 0.5)
    kept = out[out != 0].unique()
    assert len(kept) == 1
    assert kept.item() == pytest.approx(1 / (1 - round(p * LEVELS) / LEVELS), rel=1e-6)
    assert out.double().mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / entries) ** 0.5)


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_entries_that_share_a_draw_are_dropped_independently(p):
    torch.manual_seed(0)
    dropped = Dropout(p).train()(torch.ones(100_000, 4)) == 0
    for one in range(4):
        for other in range(one):
            both = (dropped[:, one] & dropped[:, other]).double().mean().item()
            assert both == pytest.approx(p * p, abs=5 * (p * p * (1 - p * p) / 100_000) ** 0.5)


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 3, 4), (0,)])
def test_zeros_of_forward_and_backward_are_the_same(shape):
    torch.manual_seed(1)
    x = (1 + torch.rand(shape)).requires_grad_()
    out = Dropout(0.5).train()(x)
    out.sum().backward()
    assert out.shape == shape
    assert torch.equal(out == 0, x.grad == 0)
    torch.testing.assert_close(out.detach(), x.detach() * x.grad)


def test_dropout_follows_the_seed_and_two_draws_differ():
    def draw():
        return random_bits(torch.empty(64), LEVELS // 2)

    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert torch.equal(draw(), first)
    assert not torch.equal(first, second)


def test_a_share_that_is_rounded_to_all_keeps_something():
    assert torch.isfinite(Dropout(0.999999).train()(torch.randn(99))).all()


def test_dropout_of_zero_and_in_evaluation_mode_is_the_identity_and_draws_nothing():
    x = torch.randn(8)
    before = torch.get_rng_state()
    assert Dropout(0.0).train()(x) is x
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_a_rate_outside_its_range_is_refused(p):
    with pytest.raises(ValueError, match=rf"dropout must be in \[0, 1\), got {p}"):
        Dropout(p)


def test_replace_dropout_leaves_no_nn_dropout_and_keeps_rates_and_order():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3),
                           nn.Sequential(nn.ReLU(), nn.ModuleList([nn.Dropout(0.5)])))
    assert replace_dropout(module) is module
    assert not any(isinstance(part, nn.Dropout) for part in module.modules())
    assert module[1].dropped == round(0.3 * LEVELS)
    assert module[2][1][0].dropped == LEVELS // 2
    assert isinstance(module[0], nn.Linear)
