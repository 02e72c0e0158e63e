"""The quantiser and the embeddings that have one."""

import numpy as np
import pytest
import torch
from training import Training, assert_close, assert_same

from models.embedding.mde import mde
from models.embedding.quantised import (
    SMALL,
    Quantised,
    QuantisedParts,
    Quantiser,
    step_groups,
)
from models.embedding.quotient_remainder import Qr
from models.kernels.quantise import codes_of, fitted, quantise, quantise_plain, rounded

SIZES, WIDTH = (70, 3, 9), 6


def made(seed=1, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(sum(SIZES), WIDTH, generator=generator)


def some_bits(seed=0):
    return np.random.default_rng(seed).integers(0, 9, (sum(SIZES), WIDTH))


def of(values, bits):
    return Quantised(values, bits, step_groups(bits, SIZES), len(SIZES), 1234)


def test_the_loop_has_the_bits_of_the_definition_and_its_gradient_goes_straight_through():
    quantiser = of(made(), some_bits()).quantiser
    values = made(2).requires_grad_()
    out = quantise(values, quantiser.step, quantiser.bound)
    assert torch.equal(out, quantise_plain(values.detach(), quantiser.step, quantiser.bound))
    out.backward(torch.full_like(out, 3.0))
    assert torch.equal(values.grad, torch.full_like(values, 3.0))


@pytest.mark.parametrize("bits", range(1, 9))
def test_an_entry_has_as_many_levels_as_its_bits_allow_and_the_nearest_is_taken(bits):
    values = torch.linspace(-3, 3, 2001)[:, None]
    every = np.full(values.shape, bits)
    quantiser = Quantiser(values, every, step_groups(every, (len(values),)))
    step, out = float(quantiser.step[0, 0]), quantiser(values)
    levels = (torch.arange(2 ** bits) - 2 ** (bits - 1) + 0.5) * step
    assert set(out.unique().tolist()) <= set(levels.tolist())
    assert 2 ** (bits - 1) * 0.8 < len(out.unique()) <= 2 ** bits
    nearest = (values - levels).abs().min(dim=1).values
    torch.testing.assert_close((values - out)[:, 0].abs(), nearest, atol=1e-5, rtol=0)


def test_codes_are_whole_numbers_from_0_that_give_the_levels_again():
    bits, embedding = some_bits(), of(made(), some_bits())
    step, bound = embedding.quantiser.step, embedding.quantiser.bound
    codes = codes_of(embedding.weight.detach(), step, bound)
    assert int(codes.min()) == 0
    assert (codes.numpy() >> bits == 0).all()
    again = torch.where(bound == 0, 0.0, (codes - bound + 0.5) * step)
    assert torch.equal(again, embedding.table())


def test_large_parts_have_a_step_for_each_column_and_small_ones_share_it():
    assert SIZES[0] >= SMALL > SIZES[1]
    bits = np.full((sum(SIZES), WIDTH), 4)
    bits[:, 0] = 0
    groups = step_groups(bits, SIZES)
    assert (groups[:, 0] == -1).all()
    for column in range(1, WIDTH):
        assert set(groups[:70, column]) == {column - 1}
    assert set(groups[70:73, 1:].ravel()) == {WIDTH - 1}
    assert set(groups[73:, 1:].ravel()) == {WIDTH}
    with pytest.raises(ValueError, match="sum to 11 rows"):
        step_groups(bits, (10, 1))


def test_a_renewal_minimises_the_squared_error_of_the_codes_and_is_one_byte():
    values = made()
    quantiser = of(values, np.full((sum(SIZES), WIDTH), 3)).quantiser
    steps, mine = quantiser.steps(), (quantiser.groups == 2).numpy()
    found = fitted(values, quantiser.groups, quantiser.bound, steps)
    assert np.array_equal(found, rounded(found))
    level = codes_of(values, quantiser.step, quantiser.bound).numpy()[mine] - 4 + 0.5
    best = (values.numpy()[mine] * level).sum() / (level ** 2).sum()
    assert abs(np.log2(found[2] / best)) <= 1 / 16 + 1e-6


def test_renewing_follows_the_values():
    embedding = of(made(), np.full((sum(SIZES), WIDTH), 4))
    before = embedding.quantiser.steps()
    with torch.no_grad():
        embedding.weight.mul_(2)
    for _ in range(60):
        embedding.renew()
    # not twice as large: steps that would move by less than half a notch stay
    assert (embedding.quantiser.steps() / before > 1.3).all()


def test_row_by_row_steps_are_those_of_the_definition():
    def build(sizes, width):
        generator = torch.Generator().manual_seed(3)
        values = 0.3 * torch.randn(sum(sizes), width, generator=generator)
        bits = np.random.default_rng(0).integers(0, 9, values.shape)
        return Quantised(values, bits, step_groups(bits, sizes), len(sizes), 9)

    dense, streamed, lazy = (Training(form, embedding=build).run(5).state()
                             for form in ("dense", "streamed", "lazy"))
    assert_close(dense, streamed)
    assert_same(streamed, lazy)


def test_no_bits_are_zero_and_a_wrong_number_of_them_is_refused():
    bits = np.zeros((sum(SIZES), WIDTH), int)
    embedding = of(made(), bits)
    assert not embedding.table().any()
    assert embedding.num_params() == 0
    assert embedding.inference_bytes() == 1234
    with pytest.raises(ValueError, match="0 to 8 bits, got 0 to 9"):
        of(made(), np.where(np.arange(WIDTH) == 1, 9, bits))
    with pytest.raises(ValueError, match="of one shape"):
        Quantiser(made(), bits[1:], bits[1:])


def parts(inner, bits):
    quantisers = {}
    for name, value in inner.named_parameters():
        each = np.full((len(value), value.shape[1]), bits)
        quantisers[name] = Quantiser(value.detach(), each, step_groups(each, (len(value),)))
    return QuantisedParts(inner, quantisers, 77)


def qr():
    return Qr(made(), SIZES, 3)


def mixed():
    generator = torch.Generator().manual_seed(4)
    return mde(torch.arange(sum(SIZES)), 3, 0.5, WIDTH,
               lambda rows, width: torch.randn(rows, width, generator=generator), len(SIZES))


@pytest.mark.parametrize("make", [qr, mixed])
def test_any_embedding_can_have_its_parameters_quantised(make):
    coarse, fine = parts(make(), 2), parts(make(), 8)
    whole = make().table()
    torch.testing.assert_close(fine.table(), whole, atol=0.15, rtol=0)
    assert (coarse.table() - whole).abs().max() > (fine.table() - whole).abs().max()
    ids = torch.tensor([[0, 70, 73], [69, 72, 81]], dtype=torch.int32)
    assert torch.equal(fine(ids), fine.table()[ids.long()])
    fine(ids).sum().backward()
    assert all(parameter.grad is not None for parameter in fine.inner.parameters())
    assert fine.inference_bytes() == 77
    assert fine.num_params() == sum(value.numel() for value in fine.inner.parameters())
    with torch.no_grad():
        for parameter in coarse.inner.parameters():
            parameter.mul_(4)
    stale = (coarse.table() - coarse.inner.table()).abs().mean()
    for _ in range(40):
        coarse.renew()
    assert (coarse.table() - coarse.inner.table()).abs().mean() < 0.9 * stale
