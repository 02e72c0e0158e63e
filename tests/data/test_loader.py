import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.loader import Loader, in_order


def make(rows=103, batch_size=10, seed=3):
    ids = np.stack([np.arange(rows), 1000 + np.arange(rows)], axis=1).astype(np.int32)
    return Loader(ids, np.arange(rows, dtype=np.float32), batch_size, seed)


def rows_of(loader, epoch, start=0):
    return [labels.tolist() for ids, labels in loader.epoch(epoch, start)]


def test_same_seed_and_epoch_give_the_same_order_and_others_differ():
    assert rows_of(make(), 4) == rows_of(make(), 4)
    assert rows_of(make(), 4) != rows_of(make(), 5)
    assert rows_of(make(seed=3), 4) != rows_of(make(seed=4), 4)


def test_the_order_is_pinned_so_that_it_is_the_same_in_any_process():
    assert make(rows=8).order(2).tolist() == [2, 3, 5, 7, 4, 0, 6, 1]


def test_two_seeds_do_not_share_their_orders_at_shifted_epochs():
    orders = {tuple(make(seed=seed).order(epoch).tolist()) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_ids_and_labels_stay_together():
    for ids, labels in make().epoch(0):
        assert torch.equal(ids[:, 0], labels.int())
        assert torch.equal(ids[:, 1], labels.int() + 1000)
        assert ids.dtype == torch.int32


@given(st.integers(2, 90), st.integers(2, 30), st.integers(0, 2**40), st.integers(0, 500))
def test_every_row_comes_exactly_once_an_epoch(rows, batch_size, seed, epoch):
    loader = make(rows, batch_size, seed)
    batches = rows_of(loader, epoch)
    seen = [row for batch in batches for row in batch]
    left_out = rows % batch_size == 1
    assert len(set(seen)) == len(seen) == rows - left_out
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert len(batches) == loader.batches


@given(st.integers(0, 11))
def test_start_yields_the_tail_of_the_same_epoch(start):
    assert rows_of(make(), 1, start) == rows_of(make(), 1)[start:]


def test_a_last_batch_of_a_single_row_is_left_out_and_that_row_is_not_always_the_same():
    loader = make(rows=101)
    assert loader.batches == 10
    left_out = {(set(range(101)) - {row for batch in rows_of(loader, epoch) for row in batch}).pop()
                for epoch in range(20)}
    assert len(left_out) > 10


def test_a_batch_size_below_2_is_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        make(batch_size=1)


@given(st.integers(0, 50), st.integers(1, 20))
def test_in_order_yields_all_rows_in_their_stored_order(rows, batch_size):
    ids = torch.arange(rows)[:, None]
    batches = list(in_order(ids, batch_size))
    assert torch.equal(torch.cat(batches) if batches else ids[:0], ids)
    assert all(len(batch) == batch_size for batch in batches[:-1])
