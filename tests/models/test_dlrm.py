"""DLRM against a restatement in numpy, its initial values, and the embedding of a width a field."""

import math

import numpy as np
import pytest
import torch
from training import ids_of

from models.build import build_embedding, build_model
from models.dlrm import DLRM, Shape, initial_tables
from models.embedding.per_field import PerField
from models.embedding.uniform import Uniform

SIZES, WIDTH = (5, 7, 3), 4
VALUES = {"model": "dlrm", "embedding": "uniform", "latent_dim": WIDTH, "arch_mlp_bot": (6,),
          "arch_mlp_top": (8, 5), "arch_interaction_op": "cat"}


def made(interaction="cat", num_dense=2, seed=1):
    values = {**VALUES, "arch_interaction_op": interaction}
    return build_model(SIZES, values, seed, build_embedding(SIZES, values, seed), num_dense)


def batch(rows=9, num_dense=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = ids_of(SIZES, rows, generator)
    return ids, torch.randn(rows, num_dense, generator=generator)


def numpy_mlp(stack, values, last_relu):
    for number, layer in enumerate(stack):
        values = values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if last_relu or number + 1 < len(stack):
            values = np.maximum(values, 0)
    return values


@pytest.mark.parametrize("interaction", ["cat", "dot"])
@pytest.mark.parametrize("num_dense", [0, 2])
def test_logits_are_those_of_the_definition(interaction, num_dense):
    model = made(interaction, num_dense)
    ids, numbers = batch(num_dense=num_dense)
    vectors = model.embedding.table().numpy()[ids.numpy()]  # (B, F, D)
    dense = numpy_mlp(model.bottom, numbers.numpy(),
                      last_relu=True) if num_dense else np.zeros((len(ids), 0))
    if interaction == "cat":
        read = vectors.reshape(len(ids), -1)
    else:
        every = np.concatenate([dense[:, None], vectors], 1) if num_dense else vectors
        rows, columns = np.tril_indices(every.shape[1], -1)  # (1, 0), (2, 0), (2, 1), ...
        read = (every[:, rows] * every[:, columns]).sum(2)
    expected = numpy_mlp(model.top, np.concatenate([dense, read], 1), last_relu=False)[:, 0]
    found = model(ids, numbers) if num_dense else model(ids)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_initial_values_are_the_published_ones():
    model = DLRM(Uniform(torch.zeros(26, 16), 26), 13, Shape((512, 256, 64), (512, 256)))
    assert [layer.in_features for layer in model.bottom] == [13, 512, 256, 64]
    assert [layer.in_features for layer in model.top] == [432, 512, 256]
    for layer in (*model.bottom, *list(model.top)[:2]):
        outputs, inputs = layer.weight.shape
        assert float(layer.weight.detach().std()) == pytest.approx(
            math.sqrt(2 / (inputs + outputs)), rel=0.1
        )
        assert float(layer.bias.detach().std()) == pytest.approx(math.sqrt(1 / outputs), rel=0.4)
    table = initial_tables((100, 4), 64, torch.Generator().manual_seed(1))
    assert 0.09 < float(table[:100].abs().max()) <= 0.1
    assert 0.45 < float(table[100:].abs().max()) <= 0.5


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="interaction must be one of cat, dot, got 'sum'"):
        made("sum")
    with pytest.raises(ValueError, match="two vectors or more"):
        DLRM(Uniform(torch.zeros(3, 2), 1), 0, Shape((), (4,), "dot"))
    with pytest.raises(ValueError, match="reads 2 dense features a row, and got none"):
        made()(batch()[0])


def test_the_same_seed_gives_the_same_tables_under_every_scheme_of_one_table():
    uniform = build_embedding(SIZES, VALUES, 1).table()
    pep = build_embedding(SIZES, {**VALUES, "embedding": "pep", "threshold_type": "global",
                                  "threshold_init": -150.0, "g_type": "sigmoid", "gk": 1.0}, 1)
    assert torch.equal(uniform, pep.table())
    assert not torch.equal(uniform, build_embedding(SIZES, VALUES, 2).table())


KEPT = ((0, 2), (), (1, 2, 3))


def test_a_width_a_field_reads_the_columns_that_are_kept():
    table = torch.randn(15, WIDTH, generator=torch.Generator().manual_seed(1))
    small = PerField(table, SIZES, KEPT)
    ids, _ = batch()
    full = small(ids)
    for field, columns in enumerate(KEPT):
        for column in range(WIDTH):
            expected = table[ids[:, field].long(),
                             column] if column in columns else torch.zeros(len(ids))
            assert torch.equal(full[:, field, column], expected)
    read = torch.cat([full[:, field, list(columns)] for field, columns in enumerate(KEPT)], 1)
    assert torch.equal(small.deep_input(ids), read)
    assert small.deep_width == 5
    assert torch.equal(small.table()[ids.long(), :][:, 2], full[:, 2])
    assert small.num_params() == sum(p.numel() for p in small.parameters()) == 5 * 2 + 3 * 3
    assert small.inference_bytes() == 4 * 19
    assert {tuple(parameter.shape) for parameter in small.parameters()} == {(5, 2), (3, 3)}


def test_a_width_a_field_gets_gradients_where_it_is_read():
    small = PerField(torch.ones(15, WIDTH), SIZES, ((0, 1), (), (3, 2)))
    ids, _ = batch(rows=1)
    small.deep_input(ids).sum().backward()
    [table] = small.tables
    assert table.grad.sum() == 4
    assert table.grad[ids[0, 0].long()].tolist() == [1, 1]


@pytest.mark.parametrize("kept", [((0,), (0,)), ((0,), (), (4,)), ((), (), ())])
def test_columns_that_do_not_fit_are_refused(kept):
    with pytest.raises(ValueError, match=r"fit a table|must be kept"):
        PerField(torch.ones(15, WIDTH), SIZES, kept)
