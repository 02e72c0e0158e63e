"""An exported model: a table, and the parts whose sum is the logit."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.eager import runs_on_numba
from ..kernels.expand import Kept, fm_rows
from .parts import FirstOrder, Pairs, Part, read_part
from .tables import CompactTable, ServedTable, Tensors, read_table

TABLE = "table"


class ServedModel(nn.Module):
    """ids (B, F) -> logits (B,), in evaluation mode and without gradients.

    Plain torch, or loops that are no different; it exports by torch.export and to ONNX.

    Args:
        table: of the vectors.
        parts: what is added up.
        num_dense: M, of the dense features.
    """

    parts: Any  # an nn.ModuleList of parts, which its own typing cannot say

    def __init__(self, table: ServedTable, parts: Sequence[Part], num_dense: int = 0) -> None:
        super().__init__()
        self.table = table
        self.parts = nn.ModuleList(parts)
        self.num_dense = num_dense
        self.reads_vectors = any(part.needs_vectors for part in parts)
        self.kept = _kept_of_fm(table, parts)
        self.eval().requires_grad_(False)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """ids (B, F), N for a value without an id; numbers (B, M) if the model reads some."""
        if self.kept is not None and ids.shape[1] and runs_on_numba(ids=ids):
            first = self.parts[0]
            return fm_rows(self.kept, first.weight, first.bias.item(), ids)
        vectors = self.table(ids) if self.reads_vectors else None
        logits = torch.zeros(ids.shape[0], device=ids.device)
        for part in self.parts:
            logits = logits + part(self.table, ids, vectors, numbers)
        return logits

    def tensors(self) -> Tensors:
        """What the file holds."""
        found = self.table.tensors(TABLE)
        for number, part in enumerate(self.parts):
            found |= part.tensors(f"part.{number}")
        return found

    def shape(self) -> dict[str, Any]:
        """What it is, in plain numbers."""
        return {"table": self.table.shape(), "parts": [part.shape() for part in self.parts],
                "dense": self.num_dense}

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of the file's tensors: of the table, of first-order weights, and of the rest."""
        sizes = {"table": _bytes(self.table.tensors(TABLE)), "first_order": 0, "rest": 0}
        for part in self.parts:
            name = "first_order" if isinstance(part, FirstOrder) else "rest"
            sizes[name] += _bytes(part.tensors(""))
        return sizes

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors) -> "ServedModel":
        """Out of `shape` and `tensors`.

        Raises:
            ValueError: of a kind that this version does not know, or the two do not fit.
        """
        try:
            parts = [read_part(each, tensors, f"part.{number}")
                     for number, each in enumerate(shape["parts"])]
            return cls(read_table(shape["table"], tensors, TABLE), parts, shape["dense"])
        except (KeyError, IndexError, TypeError, RuntimeError) as error:
            raise ValueError(f"the tensors do not fit the manifest ({error}); export the run "
                             "again") from error


def _kept_of_fm(table: ServedTable, parts: Sequence[Part]) -> Kept | None:
    """The table's entries where the model is a factorisation machine that one loop computes."""
    if [type(part) for part in parts] != [FirstOrder, Pairs] or not isinstance(table, CompactTable):
        return None
    kept = table.rows.kept
    return kept if kept is not None and kept.has_loop else None


def _bytes(tensors: Tensors) -> int:
    return sum(array.nbytes for array in tensors.values())
