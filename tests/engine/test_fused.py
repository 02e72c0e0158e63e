"""Gradients and Adam in one compiled graph: the update's bits, and what it does when it cannot be
taken."""

import pytest
import torch

from engine.optim.cpu.adam import adam_plain, coefficients
from engine.optim.fused import FusedAdamStep
from engine.optim.step import Adam, Step, StepForm, build_optimizer, compile_gradients
from models.build import build_embedding, build_model
from tests.training import BATCH, SIZES, VALUES, Training

CLIP = 0.05


def made(compiled, threshold_decay="coupled"):
    values = {**VALUES, "threshold_decay": threshold_decay, "l2_regularization": 0.03}
    model = build_model(SIZES[:2], values, 1, build_embedding(SIZES[:2], values, 1)).train()
    optimizer = build_optimizer(model, 0.01, 0.03, 0.2)
    return model, optimizer, Step(model, optimizer, CLIP, StepForm(BATCH, compiled, "dense"))


def batch(number):
    generator = torch.Generator().manual_seed(number)
    ids = torch.stack([torch.randint(0, SIZES[0], (BATCH,), generator=generator),
                       SIZES[0] + torch.randint(0, SIZES[1], (BATCH,), generator=generator)], 1)
    return ids, torch.randint(0, 2, (BATCH,), generator=generator).float()


@pytest.mark.parametrize("clip", [0.5, 100.0])
def test_the_update_has_the_bits_of_the_definition(clip):
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for shape in ((37, 5), (3,))]
    parameters = [value.clone().requires_grad_() for value in start]
    optimizer = Adam([{"params": parameters[:1], "weight_decay": 0.03},
                      {"params": parameters[1:], "lr": 0.1}], lr=0.01,
                     betas=(0.9, 0.999), eps=1e-8, fused=True)

    def gradients(inputs, labels, parameters, opened):
        return labels.sum(), (labels * labels).sum(), tuple(inputs)

    advance = FusedAdamStep(gradients, clip, compile_gradients)
    expected = [(value.clone(), torch.zeros_like(value), torch.zeros_like(value))
                for value in start]
    for step in range(1, 5):
        grads = tuple(torch.randn(value.shape, generator=generator) for value in start)
        norms = torch.tensor([0.3, 0.4 * step])
        if step == 3:
            optimizer.param_groups[0]["lr"] = 0.02
        _, norm = advance(grads, norms, parameters, optimizer)
        scale = torch.where(norm > clip, clip / (norm + 1e-6), 1.0)
        for parts, grad, group in zip(expected, grads, optimizer.param_groups, strict=True):
            adam_plain(*parts, grad, group["weight_decay"], group["betas"], scale,
                       *torch.tensor(coefficients(group["lr"], group["betas"], group["eps"], step)))
    for parameter, parts in zip(parameters, expected, strict=True):
        state = optimizer.state[parameter]
        assert state["step"] == 4
        for own, one in zip((parameter, state["exp_avg"], state["exp_avg_sq"]), parts, strict=True):
            assert torch.equal(own, one)


@pytest.mark.usefixtures("compiler")
def test_it_goes_on_where_torch_has_stopped_and_the_other_way_round():
    (plain, plain_optimizer, plain_step), (model, optimizer, step) = made(False), made(True)
    assert step.fused_step is not None
    for number in range(12):
        # a shorter batch takes torch's own Adam
        part = slice(0, BATCH if number % 3 else BATCH - 1)
        ids, labels = (each[part] for each in batch(number))
        assert torch.allclose(plain_step(ids, labels), step(ids, labels), rtol=1e-5)
    for name, value in plain.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, rtol=1e-4, atol=1e-5), name
    ours, theirs = optimizer.state_dict()["state"], plain_optimizer.state_dict()["state"]
    assert (
        [each["step"] for each in ours.values()]
        == [each["step"] for each in theirs.values()]
        == [12] * len(ours)
    )


@pytest.mark.usefixtures("compiler")
def test_where_it_is_not_finite_nothing_moves():
    model, optimizer, step = made(True)
    step(*batch(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moments = {name: value.clone() for state in optimizer.state.values() for name,
               value in state.items()}
    ids, labels = batch(1)
    with pytest.raises(FloatingPointError,
                       match="the loss is nan and the norm of its gradients nan"):
        step(ids, labels * float("nan"))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    after = {name: value for state in optimizer.state.values() for name, value in state.items()}
    assert all(torch.equal(after[name], value) for name, value in moments.items())
    step(ids, labels)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.usefixtures("compiler")
def test_what_it_does_not_know_is_left_to_torch():
    _, _, step = made(True, "decoupled")
    step.full = step.eager  # compiled elsewhere
    step(*batch(0))
    assert step.fused is None
    by_row = Training("streamed", compiled=True)
    by_row.advance.prepare(torch.zeros((1, 4), dtype=torch.long), torch.zeros(1))
    assert by_row.advance.fused is None
