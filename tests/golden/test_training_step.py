"""Whole training steps of FM and of PEP around FM in numpy: loss, gradients, clipping, Adam with
coupled decay."""

import itertools

import numpy as np
import pytest
import torch

from engine.optim.step import Step, build_optimizer
from models.build import MODELS, build_embedding, build_model

SIZES, WIDTH = (6, 3, 8), 4
LR, INSIDE_DECAY, OUTSIDE_DECAY = 0.01, 0.03, 0.2  # large enough to be seen in one step
NAMES = {"embedding.weight": "V", "embedding.thresholds": "s", "linear.layer.fc.weight": "w",
         "linear.layer.bias": "b"}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loss_and_gradients(p, ids, labels, penalty):
    """Mean binary cross entropy, and by hand the gradients of it with the penalty on the batch's
    vectors."""
    g = sigmoid(p["s"]) if "s" in p else np.zeros_like(p["V"])
    kept = np.abs(p["V"]) > g
    table = np.where(kept, np.sign(p["V"]) * (np.abs(p["V"]) - g), 0)
    logits = np.empty(len(ids))
    gradients = {name: np.zeros_like(value) for name, value in p.items()}
    on_table = np.zeros_like(table)
    losses = np.empty(len(ids))
    for i, rows in enumerate(ids):
        pairs = sum(table[a] @ table[b] for a, b in itertools.combinations(rows, 2))
        logits[i] = p["b"][0] + p["w"][rows, 0].sum() + pairs
        probability = sigmoid(logits[i])
        losses[i] = -np.log(probability if labels[i] else 1 - probability)
        slope = (probability - labels[i]) / len(ids)
        gradients["b"] += slope
        for a in rows:
            gradients["w"][a, 0] += slope
            on_table[a] += slope * sum(table[b] for b in rows if b != a)
            on_table[a] += 2 * penalty * table[a] / len(ids)
    gradients["V"] = on_table * kept
    if "s" in p:
        gradients["s"] = -np.sign(p["V"]) * on_table * kept * g * (1 - g)
    return losses.mean(), gradients


class NumpyAdam:
    def __init__(self, parameters, clip, penalty):
        self.p, self.clip, self.penalty, self.t = parameters, clip, penalty, 0
        self.m = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.v = {name: np.zeros_like(value) for name, value in parameters.items()}

    def step(self, ids, labels):
        loss, gradients = loss_and_gradients(self.p, ids, labels, self.penalty)
        norm = np.sqrt(sum((gradient ** 2).sum() for gradient in gradients.values()))
        self.t += 1
        for name, gradient in gradients.items():
            decay = INSIDE_DECAY if name in ("V", "s") else OUTSIDE_DECAY
            total = gradient * min(1, self.clip / norm) + decay * self.p[name]
            self.m[name] = 0.9 * self.m[name] + 0.1 * total
            self.v[name] = 0.999 * self.v[name] + 0.001 * total ** 2
            mean, square = self.m[name] / (1 - 0.9 ** self.t), self.v[name] / (1 - 0.999 ** self.t)
            self.p[name] = self.p[name] - LR * mean / (np.sqrt(square) + 1e-8)
        return loss, norm


def batches(count, rows=32):
    rng = np.random.default_rng(0)
    starts = np.cumsum((0, *SIZES[:-1]))
    for _ in range(count):  # the last row of each field is never drawn
        ids = np.stack([start + rng.integers(0, size - 1, rows) for start,
                        size in zip(starts, SIZES, strict=True)], 1)
        yield ids, rng.integers(0, 2, rows).astype(float)


@pytest.mark.parametrize(
    ("embedding", "steps", "clip", "penalty", "update"),
    [
        *itertools.product(("uniform", "pep"), (1, 20), (100.0, 0.2), (0.0,), ("streamed",)),
        *itertools.product(("uniform", "pep"), (1, 20), (100.0,), (0.3,), ("streamed",)),
        ("pep", 20, 0.2, 0.3, "dense"),
        ("pep", 20, 0.2, 0.3, "lazy"),
    ],
)
def test_steps(embedding, steps, clip, penalty, update):
    values = {"model": "fm", "embedding": embedding, "latent_dim": WIDTH,
              "threshold_type": "feature_dim",
              "threshold_init": -2.5, "g_type": "sigmoid", "gk": 1.0}
    model = build_model(SIZES, values, 1, build_embedding(SIZES, values, 1)).train()
    start = {NAMES[name]: value.detach().double().numpy().copy() for name,
             value in model.named_parameters()}
    numpy_adam = NumpyAdam(dict(start), clip, penalty)
    optimizer = build_optimizer(model, LR, INSIDE_DECAY, OUTSIDE_DECAY)
    step = Step(model, optimizer, clip, penalty, update)
    clipped = 0
    for ids, labels in batches(steps):
        expected, norm = numpy_adam.step(ids, labels)
        loss = step(torch.tensor(ids, dtype=torch.int32), torch.tensor(labels, dtype=torch.float32))
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        optimizer.refresh()
        clipped += norm > clip
    assert (clipped == 0) == (clip == 100.0)
    for name, value in model.named_parameters():
        np.testing.assert_allclose(value.detach(), numpy_adam.p[NAMES[name]], atol=2e-5,
                                   err_msg=name)
        assert np.abs(value.detach().numpy() - start[NAMES[name]]).max() > 0.5 * LR * min(steps, 10)


@pytest.mark.parametrize("name", MODELS)
def test_each_parameter_is_in_exactly_one_group_with_its_own_decay(name):
    values = {"model": name, "embedding": "pep", "latent_dim": WIDTH, "threshold_type": "field",
              "threshold_init": -2.5, "g_type": "sigmoid", "gk": 1.0, "mlp_dims": (3,),
              "dropout": 0.1, "atten_embed_dim": 4, "num_heads": 2, "num_layers": 1,
              "att_dropout": 0.1, "has_residual": True, "full_part": True, "with_linear": True,
              "arch_mlp_bot": (5,), "arch_mlp_top": (6,), "arch_interaction_op": "cat"}
    model = build_model(SIZES, values, 1, build_embedding(SIZES, values, 1))
    groups = build_optimizer(model, LR, INSIDE_DECAY, OUTSIDE_DECAY).param_groups
    decays = {}
    for group in groups:
        decays |= dict.fromkeys(group["params"], group["weight_decay"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    inside = set(model.embedding.parameters()) if model.embedding is not None else set()
    assert {parameter for parameter, decay in decays.items() if decay == INSIDE_DECAY} == inside
    assert {parameter for parameter, decay in decays.items() if decay == OUTSIDE_DECAY} == set(
        model.parameters()) - inside
    assert all((group["lr"], group["betas"], group["eps"]) == (LR, (0.9, 0.999), 1e-8)
               for group in groups)
