"""A run's id tells apart whatever its model or its training would tell apart, for everything in the
registries."""

from dataclasses import dataclass

import pytest
import tiny
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.settings import described, identity, parse, require_used
from models.base import ClickModel, ModelEntry
from models.build import EMBEDDINGS, MODELS, build_embedding, build_model
from models.embedding.base import EmbeddingEntry
from models.embedding.uniform import Uniform
from models.options import option

SIZES, NUMBERS = (9, 3, 20, 6), 2
BASE = {"latent_dim": 8, "mlp_dims": [6], "atten_embed_dim": 4, "num_layers": 1,
        "arch_mlp_bot": [5], "arch_mlp_top": [6], "mde_blocks": 3, "mgqe_subspaces": 4,
        "mgqe_centroids": 6, "hash_rows": 7, "tt_rank": 2, "threshold_init": -2.0}
OTHER = {"latent_dim": 12, "mlp_dims": [4], "dropout": 0.5, "num_heads": 4, "num_layers": 2,
         "att_dropout": 0.1, "atten_embed_dim": 8, "has_residual": False, "full_part": False,
         "with_linear": True, "threshold_type": "feature", "threshold_init": -3.0,
         "g_type": "softplus", "gk": 2.0, "threshold_decay": "none", "threshold_gradient": False,
         "darts_widths": [2, 5], "mde_blocks": 2, "mde_alpha": 0.9, "mgqe_subspaces": 2,
         "mgqe_centroids": 5, "hash_rows": 8, "qr_collisions": 2, "tt_rank": 3, "arch_mlp_bot": [4],
         "arch_mlp_top": [5], "arch_interaction_op": "dot"}


def seen(given):
    """All that a model of these settings shows: its values, its logits in training, its gradients,
    its decays."""
    values = parse(given).flat()
    embedding = build_embedding(SIZES, values, 1, lambda: torch.arange(sum(SIZES)))
    model = build_model(SIZES, values, 1, embedding, NUMBERS if values["model"] == "dlrm"
                        else 0).train()
    generator = torch.Generator().manual_seed(2)
    starts = torch.tensor((0, *SIZES[:-1])).cumsum(0)
    ids = torch.stack([first + torch.randint(size, (32,), generator=generator)
                       for first, size in zip(starts, SIZES, strict=True)], 1)
    inputs = (ids, torch.randn(32, NUMBERS,
                               generator=generator)) if values["model"] == "dlrm" else (ids,)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    logits = model(*inputs)
    binary_cross_entropy_with_logits(logits, torch.randint(2, (32,),
                                                           generator=generator).float()).backward()
    gradients = {f"{name}.grad": value.grad for name, value in model.named_parameters()
                 if value.grad is not None}
    return {**state, "logits": logits.detach(), **gradients}, dict(embedding.decays)


def same(first, second):
    (values, decays), (others, other_decays) = first, second
    return decays == other_decays and values.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in values.items())


@pytest.mark.parametrize(("model", "embedding"), [
    *((model, "pep") for model in MODELS),
    *(("deepfm", embedding) for embedding in EMBEDDINGS if embedding != "pep")])
def test_two_values_of_a_setting_that_show_in_model_or_gradients_are_two_ids(model, embedding):
    base = {**BASE, "model": model, "embedding": embedding}
    before, found = seen(base), set()
    for name, value in OTHER.items():
        changed = {**base, name: value}
        if not same(before, seen(changed)):
            found.add(name)
            assert identity(parse(base)) != identity(parse(changed)), name
    assert (model == "linear") == (not found)


class Toy(ClickModel):
    """A model as a user adds one."""

    def __init__(self, embedding, hidden):
        super().__init__()
        self.embedding = embedding
        self.hidden = torch.nn.Linear(embedding.deep_width, hidden)

    def forward(self, ids):
        return self.hidden(self.embedding.deep_input(ids)).relu().sum(1)


@dataclass(frozen=True)
class ToySettings:
    """A record as a user adds one."""

    toy_width: int = option(3, "of the hidden layer", low=1)


def test_a_model_that_was_added_brings_its_settings_and_they_enter_the_id(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", ModelEntry(
        lambda embedding, sizes, own, num_dense: Toy(embedding, own.toy_width), ToySettings))
    base = {"model": "toy", "embedding": "uniform", "latent_dim": 8}
    changes = {"toy_width": 4, "l2_penalty": 0.1, "latent_dim": 4}
    ids = {identity(parse({**base, name: value})) for name, value in changes.items()}
    assert len(ids | {identity(parse(base))}) == 1 + len(changes)
    assert identity(parse({**base, "model": "fm", "toy_width": 4})) == identity(
        parse({**base, "model": "fm"}))
    assert seen({**base, "toy_width": 5})[0]["hidden.weight"].shape[0] == 5


def test_an_embedding_that_was_added_needs_one_line_of_the_registry(monkeypatch, tmp_path):
    monkeypatch.setitem(EMBEDDINGS, "toy", EmbeddingEntry(
        lambda plan: Uniform(plan.draw(plan.num_rows, plan.own.toy_width), plan.num_fields),
        ToySettings))
    base = {"model": "fm", "embedding": "toy"}
    assert identity(parse(base)) != identity(parse({**base, "toy_width": 5}))
    assert "toy_width = 3 (default 3; >= 1): of the hidden layer" in described(base)
    with pytest.raises(ValueError, match="toy_width is a setting of embedding toy"):
        require_used(parse({}), ["toy_width"])
    tiny.install(monkeypatch, tiny.dataset(rows=160))
    result = tiny.train(tmp_path, **base, toy_width=5, max_epochs=1)
    assert result["steps"] == 2
    assert result["num_embedding_params"] == 5 * sum(result["data"]["field_sizes"].values())
    assert result["settings"]["toy_width"] == 5
    with pytest.raises(ValueError, match="toy_width must be at least 1, got 0"):
        parse({**base, "toy_width": 0})
