import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.embedding.masked import Masked
from models.embedding.pep import Pep, Thresholds
from models.embedding.uniform import Uniform
from models.fm import FM
from models.kernels.fm import fm, fm_plain


def case(dtype, rows=9, width=5, batch=7, fields=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(rows, width, generator=generator, dtype=dtype)
    weights = torch.randn(2 * rows, 1, generator=generator, dtype=dtype)
    places = torch.randint(rows, (batch, fields), generator=generator, dtype=torch.int32)
    return table, places, weights, places + rows  # the two tables count differently


def with_gradients(function, table, places, weights, ids):
    table, weights = table.clone().requires_grad_(), weights.clone().requires_grad_()
    logits = function(table, places, weights, ids)
    grads = torch.autograd.grad((logits * torch.arange(1, len(logits) + 1)).sum(), [table, weights])
    return logits.detach(), *grads


@pytest.mark.parametrize(("width", "fields"), [(5, 3), (1, 3), (64, 7), (3, 1)])
def test_logits_and_gradients_are_those_of_the_definition(width, fields):
    fast = with_gradients(fm, *case(torch.float32, width=width, fields=fields))
    plain = with_gradients(fm_plain, *case(torch.float32, width=width, fields=fields))
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_two_calls_have_the_same_bits():
    first, second = (with_gradients(fm, *case(torch.float32, rows=50, width=64, batch=300))
                     for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("wrong", [-1, 9])
@pytest.mark.parametrize("which", [1, 3])
def test_an_id_outside_is_named(wrong, which):
    arguments = list(case(torch.float32))
    arguments[which] = arguments[which].clone()
    arguments[which][2, 1] = wrong if wrong < 0 else 2 * 9
    with pytest.raises(IndexError, match="row 2 of the batch"):
        fm(*arguments)


@pytest.mark.parametrize("batch", [1, 7])
def test_without_gradients_the_logits_have_the_same_bits(batch):
    arguments = case(torch.float32, width=64, batch=batch)
    arguments[0].requires_grad_()
    with torch.no_grad():
        without = fm(*arguments)
    recorded = fm(*arguments)
    assert (without.requires_grad, recorded.requires_grad) == (False, True)
    assert torch.equal(without, recorded)


def test_an_empty_batch_has_no_logits():
    table, places, weights, ids = case(torch.float32)
    assert fm(table, places[:0], weights, ids[:0]).shape == (0,)


INITIAL = torch.randn(9, 5, generator=torch.Generator().manual_seed(3)) / 2
EMBEDDINGS = {
    "uniform": lambda: Uniform(INITIAL, 3),
    "masked": lambda: Masked(INITIAL, INITIAL > -0.2, 3),
    "pep": lambda: Pep(INITIAL, (2, 3, 4), Thresholds(init=-1.0, scale=0.9)),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("size", [1.0, 30.0])  # of the logits: few, and most of them far from 0
def test_loss_and_gradients_by_hand_are_those_of_autograd(name, size):
    model = FM(EMBEDDINGS[name]())
    with torch.no_grad():
        model.linear.weight.mul_(size)
        model.linear.layer.bias.fill_(0.3)
    ids = torch.randint(9, (40, 3), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    labels = (torch.arange(40) % 3 == 0).float()
    loss = binary_cross_entropy_with_logits(model(ids), labels)
    loss.backward()
    rows = {f"embedding.{name}": getattr(model.embedding, name).detach().clone().numpy()
            for name in model.embedding.row_indexed}
    rows["linear.layer.fc.weight"] = model.linear.weight.detach().numpy()
    value, found = model.by_hand(rows, ids.numpy(), labels.numpy())
    assert value == pytest.approx(loss.item(), rel=1e-6)
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert found.keys() == grads.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(found[name], grad, rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("thresholds", [Thresholds("feature"), Thresholds(gate="softplus"),
                                        Thresholds(learned=False)])
def test_other_thresholds_are_left_to_autograd(thresholds):
    model = FM(Pep(INITIAL, (2, 3, 4), thresholds))
    rows = {"embedding.weight": INITIAL.numpy(), "embedding.thresholds": INITIAL.numpy(),
            "linear.layer.fc.weight": np.ones((9, 1), np.float32)}
    ids = np.zeros((1, 3), np.int32)
    assert model.by_hand(rows, ids, np.ones(1, np.float32)) is None


def test_a_subclass_with_a_forward_of_its_own_is_left_to_autograd():
    class Doubled(FM):
        def forward(self, ids):
            return 2 * super().forward(ids)

    rows = {"embedding.weight": INITIAL.numpy().copy(),
            "linear.layer.fc.weight": np.ones((9, 1), np.float32)}
    ids, labels = np.zeros((1, 3), np.int32), np.ones(1, np.float32)
    assert FM(Uniform(INITIAL, 3)).by_hand(rows, ids, labels) is not None
    assert Doubled(Uniform(INITIAL, 3)).by_hand(rows, ids, labels) is None
