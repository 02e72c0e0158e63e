"""Blocks of popularity and widths of the power law, worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import draw

from models.embedding.mde import equal_blocks, mde, power_law


@pytest.mark.parametrize(("counts", "blocks", "expected"), [
    ([4, 4, 4, 4], 2, [0, 0, 1, 1]),
    ([1, 9, 2, 6], 1, [0, 0, 0, 0]),
    ([1, 9, 2, 6], 2, [1, 0, 1, 1]),  # 9 of 18
    ([1, 9, 2, 6], 3, [2, 0, 2, 1]),  # 9, then 6 of the 9 left
    ([1, 9, 2, 6], 4, [3, 0, 2, 1]),
    ([5, 5, 4, 3, 2, 1], 2, [0, 0, 1, 1, 1, 1]),  # 10 of 20
    ([5, 5, 5, 5, 5], 2, [0, 0, 1, 1, 1]),  # 10 and 15 are as near to 12.5: the smaller
    # one feature has more than its share, and each block one at least
    ([1, 97, 1, 1], 3, [1, 0, 2, 2]),
    ([7, 0, 0, 0], 2, [0, 1, 1, 1]),
    ([7, 0, 0, 0], 4, [0, 1, 2, 3]),
    ([0, 3, 0, 3], 2, [1, 0, 1, 1]),
])
def test_blocks_by_hand(counts, blocks, expected):
    assert equal_blocks(np.array(counts), blocks).tolist() == expected


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.data())
def test_blocks_hold_all_features_by_falling_popularity(counts, data):
    blocks = data.draw(st.integers(1, len(counts)))
    block = equal_blocks(np.array(counts), blocks)
    assert set(block.tolist()) == set(range(blocks))
    order = sorted(range(len(counts)), key=lambda row: (block[row], -counts[row], row))
    assert order == sorted(range(len(counts)), key=lambda row: (-counts[row], row))


@pytest.mark.parametrize(("alpha", "width", "expected"), [
    (0.3, 64, [64, 32, 8]),  # 64 x 0.1 ** 0.3 = 32.08, 64 x 0.001 ** 0.3 = 8.06
    (0.1, 64, [64, 51, 32]),  # 50.84, 32.08
    (0.1, 8, [8, 6, 4]),  # 6.35, 4.01
    (0.0, 8, [8, 8, 8]),
    (1.0, 24, [24, 2, 1]),  # 2.4, 0.024
])
def test_widths_by_hand(alpha, width, expected):
    counts = np.array([1500, 500, 100, 100, 1, 2, 0])  # means 1000, 100, 1
    assert power_law(counts, np.array([0, 0, 1, 1, 2, 2, 2]), alpha, width) == expected


def test_each_feature_has_its_blocks_width():
    counts = torch.tensor([1, 500, 100, 2, 1500, 100, 0])
    # 1500 of 2203; 500 of the 703 left; the rest has a mean of 40.6
    embedding = mde(counts, 3, 0.3, 16, draw(), 2)
    widths = [16, 12, 5]  # 16 x (1/3) ** 0.3 = 11.51, 16 x 0.0271 ** 0.3 = 5.42
    assert [tuple(table.shape) for table in embedding.tables] == [(1, 12), (5, 5), (1, 16)]
    assert embedding.num_params() == 16 + 12 + 5 * 5 + 12 * 16 + 5 * 16
    assert embedding.inference_bytes() == 4 * embedding.num_params()
    rows = embedding.table()[[4, 1, 0]]
    assert torch.equal(rows[1], embedding.tables[0][0] @ embedding.projections[0])
    assert max(widths) == embedding.width == rows.shape[1]


def test_at_alpha_0_it_starts_as_the_uniform_table():
    assert torch.equal(mde(torch.arange(9), 4, 0.0, 5, draw(), 3).table(), draw()(9, 5))


def test_more_blocks_than_features_or_no_occurrence_are_refused():
    with pytest.raises(ValueError,
                       match=r"mde_blocks must lie in 1 \.\. 4, the number of features; got 5"):
        mde(torch.ones(4, dtype=torch.int64), 5, 0.1, 8, draw(), 1)
    with pytest.raises(ValueError, match="no feature occurs: all counts are 0"):
        mde(torch.zeros(4, dtype=torch.int64), 2, 0.1, 8, draw(), 1)
