"""Double hashing: pinned places, sums and gradients by hand."""

import numpy as np
import pytest
import torch

from models.embedding.base import initial_table
from models.embedding.hashing import KEYS, Hash, hashed

ROWS, WIDTH = 40, 3
PLACES = [[2, 2], [1, 3], [2, 0], [4, 2], [2, 0], [2, 3], [1, 0], [2, 5]]


def make(rows=ROWS, hash_rows=7):
    return Hash(initial_table(rows, WIDTH, torch.Generator().manual_seed(1)), hash_rows, 2)


def by_hand(number, key, size):
    mixed = (number + 1) * key % 2 ** 64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ mixed >> shift) * factor % 2 ** 64
    return (mixed ^ mixed >> 31) % size


def test_places_are_pinned_so_that_old_runs_keep_their_meaning():
    assert make(8, 7).places.tolist() == PLACES
    assert hashed(3, KEYS[0], 10 ** 9).tolist() == [658607535, 194355700, 471545679]
    assert hashed(3, KEYS[1], 10 ** 9).tolist() == [779684112, 135971849, 843056530]


@pytest.mark.parametrize("key", KEYS)
def test_hashes_by_hand_and_their_spread(key):
    values = hashed(100_000, key, 1000)
    assert values[::997].tolist() == [by_hand(number, key, 1000)
                                      for number in range(0, 100_000, 997)]
    counts = np.bincount(values, minlength=1000)
    # chi squared
    assert ((counts - 100) ** 2 / 100).sum() == pytest.approx(999, abs=5 * (2 * 999) ** 0.5)


def test_the_two_functions_are_independent():
    pairs = hashed(100_000, KEYS[0], 30).astype(int) * 30 + hashed(100_000, KEYS[1], 30)
    expected = 100_000 / 900
    chi = ((np.bincount(pairs, minlength=900) - expected) ** 2 / expected).sum()
    assert chi == pytest.approx(899, abs=5 * (2 * 899) ** 0.5)


def test_values_gradients_and_bytes_by_hand():
    embedding = make()
    weight = embedding.weight.detach().numpy()
    places = np.array([[by_hand(row, key, 7) for key in KEYS] for row in range(ROWS)])
    assert (places[:, 0] == places[:, 1]).any()  # a row that is taken twice
    rng = np.random.default_rng(0)
    ids, upstream = rng.integers(0, ROWS, (30, 2)), rng.normal(0, 1, (30, 2, WIDTH))
    vectors = embedding(torch.tensor(ids, dtype=torch.int32))
    np.testing.assert_allclose(vectors.detach(), weight[places[ids]].sum(2), atol=1e-6)
    np.testing.assert_allclose(embedding.table(), weight[places].sum(1), atol=1e-6)
    vectors.backward(torch.tensor(upstream, dtype=torch.float32))
    expected = np.zeros_like(weight)
    np.add.at(expected, places[ids], upstream[:, :, None])
    np.testing.assert_allclose(embedding.weight.grad, expected, atol=1e-5)
    assert embedding.num_params() == 7 * WIDTH
    assert embedding.inference_bytes() == 4 * 7 * WIDTH
    assert set(embedding.state_dict()) == {"weight"}


def test_vectors_start_at_the_scale_of_the_usual_table():
    initial = initial_table(20_000, 8, torch.Generator().manual_seed(1))
    assert Hash(initial, 5000, 1).table().std() == pytest.approx(initial.std().item(), rel=0.03)


@pytest.mark.parametrize("hash_rows", [0, 41])
def test_a_table_that_is_empty_or_larger_than_the_features_is_refused(hash_rows):
    with pytest.raises(ValueError, match=rf"hash_rows must lie in 1 \.\. 40, the number of "
                                         rf"features; got {hash_rows}"):
        make(hash_rows=hash_rows)
