"""DartsEmb: the mixture, its bilevel search, and the training of what was chosen."""

import numpy as np
import pytest
import tiny
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from data.loader import Loader
from engine import stages
from engine.bilevel import Bilevel
from engine.loop import State
from engine.optim.step import build_optimizer
from engine.settings import parse
from models.build import build_embedding, build_mixed, build_model
from models.embedding.base import initial_table
from models.embedding.darts import Darts

DATA = tiny.dataset()
SIZES = tuple(tiny.SIZES.values())
QUICK = {"embedding": "darts", "darts_widths": [1, 2, 4], "darts_epochs": 2, "darts_lr": 0.05}


def darts(widths=(1, 3), rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = Darts(rows, widths, lambda *size: initial_table(*size, generator), 2)
    made.mixing.copy_(torch.randn(made.mixing.shape, generator=generator))
    return made


def test_a_vector_is_the_shared_sum_of_its_projected_candidates():
    embedding = darts((1, 2, 3))
    weight, projection = embedding.weight.detach().numpy(), embedding.projection.detach().numpy()
    ids = np.array([[0, 5], [3, 3]])
    vectors = embedding(torch.from_numpy(ids)).detach().numpy()
    for i, j in np.ndindex(ids.shape):
        row = ids[i, j]
        share = np.exp(embedding.mixing[row].numpy())
        share /= share.sum()
        candidates = (weight[row, :1] @ projection[:1], weight[row, 1:3] @ projection[1:],
                      weight[row, 3:])
        np.testing.assert_allclose(vectors[i, j],
                                   sum(s * c for s, c in zip(share, candidates, strict=True)),
                                   atol=1e-6)
    assert (embedding.width, embedding.num_params()) == (3, 6 * 6 + 3 * 3)
    assert embedding.inference_bytes() == 4 * (6 * 6 + 3 * 3 + 6 * 3)


def test_the_largest_share_is_chosen_and_of_equals_the_smallest_width():
    embedding = darts((1, 2, 3))
    embedding.mixing.copy_(torch.tensor([[0, 0, 0], [1, 2, 0], [0, 1, 1], [3, 1, 3], [-3, -2, -1],
                                         [0, 0, .1]]))
    assert embedding.chosen().tolist() == [1, 2, 2, 1, 3, 3]


def whole_loss(model, loader):
    with torch.no_grad():
        return binary_cross_entropy_with_logits(model(loader.ids), loader.labels).item()


@pytest.mark.parametrize("widths", [(4,), (2, 2), (3, 2), (0, 2), ()])
def test_widths_must_rise(widths):
    with pytest.raises(ValueError, match="two or more rising widths"):
        Darts(5, widths, torch.ones, 1)


def test_the_hook_moves_the_mixture_down_the_validation_loss_and_nothing_else():
    values = {**tiny.SETTINGS, **QUICK, "darts_widths": (1, 3)}
    model = build_model(SIZES, values, 1, build_embedding(SIZES, values, 1)).train()
    optimizer = build_optimizer(model, 0.01, 1e-5, 1e-5)
    for group in optimizer.param_groups:
        assert all(parameter is not model.embedding.mixing for parameter in group["params"])
    loader = Loader(*DATA.split("validation"), 50, seed=3)
    hook = Bilevel("embedding.mixing", loader, lr=0.1, grad_clip=100.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [*loader.epoch(0), *loader.epoch(1), *loader.epoch(2)]
    expected, steps = model.embedding.mixing.clone().requires_grad_(), 2 * loader.batches + 1
    adam = torch.optim.Adam([expected], lr=0.1)
    state = State(model, optimizer, torch.zeros(()))
    first = whole_loss(model, loader)
    for number in range(steps):
        state.step += 1
        hook(state)
        logits = torch.func.functional_call(model, {"embedding.mixing": expected},
                                            (batches[number][0],))
        loss = binary_cross_entropy_with_logits(logits, batches[number][1])
        (expected.grad,) = torch.autograd.grad(loss, [expected])
        adam.step()
        torch.testing.assert_close(model.embedding.mixing, expected.detach(), rtol=1e-5, atol=1e-6)
    changed = [name for name, value in model.state_dict().items()
               if not torch.equal(value, before[name])]
    assert changed == ["embedding.mixing"]
    assert whole_loss(model, loader) < first - 0.001
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_search_is_followed_by_the_training_of_its_choice(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    result = tiny.train(tmp_path, **QUICK)
    counts = {int(width): count for width, count in result["features_by_width"].items()}
    assert set(counts) <= {1, 2, 4}
    assert len(counts) > 1
    assert sum(counts.values()) == sum(SIZES)
    maps = sum(width * 4 for width in counts if width < 4)
    assert result["num_embedding_params"] == sum(width * count for width,
                                                 count in counts.items()) + maps
    assert result["num_embedding_params_dense"] == 4 * sum(SIZES)
    runs = {path.parent.name for path in (tmp_path / "runs").glob("*/result.json")}
    assert runs == {result["run_id"], result["search"]}
    assert result["stage"] == "train"
    assert tiny.train(tmp_path, **QUICK) == result
    (tmp_path / "runs" / result["search"] / "widths.npz").unlink()
    again = tiny.train(tmp_path, **QUICK)  # the choice is made again, and is the same
    assert again == result


def test_the_hook_looks_at_parameters_that_are_up_to_date():
    values = {**tiny.SETTINGS, **QUICK, "darts_widths": (1, 3)}
    model = build_model(SIZES, values, 1, build_embedding(SIZES, values, 1)).train()
    optimizer, looked = build_optimizer(model, 0.01, 1e-5, 1e-5), []
    optimizer.refresh = lambda: looked.append(1)
    hook = Bilevel("embedding.mixing", Loader(*DATA.split("validation"), 50, seed=3), 0.1, 100.0)
    hook(State(model, optimizer, torch.zeros(()), step=1))
    assert looked == [1]


def test_the_choice_decides_the_run_and_width_and_unused_settings_do_not(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    ids = [tiny.train(tmp_path, **{**QUICK, **changes})["run_id"] for changes in (
        {}, {"latent_dim": 9}, {"threshold_init": -9.0}, {"darts_lr": 0.5},
        {"darts_widths": [1, 2, 3]})]
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids)) == 3


def test_rows_of_one_width_are_a_uniform_table():
    made = build_mixed(torch.full((7,), 3), (1, 3), (4, 3), seed=5)
    assert torch.equal(made.table(), initial_table(7, 3, torch.Generator().manual_seed(5)))


def test_logistic_regression_has_no_widths_to_search(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    monkeypatch.setattr(stages, "search_and_train", lambda run: pytest.fail("searched"))
    assert tiny.train(tmp_path, model="linear", embedding="darts")["num_embedding_params"] == 0


def test_widths_are_checked_before_any_data_are_read():
    with pytest.raises(ValueError, match="two or more rising widths"):
        parse({"embedding": "darts", "darts_widths": [3, 2]})
