"""An exported model in operations of torch alone, for torch.export, ONNX and other compilers.

Of a compact table there are two forms. `unpacked`: the file holds it as it is, packed, and the
table is made dense by operations without an input, which a runtime carries out once, when it loads
the file. `rows`: the file holds the kept rows densely, and nothing is unpacked.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from .compact import BITS, Compact, CompactRows
from .model import ServedModel
from .tables import PackedRows

UNPACKED, ROWS = "unpacked", "rows"
FORMS = (UNPACKED, ROWS)


class _Unpacked(nn.Module):
    """A compact table that is unpacked in every call, by operations that can be folded."""

    values: Tensor
    masks: Tensor
    of_byte: Tensor
    scales: Tensor | None

    def __init__(self, packed: CompactRows) -> None:
        super().__init__()
        rows, self.width = packed.num_rows, packed.width
        own = torch.from_numpy(packed.masks()).view(torch.uint8).view(rows, -1)
        # one more, which columns behind the last entry read
        values = np.append(packed.values, packed.values.dtype.type(0))
        self.register_buffer("values", torch.from_numpy(values))
        self.register_buffer("masks", own[:, :-(-self.width // 8)].contiguous())
        self.register_buffer("of_byte", torch.from_numpy(BITS))
        scales = packed.scales
        self.register_buffer("scales", None if scales is None else torch.from_numpy(scales.all()))

    def table(self) -> Tensor:
        """(R + 1, D), the last row zero."""
        bits = nn.functional.embedding(self.masks.int(), self.of_byte.float())
        bits = bits.flatten(1)[:, :self.width]
        flat = bits.flatten().long()
        places = flat.cumsum(0) - flat  # entries stand row after row
        rows = self.values.float().index_select(0, places).view(bits.shape) * bits
        if self.scales is not None:
            rows = rows * self.scales[:, None]
        return torch.cat([rows, torch.zeros((1, self.width))])

    def forward(self, ids: Tensor) -> Tensor:
        """ids of any shape -> (*ids.shape, D)."""
        return nn.functional.embedding(ids.clamp(max=self.masks.shape[0]), self.table())


class _Codes(nn.Module):
    """A packed table with a byte for each code."""

    codes: Tensor
    slots: Tensor
    steps: Tensor
    middles: Tensor

    def __init__(self, table: PackedRows) -> None:
        super().__init__()
        codes, slots, bits, steps = table.codes()
        self.register_buffer("codes", codes)
        self.register_buffer("slots", slots)
        self.register_buffer("steps", steps)
        # the middle of a level: code + 1/2 - half the number of levels
        self.register_buffer("middles", 0.5 - torch.pow(2.0, bits.float() - 1))

    def forward(self, ids: Tensor) -> Tensor:
        """(B, F, D)."""
        slots = self.slots[ids]
        levels = nn.functional.embedding(ids, self.codes).float() + self.middles[slots]
        return levels * self.steps[slots]


def plain(model: ServedModel, form: str = UNPACKED) -> ServedModel:
    """A copy of a model that is made of torch's operations.

    Args:
        form: of FORMS.

    Raises:
        ValueError: the form is unknown.
    """
    if form not in FORMS:
        raise ValueError(f"the form must be one of {', '.join(FORMS)}, got {form!r}")
    made = copy.deepcopy(model)
    for name, module in list(made.named_modules()):
        if isinstance(module, Compact):
            packed = module.packed
            made.set_submodule(name, _Unpacked(packed) if form == UNPACKED
                               else Compact(packed, by_mask=False))
        elif isinstance(module, PackedRows):
            module.look_up = _Codes(module)
    return made.eval().requires_grad_(False)
