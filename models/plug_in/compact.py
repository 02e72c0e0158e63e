"""A pruned table stored by its entries that are not zero, for inference."""

import torch
from torch import Tensor, nn

from .table import Plain, PluggedTable


def smallest_integer(limit: int) -> torch.dtype:
    """The narrowest type that holds 0 .. limit.

    >>> smallest_integer(255), smallest_integer(256)
    (torch.uint8, torch.int16)
    """
    fitting = [kind for kind in (torch.uint8, torch.int16, torch.int32)
               if limit <= torch.iinfo(kind).max]
    return fitting[0] if fitting else torch.int64


class CompactTable(PluggedTable):
    """A pruned table in CSR form: entries row after row, the column of each, and where each row
    starts.

    It gives the same vectors and is not trained. It takes fewer bytes than a dense table once more
    than a fifth of the entries are gone (float32, D up to 256), plus 4 bytes a row.

    Args:
        plain: the module that was there; kept is a copy of it without its weight.
        table: (N, D).

    >>> table = torch.tensor([[0.0, 5.0], [0.0, 0.0], [6.0, 7.0]])
    >>> compact = CompactTable(nn.Embedding(3, 2), table)
    >>> compact(torch.tensor([2, 0])).tolist(), compact.num_params(), compact.num_bytes()
    ([[6.0, 7.0], [0.0, 5.0]], 3, 31)
    """

    entries: Tensor
    columns: Tensor
    starts: Tensor

    def __init__(self, plain: Plain, table: Tensor) -> None:
        super().__init__(plain)
        self.plain = (self.shell(),)  # or the dense table would stay in memory
        rows, columns = table.nonzero(as_tuple=True)
        starts = torch.zeros(self.num_embeddings + 1, dtype=torch.int64, device=table.device)
        starts[1:] = torch.bincount(rows, minlength=self.num_embeddings).cumsum(0)
        self.register_buffer("entries", table[rows, columns])
        self.register_buffer("columns", columns.to(smallest_integer(self.embedding_dim - 1)))
        self.register_buffer("starts",
                             starts.to(torch.int32 if len(rows) < 1 << 31 else torch.int64))

    def table(self) -> Tensor:
        """(N, D), made from the entries."""
        return self.vectors(torch.arange(self.num_embeddings, device=self.entries.device))

    def vectors(self, ids: Tensor) -> Tensor:
        """ids of any shape -> (*ids.shape, D).

        Raises:
            TypeError: ids that torch's lookup would not take either.
            IndexError: an id outside 0 .. N-1, on a CPU.
        """
        if ids.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"ids must be int32 or int64, got {ids.dtype}; convert them with "
                            f".long()")
        flat = ids.reshape(-1).long()
        if flat.device.type == "cpu" and not torch.jit.is_tracing() and flat.numel():
            low, high = int(flat.min()), int(flat.max())
            if not 0 <= low <= high < self.num_embeddings:
                raise IndexError(f"ids must be in 0 .. {self.num_embeddings - 1}, got {low} .. "
                                 f"{high}")
        # no len() and no assignment to an index: a trace would keep the sizes of its example
        # index_select refuses an id of -1
        starts = self.starts.index_select(0, flat).long()
        counts = self.starts.index_select(0, flat + 1).long() - starts
        # (E,), for each entry that is read the place of its id in `flat`
        places = torch.repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        read = torch.arange(places.shape[0], device=flat.device)
        read = read + (starts - before).index_select(0, places)
        vectors = self.entries.new_zeros(flat.shape[0], self.embedding_dim)
        columns = self.columns.index_select(0, read).long()
        vectors.index_put_((places, columns), self.entries.index_select(0, read))
        return vectors.view(*ids.shape, self.embedding_dim)

    def num_bytes(self) -> int:
        """Bytes of all that it stores."""
        return sum(stored.numel() * stored.element_size()
                   for stored in (self.entries, self.columns, self.starts))

    def restore(self) -> Plain:
        """The module that was there, with a new Parameter that holds the table."""
        (plain,) = self.plain
        plain.weight = nn.Parameter(self.table())
        return plain
