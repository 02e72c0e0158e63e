"""The constraint over many steps: bounds, prices, budgets, checkpoints and what is refused."""

from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.umec.constraint import FAR, ResourceConstraint
from compression.umec.dynamics import Dynamics
from compression.umec.resources import GROUPS, KINDS, Resource, layout_of, of_model
from compression.umec.shrink import shrink
from compression.umec.units import energies_of
from models.dlrm import DLRM, Shape
from models.embedding.uniform import Uniform

ROWS, WIDTH = (3, 50, 4, 9, 2), 4


def made(numbers=2, top=(8, 5), seed=0, interaction="cat"):
    torch.manual_seed(seed)
    return DLRM(Uniform(torch.randn(sum(ROWS), WIDTH), len(ROWS)), numbers,
                Shape((6,), top, interaction))


def resource_of(model, kind="flops_top", groups="field"):
    return Resource(layout_of(model, ROWS, groups), kind)


def descend(model, hook, steps, noise=0.01, seed=1, first=1):
    """Steps of a pretended optimiser, and of the hook; (s, y, z, resource) after each, and the
    reason to stop."""
    generator, seen = torch.Generator().manual_seed(seed), []
    state = SimpleNamespace(model=model, optimizer=SimpleNamespace(param_groups=[{"lr": 0.1}]),
                            step=0,
                            epoch_done=False, refresh=lambda: None)
    for step in range(1, steps + 1):
        drawn = [torch.randn(layer.weight.shape, generator=generator) for layer in model.top]
        if step < first:
            continue
        with torch.no_grad():
            for layer, move in zip(model.top, drawn, strict=True):
                layer.weight += noise * move
        state.step = step
        reason = hook(state)
        seen.append((hook.s.numpy().copy(), hook.y.numpy().copy(), float(hook.z),
                     float(hook.spent)))
        if reason:
            return seen, reason
    return seen, None


@pytest.mark.parametrize("faithful", [True, False])
def test_prices_and_counts_stay_where_they_may_be(faithful):
    model = made()
    hook = ResourceConstraint(resource_of(model), 0.4, Dynamics(faithful=faithful, zlr=5.0), 400)
    seen, _ = descend(model, hook, 400, noise=0.02)
    counts = np.array(hook.resource.counts)
    s, y, z, spent = (np.array(each) for each in zip(*seen, strict=True))
    assert (y >= 0).all()
    assert (z >= 0).all()
    assert (np.diff(y, axis=0) >= 0).all()
    assert (s >= 0).all()
    assert (s <= counts - 1 + 0.05 * faithful).all()  # the published s may be over for one step
    assert spent[-1] < 0.75
    if faithful:
        rises = np.diff(z) > 0
        assert (rises == (spent[1:] > 0.4))[z[1:] > 0].all()
        assert rises.any()
        assert not rises.all()


def test_s_leaves_its_upper_bound_and_the_published_one_does_not():
    for faithful in (False, True):
        model = made()
        hook = ResourceConstraint(resource_of(model), 0.4, Dynamics(faithful=faithful), 400)
        # nothing speaks for the removal of a fifth neuron, or of the fourth
        hook.s[2], hook.y[2] = 4 - 1e-8, 1e4
        descend(model, hook, 3)
        assert (float(hook.s[2]) < 4 - 1e-6) == (not faithful)


@pytest.mark.parametrize("steps", [2, 3, 12, 47])
@pytest.mark.parametrize("budget", [0.8, 0.5])
def test_a_descent_of_few_steps_stops_at_the_budget(steps, budget):
    """Its steps are of several units."""
    model = made()
    kept = {}
    hook = ResourceConstraint(resource_of(model), budget, Dynamics(), steps, passing=[0.9],
                              save=lambda passed, mask: kept.update({passed: mask}))
    descend(model, hook, steps)
    hook.finish(model)
    largest = float(hook.resource.savings(hook.resource.valid)[hook.resource.valid].max())
    for limit, mask in {**kept, budget: hook.kept(model)}.items():
        assert limit - largest - FAR <= float(hook.resource.fraction(mask)) <= limit


def ranks_by_savings(resource):
    """Place of each unit of its layer when those that save most come first."""
    savings = resource.savings(resource.valid).masked_fill(~resource.valid, -1)
    return savings.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


@settings(max_examples=25)
@given(st.floats(0.12, 0.999), st.integers(0, 10), st.sampled_from(KINDS), st.sampled_from(GROUPS),
       st.booleans())
def test_what_is_exported_is_within_the_budget_and_counts_as_it_should(budget, seed, kind, groups,
                                                                       early):
    model = made(seed=seed)
    resource = resource_of(model, kind, groups)
    limits = [count - 1 for count in resource.counts]
    dearest = resource.valid & (ranks_by_savings(resource) >= torch.tensor(limits)[:, None])
    hypothesis.assume(budget >= float(resource.fraction(dearest)))
    hook = ResourceConstraint(resource, budget, Dynamics(by_embedding=bool(seed % 2)), 40)
    descend(model, hook, 5 if early else 40)
    kept = hook.kept(model)
    small = shrink(model, resource.layout, kept)
    spent = of_model(small, kind) / resource.whole
    assert spent <= budget
    assert spent == pytest.approx(float(resource.fraction(kept)), rel=1e-12)


def test_the_faithful_dynamics_may_exceed_the_budget():
    model = made()
    hook = ResourceConstraint(resource_of(model), 0.2, Dynamics(faithful=True), 40)
    descend(model, hook, 5)
    assert float(hook.resource.fraction(hook.kept(model))) > 0.2


def test_it_stops_when_what_is_removed_is_empty_and_says_what_it_does():
    model = made()
    hook = ResourceConstraint(resource_of(model), 0.5, Dynamics(), 400)
    seen, reason = descend(model, hook, 400, noise=1e-4)
    assert reason == "compressed"
    assert 0 < int(hook.feasible_at) < len(seen) < 400
    first = seen[int(hook.feasible_at) - 1]
    assert first[3] <= 0.5
    assert (first[0] == seen[-1][0]).all()  # s stands still from then on
    shown = hook.shown()
    assert shown["resource"] <= shown["budget"] == 0.5
    assert 1 <= shown["fields"] <= 6
    kept = hook.kept(model)
    energies = energies_of(model, hook.resource)
    assert float(energies[~kept].sum()) < 1e-5 * float(energies.sum())
    assert float(energies[kept].min()) > 1e-4


# without a price nothing moves until it is put within the budgets
@pytest.mark.parametrize("zlr", [2.0, 0.0])
def test_larger_budgets_are_saved_on_the_way(zlr):
    model, saved = made(), {}

    def save(budget, kept):
        saved[budget] = float(hook.resource.fraction(kept))

    hook = ResourceConstraint(resource_of(model), 0.3, Dynamics(zlr=zlr), 400, (0.8, 0.5), save)
    seen, _ = descend(model, hook, 400, noise=1e-3)
    assert list(saved) == [0.8, 0.5]
    assert 0.5 < saved[0.8] <= 0.8
    assert 0.3 < saved[0.5] <= 0.5
    first = [next(step for step, (_, _, _, spent) in enumerate(seen, 1) if spent <= budget)
             for budget in saved]
    assert list(hook.passed.values()) == first
    assert first == [0.7 * 400] * 2 if not zlr else first[0] < first[1] < int(hook.feasible_at)
    assert hook.finish(model) == hook.passed
    again = ResourceConstraint(resource_of(model), 0.3, Dynamics(), 400, (0.8, 0.5), save)
    again.load_state_dict(hook.state_dict())
    assert not again.open_budgets


def test_a_budget_of_one_changes_nothing():
    model = made()
    before = [layer.weight.detach().clone() for layer in model.top]
    hook = ResourceConstraint(resource_of(model), 1, Dynamics(), 10)
    descend(model, hook, 10, noise=0.0)
    assert all(torch.equal(layer.weight, old) for layer, old in zip(model.top, before, strict=True))
    assert hook.kept(model).sum() == sum(hook.resource.counts)
    assert not hook.s.any()


def test_fields_alone_leave_the_neurons():
    model = made(top=(8,))
    hook = ResourceConstraint(resource_of(model), 0.6, Dynamics(joint=False), 100)
    descend(model, hook, 100)
    kept = hook.kept(model)
    assert kept[1, :8].all()
    assert 0 < kept[0, :6].sum() < 6


def test_fields_that_are_to_stay_stay_and_neurons_go_in_multiples():
    model = made(top=(8, 6))
    with torch.no_grad():
        model.top[0].weight[:, 4:12] *= 1e-3  # fields 1 and 2, the least
    hook = ResourceConstraint(resource_of(model), 0.4, Dynamics(keep=(1, 2), punit=2), 200)
    descend(model, hook, 200, noise=0.001)
    kept = hook.kept(model)
    assert kept[0, [1, 2]].all()
    assert [int(row.sum()) % 2 for row in kept[1:]] == [0, 0]
    assert kept.sum() < 20


@pytest.mark.parametrize("slr", [0.05, 0.002])
def test_a_layer_whose_units_are_no_multiple_keeps_the_rest(slr):
    model = made(top=(20,))
    least = float(resource_of(model).fraction(torch.tensor([[True] * 6 + [False] * 14,
                                                            [True] * 12 + [False] * 8])))
    dynamics = Dynamics(punit=8, keep=(1, 2, 3, 4, 5), slr=slr)
    with pytest.raises(ValueError, match="cannot be met: with as few units"):
        ResourceConstraint(resource_of(model), least * 0.8, dynamics, 200)
    hook = ResourceConstraint(resource_of(model), least, dynamics, 200)
    descend(model, hook, 200, noise=0.001)
    assert int(hook.kept(model)[1].sum()) == 12  # eight of 20 are gone, and eight more are not 20


def test_the_last_field_is_not_given_up_for_the_dense_features():
    model = made()
    with torch.no_grad():
        model.top[0].weight[:, 4:] *= 1e-6  # all fields; the dense features come first
    hook = ResourceConstraint(resource_of(model), 0.07, Dynamics(), 200)
    descend(model, hook, 200, noise=1e-9)
    assert hook.kept(model)[0, 1:6].any()


def test_unimportant_units_go_first_in_each_layer():
    model = made(seed=3)
    with torch.no_grad():
        model.top[0].weight[:, 8:12] *= 0.01
        model.top[1].weight[:, 5] *= 0.01
    hook = ResourceConstraint(resource_of(model), 0.6, Dynamics(), 300)
    descend(model, hook, 300, noise=1e-4)
    kept = hook.kept(model)
    assert not kept[0, 2]
    assert not kept[1, 5]


def test_order_by_embedding_counts_what_a_column_multiplies():
    model = made(numbers=0)
    with torch.no_grad():
        model.embedding.weight[3:53] *= 1e-3  # of the second field
    resource = resource_of(model)
    hooks = {flag: ResourceConstraint(resource, 0.9, Dynamics(by_embedding=flag), 50)
             for flag in (False, True)}
    for hook in hooks.values():
        descend(model, hook, 1, noise=0.0)
    energies = energies_of(model, resource)
    assert int(hooks[True].orders(energies)[0, 0]) == 1
    assert int(hooks[False].orders(energies)[0, 0]) == int(energies[0, :5].argmin())


@pytest.mark.parametrize("faithful", [True, False])
def test_a_checkpoint_goes_on_as_if_nothing_had_been(faithful):
    def fresh():
        model = made()
        dynamics = Dynamics(faithful=faithful, by_embedding=not faithful)
        return model, ResourceConstraint(resource_of(model), 0.4, dynamics, 200)

    model, hook = fresh()
    whole, _ = descend(model, hook, 60)
    other, first = fresh()
    descend(other, first, 30)
    _, second = fresh()
    second.load_state_dict(first.state_dict())
    rest, _ = descend(other, second, 60, first=31)
    assert all((a[0] == b[0]).all() and (a[1] == b[1]).all() and a[2:] == b[2:]
               for a, b in zip(whole[30:], rest, strict=True))
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(model.top, other.top, strict=True))
    elsewhere = ResourceConstraint(resource_of(other), 0.5, Dynamics(faithful=faithful), 200)
    with pytest.raises(ValueError, match=r"written under budget 0.4, this run has 0.5; .*--force"):
        elsewhere.load_state_dict(first.state_dict())


@pytest.mark.parametrize("budget", [0, -0.1, 1.01, float("nan"), "half", None, True])
def test_budgets_that_are_no_fractions_are_refused(budget):
    with pytest.raises(ValueError,
                       match="fraction of the whole model's flops_top, above 0 and at most 1"):
        ResourceConstraint(resource_of(made()), budget, Dynamics(), 10)


def test_budgets_below_what_must_be_kept_are_refused_and_the_least_is_named():
    resource = resource_of(made())
    floor = (2 * 4 + 1 + 2 + 1 + 2 + 1) / resource.whole
    with pytest.raises(ValueError, match=f"still spends {floor:.4f} of its flops_top"):
        ResourceConstraint(resource, floor - 1e-4, Dynamics(), 10)
    ResourceConstraint(resource, floor + 1e-6, Dynamics(), 10)
    with pytest.raises(ValueError, match="cannot be met"):
        ResourceConstraint(resource, 0.3, Dynamics(joint=False), 10)
    with pytest.raises(ValueError, match="cannot be met"):
        ResourceConstraint(resource, 0.3, Dynamics(min_keep=4), 10)


def test_models_and_limits_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"arch_interaction_op=dot the first layer reads products "
                                         r".* train with"):
        layout_of(made(interaction="dot"), ROWS)
    with pytest.raises(ValueError, match=r"this is a Linear. Train one with --model dlrm"):
        layout_of(torch.nn.Linear(2, 2), ROWS)
    with pytest.raises(ValueError, match=r"one layer has no neurons .*--mode"):
        ResourceConstraint(resource_of(made(top=())), 0.5, Dynamics(), 10)
    with pytest.raises(ValueError, match=r"units to keep are 0 \.\. 5"):
        ResourceConstraint(resource_of(made()), 0.5, Dynamics(keep=(6,)), 10)
    with pytest.raises(ValueError, match="min_keep 0"):
        ResourceConstraint(resource_of(made()), 0.5, Dynamics(min_keep=0), 10)
    with pytest.raises(ValueError, match="resource must be one of"):
        Resource(layout_of(made(), ROWS), "watts")
    with pytest.raises(ValueError, match="groups must be one of"):
        layout_of(made(), ROWS, "dims")
