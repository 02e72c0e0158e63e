"""Tensor trains: gradients in every core, exactness at full rank, and their size."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from training import draw

from engine.optim.step import build_optimizer
from models.embedding.tensor_train import (
    TensorTrain,
    fresh_tensor_train,
    radices_for,
    ranks_for,
    tensor_train_of,
)


def test_gradients_reach_every_core_and_are_those_of_the_table():
    train = fresh_tensor_train(60, 5, 3, draw(), 2)
    ids = torch.arange(60).view(30, 2)
    target = torch.randn(30, 2, 5, generator=torch.Generator().manual_seed(0))
    (train(ids) * target).sum().backward()
    for core in train.parameters():
        assert core.grad.abs().max() > 0
    core, step = train.cores[1], 1e-2
    with torch.no_grad():  # linear in each entry, so a difference is the derivative
        before = float((train(ids) * target).sum())
        core[0, 1] += step
        assert (float((train(ids) * target).sum())
                - before) / step == pytest.approx(float(core.grad[0, 1]), rel=1e-2)


@pytest.mark.parametrize("rows", [60, 53])
def test_the_table_multiplied_out_has_the_rows_and_the_gradients_of_the_definition(rows):
    train = fresh_tensor_train(rows, 5, 3, draw(), 2)
    ids = torch.randint(rows, (rows, 2), generator=torch.Generator().manual_seed(0))
    target = torch.randn(rows, 2, 5, generator=torch.Generator().manual_seed(1))
    found = [(vectors, *torch.autograd.grad((vectors * target).sum(), [*train.parameters()]))
             for vectors in (train(ids), train.of_ids(ids))]
    assert not torch.equal(found[0][1], torch.zeros_like(found[0][1]))
    for whole, each in zip(*found, strict=True):
        torch.testing.assert_close(whole, each, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(train.table()[:9], train(torch.arange(9)[:, None])[:, 0])
    for number in (ids.new_full((rows, 2), rows), ids.new_full((1, 2), rows)):
        with pytest.raises(IndexError):
            train(number)


@pytest.mark.parametrize("rows", [60, 2000])  # a batch with more ids than rows, and with fewer
def test_rows_are_float32_where_products_of_the_model_are_not(rows):
    train = fresh_tensor_train(rows, 5, 3, draw(), 2)
    ids = torch.arange(100).view(50, 2) % rows
    wanted = train(ids)
    with torch.autocast("cpu", torch.bfloat16):
        found = train(ids)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    found.sum().backward()
    assert train.cores[0].grad.abs().max() > 0


def test_a_train_learns_a_table_of_its_own_rank():
    target, made = fresh_tensor_train(60, 5, 2, draw(1), 1).table(), fresh_tensor_train(60, 5, 4,
                                                                                        draw(2), 1)
    optimizer, ids = torch.optim.Adam(made.parameters(), lr=0.02), torch.arange(60)[:, None]
    losses = []
    for _ in range(600):
        optimizer.zero_grad()
        loss = (made(ids)[:, 0] - target).square().mean() / target.square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 3), (60, 5), (61, 4)])
def test_full_rank_is_the_table_and_less_rank_loses_more(rows, width):
    table = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tensor_train_of(table, 1000, 1).table(), table, rtol=1e-4, atol=1e-5)
    lost = [float((tensor_train_of(table, rank, 1).table() - table).square().sum())
            for rank in range(1, 8)]
    assert all(low <= high + 1e-6 for high, low in pairwise(lost))


def test_fresh_products_are_as_large_as_fresh_rows():
    table = fresh_tensor_train(4000, 32, 16, draw(), 1).table()
    assert table.square().mean() == pytest.approx(2 / 4032, rel=0.3)


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 60, 61, 4129, 2_686_408])
def test_radices_hold_all_rows_and_hardly_more(rows):
    product = 1
    for radix in radices_for(rows):
        product *= radix
    assert rows <= product <= max(1.15 * rows, rows + 3)


def test_sizes_are_closed_forms():
    train = fresh_tensor_train(4129, 64, 16, draw(), 7)
    a, b, c = radices_for(4129)
    assert train.num_params() == a * 16 + b * 16 * 16 + c * 16 * 16 + 16 * 64
    assert train.inference_bytes() == 4 * train.num_params()
    assert ranks_for((a, b, c), 64, 10 ** 6) == (a, a * b, 64)


def test_cores_that_do_not_fit_are_refused():
    good = [torch.ones(2, 1, 2), torch.ones(2, 2, 2), torch.ones(2, 2, 2)]
    with pytest.raises(ValueError, match="do not make a table of 9 rows"):
        TensorTrain(good, torch.ones(2, 3), 9, 1)
    with pytest.raises(ValueError, match="neighbours must share their rank"):
        TensorTrain(good, torch.ones(3, 3), 8, 1)


def test_trains_made_of_a_table_lie_in_memory_as_their_saved_moments_do():
    train = tensor_train_of(torch.randn(60, 6), 2, 4)
    assert all(core.is_contiguous() for core in train.parameters())
    model = nn.Module()
    model.embedding = train
    build_optimizer(model, 0.1, 0, 0)
    train.last = nn.Parameter(train.last.detach().T)
    with pytest.raises(ValueError, match=r"embedding\.last must be contiguous"):
        build_optimizer(model, 0.1, 0, 0)
