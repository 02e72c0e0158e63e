"""Product quantisation whose centroids follow the rows."""

import numpy as np
import pytest
import torch
from training import Training, assert_close, assert_same

from models.embedding.product import Codebook, Product
from models.packed_table import HEADER

ROWS, PARTS, SIZE, EACH = 40, 2, 6, 3


def made(seed=1, bits=8, rows=ROWS, allowed=None):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(rows, PARTS * EACH, generator=generator)
    centroids = torch.stack([table[:SIZE, :EACH], table[:SIZE, EACH:]])
    counts = np.arange(rows) % 5.0  # every fifth row was never seen
    return Product(table, counts, Codebook(centroids, bits, allowed), 2, HEADER.size)


def test_each_part_is_the_nearest_centroid_and_rows_never_seen_are_zero():
    product = made()
    coded, table = product.coded(), product.table()
    for row in range(ROWS):
        for part in range(PARTS):
            own = slice(part * EACH, (part + 1) * EACH)
            distances = (coded[part] - product.weight[row, own]).square().sum(dim=1)
            expected = coded[part, distances.argmin()] * (row % 5 > 0)
            assert torch.equal(table[row, own], expected)


def test_the_gradient_goes_straight_through_to_seen_rows():
    product = made()
    product(torch.tensor([[0, 1], [1, 2]], dtype=torch.int32)).sum().backward()
    assert not product.weight.grad[0].any()
    assert product.weight.grad[1].tolist() == [2.0] * 6
    assert product.weight.grad[2].tolist() == [1.0] * 6


def test_renewing_lowers_the_error_of_seen_rows_and_is_a_round_of_k_means():
    product = made()

    def error():  # a row weighs as often as it is seen
        squares = (product.table() - product.weight).detach().square()
        return float((squares * product.importance).sum())

    errors = [error()]
    for _ in range(8):
        product.renew()
        errors.append(error())
    assert errors[-1] < 0.8 * errors[0]
    assert errors[-1] <= min(errors) * 1.02


def test_bytes_are_codes_of_seen_rows_centroids_and_steps():
    product = made(bits=4)
    steps = len(product.quantiser.steps())
    assert product.inference_bytes() == (HEADER.size + 32 * PARTS * 3 // 8 + steps
                                         + PARTS * SIZE * EACH // 2)
    assert product.num_params() == PARTS * SIZE * EACH


def test_rare_rows_use_the_first_centroids_and_their_codes_are_shorter():
    allowed = torch.where(torch.arange(ROWS) < 10, SIZE, 2)
    whole, product = made(), made(allowed=allowed)
    first = product.coded()[:, :2]
    for row in (11, 23, 39):  # seen, and rare
        own = product.table()[row].view(PARTS, 1, EACH)
        assert (own == first).all(dim=-1).any(dim=-1).all()
    assert torch.equal(product.table()[:10], whole.table()[:10])
    coded, sums = product.coded(), torch.zeros(SIZE, EACH)
    total = torch.zeros(SIZE)
    for row in range(ROWS):  # of the first part, each row to the nearest centroid that it may use
        values, limit = product.weight[row, :EACH].detach(), int(allowed[row])
        code = (coded[0, :limit] - values).square().sum(dim=1).argmin()
        sums[code] += values * (row % 5)
        total[code] += row % 5
    product.renew()
    kept = total > 0
    torch.testing.assert_close(product.centroids[0][kept], (sums / total[:, None])[kept])
    # 24 of the 30 rare rows are seen; their two codes have 1 bit in place of 3
    assert whole.inference_bytes() - product.inference_bytes() == 24 * 2 * 2 // 8
    assert product.state_dict().keys() == whole.state_dict().keys()


@pytest.mark.parametrize("model", ["fm", "deepfm"])
def test_row_by_row_steps_are_those_of_the_definition(model):
    def build(sizes, width):
        table = torch.randn(sum(sizes), width, generator=torch.Generator().manual_seed(3))
        return Product(table, np.arange(sum(sizes)) % 3.0,
                       Codebook(table[:4].clone()[None], 8), len(sizes), 0)

    dense, streamed, lazy = (Training(form, embedding=build, model=model).run(5).state()
                             for form in ("dense", "streamed", "lazy"))
    assert_close(dense, streamed)
    assert_same(streamed, lazy)
