"""Rows of several widths: values, gradients and counts by hand, in both ways of the forward
pass."""

import numpy as np
import pytest
import torch
from training import draw

from models.embedding.mixed_width import Mixed
from models.embedding.uniform import Uniform

SIZES, WIDTH = (40, 3, 30), 6
GROUPS = {"narrow and full": (2, 6, 1, 0), "narrow": (3, 2, 1, 1), "full": (6, 0, 6, 0),
          "one": (4, 4, 4, 4)}


def make(widths):
    group = np.random.default_rng(0).integers(0, len(widths), sum(SIZES))
    return Mixed(torch.from_numpy(group), widths, WIDTH, draw(), len(SIZES)), group


def ids_of(rows, seed=0):
    rng = np.random.default_rng(seed)
    starts = np.cumsum((0, *SIZES[:-1]))
    return np.stack([start + rng.integers(0, size, rows) for start,
                     size in zip(starts, SIZES, strict=True)], 1)


@pytest.mark.parametrize("way", ["table_first", "gather_first", None])
@pytest.mark.parametrize("kind", GROUPS)
def test_values_and_gradients_by_hand(kind, way):
    widths = GROUPS[kind]
    mixed, group = make(widths)
    first = draw()
    initial = first(sum(SIZES), WIDTH).double().numpy()
    lifts = {k: first(d, WIDTH).double().numpy() for k, d in enumerate(widths) if 0 < d < WIDTH}
    table = np.zeros((sum(SIZES), WIDTH))
    for row, k in enumerate(group):
        if widths[k]:
            values = initial[row, :widths[k]]
            table[row] = values @ lifts[k] if k in lifts else values
    ids = ids_of(20)
    upstream = np.random.default_rng(1).normal(0, 1, (*ids.shape, WIDTH))

    numbers = torch.tensor(ids, dtype=torch.int32)
    at = mixed.position[numbers.long()]
    vectors = mixed(numbers) if way is None else getattr(mixed, way)(at)
    np.testing.assert_allclose(vectors.detach(), table[ids], atol=1e-6)
    np.testing.assert_allclose(mixed.table(), table, atol=1e-6)
    vectors.backward(torch.tensor(upstream, dtype=torch.float32))
    whole = np.zeros_like(table)
    np.add.at(whole, ids, upstream)
    for place, (k, lift) in enumerate(lifts.items()):
        rows = np.flatnonzero(group == k)
        np.testing.assert_allclose(mixed.tables[place].grad, whole[rows] @ lift.T, atol=1e-5)
        np.testing.assert_allclose(mixed.projections[place].grad,
                                   initial[rows, :widths[k]].T @ whole[rows], atol=1e-5)
    full = np.flatnonzero(np.array(widths)[group] == WIDTH)
    assert len(mixed.tables) == len(lifts) + bool(len(full))
    if len(full):
        np.testing.assert_allclose(mixed.tables[-1].grad, whole[full], atol=1e-5)
    held = sum((group == k).sum() * d + (d * WIDTH if k in lifts else 0) for k,
               d in enumerate(widths))
    assert mixed.num_params() == held
    assert mixed.inference_bytes() == 4 * held


def test_of_full_width_it_starts_as_the_uniform_table_does():
    group = torch.zeros(sum(SIZES), dtype=torch.int64)
    uniform = Uniform(draw()(sum(SIZES), WIDTH), 3)
    assert torch.equal(Mixed(group, (WIDTH,), WIDTH, draw(), 3).table(), uniform.table())


def test_groups_without_rows_hold_nothing():
    group = torch.tensor([1, 1, 3, 1])
    mixed, plain = (Mixed(some, widths, 4, draw(), 1) for some, widths in
                    ((group, (3, 2, 4, 1, 4)), (group // 2, (2, 1))))
    assert mixed.num_params() == plain.num_params() == 3 * 2 + 2 * 4 + 1 + 4
    assert torch.equal(mixed.table(), plain.table())


@pytest.mark.parametrize(("group", "widths", "message"), [
    ([[0, 1]], (1, 2), r"whole numbers of shape \(N,\), got torch.int64 of shape \(1, 2\)"),
    ([0.0, 1.0], (1, 2), "whole numbers .* got torch.float32"),
    ([], (1, 2), r"of shape \(0,\)"),
    ([0, 2], (1, 2), r"there are 2 widths, so groups are 0 \.\. 1; got 0 \.\. 2"),
    ([-1, 1], (1, 2), r"got -1 \.\. 1"),
    ([0, 1], (1, 5), r"must lie in 0 \.\. 4, the common width; got \[1, 5\]"),
    ([0, 1], (-1, 4), r"got \[-1, 4\]"),
    ([1, 1], (3, 0), r"no row has a width above 0: the widths are \[3, 0\]")])
def test_groups_and_widths_that_do_not_fit_are_refused(group, widths, message):
    with pytest.raises(ValueError, match=message):
        Mixed(torch.tensor(group), widths, 4, draw(), 1)
