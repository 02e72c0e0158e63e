"""200 steps of a search in double precision against the published mathematics, restated from the
formulas.

Restated here: S(V, s) of the whole table (eq. 8), the logits of the models, the sum of cross
entropies over the batch size plus the penalty on the batch's vectors, one clip over all gradients,
Adam with coupled decay on every
parameter. Held against it: `engine.optim.step.Step` around the models of the registry, where the
table is thresholded first and where the rows are gathered first.
"""

import pytest
import torch
from torch.nn.functional import batch_norm, binary_cross_entropy_with_logits
from training import few

from engine.optim.step import Step, build_optimizer
from models.build import build_embedding, build_model

SIZES, WIDTH, HEADS, STEPS = (9, 3, 20, 6), 6, 2, 200
LR, DECAY, THRESHOLD = 1e-2, 1e-3, -4.0
SETTINGS = {"embedding": "pep", "latent_dim": WIDTH, "threshold_type": "feature_dim",
            "threshold_init": THRESHOLD, "g_type": "sigmoid", "gk": 1.0, "mlp_dims": (5, 4),
            "dropout": 0.0, "atten_embed_dim": 8, "num_heads": HEADS, "num_layers": 2,
            "att_dropout": 0.0, "has_residual": True, "full_part": True, "with_linear": False}


def first_order(p, ids):
    return p["linear.layer.fc.weight"][ids, 0].sum(1) + p["linear.layer.bias"]


def pairs(vectors):
    """The sum of the products of every two vectors, through the square of their sum."""
    return 0.5 * (vectors.sum(1).square() - vectors.square().sum(1)).sum(1)


def mlp(p, x):
    for place in (0, 4):  # linear, batch norm, ReLU, dropout; twice, then the last linear layer
        x = x @ p[f"mlp.mlp.{place}.weight"].T + p[f"mlp.mlp.{place}.bias"]
        x = batch_norm(x, None, None, p[f"mlp.mlp.{place + 1}.weight"],
                       p[f"mlp.mlp.{place + 1}.bias"], training=True)
        x = x.relu()
    return (x @ p["mlp.mlp.8.weight"].T + p["mlp.mlp.8.bias"])[:, 0]


def attention(p, layer, x):
    """Multi-head self-attention between the fields of each row, (B, F, A) -> (B, F, A)."""
    name = f"attention.{layer}.layer"
    projected = x @ p[f"{name}.in_proj_weight"].T + p[f"{name}.in_proj_bias"]
    heads = []
    size = x.shape[2] // HEADS
    for head in range(HEADS):
        query, key, value = (part[..., head * size:(head + 1) * size]
                             for part in projected.chunk(3, dim=2))
        heads.append(torch.softmax(query @ key.mT / size ** 0.5, dim=2) @ value)
    return torch.cat(heads, 2) @ p[f"{name}.out_proj.weight"].T + p[f"{name}.out_proj.bias"]


def logits_of(model, p, ids, vectors):
    if model == "fm":
        return first_order(p, ids) + pairs(vectors)
    deep = mlp(p, vectors.flatten(1))
    if model == "deepfm":
        return first_order(p, ids) + pairs(vectors) + deep
    crossed = vectors @ p["project.weight"].T + p["project.bias"]
    for layer in range(SETTINGS["num_layers"]):
        crossed = attention(p, layer, crossed)
    crossed = (crossed + vectors @ p["residual.weight"].T + p["residual.bias"]).relu().flatten(1)
    return (crossed @ p["output.weight"].T + p["output.bias"])[:, 0] + deep


def pruned(p):
    values = p["embedding.weight"]
    return values.sign() * (values.abs() - p["embedding.thresholds"].sigmoid()).relu()


def with_effect(name, value):
    """Without the bias of the keys, which softmax cancels: rounding alone moves it."""
    value = value.detach()
    if not name.endswith("in_proj_bias"):
        return value
    query, _, rest = value.chunk(3)
    return torch.cat([query, rest])


def batches(batch):
    generator = torch.Generator().manual_seed(3)
    starts = torch.tensor((0, *SIZES[:-1])).cumsum(0)
    for _ in range(STEPS):
        ids = torch.stack([start + torch.randint(size, (batch,), generator=generator)
                           for start, size in zip(starts, SIZES, strict=True)], 1)
        yield ids, torch.randint(2, (batch,), generator=generator).double()


# more ids than rows, and fewer
@pytest.mark.parametrize(("batch", "clip", "penalty"), few([
    (48, 0.1, 0.05), (8, 100.0, 0.0), (48, 0.1, 0.0), (8, 100.0, 0.05)], 0, 1))
@pytest.mark.parametrize("name", few(["fm", "autoint", "deepfm"], 0, 1))
def test_200_steps_follow_the_published_mathematics(name, penalty, batch, clip):
    values = {**SETTINGS, "model": name}
    model = build_model(SIZES, values, 1, build_embedding(SIZES, values, 1)).double().train()
    p = {key: value.detach().clone().requires_grad_() for key, value in model.named_parameters()}
    theirs = torch.optim.Adam(p.values(), lr=LR, weight_decay=DECAY, eps=1e-8)
    optimizer = build_optimizer(model, LR, DECAY, DECAY)
    step = Step(model, optimizer, clip, penalty, "dense")
    clipped = 0
    for ids, labels in batches(batch):
        vectors = pruned(p)[ids]
        entropy = binary_cross_entropy_with_logits(logits_of(name, p, ids, vectors), labels,
                                                   reduction="sum") / batch
        theirs.zero_grad()
        (entropy + penalty * vectors.square().sum() / batch).backward()
        clipped += int(torch.nn.utils.clip_grad_norm_(p.values(), clip) > clip)
        theirs.step()
        assert step(ids, labels).item() == pytest.approx(entropy.item(), rel=1e-9)
    optimizer.refresh()
    count = int(torch.count_nonzero(pruned(p)))
    assert (clipped > 0) == (clip < 1)
    assert 0 < count < model.embedding.weight.numel()
    assert model.embedding.num_params() == count
    for key, value in model.named_parameters():
        torch.testing.assert_close(with_effect(key, value), with_effect(key, p[key]), rtol=1e-8,
                                   atol=1e-9)
