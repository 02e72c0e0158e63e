import numpy as np
import pytest

from models.embedding.none import NoEmbedding
from models.linear import Linear


def test_a_numpy_that_torchfm_cannot_use_is_named(monkeypatch):
    monkeypatch.delattr(np, "long")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    message = r"Linear, FM and DeepFM, need numpy 2 or newer, this is 1\.26\.4: pip install"
    with pytest.raises(ImportError, match=message):
        Linear(NoEmbedding((4,)))
