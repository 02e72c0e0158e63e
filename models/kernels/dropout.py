"""Dropout from 16 random bits an element.

torch spends 7 ns an element on a CPU mask (0.76 ms for 1,024 x 100, more than the matrix product it
follows), and the compiler's generator as much. Four elements share one 64-bit draw here: 0.14 ms.
The dropout rate is therefore a multiple of 1/65,536, and the kept values are scaled by the exact
rate, so the expectation is untouched.
"""

import torch
from torch import Tensor, nn

from .eager import stands_in

LEVELS = 1 << 16


def random_bits(like: Tensor, dropped: int, generator: torch.Generator | None = None) -> Tensor:
    """An int16 for each element of `like`, flat; an element is kept where it is at least
    `dropped` - LEVELS / 2. From torch's global generator where none is given, if anything is to be
    dropped."""
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device)
    drawn = words.random_(-(1 << 63), None, generator=generator) if dropped else words.zero_()
    return drawn.view(torch.int16)[: like.numel()]


def keep(like: Tensor, dropped: int, layer: int = 0) -> Tensor:
    """Mask of the shape of `like`, 0 with probability dropped / 65,536, else 1, from torch's global
    generator.

    Of floats: the compiler reads bools one at a time. `layer` does nothing here; it keeps the
    compiler from merging the draws of two layers that drop entries of the same tensor.
    """
    bits = random_bits(like, dropped)
    return (bits >= dropped - LEVELS // 2).to(like.dtype).view(like.shape)


# as one operation for a compiler; its first call imports torch's own, which takes seconds
random_keep = torch.library.custom_op("pep::random_keep", keep, mutates_args=(),
                                      tags=(torch.Tag.nondeterministic_seeded,))


@random_keep.register_fake
def _(like: Tensor, dropped: int, layer: int = 0) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device=like.device)


class Dropout(nn.Module):
    """Zero a share `p` of the entries in training and scale the others by 1 / (1 - p).

    >>> Dropout(0.5).eval()(torch.ones(2))
    tensor([1., 1.])
    """

    generator: torch.Generator | None = None  # torch's global one

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be in [0, 1), got {p}")
        self.dropped = round(p * LEVELS)
        self.layer = 0  # see `number_dropout`

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or not self.dropped:
            return x
        draw = random_keep if stands_in(x.detach()) else keep
        kept = draw(x.detach(), self.dropped, self.layer)
        return x * (kept * (LEVELS / (LEVELS - self.dropped)))  # one product with a gradient


def replace_dropout(module: nn.Module) -> nn.Module:
    """Put this dropout in the place of every nn.Dropout directly or deeply inside `module`; returns
    the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Dropout):
            setattr(module, name, Dropout(child.p))
        else:
            replace_dropout(child)
    return module


def number_dropout(model: nn.Module) -> None:
    """Give each of a model's dropout layers a number of its own."""
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    for number, layer in enumerate(layers):
        layer.layer = number
