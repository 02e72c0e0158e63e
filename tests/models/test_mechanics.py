"""What makes PEP prune at all: see "mechanics" in the README."""

import math

import pytest
import torch

from engine.optim.step import Step, build_optimizer
from models.build import build_embedding, build_model
from models.embedding.pep import THRESHOLD_TYPES

SIZES, WIDTH = (6, 3, 8), 4
LARGEST, SMALLEST = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny


def fm(threshold_init, threshold_type="feature_dim", embedding="pep"):
    values = {"model": "fm", "embedding": embedding, "latent_dim": WIDTH,
              "threshold_type": threshold_type,
              "threshold_init": threshold_init, "g_type": "sigmoid", "gk": 1.0}
    return build_model(SIZES, values, 1, build_embedding(SIZES, values, 1)).train()


def train(model, optimizer, steps, untouched=0):
    """Steps on random batches that never hold the last `untouched` rows of a field."""
    generator = torch.Generator().manual_seed(0)
    step = Step(model, optimizer, 100.0)
    starts = torch.tensor([0, 6, 9])
    for _ in range(steps):
        columns = [torch.randint(size - untouched, (32,), generator=generator) for size in SIZES]
        labels = torch.randint(2, (32,), generator=generator).float()
        step((torch.stack(columns, 1) + starts).int(), labels)


def test_coupled_decay_raises_thresholds_from_where_their_gradient_is_zero():
    model = fm(-150.0)
    train(model, build_optimizer(model, 1e-3, 1e-5, 1e-5), 1000)
    thresholds = model.embedding.thresholds.detach()
    assert thresholds.min() == pytest.approx(-149.005, abs=0.002)
    assert thresholds.max() == pytest.approx(-149.005, abs=0.002)
    assert model.embedding.num_params() == 17 * WIDTH


def test_without_decay_they_never_move():
    model = fm(-150.0)
    train(model, build_optimizer(model, 1e-3, 0.0, 1e-5), 300)
    assert torch.equal(model.embedding.thresholds, torch.full((17, WIDTH), -150.0))


@pytest.mark.parametrize("threshold_type", THRESHOLD_TYPES)
def test_at_the_start_on_movielens_decay_rules_and_thresholds_rise_by_about_lr_a_step(
        threshold_type):
    model = fm(-15.0, threshold_type)
    train(model, build_optimizer(model, 1e-3, 1e-5, 1e-5), 300)
    thresholds = model.embedding.thresholds.detach()
    assert thresholds.min() == pytest.approx(-14.7, abs=0.01)
    assert thresholds.max() == pytest.approx(-14.7, abs=0.01)


@pytest.mark.parametrize("embedding", ["uniform", "pep"])
def test_a_row_that_no_batch_touches_decays(embedding):
    model = fm(-150.0, embedding=embedding)
    with torch.no_grad():
        model.embedding.weight[5] = torch.tensor([0.05, -0.05, 0.05, -0.05])
    train(model, build_optimizer(model, 1e-3, 1e-5, 1e-5), 100, untouched=1)
    assert model.embedding.weight[5].abs().tolist() == pytest.approx([0.00026] * 4, abs=0.00003)
    assert model.embedding.weight[:5].abs().min() > 0.001


@pytest.fixture(params=[True, False], ids=["flushing", "with denormals"])
def flushing(request):
    torch.set_flush_denormal(request.param)
    yield request.param
    torch.set_flush_denormal(True)  # as in the scripts, and in the rest of the suite


@pytest.mark.parametrize("entries", [1, 64])  # one at a time, and vectorised
def test_in_float32_gate_and_slope_are_exactly_zero_far_below(flushing, entries):
    """exp(-s) overflows below -88.72; the scripts flush denormals, which moves the border up to
    -87.34."""
    border = math.log(SMALLEST) if flushing else -math.log(LARGEST)
    assert border == pytest.approx(-87.34 if flushing else -88.72, abs=0.005)
    for at, zero in ((border - 0.01, True), (-150.0, True), (border + 0.01, False), (-15.0, False)):
        s = torch.full((entries,), at, requires_grad=True)
        g = torch.sigmoid(s)
        g.sum().backward()
        assert ((g == 0).all().item(), (s.grad == 0).all().item()) == (zero, zero), at


def test_at_minus_150_the_data_have_no_say_in_the_thresholds():
    model = fm(-150.0)
    model(torch.tensor([[0, 6, 9], [1, 7, 10]])).sum().backward()
    assert not model.embedding.thresholds.grad.any()
    assert model.embedding.weight.grad.any()
