"""Moments, spectra and ranks against numpy and closed forms."""

import numpy as np
import pytest
import torch

from compression.afm.low_rank import (
    decompose,
    error,
    random_factor,
    rank_for_energy,
    ranks_for_ratio,
    svd_factor,
)
from compression.afm.statistics import Moments, table_moments

RNG = np.random.default_rng(5)


def vectors(rows=400, width=12, rank=None, noise=0.0, seed=1):
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(rows, rank or width)) @ rng.normal(
        size=(rank or width, width)
    ) + rng.normal(size=width)
    return torch.from_numpy(made + noise * rng.normal(size=made.shape))


def counted(values, batch=50):
    moments = Moments(values.shape[1])
    for part in values.split(batch):
        moments.add(part)
    return moments


def mse(factor, values):
    return float((factor.decode(factor.encode(values)) - values).square().sum(1).mean())


@pytest.mark.parametrize("batch", [1, 7, 400])
def test_streaming_moments_are_numpys_in_any_batches_and_order(batch):
    values = vectors()
    shuffled = values[torch.from_numpy(RNG.permutation(len(values)))]
    for given in (values, shuffled):
        moments = counted(given, batch)
        np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-10)
        np.testing.assert_allclose(moments.covariance(), np.cov(values.numpy().T, bias=True),
                                   rtol=1e-10, atol=1e-12)


def test_halves_that_are_merged_are_the_whole():
    values = vectors()
    whole, halves = counted(values), counted(values[:150]).merge(counted(values[150:]))
    torch.testing.assert_close(halves.covariance(), whole.covariance(), rtol=1e-12, atol=1e-12)
    assert halves.count == whole.count == 400


def test_a_large_mean_does_not_cancel_the_variance():
    exact = np.random.default_rng(2).normal(0, 1e-2, (20_000, 3))
    moments = counted(torch.from_numpy(exact + 1e4), 1000)
    np.testing.assert_allclose(moments.covariance().diagonal(), exact.var(0), rtol=1e-6)


def test_the_frequency_shortcut_is_the_streaming_result():
    rng = np.random.default_rng(3)
    table = torch.from_numpy(rng.normal(size=(30, 5)).astype(np.float32))
    sizes = (10, 1, 19)
    ids = torch.from_numpy(np.stack([rng.integers(10, size=500), np.full(500, 10),
                                     11 + rng.integers(19, size=500)], 1))
    found = table_moments(table, torch.bincount(ids.flatten(), minlength=30), sizes)
    for field, moments in enumerate(found):
        streamed = counted(table[ids[:, field]], 64)
        torch.testing.assert_close(moments.mean, streamed.mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(moments.covariance(), streamed.covariance(), rtol=1e-10,
                                   atol=1e-12)
        assert moments.count == 500
    assert float(found[1].covariance().abs().max()) == 0  # a field of one id


def test_smoothing_gives_ids_that_do_not_occur_a_say():
    table, counts = torch.tensor([[0.0], [1.0]]), torch.tensor([3, 0])
    assert table_moments(table, counts, (2,))[0].mean == 0
    assert table_moments(table, counts, (2,), smoothing=1.0)[0].mean == pytest.approx(0.2)


@pytest.mark.parametrize("rank", range(13))
def test_the_error_is_the_sum_of_the_discarded_eigenvalues(rank):
    values = vectors()
    spectrum = decompose(counted(values))
    assert mse(spectrum.first(rank), values) == pytest.approx(spectrum.lost(rank), rel=1e-6,
                                                              abs=1e-20)
    assert error(spectrum.first(rank), counted(values)) == pytest.approx(spectrum.lost(rank),
                                                                         rel=1e-6, abs=1e-10)


def test_the_error_of_any_factor_from_the_moments_is_that_on_the_data():
    values = vectors()
    for factor in (svd_factor(values, 4),
                   random_factor(values.mean(0) + 1, 4, torch.Generator().manual_seed(1))):
        assert error(factor, counted(values)) == pytest.approx(mse(factor, values), rel=1e-9)


def test_afm_loses_no_more_than_svd_than_a_random_basis_and_never_more_with_more_rank():
    rng = np.random.default_rng(7)
    table = torch.from_numpy(rng.normal(size=(60, 10)) * np.geomspace(3, 0.1, 10)
                             @ rng.normal(size=(10, 10)) + 0.3)
    # few ids are common, many rare
    counts = torch.from_numpy((1000 / np.arange(1, 61) ** 1.2).astype(np.int64))
    [moments] = table_moments(table, counts, (60,))
    spectrum, generator = decompose(moments), torch.Generator().manual_seed(1)
    lost = []
    for rank in range(1, 11):
        drawn = [error(random_factor(moments.mean, rank, generator), moments) for _ in range(20)]
        lost.append((spectrum.lost(rank), error(svd_factor(table, rank), moments),
                     float(np.mean(drawn))))
        assert lost[-1][0] <= lost[-1][1] + 1e-12
        assert lost[-1][1] <= lost[-1][2] + 1e-12
    assert all(np.diff([afm for afm, _, _ in lost]) <= 1e-12)
    assert lost[3][0] < 0.95 * lost[3][1] < 0.9 * lost[3][2]  # and not by being the same


def test_no_random_affine_map_of_the_rank_is_better():
    values = vectors(rows=100, width=6)
    best, rng = decompose(counted(values)).lost(2), np.random.default_rng(0)
    data = values.numpy()
    for _ in range(1000):
        down = rng.normal(size=(6, 2))
        codes = np.c_[data @ down, np.ones(len(data))]
        up, *_ = np.linalg.lstsq(codes, data, rcond=None)  # the best way back for this way down
        assert ((codes @ up - data) ** 2).sum(1).mean() >= best


def test_the_energy_rule_finds_a_planted_rank_and_what_is_lost_there_is_the_noise():
    values = vectors(rows=4000, width=16, rank=5, noise=1e-3)
    spectrum = decompose(counted(values))
    assert rank_for_energy(spectrum.values, 0.99999) == 5
    assert spectrum.lost(5) == pytest.approx(11e-6, rel=0.1)  # 16 - 5 directions of noise


def test_more_rank_than_a_deficient_covariance_has_is_still_exact():
    values = vectors(width=12, rank=4)
    values[:, 3] = 0.0  # a dead unit
    spectrum = decompose(counted(values))
    for rank in (4, 7, 12):
        factor = spectrum.first(rank)
        torch.testing.assert_close(factor.decode(factor.encode(values)), values, rtol=1e-9,
                                   atol=1e-9)
        torch.testing.assert_close(factor.basis @ factor.basis.T,
                                   torch.eye(rank, dtype=torch.float64))
    assert float(spectrum.values.min()) >= 0


def test_the_same_data_in_other_batches_give_the_same_signs():
    values = vectors()
    one, other = decompose(counted(values, 3)), decompose(counted(values.flip(0), 100))
    torch.testing.assert_close(one.vectors, other.vectors, rtol=1e-6, atol=1e-7)


def brute_force(values, sizes, ratio):
    """Drop the direction with the least eigenvalue per saved parameter, one after the other."""
    width, ranks = len(values[0]), [len(values[0])] * len(sizes)
    while sum(k * (v + width) + width for k,
              v in zip(ranks, sizes, strict=True)) > ratio * width * sum(sizes):
        costs = {f: values[f][ranks[f] - 1] / (sizes[f] + width) for f in range(len(sizes))
                 if ranks[f]}
        ranks[min(costs, key=costs.get)] -= 1
    return ranks


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5, 0.9])
def test_the_global_ratio_drops_what_is_cheapest_to_lose(ratio):
    rng, sizes = np.random.default_rng(4), (300, 50, 900, 7)
    values = [torch.from_numpy(np.sort(rng.gamma(0.5, 2.0, 8))[::-1].copy()) for _ in sizes]
    ranks = ranks_for_ratio(values, sizes, ratio)
    assert ranks == brute_force([value.tolist() for value in values], sizes, ratio)
    size = sum(k * (v + 8) + 8 for k, v in zip(ranks, sizes, strict=True))
    assert 0.5 * ratio < size / (8 * sum(sizes)) <= ratio


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 7.0, float("nan")])
def test_shares_outside_0_and_1_are_refused(share):
    with pytest.raises(ValueError, match=r"energy must lie between 0 and 1"):
        rank_for_energy(torch.ones(3), share)
    with pytest.raises(ValueError, match=r"ratio must lie between 0 and 1"):
        ranks_for_ratio([torch.ones(3)], (4,), share)


def test_other_bad_input_is_refused():
    few = decompose(counted(vectors(rows=4)))
    assert few.first(3).rank == 3
    with pytest.raises(ValueError, match="rank 4 cannot be estimated from 4 samples"):
        few.first(4)
    with pytest.raises(ValueError, match=r"between 0 and the width 12, got 13"):
        few.first(13)
    with pytest.raises(ValueError, match="no calibration data"):
        decompose(Moments(3))
    with pytest.raises(ValueError, match="no calibration data"):
        table_moments(torch.ones(2, 1), torch.zeros(2), (2,))
    with pytest.raises(ValueError, match="not finite"):
        Moments(1).add(torch.tensor([[torch.nan]]))
    with pytest.raises(ValueError, match=r"shape \(B, 2\)"):
        Moments(2).add(torch.ones(3, 1))
    with pytest.raises(ValueError, match="must not be negative"):
        Moments(1).add(torch.ones(1, 1), torch.tensor([-1.0]))
    with pytest.raises(ValueError, match="fewer than the 40 of the fields' means"):
        ranks_for_ratio([torch.ones(20)] * 2, (10, 10), 0.01)
    with pytest.raises(ValueError, match="one count for each row"):
        table_moments(torch.ones(2, 1), torch.ones(3), (2,))
