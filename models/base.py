"""What every model is."""

from typing import Any

from torch import nn


class ClickModel(nn.Module):
    """ids (B, F) -> logits (B,), around an injected embedding (None for logistic regression)."""

    embedding: Any  # an `Embedding`; nn.Module's own typing cannot say so
