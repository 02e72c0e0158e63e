"""S(V, s) and its sub-gradient, restated in numpy for every granularity and gate."""

import numpy as np
import pytest
import torch

from models.embedding.pep import THRESHOLD_TYPES, Pep, Thresholds
from models.kernels.threshold import GATES


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


GATE_AND_SLOPE = {"sigmoid": (sigmoid, lambda s: sigmoid(s) * (1 - sigmoid(s))),
                  "softplus": (lambda s: np.log1p(np.exp(s)), sigmoid)}
# rows of each field, and width; in the second D = F, in the third D = F and every field has one
# row, so N = D too
TABLES = [((4, 1, 6), 5), ((4, 1, 6), 3), ((1, 1, 1), 3)]


def spread(s, granularity, sizes, width):
    """s as an (N, D) array, one row and one column at a time."""
    whole = np.empty((sum(sizes), width))
    row = 0
    for position, size in enumerate(sizes):
        for _ in range(size):
            for d in range(width):
                whole[row, d] = {"global": lambda r, f, c: s[0], "dimension": lambda r, f, c: s[c],
                                 "feature": lambda r, f, c: s[r, 0], "field": lambda r, f,
                                 c: s[f, 0],
                                 "feature_dim": lambda r, f, c: s[r, c],
                                 "field_dim": lambda r, f, c: s[f, c]}[granularity](row, position,
                                                                                    d)
            row += 1
    return whole


def gathered(whole, granularity, sizes):
    """The transpose of `spread`: sums of an (N, D) array over the entries that share a
    threshold."""
    bounds = np.cumsum(sizes)[:-1]
    by_field = np.stack([part.sum(0) for part in np.split(whole, bounds)])
    return {"global": whole.sum().reshape(1), "dimension": whole.sum(0),
            "feature": whole.sum(1, keepdims=True),
            "field": by_field.sum(1, keepdims=True), "feature_dim": whole,
            "field_dim": by_field}[granularity]


def make(granularity, gate, sizes, width, scale, seed=0):
    rng = np.random.default_rng(seed)
    embedding = Pep(torch.tensor(rng.normal(0, 0.3, (sum(sizes), width)), dtype=torch.float32),
                    sizes, Thresholds(granularity, -1.0, gate, scale))
    with torch.no_grad():
        embedding.thresholds += torch.tensor(rng.normal(0, 1, embedding.thresholds.shape))
    return embedding


@pytest.mark.parametrize("path", ["forward", "table_first", "gather_first"])
@pytest.mark.parametrize(("sizes", "width"), TABLES)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("granularity", THRESHOLD_TYPES)
def test_values_and_sub_gradients(granularity, gate, sizes, width, path):
    scale = 0.6
    embedding = make(granularity, gate, sizes, width, scale)
    values = embedding.weight.detach().double().numpy()
    s = embedding.thresholds.detach().double().numpy()
    g, slope = (function(s) for function in GATE_AND_SLOPE[gate])
    g = spread(scale * g, granularity, sizes, width)
    kept = np.abs(values) > g
    pruned = np.where(kept, values - np.sign(values) * g, 0)
    assert kept.any()
    assert not kept.all()

    rng = np.random.default_rng(1)
    starts = np.cumsum((0, *sizes[:-1]))
    ids = np.stack([start + rng.integers(0, size, 7) for start,
                    size in zip(starts, sizes, strict=True)], axis=1)
    upstream = rng.normal(0, 1, (*ids.shape, width))
    vectors = (getattr(embedding, path)(torch.tensor(ids)) if path != "forward"
               else embedding(torch.tensor(ids)))
    np.testing.assert_allclose(vectors.detach(), pruned[ids], atol=1e-6)

    (vectors * torch.tensor(upstream, dtype=torch.float32)).sum().backward()
    whole = np.zeros_like(values)  # gradient of the pruned table
    for row, gradient in zip(ids.reshape(-1), upstream.reshape(-1, width), strict=True):
        whole[row] += gradient
    np.testing.assert_allclose(embedding.weight.grad, np.where(kept, whole, 0), atol=1e-5)
    np.testing.assert_allclose(
        embedding.thresholds.grad,
        scale * slope * gathered(np.where(kept, -np.sign(values) * whole, 0), granularity, sizes),
        atol=1e-5)
    np.testing.assert_allclose(embedding.table(), pruned, atol=1e-6)
    np.testing.assert_allclose(embedding.margins_of(embedding.weight.detach(),
                                                    embedding.thresholds.detach()),
                               np.abs(values) - g, atol=1e-6)


@pytest.mark.parametrize("granularity", THRESHOLD_TYPES)
@pytest.mark.parametrize("rows", [1, 20])  # gathers first, thresholds the table first
def test_an_entry_exactly_at_its_threshold_is_zero_and_gets_no_gradient(granularity, rows):
    entries = torch.tensor([[0.5, -0.5], [0.75, -0.75], [0.25, 0.0]])  # g(0) = 0.5
    embedding = Pep(entries, (1, 1, 1), Thresholds(granularity, 0.0))
    vectors = embedding(torch.tensor([[0, 1, 2]] * rows))
    vectors.sum().backward()
    assert vectors[0].tolist() == [[0.0, 0.0], [0.25, -0.25], [0.0, 0.0]]
    assert embedding.weight.grad.tolist() == [[0.0, 0.0], [rows, rows], [0.0, 0.0]]
    assert embedding.num_params() == 2
    by_entry = {"feature_dim", "field_dim"}
    if granularity in by_entry:
        assert embedding.thresholds.grad.tolist() == [[0.0, 0.0], [-rows / 4, rows / 4], [0.0, 0.0]]


def test_an_entry_at_zero_is_cut_even_by_a_threshold_that_is_zero():
    embedding = Pep(torch.tensor([[0.0, 1e-30]]), (1,), Thresholds(init=-150.0))
    embedding(torch.tensor([[0]])).sum().backward()
    assert embedding.weight.grad.tolist() == [[0.0, 1.0]]
    assert embedding.num_params() == 1
