"""The share of a table under the thresholds at the start, and the start that fits."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import halfnorm

from models.kernels.threshold import GATES
from models.start import fitting_start, share_below


def normal(std, rows=2000, width=16):
    return std * torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("std", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize("init", [-15.0, -6.0, -1.0])
def test_the_share_of_a_normal_table(std, init):
    expected = halfnorm.cdf(expit(init) * 2.0, scale=std)
    assert share_below(normal(std), "sigmoid", 2.0, init) == pytest.approx(expected, abs=0.01)


def test_zeros_do_not_count_and_what_lies_on_the_threshold_is_pruned():
    table = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.0, -3.0]])
    assert share_below(table, "sigmoid", 1.0, 0.0) == pytest.approx(2 / 3)
    assert share_below(torch.zeros(3, 2), "sigmoid", 1.0, 0.0) == 0.0
    padded = torch.cat([normal(0.01), torch.zeros(2000, 16)])
    assert fitting_start(padded, "sigmoid", 1.0) == fitting_start(normal(0.01), "sigmoid", 1.0)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("std", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3])
def test_the_start_fits_and_a_tenth_more_would_not(gate, scale, std, share):
    start = fitting_start(normal(std), gate, scale, share)
    assert share_below(normal(std), gate, scale, start) <= share
    assert start == round(start, 1) <= 0
    assert start == 0 or share_below(normal(std), gate, scale, start + 0.1) > share


@pytest.mark.parametrize("value", [0.5, 40.0, 1e-30])
def test_tables_of_one_value(value):
    table = torch.full((3, 2), value)
    start = fitting_start(table, "sigmoid", 1.0)
    assert share_below(table, "sigmoid", 1.0, start) == 0
    assert -70 < start <= 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_judged_in_the_precision_of_the_table(dtype):
    table = normal(0.01).to(dtype)
    assert share_below(table, "sigmoid", 1.0, fitting_start(table, "sigmoid", 1.0)) <= 0.01


def test_what_is_refused():
    with pytest.raises(ValueError, match="unknown gate 'relu'; known: sigmoid, softplus"):
        share_below(normal(1.0), "relu", 1.0, -6.0)
    with pytest.raises(ValueError, match="unknown gate 'relu'"):
        fitting_start(normal(1.0), "relu", 1.0)
    with pytest.raises(ValueError, match="all zero, so no start fits"):
        fitting_start(torch.zeros(3, 2), "sigmoid", 1.0)
    for share in (-0.1, 1.0, math.nan, np.inf):
        with pytest.raises(ValueError, match="share must be at least 0 and below 1"):
            fitting_start(normal(1.0), "sigmoid", 1.0, share)
