import itertools

import pytest
import torch
from training import ids_of

from models.build import EMBEDDINGS, MODELS, build_embedding, build_model, num_embedding_params
from models.embedding.base import initial_table
from models.embedding.masked import Masked

SIZES, WIDTH = (5, 2, 9), 4
VALUES = {"latent_dim": WIDTH, "mlp_dims": (6, 5), "dropout": 0.2, "num_heads": 2, "num_layers": 2,
          "att_dropout": 0.1, "atten_embed_dim": 8, "has_residual": True, "full_part": True,
          "with_linear": False, "threshold_type": "feature_dim", "threshold_init": -3.0,
          "g_type": "sigmoid", "gk": 1.0, "darts_widths": (1, 2, WIDTH), "mde_blocks": 3,
          "mde_alpha": 0.5, "mgqe_subspaces": 2, "mgqe_centroids": 8, "hash_rows": 7,
          "qr_collisions": 3, "tt_rank": 2, "arch_mlp_bot": (5,), "arch_mlp_top": (7, 6),
          "arch_interaction_op": "cat"}
TABLES = ("uniform", "pep", "masked")  # whose parameters are the entries of the table
VARIANTS = [dict(zip(("has_residual", "full_part", "with_linear"), on, strict=True))
            for on in itertools.product((False, True), repeat=3)]
# every model with the tables of the scripts, and every embedding in two models
CASES = {f"{model} {embedding}": {"model": model, "embedding": embedding}
         for model, embedding in itertools.product(MODELS, TABLES)}
CASES |= {f"{model} {embedding}": {"model": model, "embedding": embedding}
          for model, embedding in itertools.product(("fm", "deepfm"), EMBEDDINGS)}
CASES["dlrm dot"] = {"model": "dlrm", "embedding": "uniform", "arch_interaction_op": "dot"}
CASES |= {f"autoint {variant}": {"model": "autoint", "embedding": "uniform", **variant}
          for variant in VARIANTS}
CASES["autoint paper"] = {"model": "autoint", "embedding": "uniform", "att_layer": "paper"}


def make(case, seed=1):
    values = {**VALUES, **case}
    if values["embedding"] == "masked" and values["model"] != "linear":
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(sum(SIZES), WIDTH, generator=generator) < 0.5
        embedding = Masked(initial_table(sum(SIZES), WIDTH, generator), mask, len(SIZES))
    else:
        embedding = build_embedding(SIZES, values, seed, lambda: torch.arange(sum(SIZES)))
    return build_model(SIZES, values, seed, embedding)


def batch(rows=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = ids_of(SIZES, rows, generator)
    return ids, torch.randint(2, (rows,), generator=generator).float()


def trained_parameters(model):
    """All but the biases that a batch norm cancels: their gradient is zero up to rounding."""
    cancelled = []
    for name, layers in model.named_modules():
        if isinstance(layers, torch.nn.Sequential):
            cancelled += [f"{name}.{position - 1}.bias" for position, layer in enumerate(layers)
                          if isinstance(layer, torch.nn.BatchNorm1d)]
    return {name: parameter for name, parameter in model.named_parameters()
            if name not in cancelled}


@pytest.mark.parametrize("name", CASES)
def test_contract(name):
    case = CASES[name]
    model = make(case).eval()
    ids, _ = batch()
    with torch.no_grad():
        logits = model(ids)
    assert logits.shape == (32,)
    assert logits.isfinite().all()
    assert logits.unique().numel() > 1
    with torch.no_grad():
        assert model(ids[:1]).shape == (1,)
        # a row's logit does not depend on its batch
        assert torch.allclose(model(ids[:7]), logits[:7], atol=1e-6)

    again, other = make(case), make(case, seed=2).eval()
    assert all(torch.equal(value, again.state_dict()[key]) for key,
               value in model.state_dict().items())
    with torch.no_grad():
        assert not torch.equal(other(ids), logits)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(ids), logits)
    table = model.embedding.table()
    if case["embedding"] in TABLES:
        assert num_embedding_params(model) == torch.count_nonzero(table)


@pytest.mark.parametrize("name", CASES)
def test_gradient_reaches_every_parameter(name):
    model = make(CASES[name]).train()
    ids, labels = batch(rows=200)
    torch.manual_seed(0)
    torch.nn.functional.binary_cross_entropy_with_logits(model(ids), labels).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    for parameter_name, parameter in trained_parameters(model).items():
        assert parameter.grad.any(), parameter_name
    if model.embedding.width and CASES[name]["embedding"] in TABLES:
        reached = model.embedding.weight.grad != 0
        # every kept entry of every row, and no other
        assert torch.equal(reached, model.embedding.table() != 0)


@pytest.mark.parametrize("name", CASES)
def test_training_moves_every_parameter_and_lowers_the_loss(name):
    model = make(CASES[name]).train()
    ids, labels = batch(rows=64)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    torch.manual_seed(0)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(ids), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert all(not torch.equal(parameter, before[key]) for key,
               parameter in trained_parameters(model).items())


def test_building_a_model_leaves_the_global_generator_alone():
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    make(CASES["autoint uniform"])
    assert torch.equal(torch.rand(3), expected)


def test_the_embedding_does_not_change_what_the_rest_starts_from():
    uniform, pep = make(CASES["deepfm uniform"]), make(CASES["deepfm pep"])
    for name, value in uniform.state_dict().items():
        assert torch.equal(value, pep.state_dict()[name])


@pytest.mark.parametrize("variant", VARIANTS)
def test_autoint_has_the_parts_that_its_variant_names(variant):
    model = make({"model": "autoint", "embedding": "uniform", **variant})
    assert (model.residual is not None, model.mlp is not None,
            model.linear is not None) == tuple(variant.values())


def test_attention_width_must_be_a_multiple_of_the_heads():
    with pytest.raises(ValueError, match="8 must be a multiple of num_heads 3"):
        make({"model": "autoint", "embedding": "uniform", "num_heads": 3})
