"""The form in which each embedding is exported, and the numbers that its rows get.

An embedding that is not listed is exported as the dense table that it says it is, which holds for
every one whose deep input is its vectors. A new one that can do better is a function and a line in
FORMS.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch

from models.embedding.hashing import Hash
from models.embedding.low_rank import LowRank
from models.embedding.mgqe import Mgqe
from models.embedding.mgqe import pack as packed_codes
from models.embedding.mixed_width import Mixed
from models.embedding.none import NoEmbedding
from models.embedding.per_field import PerField
from models.embedding.product import Product
from models.embedding.quantised import Quantised, QuantisedParts, Quantiser
from models.embedding.quotient_remainder import Qr
from models.embedding.tensor_train import TensorTrain
from models.kernels.nearest import nearest
from models.serving import FLOAT32
from models.serving.compact import CompactRows
from models.serving.levels import LevelRows
from models.serving.tables import (
    CodedTable,
    CompactTable,
    DenseTable,
    HashTable,
    LowRankTable,
    MixedTable,
    NoTable,
    PerFieldTable,
    QrTable,
    ServedTable,
    TensorTrainTable,
    shared,
)
from models.serving.values import Rows

# a table, and for each row of the training's table its row in this one, (N,)
Form = tuple[ServedTable, np.ndarray]


def served_table(embedding: Any, values: str) -> Form:
    """An embedding as it is exported.

    Args:
        embedding: on the CPU.
        values: of TYPES in `models.serving.values`.

    Raises:
        ValueError: it is of none of the known forms, and no dense table either.
    """
    form = FORMS.get(type(embedding))
    if form is None and embedding.deep_width != embedding.num_fields * embedding.width:
        raise ValueError(f"there is no exported form of {type(embedding).__name__}, whose deep "
                         "input is not its vectors; add one to serving/tables.py")
    return (form or _by_entries)(embedding, values)


def _unchanged(embedding: Any) -> np.ndarray:
    return np.arange(embedding.num_rows)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float32)


def _by_entries(embedding: Any, values: str) -> Form:
    """Any table: compact where that takes fewer bytes, else dense."""
    table = _numpy(embedding.table())
    packed, new_ids = CompactRows.pack(table, values)
    compact = CompactTable(packed, embedding.num_rows, embedding.num_fields)
    dense = DenseTable(Rows.of(table, values), embedding.num_fields)
    if _bytes(compact) < _bytes(dense):
        return compact, new_ids
    return dense, _unchanged(embedding)


def _bytes(table: ServedTable) -> int:
    return sum(array.nbytes for array in table.tensors("").values())


def _none(embedding: NoEmbedding, values: str) -> Form:
    return NoTable(embedding.num_rows, 0, embedding.num_fields), _unchanged(embedding)


def _coded(embedding: Mgqe, values: str) -> Form:
    centroids = embedding.centroids.detach()
    return (CodedTable(embedding.packed_codes(), shared(centroids, values), embedding.num_fields),
            _unchanged(embedding))


def _levels(embedding: Quantised, values: str) -> Form:
    """At its own bits, whatever the type of values."""
    rows = LevelRows.of_quantiser(embedding.weight, embedding.quantiser)
    return DenseTable(rows, embedding.num_fields), _unchanged(embedding)


def _product(embedding: Product, values: str) -> Form:
    centroids, kept = embedding.coded(), embedding.seen[:, 0] > 0
    parts, size, width = centroids.shape
    levels = LevelRows.of_quantiser(embedding.centroids.flatten(0, 1), embedding.quantiser)
    rows = embedding.weight[kept]
    ids = torch.arange(len(rows), dtype=torch.int32)[:, None]
    codes = nearest(rows, ids, centroids, embedding.allowed[kept])[:, 0]
    new_ids = np.empty(embedding.num_rows, np.int64)  # rows that have no codes stand last
    new_ids[np.argsort(~kept.numpy(), kind="stable")] = np.arange(embedding.num_rows)
    packed = packed_codes(codes, max(size - 1, 1).bit_length())
    return CodedTable(packed, levels.data.view(parts, size, width), embedding.num_fields,
                      embedding.num_rows, levels), new_ids


def _quantised_parts(embedding: QuantisedParts, values: str) -> Form:
    """The embedding that is quantised, with rows at their own bits; maps between widths are
    float32."""
    inner: Any = embedding.inner
    for name, value in embedding.coded().items():
        inner.get_parameter(name).data = value.detach()
    table, new_ids = served_table(inner, FLOAT32)
    for name, quantiser in zip(embedding.names, embedding.quantisers, strict=True):
        if not name.startswith("projections"):
            assert isinstance(quantiser, Quantiser)
            rows = LevelRows.of_quantiser(inner.get_parameter(name), quantiser)
            table.set_submodule(name.replace("tables.", "groups."), rows)
    return table, new_ids


def _mixed(embedding: Mixed, values: str) -> Form:
    groups = [Rows.of(_numpy(table), values) for table in embedding.tables]
    maps = [shared(lift, values) for lift in embedding.projections]
    # rows of width 0 all stand at one position, and behind the others
    order = torch.argsort(embedding.position.long(), stable=True)
    new_ids = np.empty(embedding.num_rows, np.int64)
    new_ids[order.numpy()] = np.arange(embedding.num_rows)
    return MixedTable(groups, maps, embedding.num_rows, embedding.width,
                      embedding.num_fields), new_ids


def _hash(embedding: Hash, values: str) -> Form:
    rows = Rows.of(_numpy(embedding.weight), values)
    return HashTable(rows, embedding.num_rows, embedding.num_fields), _unchanged(embedding)


def _qr(embedding: Qr, values: str) -> Form:
    return QrTable(Rows.of(_numpy(embedding.remainders), values),
                   Rows.of(_numpy(embedding.quotients), values), embedding.field_sizes,
                   embedding.collisions), _unchanged(embedding)


def _tensor_train(embedding: TensorTrain, values: str) -> Form:
    ranks = (1, *embedding.ranks)
    cores = [shared(core.unflatten(1, (low, high)), values)
             for core, low, high in zip(embedding.cores, ranks, embedding.ranks, strict=False)]
    return TensorTrainTable(cores, shared(embedding.last, values), embedding.num_rows,
                            embedding.num_fields), _unchanged(embedding)


def _low_rank(embedding: LowRank, values: str) -> Form:
    starts = [0, *accumulate(embedding.field_sizes)]
    new_ids, codes, behind = np.full(embedding.num_rows, -1), [], 0
    for part, fields in zip(embedding.codes, embedding.fields, strict=True):
        table, own = served_table(part, values)
        old = _rows_of(fields, starts)
        new_ids[old] = behind + own
        behind += len(old)
        codes.append(table)
    left = np.flatnonzero(new_ids < 0)  # of fields of rank 0
    new_ids[left] = behind + np.arange(len(left))
    maps = None
    if embedding.reconstructs:
        maps = [shared(basis, values) for basis in embedding.bases], shared(embedding.means,
                                                                            values)
    size = embedding.num_rows, embedding.width, embedding.num_fields
    return LowRankTable(codes, embedding.fields, maps, size, embedding.fused), new_ids


def _per_field(embedding: PerField, values: str) -> Form:
    starts = [0, *accumulate(embedding.sizes)]
    order = list(chain.from_iterable(_rows_of(fields, starts) for fields in embedding.fields))
    new_ids = np.full(embedding.num_rows, -1)
    new_ids[order] = np.arange(len(order))
    left = np.flatnonzero(new_ids < 0)  # of fields that are gone
    new_ids[left] = len(order) + np.arange(len(left))
    rows = [Rows.of(_numpy(table), values) for table in embedding.tables]
    return PerFieldTable(rows, embedding.fields, (embedding.num_rows, embedding.width,
                                                  embedding.num_fields)), new_ids


def _rows_of(fields: Sequence[int], starts: Sequence[int]) -> np.ndarray:
    """The training's rows of some fields, field by field."""
    return np.concatenate([np.arange(starts[field], starts[field + 1]) for field in fields])


FORMS: dict[type, Callable[[Any, str], Form]] = {
    NoEmbedding: _none, Mgqe: _coded, Mixed: _mixed, Hash: _hash, Qr: _qr,
    TensorTrain: _tensor_train, LowRank: _low_rank, PerField: _per_field, Quantised: _levels,
    QuantisedParts: _quantised_parts, Product: _product}
