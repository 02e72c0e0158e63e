"""A run's id tells apart whatever its model or its training would tell apart, for everything in the
registries."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.settings import identity, parse
from models.base import ClickModel
from models.build import EMBEDDINGS, MODELS, build_embedding, build_model
from models.embedding.uniform import Uniform

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
    return {**state, "logits": logits.detach(), **gradients}, dict(getattr(embedding, "decays", {}))


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
    """A model as a user adds one: a hidden layer as wide as `mlp_dims` says."""

    def __init__(self, embedding, hidden):
        super().__init__()
        self.embedding = embedding
        self.hidden = torch.nn.Linear(embedding.deep_width, hidden)

    def forward(self, ids):
        return self.hidden(self.embedding.deep_input(ids)).relu().sum(1)


def test_a_model_that_was_added_shares_no_id_between_settings_that_it_may_read(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", lambda embedding, sizes,
                        values: Toy(embedding, values["mlp_dims"][0]))
    base = {"model": "toy", "embedding": "uniform", "latent_dim": 8, "mlp_dims": [32]}
    changes = {"mlp_dims": [64], "num_layers": 1, "arch_mlp_top": [9], "l2_penalty": 0.1,
               "dropout": 0.5}
    ids = {identity(parse({**base, name: value})) for name, value in changes.items()}
    assert len(ids | {identity(parse(base))}) == 1 + len(changes)


def test_an_embedding_that_was_added_shares_no_id_between_settings_that_it_may_read(monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "toy", lambda draw, sizes, values, counts: Uniform(
        draw(sum(sizes), values["hash_rows"]), len(sizes)))
    base = {"model": "fm", "embedding": "toy", "hash_rows": 4}
    changes = {"hash_rows": 5, "mde_alpha": 0.7, "threshold_init": -3.0, "tt_rank": 2,
               "log_interval": 3}
    ids = {identity(parse({**base, name: value})) for name, value in changes.items()}
    assert len(ids | {identity(parse(base))}) == 1 + len(changes)
