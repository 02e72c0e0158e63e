"""The round as numba loops against its definition in tensors."""

import numpy as np
import pytest
import torch
from test_umec import descend, made, resource_of

from compression.umec.constraint import ResourceConstraint
from compression.umec.dynamics import Dynamics

STEPS = 120


def both(kind="flops_top", groups="field", budget=0.4, ties=False, **dynamics):
    """What a descent shows of s, y, z and the resource, and leaves of the model, in each form."""
    found = []
    for as_on_device in (False, True):
        model = made(seed=4)
        if ties:
            for layer in model.top:
                torch.nn.init.ones_(layer.weight)
        hook = ResourceConstraint(resource_of(model, kind, groups), budget, Dynamics(**dynamics),
                                  STEPS)
        hook.as_on_device = as_on_device
        seen, reason = descend(model, hook, STEPS, noise=0.0 if ties else 0.01)
        kept = hook.kept(model)
        found.append((hook, [np.concatenate([s, y, [z, spent]]) for s, y, z, spent in seen], reason,
                      kept, model))
    return found


def assert_equal(found):
    (loops, fast, reason, kept, model), (tensors, plain, other_reason, other_kept, other) = found
    assert len(fast) == len(plain)
    np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-6)
    assert reason == other_reason
    assert int(loops.feasible_at) == int(tensors.feasible_at)
    torch.testing.assert_close(loops.energy, tensors.energy, rtol=1e-4, atol=1e-9)
    assert torch.equal(kept, other_kept)
    for one, another in zip(model.top, other.top, strict=True):
        torch.testing.assert_close(one.weight, another.weight, rtol=1e-5, atol=1e-6)
    assert len(set(np.ceil([line[0] for line in plain]))) > 1  # something was removed


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize(("kind", "groups"), [("flops_top", "field"), ("flops_all", "field_dim"),
                                              ("params_all", "field"), ("bytes", "field"),
                                              ("bytes", "field_dim")])
def test_loops_take_the_steps_of_the_definition(kind, groups, faithful):
    assert_equal(both(kind, groups, faithful=faithful, zlr=5.0 if faithful else 2.0))


@pytest.mark.parametrize("dynamics", [
    {"punit": 2}, {"sl2wd": 0.1}, {"keep": (1, 2)}, {"joint": False, "min_keep": 2},
    {"by_embedding": True},
    {"faithful": True, "zclamp": True, "zlr": 5.0}, {"faithful": True, "zlr": 200.0},
    {"faithful": True, "sl2wd": 0.5, "punit": 2, "zlr": 5.0}], ids=str)
def test_options_mean_the_same_in_loops(dynamics):
    assert_equal(both(budget=0.6, **dynamics))


def test_of_equal_units_the_first_goes():
    assert_equal(both(ties=True))


def test_s_at_its_published_bound_is_the_same_in_loops():
    for faithful in (True, False):
        moved = []
        for as_on_device in (False, True):
            model = made()
            hook = ResourceConstraint(resource_of(model), 0.4, Dynamics(faithful=faithful), 20)
            hook.as_on_device = as_on_device
            hook.s[2], hook.y[2] = 4 - 1e-8, 1e4
            moved.append([step[0] for step in descend(model, hook, 3)[0]])
        np.testing.assert_allclose(moved[0], moved[1], rtol=1e-6)
