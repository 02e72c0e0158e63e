"""UMEC's update against restatements in numpy: its equations one by one, and whole steps."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compression.umec.constraint import ResourceConstraint
from compression.umec.dynamics import Dynamics
from compression.umec.resources import Layout, Resource, layout_of
from compression.umec.units import energies_of
from models.dlrm import DLRM, Shape
from models.embedding.uniform import Uniform

FIELDS, WIDTH, TOP = 4, 2, (5, 3)
ROWS = (3,) * FIELDS


def tiny(seed=0):
    torch.manual_seed(seed)
    return DLRM(Uniform(torch.randn(sum(ROWS), WIDTH), FIELDS), 0, Shape((), TOP))


def state_of(model, lr=0.1):
    return SimpleNamespace(model=model, optimizer=SimpleNamespace(param_groups=[{"lr": lr}]),
                           step=1, epoch_done=False, refresh=lambda: None)


def constraint(model, budget=0.5, steps=100, **dynamics):
    return ResourceConstraint(Resource(layout_of(model, ROWS), "flops_top"), budget,
                              Dynamics(**{"faithful": True, **dynamics}), steps)


def weights_of(model):
    return [layer.weight.detach().double().numpy().copy() for layer in model.top]


# restatement


def groups(weight, layer):
    """Columns of each unit."""
    size = WIDTH if layer == 0 else 1
    return [slice(start, start + size) for start in range(0, weight.shape[1], size)]


def energies(weight, layer):
    return np.array([(weight[:, part] ** 2).sum() for part in groups(weight, layer)])


def resource(s):
    """R of s units fewer, from section 2 of the published code: per layer 2 in out + out."""
    def flops(removed):
        inputs = [FIELDS * WIDTH - WIDTH * removed[0], TOP[0] - removed[1], TOP[1] - removed[2]]
        outputs = [*inputs[1:], 1]
        return sum(2 * i * o + o for i, o in zip(inputs, outputs, strict=True))
    return flops(s) / flops([0, 0, 0])


def slope(s, layer):
    """dR/ds by a finite difference at whole units."""
    more = list(s)
    more[layer] += 1
    return resource(more) - resource(s)


class Numpy:
    """The published round of updates, worked by hand on float64 copies."""

    def __init__(self, weights, budget, slr=0.05, ylr=0.1, zlr=2.0, lr=0.1, punit=1):
        self.weights = weights
        self.s, self.y, self.z = np.zeros(3), np.zeros(3), 0.0
        self.limit = np.array([FIELDS, *TOP]) - punit - 1e-8  # of every layer, the fields' too
        self.multiple = np.array([1, punit, punit])
        self.budget, self.slr, self.ylr, self.zlr, self.lr = budget, slr, ylr, zlr, lr

    def removed(self):
        return (np.ceil(self.s / self.multiple) * self.multiple).astype(int)

    def round(self):
        T = self.removed()
        for layer, weight in enumerate(self.weights):
            least = np.argsort(energies(weight, layer), kind="stable")[:T[layer]]
            for unit in least:
                weight[:, groups(weight, layer)[unit]] /= 1 + 2 * self.lr * self.y[layer]
        g = np.zeros(3)
        for layer, weight in enumerate(self.weights):
            ordered = np.sort(energies(weight, layer))
            g[layer] = self.y[layer] * ordered[min(T[layer], len(ordered) - 1)]
        h = np.array([slope(T, layer) for layer in range(3)])
        q = g + self.z * h
        over = self.s >= self.limit
        q = np.where(over, np.maximum(q, 0), q)
        q = np.where(self.s <= 0, np.minimum(q, 0), q)
        if np.abs(q).max() > 1:
            q = q / np.abs(q).max()
        self.s = np.maximum(self.s - self.slr * q, 0)
        self.s[over] = self.limit[over]
        T = np.minimum(self.removed(), [FIELDS, *TOP])
        for layer, weight in enumerate(self.weights):
            self.y[layer] = max(0, self.y[layer] + self.ylr
                                * np.sort(energies(weight, layer))[:T[layer]].sum())
        self.z = max(0, self.z + self.zlr * (resource(T) - self.budget))


def follow(hook, model, by_hand, steps):
    """Take `steps` rounds of both on the same weights, check that they agree, and give each s."""
    noise, seen = torch.Generator().manual_seed(3), []
    for step in range(steps):
        for layer, weight in zip(model.top, by_hand.weights, strict=True):  # an optimiser's step
            move = 0.02 * torch.randn(layer.weight.shape, generator=noise)
            with torch.no_grad():
                layer.weight += move
            weight += move.double().numpy()
        state = state_of(model)
        state.step = step + 1
        hook(state)
        by_hand.round()
        np.testing.assert_allclose(hook.s.numpy(), by_hand.s, atol=2e-6)
        np.testing.assert_allclose(hook.y.numpy(), by_hand.y, rtol=1e-5, atol=1e-6)
        assert float(hook.z) == pytest.approx(by_hand.z, abs=1e-9)
        for found, expected in zip(weights_of(model), by_hand.weights, strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-6)
        seen.append(by_hand.s.copy())
    return np.array(seen)


def test_whole_steps_are_those_of_the_published_round():
    model = tiny()
    hook, by_hand = constraint(model), Numpy(weights_of(model), 0.5)
    seen = follow(hook, model, by_hand, 60)
    assert len(np.unique(np.ceil(seen), axis=0)) > 3  # several layers gave up several units


def test_the_published_bound_keeps_punit_units_of_every_layer_fields_too():
    model = tiny()
    rates = {"slr": 0.1, "ylr": 0.0, "zlr": 5.0, "punit": 2}  # without y nothing holds s back
    hook, by_hand = constraint(model, 0.28, **rates), Numpy(weights_of(model), 0.28, **rates)
    seen = follow(hook, model, by_hand, 60)
    assert seen[-1][0] == pytest.approx(FIELDS - 2, abs=1e-7)
    assert int(hook.kept(model)[0].sum()) == 2


@pytest.mark.parametrize(("removed", "y"), [(0, 5.0), (2, 0.0), (1, 3.0), (2, 3.0), (3, 0.4)])
def test_the_proximal_step_is_the_best_of_all_subsets(removed, y):
    model = tiny(removed)
    before, eta = weights_of(model)[0], 0.1
    hook = constraint(model)
    hook.s[0], hook.y[0] = removed - 0.5 if removed else 0.0, y
    hook(state_of(model, eta))
    best = None
    # argmin of |W - W0|^2 / (2 eta) + y N(W)
    for subset in itertools.combinations(range(FIELDS), removed):
        candidate = before.copy()
        for unit in subset:
            candidate[:, groups(before, 0)[unit]] /= 1 + 2 * eta * y
        least = np.sort(energies(candidate, 0))[:removed].sum()
        value = ((candidate - before) ** 2).sum() / (2 * eta) + y * least
        if best is None or value < best[0] - 1e-12:
            best = (value, candidate)
    np.testing.assert_allclose(weights_of(model)[0], best[1], atol=1e-6)
    if not removed or not y:
        np.testing.assert_array_equal(weights_of(model)[0], before)
    order = np.argsort(energies(before, 0), kind="stable")
    assert (np.argsort(energies(weights_of(model)[0], 0),
                       kind="stable") == order).all() or removed == 0


def test_energy_and_its_straight_through_slope_at_whole_steps():
    model = tiny()
    ordered = np.sort(energies(weights_of(model)[0], 0))
    np.testing.assert_allclose(
        np.sort(energies_of(model, constraint(model).resource)[0, :FIELDS].numpy()),
        ordered,
        rtol=1e-6,
    )
    for removed in range(FIELDS + 1):  # N(T + 1) - N(T), the largest energy at the top
        hook = constraint(model)
        hook.s[0], hook.y[:], hook.z = float(removed), 0.0, hook.z
        hook.y[0] = 1e-9  # too small to shrink anything
        hook(state_of(model))
        expected = ordered[min(removed, FIELDS - 1)] * 1e-9
        moved = removed - float(hook.s[0])
        if 0 < removed < FIELDS - 1:
            assert moved == pytest.approx(0.05 * expected, rel=1e-4)
        assert float(hook.energy[0] * hook.start[0]) == pytest.approx(
            ordered[:math.ceil(float(hook.s[0]))].sum(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("removed", [(0, 0, 0), (1, 2, 1), (3, 4, 2)])
def test_slopes_of_the_resource_are_finite_differences(removed):
    found = Resource(layout_of(tiny(), ROWS), "flops_top")
    left = torch.tensor([FIELDS, *TOP], dtype=torch.float64) - torch.tensor(removed)
    assert float(found.fraction_of_counts(left)) == pytest.approx(resource(removed), rel=1e-12)
    for layer in range(3):
        assert -float(found.slopes(left)[layer]) == pytest.approx(slope(removed, layer), rel=1e-12)


def test_published_numbers_of_the_resource():
    criteo = Resource(Layout(16, 16, (1000,) * 26, (13, 512, 256, 64, 16), (512, 256, 1)),
                      "flops_top")
    whole = torch.tensor(criteo.counts, dtype=torch.float64)
    assert (criteo.whole, float(criteo.fraction(criteo.valid))) == (705_793, 1)
    for fields, expected in ((1, .9768), (4, .9071), (5, .8839), (7, .8375), (8, .8143), (9, .7911),
                             (10, .7679), (26, .3964)):
        left = whole - torch.tensor([fields, 0, 0])
        assert float(criteo.fraction_of_counts(left)) == pytest.approx(expected, abs=5e-5)
    for kept, expected in ((.75, .558), (.5, .245), (.25, .064)):
        assert float(criteo.fraction_of_counts((whole * kept).round())) == pytest.approx(expected,
                                                                                         abs=0.012)
    assert criteo.slopes(whole).tolist() == pytest.approx([.02321, .00195, .00146], abs=5e-6)
    everything = Resource(criteo.layout, "flops_all")
    assert everything.whole == 705_793 + 311_120
    parameters = Resource(criteo.layout, "params_all")
    assert parameters.whole == 353_281 + 155_984 + 26 * 1000 * 16
