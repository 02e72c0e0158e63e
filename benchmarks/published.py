"""The training step in the published style, to be timed beside ours: everything eager, the whole
table every time."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, embedding
from torchfm.layer import FactorizationMachine, FeaturesLinear, MultiLayerPerceptron

Sizes = tuple[int, ...]  # rows of each field


class ThresholdedTable(nn.Module):
    """A table that is thresholded whole at every forward; the pruned table is kept for counting."""

    offsets: Tensor

    def __init__(self, initial: Tensor, sizes: Sizes, threshold_init: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial.clone())
        self.thresholds = nn.Parameter(torch.full_like(initial, threshold_init))
        self.register_buffer("offsets", torch.tensor((0, *np.cumsum(sizes)[:-1])))
        self.sparse = initial

    def forward(self, codes: Tensor) -> Tensor:
        """(B, F) -> (B, F, D)."""
        weight, thresholds = self.weight, self.thresholds
        self.sparse = torch.sign(weight) * torch.relu(torch.abs(weight) - torch.sigmoid(thresholds))
        return embedding(codes + self.offsets, self.sparse)

    def num_params(self) -> int:
        """Non-zero entries of the table of the last forward."""
        return torch.nonzero(self.sparse).size(0)


class Published(nn.Module):
    """FM, DeepFM or AutoInt of torchfm's layers, as the published code composes them.

    Args:
        values: settings by their published names.
        initial: V0 (N, D).
        sizes: rows of each field.
    """

    def __init__(self, values: dict[str, Any], initial: Tensor, sizes: Sizes) -> None:
        super().__init__()
        self.table = ThresholdedTable(initial, sizes, values["threshold_init"])
        fields, width = len(sizes), initial.shape[1]
        self.attention = self.mlp = None
        if values["model"] == "autoint":
            self.attention = PublishedAttention(values, fields, width)
        else:
            self.linear, self.fm = FeaturesLinear(sizes), FactorizationMachine(reduce_sum=True)
        if values["model"] != "fm":
            self.mlp = MultiLayerPerceptron(fields * width, values["mlp_dims"], values["dropout"])

    def forward(self, codes: Tensor) -> Tensor:
        """(B, F) -> logits (B,)."""
        vectors = self.table(codes)  # (B, F, D)
        # (B, 1)
        logits = (
            self.linear(codes) + self.fm(vectors)
            if self.attention is None
            else self.attention(vectors)
        )
        if self.mlp is not None:
            logits = logits + self.mlp(vectors.flatten(1))
        return logits.squeeze(1)


class PublishedAttention(nn.Module):
    """AutoInt's interaction part around torch's MultiheadAttention."""

    def __init__(self, values: dict[str, Any], fields: int, width: int) -> None:
        super().__init__()
        inner = values["atten_embed_dim"]
        self.project = nn.Linear(width, inner)
        self.layers = nn.ModuleList(nn.MultiheadAttention(inner, values["num_heads"],
                                                          dropout=values["att_dropout"])
                                    for _ in range(values["num_layers"]))
        self.residual = nn.Linear(width, inner)
        self.output = nn.Linear(fields * inner, 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, F, D) -> (B, 1)."""
        crossed = self.project(vectors).transpose(0, 1)  # (F, B, inner)
        for layer in self.layers:
            crossed, _ = layer(crossed, crossed, crossed)
        crossed = crossed.transpose(0, 1) + self.residual(vectors)
        return self.output(torch.relu(crossed).flatten(1))


class PublishedStep:
    """One step in the published style: everything eager, nothing fused, the non-zeros counted each
    time."""

    def __init__(self, model: Published, values: dict[str, Any]) -> None:
        self.model = model
        self.grad_clip = values["grad_clip"]
        self.count = 0
        self.optimizer = torch.optim.Adam(model.parameters(), lr=values["lr"], foreach=False,
                                          fused=False,
                                          weight_decay=values["l2_regularization"])

    def __call__(self, codes: Tensor, labels: Tensor) -> Tensor:
        """codes (B, F), values counted from 0 in each field, and labels (B,) -> the loss."""
        self.optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(self.model(codes), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.optimizer.step()
        self.count = self.model.table.num_params()
        return loss.detach()
