"""A.1 of the paper asks of a gate: positive, -> 0 at -inf, -> inf at inf, bounded positive slope,
below 1 at s_init."""

import pytest
import torch

from engine.settings import parse
from models.embedding.pep import Thresholds
from models.kernels.threshold import GATES

LINE = torch.linspace(-600, 600, 4001, dtype=torch.float64)
PUBLISHED_STARTS = (-15.0, -150.0)  # of s, on MovieLens and on the two large sets


def slope(gate, at):
    at = at.clone().requires_grad_()
    GATES[gate](at).sum().backward()
    return at.grad


@pytest.mark.parametrize("gate", GATES)
def test_positive_and_rising_from_zero(gate):
    values = GATES[gate](LINE)
    assert (values > 0).all()
    assert (values.diff() >= 0).all()
    assert (values[LINE < 20].diff() > 0).all()
    assert values[0] < 1e-250


@pytest.mark.parametrize("gate", GATES)
def test_slope_is_positive_and_bounded_by_one(gate):
    assert ((slope(gate, LINE) >= 0) & (slope(gate, LINE) <= 1)).all()
    assert (slope(gate, LINE[LINE < 30]) > 0).all()


@pytest.mark.parametrize("start", PUBLISHED_STARTS)
@pytest.mark.parametrize("gate", GATES)
def test_slope_is_below_one_where_s_starts(gate, start):
    assert 0 < slope(gate, torch.tensor([start], dtype=torch.float64)) < 1e-6


def test_softplus_goes_to_infinity():
    at = torch.tensor([1e3, 1e6])
    assert torch.equal(GATES["softplus"](at), at)


def test_sigmoid_is_the_exception_and_stops_at_one():
    assert GATES["sigmoid"](torch.tensor([1e3, 1e6])).tolist() == [1.0, 1.0]


def test_an_unknown_gate_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown g_type 'sigmoyd'; known: sigmoid, softplus"):
        Thresholds(gate="sigmoyd")
    with pytest.raises(ValueError,
                       match=r"unknown g_type 'sigmoyd'.*'sigmoid'.*Known: sigmoid, softplus"):
        parse({"g_type": "sigmoyd"})


def test_an_unknown_granularity_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown threshold_type 'row'; known: global, dimension, "
                                         r"feature, field"):
        Thresholds(type="row")


def test_an_unknown_decay_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError,
                       match="unknown threshold_decay 'l1'; known: coupled, decoupled, none"):
        Thresholds(decay="l1")
