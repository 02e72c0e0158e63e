"""The small model: the same logits, real sizes, and no way back for what is gone."""

import copy

import pytest
import torch
from test_umec import ROWS, made, resource_of
from torch.nn.functional import binary_cross_entropy_with_logits
from training import ids_of

from compression.umec.resources import GROUPS, KINDS, of_model
from compression.umec.shrink import shrink, zero
from engine.checkpoint import save_checkpoint
from models.embedding.per_field import PerField


def batch(rows=40, seed=0, numbers=2):
    generator = torch.Generator().manual_seed(seed)
    return (
        ids_of(ROWS, rows, generator),
        torch.randn(rows, numbers, generator=generator),
        torch.randint(2, (rows,), generator=generator).float(),
    )


def some(resource, seed):
    """A draw of units, at least one of each layer and one field among them."""
    kept = (torch.rand(resource.valid.shape,
                       generator=torch.Generator().manual_seed(seed)) < 0.6) & resource.valid
    for row, count in zip(kept, resource.counts, strict=True):
        row[count - 1] = True
    return kept


def logits(model, ids, numbers):
    with torch.no_grad():
        return model(ids, numbers)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("seed", range(6))
def test_logits_are_those_of_the_masked_model(groups, seed):
    model = made(seed=seed)
    resource = resource_of(model, groups=groups)
    kept = some(resource, seed)
    small = shrink(model, resource.layout, kept)
    masked = copy.deepcopy(model)
    zero(masked, resource, kept)
    ids, numbers, _ = batch(seed=seed)
    assert float((logits(small, ids, numbers) - logits(masked, ids, numbers)).abs().max()) < 1e-6
    assert float((logits(small, ids, numbers) - logits(model, ids, numbers)).abs().max()) > 1e-3
    for kind in KINDS:
        counted = resource_of(model, kind, groups)
        assert of_model(small, kind) == float(counted.amount(kept))


def train(model, steps, after=lambda: None):
    ids, numbers, labels = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(model(ids, numbers), labels).backward()
        optimizer.step()
        with torch.no_grad():
            after()


def test_training_the_small_model_is_training_the_masked_one_under_its_mask():
    model = made(seed=2)
    resource = resource_of(model)
    kept = some(resource, 3)
    small, masked = shrink(model, resource.layout, kept), copy.deepcopy(model)
    zero(masked, resource, kept)
    removed = ~kept & resource.valid
    train(small, 20)
    train(masked, 20, lambda: zero(masked, resource, kept))
    ids, numbers, _ = batch(seed=9)
    assert float((logits(small, ids, numbers) - logits(masked, ids, numbers)).abs().max()) < 1e-5
    again = shrink(masked, resource.layout, kept)
    assert float((logits(again, ids, numbers) - logits(masked, ids, numbers)).abs().max()) < 1e-6
    assert all(not layer.weight.view(len(layer.weight), count, -1)[:, row[:count]].any() for layer,
               row, count in
               zip(masked.top, removed, resource.counts, strict=True))


def test_fields_that_are_gone_have_no_table_and_the_file_is_smaller(tmp_path):
    model = made()
    resource = resource_of(model)
    kept = resource.valid.clone()
    kept[0, [0, 2]] = False  # the branch of the dense features, and the field of 50 rows
    small = shrink(model, resource.layout, kept)
    assert isinstance(small.embedding, PerField)
    assert small.embedding.num_params() == (sum(ROWS) - 50) * 4
    assert small.num_dense == len(small.bottom) == 0
    assert not torch.isin(small.embedding.position[3:53], torch.tensor([1, 2])).any()
    for name, each in (("whole", model), ("small", small)):
        save_checkpoint(tmp_path / name, {"model": each.state_dict()})
    sizes = {name: (tmp_path / name).stat().st_size for name in ("whole", "small")}
    gone = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in small.parameters())
    assert gone > 50 * 4
    # the list of names differs too
    assert sizes["whole"] - sizes["small"] == pytest.approx(4 * gone, abs=600)
    assert all(a is not b for a, b in zip(small.parameters(), model.parameters(), strict=False))


def test_fresh_values_have_the_small_shapes_and_nothing_of_the_old_values():
    model = made()
    resource = resource_of(model)
    kept = some(resource, 1)
    taken, fresh = shrink(model, resource.layout, kept), shrink(model, resource.layout, kept,
                                                                seed=5)
    shapes = [[tuple(p.shape) for p in each.parameters()] for each in (taken, fresh)]
    assert shapes[0] == shapes[1]
    assert not any(torch.equal(a, b) for a,
                   b in zip(taken.parameters(), fresh.parameters(), strict=True))
    again = shrink(model, resource.layout, kept, seed=5)
    assert all(torch.equal(a, b) for a,
               b in zip(again.parameters(), fresh.parameters(), strict=True))


def test_a_model_without_fields_is_refused():
    model = made()
    resource = resource_of(model)
    kept = resource.valid.clone()
    kept[0, 1:] = False
    with pytest.raises(ValueError, match="one field must stay"):
        shrink(model, resource.layout, kept)
