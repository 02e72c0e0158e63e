"""Every scheme that is more than one table of N rows, in the training step: compiled, and from a
saved state on."""

import numpy as np
import pytest
import torch
from torch import nn
from training import WIDTH, Training, assert_close, assert_same, few

from compression.afm.factor import factor_table
from compression.afm.low_rank import random_factor
from models.build import EMBEDDINGS
from models.embedding.base import initial_table
from models.embedding.mixed_width import Mixed
from models.embedding.uniform import Uniform

FEW = (20, 3, 30, 7)  # rows of the fields of a table that is small beside a batch of 64 ids


def mixed(sizes, width):
    generator = torch.Generator().manual_seed(1)
    group = torch.from_numpy(np.random.default_rng(0).integers(0, 4, sum(sizes)))
    return Mixed(group, (2, width, 1, 0), width, lambda *size: initial_table(*size, generator),
                 len(sizes))


def low_rank(sizes, width, ranks=None):
    generator = torch.Generator().manual_seed(1)
    model = nn.Module()
    model.embedding = Uniform(initial_table(sum(sizes), width, generator), len(sizes))
    ranks = ranks or [1 + field % (width - 1) for field in range(len(sizes))]
    zero = torch.zeros(width, dtype=torch.float64)
    return factor_table(model, [random_factor(zero, rank, generator) for rank in ranks],
                        sizes).embedding


def one_rank(sizes, width):
    return low_rank(sizes, width, [2] * len(sizes))


CASES = {"mixed": {"embedding": mixed}, "mixed few rows": {"embedding": mixed, "sizes": FEW},
         "mde": {"embedding": "mde", "mde_blocks": 4, "mde_alpha": 0.5},
         "mgqe": {"embedding": "mgqe", "mgqe_subspaces": WIDTH, "mgqe_centroids": 16},
         "darts": {"embedding": "darts", "darts_widths": (2, 3, WIDTH)},
         "hash": {"embedding": "hash", "hash_rows": 50},
         "qr": {"embedding": "qr", "qr_collisions": 4},
         "tt": {"embedding": "tt", "tt_rank": 3},
         "low_rank": {"embedding": low_rank}, "low_rank by row": {"embedding": one_rank}}
TABLES = {"uniform", "pep"}  # of which all of this is tested at length elsewhere


def test_every_other_registered_embedding_is_among_the_cases():
    assert set(EMBEDDINGS) - TABLES <= set(CASES)


SAME_CODE = ("mixed few rows", "mde", "low_rank by row")  # as another case traces


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", few(CASES, *(number for number, name in enumerate(CASES)
                                              if name not in SAME_CODE)))
def test_the_compiled_step_is_close_to_the_eager_one(name):
    eager, compiled = (Training("auto", compiled=way, **CASES[name]).run(12)
                       for way in (False, True))
    assert eager.losses[0] != eager.losses[-1]
    assert_close(compiled.state(), eager.state())


@pytest.mark.parametrize("name", CASES)
def test_from_a_saved_state_on_it_ends_with_the_same_bits(name):
    whole, first, second = (Training("auto", **CASES[name]) for _ in range(3))
    first.run(5)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.step, second.losses = first.step, first.losses
    assert_same(second.run(7).state(), whole.run(12).state())


PENALISED = {**CASES, **{name: {"embedding": name} for name in ("uniform", "pep", "masked")}}


@pytest.mark.parametrize("name", PENALISED)
def test_the_penalty_adds_the_gradient_of_the_batchs_squared_vectors(name):
    plain, penalised = (Training("whole", l2_penalty=penalty, **PENALISED[name])
                        for penalty in (0.0, 0.3))
    embedding = penalised.embedding
    own = [parameter for parameter in embedding.parameters() if parameter.requires_grad]
    ids, _ = penalised.batch()
    squares = 0.3 * embedding(ids).square().sum() / len(ids)
    wanted = torch.autograd.grad(squares, own, allow_unused=True)
    assert plain.run(1).losses == penalised.run(1).losses  # cross entropy alone
    for parameter, without, extra in zip(own, plain.embedding.parameters(), wanted, strict=True):
        assert extra is not None
        torch.testing.assert_close(parameter.grad - without.grad, extra, rtol=1e-4, atol=1e-6)
    others = set(dict(penalised.model.named_parameters())) - {
        f"embedding.{key}" for key, _ in embedding.named_parameters()}
    for key in others:
        assert torch.equal(plain.model.get_parameter(key).grad,
                           penalised.model.get_parameter(key).grad)


@pytest.mark.parametrize("model", ["fm", "dlrm"])
@pytest.mark.parametrize("embedding", ["uniform", "pep", "masked"])
def test_the_penalty_is_the_same_in_every_form_of_the_update(model, embedding):
    forms = [Training(update, l2_penalty=0.3, model=model, embedding=embedding).run(12)
             for update in ("whole", "dense", "deferred")]
    without = Training("whole", model=model, embedding=embedding).run(12)
    for form in forms[1:]:
        assert_close(form.state(), forms[0].state())
    assert np.abs(without.state()["embedding.weight"]
                  - forms[0].state()["embedding.weight"]).max() > 1e-3
