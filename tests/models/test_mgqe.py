"""Nearest allowed centroids, the straight-through gradient and the stored codes, restated in
numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import SIZES, Training, assert_close, assert_same, draw

from models.embedding.mgqe import Mgqe, mgqe, tiers
from models.kernels.nearest import nearest, nearest_plain

ROWS, WIDTH, PARTS, CENTROIDS = 30, 6, 3, 8


def make(rows=ROWS, parts=PARTS, centroids=CENTROIDS, width=WIDTH):
    return mgqe(torch.arange(rows).flip(0), parts, centroids, width, draw(), 2)


def codes_by_hand(weight, centroids, allowed):
    codes = np.empty((len(weight), len(centroids)), int)
    for row, limit in enumerate(allowed):
        for s, part in enumerate(np.split(weight[row], len(centroids))):
            distances = [((part - centroids[s, k]) ** 2).sum() for k in range(limit)]
            codes[row, s] = distances.index(min(distances))
    return codes


def numbers(embedding):
    return (embedding.weight.detach().numpy().copy(), embedding.centroids.detach().numpy().copy(),
            embedding.allowed[:, 0].int().numpy())


def test_the_nearest_allowed_centroid_wins():
    embedding = make()
    weight, centroids, allowed = numbers(embedding)
    assert allowed.tolist() == [8] * 3 + [2] * 27
    codes = codes_by_hand(weight, centroids, allowed)
    assert codes[:3].max() > 1
    assert (codes_by_hand(weight, centroids, [8] * ROWS) != codes).any()  # the limit matters
    ids = torch.tensor(np.random.default_rng(0).integers(0, ROWS, (50, 2)), dtype=torch.int32)
    assert embedding.codes_of(ids).tolist() == codes[ids].tolist()
    vectors = np.stack([centroids[s, codes[:, s]] for s in range(PARTS)], 1).reshape(ROWS, WIDTH)
    assert np.array_equal(embedding(ids).detach(), vectors[ids])
    assert np.array_equal(embedding.table(), vectors)


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 20),
       st.integers(0, 99))
def test_codes_are_those_of_the_plain_definition(rows, parts, width, centroids, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, parts * width, generator=generator)
    values = torch.randn(parts, centroids, width, generator=generator)
    allowed = torch.randint(1, centroids + 1, (rows, 1), generator=generator).float()
    ids = torch.randint(rows, (7, 2), generator=generator)
    codes = nearest(weight, ids, values, allowed)
    assert torch.equal(codes, nearest_plain(weight, ids, values, allowed))
    # whatever the batch holds
    assert torch.equal(codes[2:3], nearest(weight, ids[2:3], values, allowed))


def test_of_equally_near_centroids_the_first_is_taken():
    values = torch.tensor([[[5.0], [1.0], [-1.0], [1.0]]])
    for way in (nearest, nearest_plain):
        codes = way(torch.tensor([[0.0], [9.0]]), torch.tensor([[0, 1]]), values,
                    torch.tensor([[4.0], [1.0]]))
        assert codes.tolist() == [[[1], [0]]]


@pytest.mark.parametrize("wrong", [ROWS, -1])
def test_an_id_outside_the_table_has_no_code(wrong):
    embedding = make()
    with pytest.raises(IndexError, match=f"the id {wrong} is out of range: the table has 30 rows"):
        embedding.codes_of(torch.tensor([[0, wrong]]))


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_rows_get_the_gradient_of_their_vectors_and_centroids_are_pulled_to_rows(scale):
    embedding = make()
    weight, centroids, allowed = numbers(embedding)
    codes = codes_by_hand(weight, centroids, allowed)
    rng = np.random.default_rng(0)
    ids, upstream = rng.integers(0, ROWS - 1, (20, 2)), scale * rng.normal(0, 1, (20, 2, WIDTH))
    embedding(torch.tensor(ids)).backward(torch.tensor(upstream, dtype=torch.float32))
    straight, pull = np.zeros_like(weight), np.zeros_like(centroids)
    for i, fields in enumerate(ids):
        for f, row in enumerate(fields):
            straight[row] += upstream[i, f]
            for s, part in enumerate(np.split(weight[row], PARTS)):
                pull[s, codes[row, s]] += 2 * (centroids[s, codes[row, s]] - part) / len(ids)
    np.testing.assert_allclose(embedding.weight.grad, straight, atol=1e-5)
    np.testing.assert_allclose(embedding.centroids.grad, pull, atol=1e-6)
    assert not embedding.weight.grad[ROWS - 1].any()
    assert pull.any()


@pytest.mark.parametrize(("counts", "centroids", "expected"), [
    ([1] * 10, 8, [8] + [2] * 9),
    ([1] * 9 + [2, 2], 8, [2] * 9 + [8, 8]),  # 11 features: 2 in the head
    ([4, 4, 5, *[0] * 17], 256, [256, 64, 256, *[64] * 17]),
    ([3, 1], 3, [3, 1])])
def test_tiers(counts, centroids, expected):
    assert tiers(torch.tensor(counts), centroids).tolist() == expected


@pytest.mark.parametrize(("rows", "centroids", "row_bytes"), [
    # two codes of 8, 9, 3, 3, 1 bits
    (300, 256, 2), (300, 257, 3), (30, 8, 1), (30, 5, 1), (30, 1, 1)])
def test_stored_codes_take_the_bytes_that_are_counted(rows, centroids, row_bytes):
    embedding = make(rows, 2, centroids).eval()
    packed = embedding.packed_codes()
    assert (packed.dtype, packed.shape) == (torch.uint8, (rows, row_bytes))
    bits = np.unpackbits(packed.numpy(), axis=1, bitorder="little")
    one = max(centroids - 1, 1).bit_length()
    own = bits[:, :2 * one].reshape(rows, 2, one) @ (1 << np.arange(one))
    assert own.tolist() == embedding.codes_of(torch.arange(rows)[:, None])[:, 0].tolist()
    stored = packed.nbytes + embedding.centroids.nbytes
    assert embedding.inference_bytes() == stored
    assert embedding.num_params() == centroids * WIDTH


def trained(update="auto", **values):
    values = {"embedding": lambda sizes, width: mgqe(torch.arange(sum(sizes)), 2, 16, width, draw(),
                                                     len(sizes)), "latent_dim": 4, **values}
    return Training(update, **values).run(60)


def test_by_row_it_has_the_same_bits_late_or_not_and_the_whole_tables_values():
    whole, dense, late = trained("dense"), trained("streamed"), trained("lazy")
    assert set(late.rows.tables) == {"embedding.weight", "linear.layer.fc.weight"}
    assert_same(dense.state(), late.state())
    assert_close(dense.state(), whole.state())
    everything = torch.arange(sum(SIZES))[:, None]
    assert torch.equal(late.embedding.codes_of(everything), whole.embedding.codes_of(everything))


def test_what_does_not_fit_is_refused():
    initial, allowed = torch.ones(4, 6), torch.tensor([1, 2, 3, 3])
    with pytest.raises(ValueError, match="mgqe_subspaces must divide latent_dim 6, got 4"):
        Mgqe(initial, allowed, torch.ones(3, 6), 4, 1)
    with pytest.raises(ValueError,
                       match=r"each of 4 rows may use 1 \.\. 2 centroids; got .* from 1 to 3"):
        Mgqe(initial, allowed, torch.ones(2, 6), 2, 1)
    with pytest.raises(ValueError, match=r"of shape \(3,\)"):
        Mgqe(initial, allowed[1:], torch.ones(3, 6), 2, 1)
    with pytest.raises(ValueError,
                       match=r"mgqe_centroids must lie in 1 \.\. 4, the number of features; got 5"):
        mgqe(torch.ones(4, dtype=torch.int64), 2, 5, 6, draw(), 1)
