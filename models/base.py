"""What every model is."""

from typing import Any

from torch import Tensor, nn

# what a batch gives a model: ids (B, F), or these and numbers (B, M)
Inputs = Tensor | tuple[Tensor, Tensor]


def parts_of(inputs: Inputs) -> tuple[Tensor, ...]:
    """What a model is called with, of a batch as a loader gives it."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def called(model: nn.Module, inputs: Inputs) -> Tensor:
    """Logits (B,) of a batch as a loader gives it.

    >>> import torch
    >>> called(nn.Flatten(0), torch.ones(3, 1)).shape
    torch.Size([3])
    """
    return model(*parts_of(inputs))


class ClickModel(nn.Module):
    """ids (B, F) -> logits (B,), around an injected embedding (None for logistic regression).

    One that reads numbers too is called with ids (B, F) and numbers (B, M).
    """

    embedding: Any  # an `Embedding`; nn.Module's own typing cannot say so
    num_dense = 0  # M


def tables_by_row(model: ClickModel) -> dict[str, Tensor]:
    """Parameters and buffers, by their names in the model, of which a forward pass reads only the
    rows of its ids.

    Empty when the embedding uses the ids for more than that.
    """
    if model.embedding is not None and not model.embedding.by_row:
        return {}
    names = [f"{path}.{name}" for path, module in model.named_modules()
             for name in getattr(module, "by_row", ())]
    everything = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: everything[name] for name in names}
