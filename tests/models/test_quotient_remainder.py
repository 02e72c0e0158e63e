"""Quotient-remainder: products and gradients by hand."""

import collections

import numpy as np
import pytest
import torch

from models.embedding.base import initial_table
from models.embedding.quotient_remainder import Qr

SIZES, WIDTH = (10, 2, 5, 16), 3
# by 4 features a remainder row: 3 + 4 rows, plain (1 + 2 are no fewer than 2), plain (2 + 3), 4 + 4
# first row and number in both
FORMS = [(0, 3, 0, 4), (3, 2, None, 0), (5, 5, None, 0), (10, 4, 4, 4)]


def make(sizes=SIZES, collisions=4):
    return Qr(initial_table(sum(sizes), WIDTH, torch.Generator().manual_seed(1)), sizes, collisions)


def rows_by_hand():
    """(row of the remainders, row of the quotients or None) of each feature."""
    rows = []
    for size, (first, number, behind, _) in zip(SIZES, FORMS, strict=True):
        rows += [(first + i % number, None if behind is None else behind + i // number)
                 for i in range(size)]
    return rows


def test_values_gradients_and_bytes_by_hand():
    embedding, rows = make(), rows_by_hand()
    remainders, quotients = (embedding.remainders.detach().numpy(),
                             embedding.quotients.detach().numpy())
    assert (remainders.shape, quotients.shape) == ((14, WIDTH), (8, WIDTH))
    table = np.stack([remainders[r] * (1 if q is None else quotients[q]) for r, q in rows])
    starts, rng = np.cumsum((0, *SIZES[:-1])), np.random.default_rng(0)
    ids = np.stack([start + rng.integers(0, size, 30) for start,
                    size in zip(starts, SIZES, strict=True)], 1)
    upstream = rng.normal(0, 1, (*ids.shape, WIDTH))
    vectors = embedding(torch.tensor(ids, dtype=torch.int32))
    np.testing.assert_allclose(vectors.detach(), table[ids], atol=1e-6)
    np.testing.assert_allclose(embedding.table(), table, atol=1e-6)
    vectors.backward(torch.tensor(upstream, dtype=torch.float32))
    on_remainders, on_quotients = np.zeros_like(remainders), np.zeros_like(quotients)
    for place in np.ndindex(*ids.shape):
        r, q = rows[ids[place]]
        on_remainders[r] += upstream[place] * (1 if q is None else quotients[q])
        if q is not None:
            on_quotients[q] += upstream[place] * remainders[r]
    np.testing.assert_allclose(embedding.remainders.grad, on_remainders, atol=1e-5)
    np.testing.assert_allclose(embedding.quotients.grad, on_quotients, atol=1e-5)
    assert embedding.num_params() == 22 * WIDTH
    assert embedding.inference_bytes() == 4 * 22 * WIDTH
    assert set(embedding.state_dict()) == {"remainders", "quotients"}


@pytest.mark.parametrize("collisions", [2, 3, 4, 7, 100])
def test_no_two_features_share_both_rows_and_no_more_than_c_one_remainder(collisions):
    embedding = make((278, 2, 7, 21, 999), collisions)
    places = [tuple(pair) for pair in embedding.places.tolist()]
    assert len(set(places)) == len(places)
    assert max(collections.Counter(first for first, _ in places).values()) <= collisions
    assert {first for first, _ in places} == set(range(len(embedding.remainders)))
    assert {second for _, second in places} - {0} == set(range(1, len(embedding.quotients) + 1))
    assert len(embedding.remainders) + len(embedding.quotients) < len(places)


def test_products_start_at_the_scale_of_the_usual_table_and_plain_fields_as_the_usual_table():
    initial = initial_table(20_003, 8, torch.Generator().manual_seed(1))
    table = Qr(initial, (20_000, 3), 100).table()
    assert table[:-3].std() == pytest.approx(initial.std().item(), rel=0.05)
    assert torch.equal(table[-3:], initial[-3:])


@pytest.mark.parametrize(("sizes", "collisions", "message"), [
    ((10, 5), 11, r"qr_collisions must lie in 2 \.\. 10, the size of the largest field; got 11"),
    ((10, 5), 1, "got 1"),
    ((10, 5), 10, "no field gets smaller with qr_collisions 10: the fields have 10, 5 features"),
    ((2, 3), 2, "no field gets smaller with qr_collisions 2")])
def test_collisions_that_do_not_fit_are_refused(sizes, collisions, message):
    with pytest.raises(ValueError, match=message):
        make(sizes, collisions)


def test_field_sizes_that_do_not_sum_to_the_rows_are_refused():
    with pytest.raises(ValueError, match=r"sum to 9, the table has 10"):
        Qr(torch.ones(10, 2), (4, 5), 2)
