"""What a compression says about itself."""

from types import SimpleNamespace

import pytest
import torch

from compression.afm.compress import Choice, compress
from compression.afm.statistics import table_moments
from models.build import build_embedding, build_model

SIZES = (60, 4)
SCHEMA = SimpleNamespace(fields=("user", "sex"), sizes=SIZES)


def model_and_counts():
    """Frequent ids vary along other axes than rare ones, which are many."""
    values = {"model": "fm", "embedding": "uniform", "latent_dim": 6}
    model = build_model(SIZES, values, 1, build_embedding(SIZES, values, 1)).eval()
    drawn = torch.randn(sum(SIZES), 6, generator=torch.Generator().manual_seed(0))
    axes = torch.ones(sum(SIZES), 6)
    axes[:10, 3:] = 0.1
    axes[10:60, :3] = 0.1
    with torch.no_grad():
        model.embedding.weight.copy_(drawn * axes)
    return model, torch.tensor([100] * 10 + [1] * 50 + [7, 7, 7, 7])


def test_what_is_lost_is_told_by_frequency_and_with_every_id_once():
    model, counts = model_and_counts()
    table = model.embedding.table()
    lost = {}
    for method in ("afm", "svd"):
        made = compress(model, Choice(method, emb_rank=3), table_moments(table, counts, SIZES),
                        SCHEMA, None, list, 1)
        lost[method] = made.errors
        after = made.model.embedding.table()
        for part, rebuilt, weights, name in zip(table.split(SIZES), after.split(SIZES),
                                                counts.split(SIZES),
                                                SCHEMA.fields, strict=True):
            once = torch.full((len(part),), 1 / len(part))
            for what, p in (("fields", weights / weights.sum()), ("fields_unweighted", once)):
                spread = p @ (part - p @ part).square().sum(1)
                assert made.errors[what][name] == pytest.approx(
                    float(p @ (part - rebuilt).square().sum(1) / spread), rel=1e-4, abs=1e-6
                )
    assert lost["afm"]["fields"]["user"] < lost["svd"]["fields"]["user"]  # what AFM is for
    # what it costs
    assert lost["afm"]["fields_unweighted"]["user"] > lost["svd"]["fields_unweighted"]["user"]
