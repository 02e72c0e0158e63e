"""The tables of an exported model: ids to vectors, in the form in which they are stored.

Every table reads ids 0 .. N-1 of its own numbering, which the exported vocabulary gives, and N for
a value that is not known and whose field has no id for such values: its vector is zero. A table
says what its file holds (`tensors`), and in a few plain numbers what it is (`shape`); from these
two it is made again. A new kind is a class and a line in KINDS.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..embedding.hashing import KEYS, hashed
from ..embedding.quotient_remainder import places_of
from ..embedding.tensor_train import TensorTrain
from ..packed_table import PackedTable, from_bytes
from .compact import BITS, Compact, CompactRows
from .levels import read_rows
from .values import Rows, small

Tensors = dict[str, np.ndarray]  # of a file, by name


class ServedTable(nn.Module):
    """What all kinds share.

    Args:
        num_rows: N.
        width: D.
        num_fields: F.
    """

    kind: ClassVar[str]

    def __init__(self, num_rows: int, width: int, num_fields: int) -> None:
        super().__init__()
        self.num_rows, self.width, self.num_fields = num_rows, width, num_fields

    @property
    def deep_width(self) -> int:
        """Columns of `deep_input`."""
        return self.num_fields * self.width

    @property
    def stored_rows(self) -> int:
        """Rows that are stored; those behind them are zero."""
        return self.num_rows

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> (B, F, D)."""
        known = ids < self.stored_rows
        return self.vectors(ids.clamp(max=self.stored_rows - 1)) * known[..., None]

    def vectors(self, ids: Tensor) -> Tensor:
        """The same for ids of stored rows."""
        raise NotImplementedError

    def deep_input(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """What a deep branch reads, (B, W)."""
        return (self(ids) if vectors is None else vectors).flatten(1)

    def tensors(self, name: str) -> Tensors:
        """What the file holds of it, under names that begin with `name`."""
        raise NotImplementedError

    def own_shape(self) -> dict[str, Any]:
        """What `make` needs beside N, D, F and the tensors."""
        return {}

    def shape(self) -> dict[str, Any]:
        """What it is, in plain numbers."""
        return {"kind": self.kind, "rows": self.num_rows, "width": self.width,
                "fields": self.num_fields, **self.own_shape()}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "ServedTable":
        """Out of `shape` and `tensors`."""
        raise NotImplementedError


class NoTable(ServedTable):
    """Vectors of width 0."""

    kind = "none"

    def forward(self, ids: Tensor) -> Tensor:
        """(B, F, 0)."""
        return torch.zeros((*ids.shape, 0))

    def tensors(self, name: str) -> Tensors:
        """Nothing."""
        return {}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "NoTable":
        """An empty one."""
        return cls(shape["rows"], 0, shape["fields"])


class DenseTable(ServedTable):
    """All entries of all rows."""

    kind = "dense"

    def __init__(self, rows: Rows, num_fields: int) -> None:
        super().__init__(rows.num_rows, rows.width, num_fields)
        self.rows = rows

    def vectors(self, ids: Tensor) -> Tensor:
        """(B, F, D)."""
        return self.rows(ids)

    def tensors(self, name: str) -> Tensors:
        """The rows."""
        return self.rows.tensors(name)

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "DenseTable":
        """From the file's rows."""
        return cls(read_rows(tensors, name), shape["fields"])


class CompactTable(ServedTable):
    """A pruned table: see `models.serving.compact`."""

    kind = "compact"

    def __init__(self, packed: CompactRows, num_rows: int, num_fields: int) -> None:
        super().__init__(num_rows, packed.width, num_fields)
        self.rows = Compact(packed)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, F, D); N is a row without entries like others."""
        return self.rows(ids)

    def tensors(self, name: str) -> Tensors:
        """The packed rows."""
        return self.rows.packed.tensors(name)

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "CompactTable":
        """From the file's packed rows."""
        return cls(CompactRows.read(tensors, name), shape["rows"], shape["fields"])


class CodedTable(ServedTable):
    """Rows of S codes, each the number of a centroid of its subspace (multi-granular quantised
    embeddings).

    Args:
        codes: (R, bytes) uint8, S codes of `bits` bits each, lowest bits first.
        centroids: (S, K, D / S).
        num_fields: F.
        num_rows: N, where rows behind R are zero; R by default.
        levels: the centroids as rows (S K, D / S) of few bits, where they are stored so.
    """

    kind = "coded"
    codes: Tensor
    centroids: Tensor
    of_byte: Tensor
    worth: Tensor
    firsts: Tensor

    def __init__(self, codes: Tensor, centroids: Tensor, num_fields: int,
                 num_rows: int | None = None, levels: Rows | None = None) -> None:
        parts, size, part = centroids.shape
        super().__init__(codes.shape[0] if num_rows is None else num_rows, parts * part,
                         num_fields)
        self.bits = max(size - 1, 1).bit_length()
        self.stored, self.levels = centroids, levels
        self.register_buffer("codes", codes)
        self.register_buffer("centroids", centroids.float().flatten(0, 1))
        self.register_buffer("of_byte", torch.from_numpy(BITS.astype(np.int64)))
        self.register_buffer("worth", 1 << torch.arange(self.bits))
        self.register_buffer("firsts", size * torch.arange(parts))

    @property
    def stored_rows(self) -> int:
        """R."""
        return self.codes.shape[0]

    def vectors(self, ids: Tensor) -> Tensor:
        """(B, F, D)."""
        parts = self.firsts.shape[0]
        rows = nn.functional.embedding(ids, self.codes).long()
        if self.bits != 8:
            bits = nn.functional.embedding(rows, self.of_byte).flatten(-2)
            bits = bits[..., :parts * self.bits].unflatten(-1, (parts, self.bits))
            rows = (bits * self.worth).sum(dim=-1)
        return nn.functional.embedding(rows + self.firsts, self.centroids).flatten(-2)

    def tensors(self, name: str) -> Tensors:
        """Codes and centroids."""
        centroids = ({f"{name}.centroids": self.stored.numpy()} if self.levels is None
                     else self.levels.tensors(f"{name}.centroids"))
        return {f"{name}.codes": self.codes.numpy(), **centroids}

    def own_shape(self) -> dict[str, Any]:
        """The subspaces."""
        return {"subspaces": self.firsts.shape[0]}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "CodedTable":
        """From the file's codes and centroids."""
        codes, levels = torch.from_numpy(tensors[f"{name}.codes"]), None
        if f"{name}.centroids" in tensors:
            centroids = torch.from_numpy(tensors[f"{name}.centroids"])
        else:
            levels = read_rows(tensors, f"{name}.centroids")
            centroids = levels.data.unflatten(0, (shape["subspaces"], -1))
        return cls(codes, centroids, shape["fields"], shape["rows"], levels)


class MixedTable(ServedTable):
    """Rows of several widths, each lifted to D by its group's own map; groups one below the other.

    Args:
        groups: rows (N_k, d_k) of each group, narrow ones first; at most one has width D and no
            map, and stands last. Rows of the table behind all groups are zero.
        maps: (d_k, D) of each narrow group.
        num_rows: N.
        width: D.
        num_fields: F.
    """

    kind = "mixed"
    groups: Any
    lifts: Any

    def __init__(self, groups: Sequence[Rows], maps: Sequence[Tensor], num_rows: int, width: int,
                 num_fields: int) -> None:
        super().__init__(num_rows, width, num_fields)
        self.groups = nn.ModuleList(groups)
        self.maps = list(maps)
        self.lifts = nn.ModuleList(_Buffer(each.float()) for each in maps)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, F, D)."""
        total, start = torch.zeros((*ids.shape, self.width)), 0
        for number, rows in enumerate(self.groups):
            count = rows.num_rows
            inside = (ids >= start) & (ids < start + count)
            found = rows((ids - start).clamp(0, count - 1)) * inside[..., None]
            total = total + (found @ self.lifts[number].value if number < len(self.lifts)
                             else found)
            start += count
        return total

    def tensors(self, name: str) -> Tensors:
        """Rows and maps."""
        found: Tensors = {}
        for number, rows in enumerate(self.groups):
            found |= rows.tensors(f"{name}.rows.{number}")
        return found | {f"{name}.map.{number}": lift.numpy()
                        for number, lift in enumerate(self.maps)}

    def own_shape(self) -> dict[str, Any]:
        """How many groups and maps."""
        return {"groups": len(self.groups), "maps": len(self.maps)}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "MixedTable":
        """From the file's rows and maps."""
        groups = [read_rows(tensors, f"{name}.rows.{each}") for each in range(shape["groups"])]
        maps = [torch.from_numpy(tensors[f"{name}.map.{each}"]) for each in range(shape["maps"])]
        return cls(groups, maps, shape["rows"], shape["width"], shape["fields"])


class HashTable(ServedTable):
    """The sum of two rows of one small table, which two fixed hash functions choose."""

    kind = "hash"
    places: Tensor

    def __init__(self, rows: Rows, num_rows: int, num_fields: int) -> None:
        super().__init__(num_rows, rows.width, num_fields)
        self.rows = rows
        places = np.stack([hashed(num_rows, key, rows.num_rows) for key in KEYS], axis=1)
        self.register_buffer("places", torch.from_numpy(places))

    def vectors(self, ids: Tensor) -> Tensor:
        """(B, F, D)."""
        return self.rows(nn.functional.embedding(ids, self.places)).sum(dim=-2)

    def tensors(self, name: str) -> Tensors:
        """The small table."""
        return self.rows.tensors(name)

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "HashTable":
        """From the file's small table."""
        return cls(read_rows(tensors, name), shape["rows"], shape["fields"])


class QrTable(ServedTable):
    """The product of two rows of two small tables.

    Args:
        remainders, quotients: the tables.
        field_sizes: rows of each field, in order.
        collisions: features of a field that share a remainder row.
    """

    kind = "qr"
    places: Tensor

    def __init__(self, remainders: Rows, quotients: Rows, field_sizes: Sequence[int],
                 collisions: int) -> None:
        super().__init__(sum(field_sizes), remainders.width, len(field_sizes))
        self.remainders, self.quotients = remainders, quotients
        self.field_sizes, self.collisions = tuple(field_sizes), collisions
        self.register_buffer("places", torch.cat(places_of(self.field_sizes, collisions)))

    def vectors(self, ids: Tensor) -> Tensor:
        """(B, F, D)."""
        places = nn.functional.embedding(ids, self.places)
        second = places[..., 1]  # 0: a plain row
        factors = self.quotients((second - 1).clamp(min=0))
        return self.remainders(places[..., 0]) * torch.where((second > 0)[..., None], factors, 1.0)

    def tensors(self, name: str) -> Tensors:
        """Both tables."""
        return self.remainders.tensors(f"{name}.remainders") | self.quotients.tensors(
            f"{name}.quotients")

    def own_shape(self) -> dict[str, Any]:
        """How features share rows."""
        return {"field_sizes": list(self.field_sizes), "collisions": self.collisions}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "QrTable":
        """From the file's two tables."""
        return cls(read_rows(tensors, f"{name}.remainders"),
                   read_rows(tensors, f"{name}.quotients"), shape["field_sizes"],
                   shape["collisions"])


class TensorTrainTable(ServedTable):
    """A product of small matrices, one for each digit of a row's number."""

    kind = "tensor_train"

    def __init__(self, cores: Sequence[Tensor], last: Tensor, num_rows: int,
                 num_fields: int) -> None:
        super().__init__(num_rows, last.shape[1], num_fields)
        self.cores, self.last = list(cores), last
        self.train_of = TensorTrain([core.float() for core in cores], last.float(), num_rows,
                                    num_fields).requires_grad_(False)

    def vectors(self, ids: Tensor) -> Tensor:
        """(B, F, D)."""
        return self.train_of.of_ids(ids)

    def tensors(self, name: str) -> Tensors:
        """The cores."""
        cores = {f"{name}.core.{number}": core.numpy() for number, core in enumerate(self.cores)}
        return cores | {f"{name}.last": self.last.numpy()}

    def own_shape(self) -> dict[str, Any]:
        """How many cores."""
        return {"cores": len(self.cores)}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "TensorTrainTable":
        """From the file's cores."""
        cores = [torch.from_numpy(tensors[f"{name}.core.{each}"])
                 for each in range(shape["cores"])]
        return cls(cores, torch.from_numpy(tensors[f"{name}.last"]), shape["rows"],
                   shape["fields"])


class LowRankTable(ServedTable):
    """Codes of several ranks, a table for the fields of each, and for each field the linear map
    that lifts its codes to D.

    The rows of a rank's table stand behind those of the ranks before it, those of fields of rank 0
    behind all.

    Args:
        codes: the table of each rank but 0, rising.
        fields: the fields of each, in order.
        maps: bases (F', k, D) of each rank's fields, and means (F, D); None where what reads the
            codes has swallowed them.
        size: (N, D, F).
        fused: give a deep branch the codes, and not the vectors.
    """

    kind = "low_rank"
    codes: Any
    bases: Any

    def __init__(self, codes: Sequence[ServedTable], fields: Sequence[Sequence[int]],
                 maps: tuple[Sequence[Tensor], Tensor] | None, size: tuple[int, int, int],
                 fused: bool) -> None:
        super().__init__(*size)
        self.codes = nn.ModuleList(codes)
        self.fields = [list(each) for each in fields]
        self.fused, self.maps = fused, maps
        self.bases = nn.ModuleList([] if maps is None else
                                   [_Buffer(each.float()) for each in maps[0]])
        self.means = _Buffer(torch.zeros(0) if maps is None else maps[1].float())
        self.starts = [0, *accumulate(each.num_rows for each in codes)]

    @property
    def deep_width(self) -> int:
        """Columns of `deep_input`."""
        if not self.fused:
            return super().deep_width
        return sum(len(fields) * codes.width
                   for fields, codes in zip(self.fields, self.codes, strict=True))

    def _codes(self, ids: Tensor) -> list[Tensor]:
        """(B, F', k) of each rank; zero where a value is not known."""
        found = []
        for codes, fields, start in zip(self.codes, self.fields, self.starts, strict=False):
            own = ids[:, fields]
            found.append(codes(torch.where(own < self.num_rows, own - start, codes.num_rows)))
        return found

    def forward(self, ids: Tensor) -> Tensor:
        """(B, F, D); of a value that is not known, its field's mean."""
        if self.maps is None:
            raise RuntimeError("the model that this table was exported with reads its codes alone")
        vectors: list[Tensor] = [self.means.value[field].expand(ids.shape[0], -1)
                                 for field in range(self.num_fields)]
        for codes, fields, bases in zip(self._codes(ids), self.fields, self.bases, strict=True):
            lifted = torch.einsum("bfk,fkd->bfd", codes, bases.value)
            for place, field in enumerate(fields):
                vectors[field] = vectors[field] + lifted[:, place]
        return torch.stack(vectors, dim=1)

    def deep_input(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """The codes, or where nothing is fused the vectors."""
        if not self.fused:
            return super().deep_input(ids, vectors)
        codes = [part.flatten(1) for part in self._codes(ids)]
        return torch.cat(codes, 1) if codes else torch.zeros((ids.shape[0], 0))

    def tensors(self, name: str) -> Tensors:
        """Codes, bases and means."""
        found: Tensors = {}
        for number, codes in enumerate(self.codes):
            found |= codes.tensors(f"{name}.codes.{number}")
        if self.maps is not None:
            found |= {f"{name}.basis.{number}": basis.numpy()
                      for number, basis in enumerate(self.maps[0])}
            found[f"{name}.means"] = self.maps[1].numpy()
        return found

    def own_shape(self) -> dict[str, Any]:
        """Shapes of the codes' tables and their fields."""
        return {"codes": [each.shape() for each in self.codes], "of": self.fields,
                "fused": self.fused, "maps": self.maps is not None}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "LowRankTable":
        """From the file's codes and maps."""
        codes = [read_table(each, tensors, f"{name}.codes.{number}")
                 for number, each in enumerate(shape["codes"])]
        maps = None
        if shape["maps"]:
            maps = ([torch.from_numpy(tensors[f"{name}.basis.{number}"])
                     for number in range(len(codes))],
                    torch.from_numpy(tensors[f"{name}.means"]))
        return cls(codes, shape["of"], maps, (shape["rows"], shape["width"], shape["fields"]),
                   shape["fused"])


class PerFieldTable(ServedTable):
    """A width for each field, without maps; read by a deep branch alone. Rows of fields of one
    width share a matrix, and stand behind those of smaller widths; rows of fields without any stand
    behind all.

    Args:
        rows: of each width, rising.
        fields: the fields of each.
        size: (N, D, F).
    """

    kind = "per_field"
    order: Tensor
    rows: Any

    def __init__(self, rows: Sequence[Rows], fields: Sequence[Sequence[int]],
                 size: tuple[int, int, int]) -> None:
        super().__init__(*size)
        self.rows = nn.ModuleList(rows)
        self.fields = [list(each) for each in fields]
        owner: list[int] = []  # the field of each column
        for each, own in zip(rows, self.fields, strict=True):
            for field in own:
                owner += [field] * each.width
        self.register_buffer("order", torch.tensor(owner).argsort(stable=True))
        self.starts = [0, *accumulate(each.num_rows for each in rows)]

    @property
    def deep_width(self) -> int:
        """Columns of `deep_input`."""
        return self.order.shape[0]

    def deep_input(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """(B, W), fields in their order."""
        read = []
        for rows, fields, start in zip(self.rows, self.fields, self.starts, strict=False):
            own = ids[:, fields]
            known = own < self.num_rows
            found = rows((own - start).clamp(0, rows.num_rows - 1)) * known[..., None]
            read.append(found.flatten(1))
        return torch.cat(read, 1).index_select(1, self.order)

    def vectors(self, ids: Tensor) -> Tensor:
        """Refused: vectors of several widths have no products."""
        raise RuntimeError("a table with a width for each field is read by a deep branch alone")

    def tensors(self, name: str) -> Tensors:
        """The rows."""
        found: Tensors = {}
        for number, rows in enumerate(self.rows):
            found |= rows.tensors(f"{name}.rows.{number}")
        return found

    def own_shape(self) -> dict[str, Any]:
        """The fields of each width."""
        return {"of": self.fields}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "PerFieldTable":
        """From the file's rows."""
        rows = [read_rows(tensors, f"{name}.rows.{each}") for each in range(len(shape["of"]))]
        return cls(rows, shape["of"], (shape["rows"], shape["width"], shape["fields"]))


class PackedRows(ServedTable):
    """Codes of 1 to 8 bits, whose number follows from row and column (the water line: see
    `models.packed_table`). Rows stand in that table's own order."""

    kind = "packed"

    def __init__(self, packed: PackedTable) -> None:
        super().__init__(packed.num_rows, packed.width, len(packed.field_sizes))
        self.packed = packed
        self.look_up: Callable[[Tensor], Tensor] = packed.lookup

    def vectors(self, ids: Tensor) -> Tensor:
        """(B, F, D)."""
        return self.look_up(ids)

    def codes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A byte for each code: codes (N, D) uint8, the slot of each row (N,), and bits and steps
        (slots, D); the step of an entry without bits is 0."""
        slots = self.packed.slots
        of_row = torch.from_numpy(np.repeat(np.arange(len(slots.width)), np.diff(slots.first)))
        bits = torch.from_numpy(slots.bits.astype(np.int64))
        steps = torch.from_numpy(np.where(slots.bits > 0, slots.steps, 0).astype(np.float32))
        table = self.packed.lookup(torch.arange(self.num_rows))
        own_steps, own_bits = steps[of_row], bits[of_row]
        levels = torch.where(own_bits > 0, table / own_steps.clamp(min=1e-38), 0)
        codes = (levels - 0.5 + torch.pow(2.0, own_bits.float() - 1)).round()
        return torch.where(own_bits > 0, codes, 0).to(torch.uint8), of_row, bits, steps

    def tensors(self, name: str) -> Tensors:
        """The packed file's bytes."""
        return {name: np.frombuffer(self.packed.to_bytes(), np.uint8)}

    @classmethod
    def make(cls, shape: dict[str, Any], tensors: Tensors, name: str) -> "PackedRows":
        """From the packed file's bytes."""
        return cls(from_bytes(tensors[name].tobytes()))


class _Buffer(nn.Module):
    """A tensor that belongs to a module of a list."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)


KINDS: dict[str, type[ServedTable]] = {
    each.kind: each for each in (NoTable, DenseTable, CompactTable, CodedTable, MixedTable,
                                 HashTable, QrTable, TensorTrainTable, LowRankTable,
                                 PerFieldTable, PackedRows)}


def read_table(shape: dict[str, Any], tensors: Tensors, name: str) -> ServedTable:
    """A table out of its shape and the tensors of a file.

    Raises:
        ValueError: the kind is unknown.
    """
    if shape["kind"] not in KINDS:
        raise ValueError(f"the table is of kind {shape['kind']!r}, this version reads "
                         f"{', '.join(KINDS)}; install a newer one")
    return KINDS[shape["kind"]].make(shape, tensors, name)


def shared(array: Tensor, values: str) -> Tensor:
    """What all rows share, as stored."""
    return torch.from_numpy(small(array.detach().cpu().numpy(), values))
