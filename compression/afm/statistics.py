"""Mean and covariance of what a layer or a table gives out, in one pass and double precision."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Inputs, called

CHUNK = 1 << 16  # table rows turned into double precision at a time


@dataclass
class Moments:
    """Count, mean and co-moments of vectors of `width` m that come in any batches, in any order.

    A batch b joins what is there, a, by Chan's merge: with delta = mean_b - mean_a,

        M <- M_a + M_b + delta delta^T n_a n_b / (n_a + n_b)
        mean <- mean_a + delta n_b / (n_a + n_b).

    The published code sums y y^T in single precision and subtracts mean mean^T at the end, which
    cancels: with a mean of 100 a coordinate of standard deviation 0.1 comes out with a negative
    variance.

    >>> moments = Moments(2).add(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    >>> moments.mean.tolist(), moments.covariance().tolist()
    ([2.0, 2.0], [[1.0, 2.0], [2.0, 4.0]])
    """

    width: int
    count: float = 0.0
    mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    comoment: Tensor = field(default_factory=lambda: torch.zeros(0))  # M (m, m)

    def __post_init__(self) -> None:
        if not len(self.mean):
            self.mean = torch.zeros(self.width, dtype=torch.float64)
            self.comoment = torch.zeros(self.width, self.width, dtype=torch.float64)

    def add(self, vectors: Tensor, weights: Tensor | None = None) -> "Moments":
        """Take in `vectors` (B, m), each counted `weights` (B,) times, once when there are none;
        returns itself.

        Raises:
            ValueError: another width, a value that is not finite, or a negative weight.
        """
        if vectors.dim() != 2 or vectors.shape[1] != self.width:
            raise ValueError(f"the vectors must be of shape (B, {self.width}), got "
                             f"{tuple(vectors.shape)}")
        vectors = vectors.detach().double()
        if weights is not None:
            weights = weights.double()
            if (weights < 0).any():
                raise ValueError(f"weights must not be negative, got {float(weights.min())}")
        total = float(len(vectors) if weights is None else weights.sum())
        if not total:
            return self
        mean = vectors.mean(0) if weights is None else weights @ vectors / total
        if not torch.isfinite(mean).all():
            raise ValueError("the calibration met outputs that are not finite; look at the model's "
                             "weights and the data")
        centred = vectors - mean
        comoment = centred.T @ (centred if weights is None else centred * weights[:, None])
        return self.merge(Moments(self.width, total, mean, comoment))

    def merge(self, other: "Moments") -> "Moments":
        """Take in another's vectors; returns itself."""
        count = self.count + other.count
        if other.count:
            mean, comoment = other.mean.to(self.mean.device), other.comoment.to(self.mean.device)
            delta = mean - self.mean
            between = torch.outer(delta, delta) * (self.count * other.count / count)
            self.comoment = self.comoment + comoment + between
            self.mean = self.mean + delta * (other.count / count)
            self.count = count
        return self

    def content(self) -> dict[str, Any]:
        """For a file: `Moments(width, **content)` goes on from it."""
        return {"count": self.count, "mean": self.mean, "comoment": self.comoment}

    def covariance(self) -> Tensor:
        """C (m, m), divided by the count.

        Raises:
            ValueError: nothing has been counted.
        """
        if not self.count:
            raise ValueError("there are no calibration data: nothing was counted")
        return (self.comoment + self.comoment.T) / (2 * self.count)


def table_moments(table: Tensor, counts: Tensor, field_sizes: Sequence[int],
                  smoothing: float = 0.0) -> list[Moments]:
    """What a pass over the data would count of each field's vectors, without one: rows weighted by
    their frequency.

    With p the frequencies of a field's ids, mean = E^T p and C = (E - 1 mean^T)^T diag(p) (E - 1
    mean^T). A field of which nothing was counted weighs its rows equally.

    Args:
        table: (N, D).
        counts: (N,) how often each id occurs in the calibration data.
        field_sizes: rows of each field, in order; they sum to N.
        smoothing: added to every count, so that ids which do not occur have a say; 0 is the
            paper's.

    Raises:
        ValueError: the shapes do not fit, or no id was counted.

    >>> table_moments(torch.tensor([[0.0], [4.0], [9.0]]), torch.tensor([1, 3, 5]), (2, 1))[0].mean
    tensor([3.], dtype=torch.float64)
    """
    if counts.shape != (len(table),) or sum(field_sizes) != len(table):
        raise ValueError(f"the table has {len(table)} rows, the counts are of shape "
                         f"{tuple(counts.shape)} and the fields {tuple(field_sizes)} have "
                         f"{sum(field_sizes)}; give one count for each row")
    if not counts.sum() > 0:
        raise ValueError("there are no calibration data: every count is 0")
    found, start = [], 0
    for size in field_sizes:
        weights = counts[start:start + size].double() + smoothing
        weights = weights if weights.sum() > 0 else torch.ones_like(weights)
        moments = Moments(table.shape[1], mean=torch.zeros(table.shape[1], dtype=torch.float64,
                                                           device=table.device),
                          comoment=torch.zeros((table.shape[1],) * 2, dtype=torch.float64,
                                               device=table.device))
        for first in range(0, size, CHUNK):
            last = min(first + CHUNK, size)
            moments.add(table[start + first:start + last], weights[first:last].to(table.device))
        found.append(moments)
        start += size
    return found


@torch.no_grad()
def layer_moments(model: nn.Module, batches: Iterable[Inputs], names: Sequence[str],
                  found: dict[str, Moments] | None = None) -> dict[str, Moments]:
    """Moments of the outputs of linear layers, y = W x + b, taken before whatever follows them.

    Args:
        model: in evaluation mode.
        batches: what the model is called with, one after the other.
        names: dotted names of the layers.
        found: moments to go on with, by name; whoever gives the batches may save them between two.

    Raises:
        ValueError: the model is in training mode, a name is not that of a linear layer, or there
            are no batches.
    """
    require_evaluation(model)
    layers = {name: linear_at(model, name) for name in names}
    found = {} if found is None else found
    for name, layer in layers.items():
        found.setdefault(name, Moments(layer.out_features))
    with _listening(layers) as outputs:
        for batch in batches:
            called(model, batch)
            for name in names:
                found[name].add(outputs.pop(name).flatten(0, -2).cpu())
    if any(not moments.count for moments in found.values()):
        raise ValueError("there are no calibration data: no batch came")
    return found


@torch.no_grad()
def least_codes(model: nn.Module, batches: Iterable[Inputs], name: str,
                project: nn.Linear) -> Tensor:
    """Smallest value of each coordinate of `project`(x) over the inputs x of a linear layer,
    (k,)."""
    require_evaluation(model)
    least = torch.full((project.out_features,), torch.inf)

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal least
        least = torch.minimum(least, project(inputs[0].flatten(0, -2)).amin(0).cpu())

    handle = linear_at(model, name).register_forward_pre_hook(note)
    try:
        for batch in batches:
            called(model, batch)
    finally:
        handle.remove()
    return least


def require_evaluation(model: nn.Module) -> None:
    """A ValueError for a model in training mode, whose outputs depend on the batch and on
    chance."""
    if model.training:
        raise ValueError("the model is in training mode, where dropout and batch norm change what "
                         "its layers give out; call model.eval() first")


def linear_at(model: nn.Module, name: str) -> nn.Linear:
    """The linear layer of a dotted name.

    Raises:
        ValueError: there is none; those that are there are listed.
    """
    found = dict(model.named_modules()).get(name)
    if not isinstance(found, nn.Linear):
        there = [other for other, module in model.named_modules() if isinstance(module, nn.Linear)]
        raise ValueError(f"there is no linear layer {name!r}; the model has: "
                         f"{', '.join(there) or 'none'}")
    return found


@contextmanager
def _listening(layers: dict[str, nn.Linear]) -> Iterator[dict[str, Tensor]]:
    """The last output of each layer, by name, while the block runs."""
    outputs: dict[str, Tensor] = {}

    def hook(name: str):
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name] = output
        return note

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
