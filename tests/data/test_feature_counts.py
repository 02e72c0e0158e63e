"""How often each feature occurs in the training rows, and who asks for it."""

import numpy as np
import pytest
import tiny
import torch

from data import feature_counts
from engine.settings import parse
from models.build import EMBEDDINGS, build_embedding

DATA = tiny.dataset(rows=600)
ROWS = DATA.schema.num_rows


def test_counts_are_those_of_the_training_rows_alone():
    expected = np.zeros(ROWS, int)
    for row in DATA.ids[:DATA.counts[0]]:
        for code in row:
            expected[code] += 1
    counts = feature_counts.count(DATA)
    assert counts.dtype == torch.int64
    assert counts.tolist() == expected.tolist()
    assert int(counts.sum()) == 4 * DATA.counts[0] < 4 * 600


def test_the_rows_are_counted_in_pieces(monkeypatch):
    whole = feature_counts.count(DATA)
    monkeypatch.setattr(feature_counts, "CHUNK", 7)
    assert torch.equal(feature_counts.count(DATA), whole)


@pytest.mark.parametrize(("counts", "message"), [
    (torch.ones(8), "got torch.float32"), (torch.tensor([1] * 7 + [-1]), "got -1 for feature 7"),
    (torch.ones(3, dtype=torch.int64), r"there must be 8 counts .*of shape \(3,\)")])
@pytest.mark.parametrize("embedding", ["mde", "mgqe"])
def test_whoever_builds_an_embedding_is_told_what_counts_it_needs(embedding, counts, message):
    values = parse({"embedding": embedding, "latent_dim": 8, "mgqe_centroids": 4}).flat()
    with pytest.raises(ValueError, match=message):
        build_embedding((5, 3), values, 1, lambda: counts)
    with pytest.raises(ValueError,
                       match="needs to know how often each feature occurs; give `counts`"):
        build_embedding((5, 3), values, 1)


def test_only_those_that_are_made_by_popularity_ask_for_it():
    asked = set()
    for name in EMBEDDINGS:
        values = parse({"embedding": name, "latent_dim": 8, "mgqe_centroids": 4,
                        "hash_rows": 4}).flat()
        build_embedding((9, 3), values, 1, lambda name=name: (asked.add(name), torch.arange(12))[1])
    assert asked == {"mde", "mgqe"}
