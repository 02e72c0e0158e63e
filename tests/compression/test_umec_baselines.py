"""What baselines keep: the budget, and the units that their scores say."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_shrink import batch
from test_umec import ROWS, made, resource_of
from torch.nn.functional import binary_cross_entropy_with_logits

from compression.umec import baselines
from compression.umec.dynamics import Dynamics
from compression.umec.resources import Resource, layout_of
from compression.umec.task import BASELINES
from compression.umec.units import energies_of


def batches():
    ids, numbers, labels = batch()
    return [((ids, numbers), labels), ((ids[:7], numbers[:7]), labels[:7])]


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("budget", [0.8, 0.35, 0.1])
def test_every_rival_meets_the_budget_and_gives_up_no_more_than_it_must(method, budget):
    model = made()
    resource = resource_of(model)
    kept = baselines.choose(method, model, resource, budget, Dynamics(), batches, 1)
    spent = float(resource.fraction(kept))
    assert budget - 0.2 < spent <= budget
    assert (kept & ~resource.valid).sum() == 0


@pytest.mark.parametrize("method", BASELINES)
def test_baselines_remove_neurons_in_the_same_multiples(method):
    model = made(top=(8, 6))
    resource = resource_of(model)
    kept = baselines.choose(method, model, resource, 0.4, Dynamics(punit=2), batches, 1)
    assert [int(row.sum()) % 2 for row in kept[1:]] == [0, 0]
    assert 0.1 < float(resource.fraction(kept)) <= 0.4


@pytest.mark.parametrize("groups", ["field", "field_dim"])
@pytest.mark.parametrize("method", BASELINES)
def test_a_field_stays_beside_the_dense_features_however_little_it_weighs(method, groups):
    model = made()
    with torch.no_grad():
        model.top[0].weight[:, 4:] *= 1e-6  # all fields; the dense features come first
    resource = resource_of(model, groups=groups)
    for keep in ((), (0,)):
        least = baselines.choose(method, model, resource, 0.07, Dynamics(keep=keep), batches, 1)
        columns = least[0, :resource.counts[0]]
        assert columns[resource.layout.dense_units:].any()
        assert columns[list(keep)].all()


def test_magnitude_drops_the_least_energies_and_taylor_what_the_loss_does_not_feel():
    model = made()
    resource = resource_of(model)
    with torch.no_grad():
        model.top[0].weight[:, 4:8] *= 0.01
        model.top[1].weight[:, 3] = 0
        model.top[0].weight[3] = 0  # a neuron that is never on, and whose column is not small
        model.top[0].bias[3] = -1
    kept = baselines.choose("magnitude", model, resource, 0.7, Dynamics(), batches, 1)
    assert not kept[0, 1]
    assert not kept[1, 3]
    with torch.no_grad():
        model.top[1].weight[:, 3] = 10
    assert baselines.choose("magnitude", model, resource, 0.7, Dynamics(), batches, 1)[1, 3]
    assert not baselines.choose("taylor", model, resource, 0.7, Dynamics(), batches, 1)[1, 3]


def test_taylors_importance_is_the_squared_change_of_the_loss():
    model = made()
    resource = resource_of(model)
    ids, numbers, labels = batch()
    found = baselines.taylor(model, resource, [((ids, numbers), labels)])
    loss = binary_cross_entropy_with_logits(model(ids, numbers), labels)
    loss.backward()
    weight = model.top[0].weight
    expected = [(weight.grad[:, 4 * unit:4 * unit + 4]
                 * weight.detach()[:, 4 * unit:4 * unit + 4]).sum() ** 2
                for unit in range(6)]
    torch.testing.assert_close(found[0, :6], torch.stack(expected).double(), rtol=1e-4, atol=1e-12)


def test_random_takes_any_unit_whatever_it_saves():
    """Fields of 2 to 50 rows, by bytes."""
    model = made()
    resource = Resource(layout_of(model, ROWS, "field"), "bytes")
    gone = np.zeros(len(ROWS))
    for seed in range(300):
        kept = baselines.choose("random", model, resource, 0.5, Dynamics(joint=False), batches,
                                seed)
        gone += ~kept[0, 1:1 + len(ROWS)].numpy()
    assert gone.min() > 0.5 * gone.max()


def test_hand_made_widths_keep_all_fields_while_they_can():
    model = made()
    resource = resource_of(model)
    kept = baselines.choose("handmade", model, resource, 0.5, Dynamics(), batches, 1)
    assert kept[0, :6].all()
    assert not kept[1, :8].all()
    uniform = baselines.choose("uniform", model, resource, 0.5, Dynamics(), batches, 1)
    shares = [int(row.sum()) / count for row, count in zip(uniform, resource.counts, strict=True)]
    assert max(shares) - min(shares) < 0.3


def test_as_many_units_as_another_has_left_by_magnitude():
    model = made()
    resource = resource_of(model)
    like = baselines.choose("random", model, resource, 0.5, Dynamics(), batches, 1)
    kept = baselines.of_counts(model, resource, like)
    assert kept.sum(1).tolist() == like.sum(1).tolist()
    energies = energies_of(model, resource)
    assert all(row[stays].min() > row[~stays & valid].max()
               for row, stays, valid in zip(energies, kept, resource.valid, strict=True))


def test_fields_to_keep_and_modes_hold_for_baselines_too():
    model = made()
    resource = resource_of(model)
    kept = baselines.choose("random", model, resource, 0.6, Dynamics(joint=False, keep=(0, 4)),
                            batches, 1)
    assert kept[0, [0, 4]].all()
    assert kept[1, :8].all()
    assert kept[2, :5].all()
    with pytest.raises(ValueError, match="cannot be met"):
        baselines.choose("magnitude", model, resource, 0.2, Dynamics(joint=False), batches, 1)


def test_group_lasso_takes_the_same_from_every_norm_and_stops_at_zero():
    model = made()
    resource = resource_of(model)
    with torch.no_grad():
        model.top[0].weight[:, :4] *= 1e-4
    before = energies_of(model, resource).sqrt()
    state = SimpleNamespace(model=model, optimizer=SimpleNamespace(param_groups=[{"lr": 0.1}]))
    baselines.GroupLasso(0.2, resource)(state)
    after = energies_of(model, resource).sqrt()
    torch.testing.assert_close(after, (before - 0.02).clamp(min=0), rtol=1e-4, atol=1e-6)
    assert not after[0, 0]
    with pytest.raises(ValueError, match="must be positive, got 0"):
        baselines.GroupLasso(0, resource)
