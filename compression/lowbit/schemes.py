"""The schemes that the water line is compared with, at few bits: what each starts from, and what it
takes.

All use the same quantiser and the same retraining. Each may sort the rows of a field as suits it,
as the vocabulary can give out ids in any order. Everything that is stored is counted: a header, how
many rows of each kind a field has, steps, masks, codebooks, codes.
"""

import bisect
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

from compression.loaded_run import LoadedRun, load_model, load_uniform
from compression.lowbit.options import SCHEMES
from compression.lowbit.start import Start, start_of
from compression.waterline.rotation import of_fields
from data import feature_counts
from engine.run import RunContext
from models.base import ClickModel
from models.embedding.mgqe import tiers
from models.embedding.product import Codebook, Product
from models.embedding.quantised import (
    MOST,
    RENEWALS,
    Quantised,
    QuantisedParts,
    Quantiser,
    step_groups,
)
from models.options import Sizes
from models.packed_table import HEADER, count_bytes

CODED = ("pq", "mgqe")  # schemes of codes and centroids
OWN_RUNS = ("qr", "mde")  # schemes that quantise a run of that very embedding
MASKED = "masked"
KMEANS = 20  # rounds


@dataclass(frozen=True)
class Scheme:
    """What is asked for.

    Args:
        name: of SCHEMES.
        bits: of every stored value; of pq and mgqe of the centroids.
        width: of uniform, mask, pq and mgqe: the first columns of the rotated table; None for all.
        keep: of mask: entries that are kept, those of largest magnitude; None, without `bytes`,
            for the run's own mask.
        bytes: of mask: the size of everything that is stored; it says how many entries are kept,
            and may be exceeded by what one entry more takes.
        subspaces, centroids: of pq and mgqe: codes of a row, and the values that each can have.
        rotation: of uniform, mask, pq and mgqe: to the principal axes first.
    """

    name: str
    bits: int
    width: int | None = None
    keep: int | None = None
    bytes: int | None = None
    subspaces: int | None = None
    centroids: int | None = None
    rotation: bool = True

    def __post_init__(self) -> None:
        if self.name not in SCHEMES:
            raise ValueError(f"there is no scheme {self.name!r}; known: {', '.join(SCHEMES)}")
        if not 1 <= self.bits <= MOST:
            raise ValueError(f"--bits takes 1 to {MOST}, got {self.bits}")
        wanted = {"subspaces": CODED, "centroids": CODED, "keep": ("mask",), "bytes": ("mask",),
                  "width": ("uniform", "mask", *CODED)}
        for option, schemes in wanted.items():
            if getattr(self, option) is not None and self.name not in schemes:
                raise ValueError(f"--{option} belongs to {', '.join(schemes)}; leave it away "
                                 f"with {self.name}")
        if self.keep is not None and self.bytes is not None:
            raise ValueError("mask takes either --keep or --bytes")
        if self.name == "mask" and self.keep is None and self.bytes is None and (
                self.width is not None or not self.rotation):
            raise ValueError("mask takes a run's own mask as it is, without --keep or --bytes; "
                             "leave --width and --no-rotation away, or name one of these")
        if self.name in CODED and (not self.subspaces or not self.centroids):
            raise ValueError(f"{self.name} needs --subspaces and --centroids")
        if self.name in CODED and (self.subspaces or 0) < 0:
            raise ValueError(f"--subspaces must be positive, got {self.subspaces}")

    def identity(self) -> dict[str, Any]:
        """For a run's id and for tables."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        own = given.pop("name")
        if own in CODED:
            given["centroids_are"] = "weighted means"
        if own in OWN_RUNS or given["rotation"]:
            del given["rotation"]
        return {"method": "lowbit", "scheme": own, **given}


def of_record(made: dict[str, Any]) -> Scheme:
    """The scheme of a run, from its record's `compression`."""
    given = {name: made[name] for name in vars(Scheme("uniform", 1)) if name in made}
    return Scheme(made["scheme"], **given)


def load(run_id: str, scheme: Scheme, context: RunContext) -> LoadedRun:
    """The run that a scheme starts from.

    Raises:
        FileNotFoundError: no such run, or it kept no weights.
        ValueError: it is a training of another embedding than the scheme takes.
    """
    cut = scheme.keep is not None or scheme.bytes is not None
    if scheme.name in ("uniform", *CODED) or cut:
        return load_uniform(run_id, context).with_one_value_a_field("lowbit")
    found = load_model(run_id, context).with_one_value_a_field("lowbit")
    wanted = scheme.name if scheme.name in OWN_RUNS else MASKED
    own = found.settings.scheme
    if own != wanted:
        raise ValueError(f"run {found.run_id} has embedding {own}; {scheme.name} quantises a run "
                         f"of {wanted}"
                         + (", or cuts a uniform table to --keep entries" if wanted == MASKED
                            else ""))
    return found


def make(trained: LoadedRun, scheme: Scheme) -> tuple[ClickModel, np.ndarray]:
    """The model with its quantised embedding, and (N,) whether training has seen each row.

    Raises:
        ValueError: the scheme's options do not fit the table.
    """
    return MAKERS[scheme.name](trained, scheme)


def _uniform(trained: LoadedRun, scheme: Scheme) -> tuple[ClickModel, np.ndarray]:
    """Every entry of a seen row at the same bits."""
    start = _dense(trained, scheme)
    bits = np.where(start.seen[:, None], scheme.bits, 0) * np.ones(start.table.shape[1], np.int64)
    return _quantised(start, bits, rows_bytes(start.field_sizes)), start.seen


def _mask(trained: LoadedRun, scheme: Scheme) -> tuple[ClickModel, np.ndarray]:
    """The entries of largest magnitude, or those of the run's own mask, at the same bits."""
    if scheme.keep is None and scheme.bytes is None:
        seen = feature_counts.count(trained.dataset).numpy() > 0
        model, table = copy.deepcopy(trained.model), trained.table
        start = Start(model, seen.astype(np.int64), trained.dataset.schema.sizes)
        kept = (table != 0) & seen[:, None]
    else:
        start = _dense(trained, scheme)
        kept = _largest(start, scheme)
    return _quantised(start, kept * scheme.bits, HEADER.size + _masks(start, kept)), start.seen


def _masks(start: Start, kept: np.ndarray) -> int:
    count = count_bytes(max(start.field_sizes))
    return sum(mask_bytes(kept[rows], count) for rows in of_fields(start.field_sizes))


def _largest(start: Start, scheme: Scheme) -> np.ndarray:
    """(N, D) of bool: the entries of largest magnitude, by number or by bytes."""
    size = np.abs(start.table.numpy()) * start.seen[:, None]
    most = int(np.count_nonzero(size))
    order = np.sort(size, axis=None)

    def of(count: int) -> np.ndarray:
        return size >= order[len(order) - count]

    if scheme.keep is not None:
        if not 0 < scheme.keep <= most:
            raise ValueError(f"--keep must lie between 1 and the {most:,} entries of seen rows, "
                             f"got {scheme.keep}")
        return of(scheme.keep)

    def stored(count: int) -> int:
        bits = of(count) * scheme.bits
        steps = int(step_groups(bits, start.field_sizes).max(initial=-1)) + 1
        return HEADER.size + _masks(start, of(count)) + steps + -(-int(bits.sum()) // 8)

    assert scheme.bytes is not None
    if not stored(1) <= scheme.bytes <= stored(most):
        raise ValueError(f"a mask over {start.table.shape[1]} columns takes {stored(1):,} to "
                         f"{stored(most):,} bytes, got --bytes {scheme.bytes}")
    return of(bisect.bisect_left(range(1, most), scheme.bytes, key=stored) + 1)


def _coded(trained: LoadedRun, scheme: Scheme) -> tuple[ClickModel, np.ndarray]:
    """Product quantisation: each part of a row is one of a few centroids, which start from k-means
    on the dense rows, where a row weighs as often as it is seen, and have few bits.

    MGQE's rare features use the first quarter of the centroids, which start from all rows, and the
    others start from the rows of frequent ones. Rows are sorted, so a field says once where its
    rare rows begin.
    """
    start = _dense(trained, scheme)
    width, subspaces, centroids = start.table.shape[1], scheme.subspaces, scheme.centroids
    assert subspaces is not None
    assert centroids is not None
    if width % subspaces:
        raise ValueError(f"--subspaces must divide the width {width}, got {subspaces}")
    seen = int(start.seen.sum())
    if not 2 <= centroids <= seen:
        raise ValueError(f"--centroids must lie between 2 and the {seen:,} seen rows, got "
                         f"{centroids}")
    allowed, shares = None, [(centroids, start.seen)]  # and the rows that they start from
    others = rows_bytes(start.field_sizes)
    if scheme.name == "mgqe":
        allowed = tiers(torch.from_numpy(start.counts), centroids)
        frequent = start.seen & (allowed == centroids).numpy()
        few = int(allowed.min())
        if centroids - few > frequent.sum():
            raise ValueError(f"--centroids {centroids} leaves {centroids - few} for the "
                             f"{int(frequent.sum())} most frequent rows; give fewer")
        shares = [(few, start.seen), (centroids - few, frequent)]
        others += count_bytes(max(start.field_sizes)) * len(start.field_sizes)
    generator = np.random.default_rng(trained.run.seed)
    rows = start.table.numpy().reshape(len(start.table), subspaces, -1)
    found = [np.concatenate([kmeans2(rows[own, part], count, KMEANS, minit="++", rng=generator)[0]
                             for count, own in shares]) for part in range(subspaces)]
    codebook = Codebook(torch.from_numpy(np.stack(found)), scheme.bits, allowed)
    product = Product(start.table, start.counts.astype(np.float64), codebook,
                      len(start.field_sizes), others)
    for _ in range(RENEWALS):
        product.renew()
    start.model.embedding = product
    return start.model, start.seen


def _own_run(trained: LoadedRun, scheme: Scheme) -> tuple[ClickModel, np.ndarray]:
    """All parameters of a run's own embedding; maps between widths have 8 bits."""
    model, sizes = copy.deepcopy(trained.model), trained.dataset.schema.sizes
    inner = model.embedding
    names = [name for name, _ in inner.named_parameters()]
    bits = {name: MOST if name.startswith("projections") else scheme.bits for name in names}
    parts: dict[str, tuple[int, ...]] = {name: (len(value),)
                                         for name, value in inner.named_parameters()}
    if scheme.name == "qr":
        parts = _rows_by_field(inner, sizes)
    seen = feature_counts.count(trained.dataset).numpy() > 0
    groups = 1 if scheme.name == "qr" else len(names)
    return _parts(model, inner, bits, parts, rows_bytes(sizes) * groups), seen


MAKERS: dict[str, Callable[[LoadedRun, Scheme], tuple[ClickModel, np.ndarray]]] = {
    "uniform": _uniform, "mask": _mask, "pq": _coded, "mgqe": _coded, "qr": _own_run,
    "mde": _own_run}


def _rows_by_field(inner: Any, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The rows of each field in the two tables of quotient-remainder; the quotients' row 0 is no
    parameter."""
    ends = [inner.places[rows].max(dim=0).values for rows in of_fields(sizes)]
    last = np.maximum.accumulate(torch.stack(ends).numpy(), axis=0)
    remainders, quotients = last[:, 0] + 1, last[:, 1]
    return {"remainders": tuple(np.diff(remainders, prepend=0).tolist()),
            "quotients": tuple(np.diff(quotients, prepend=0).tolist())}


def _dense(trained: LoadedRun, scheme: Scheme) -> Start:
    """The start of a uniform run; of codes, neighbouring parts get columns of like energy."""
    whole = trained.table.shape[1]
    width = whole if scheme.width is None else scheme.width
    if not 1 <= width <= whole:
        raise ValueError(f"--width must lie between 1 and {whole}, the width of the dense table; "
                         f"got {width}")
    columns = np.arange(width)
    if scheme.name in CODED and scheme.rotation and scheme.subspaces and not (
            width % scheme.subspaces):
        columns = columns.reshape(-1, scheme.subspaces).T.reshape(-1)
    same = np.array_equal(columns, np.arange(whole))
    return start_of(trained, scheme.rotation, None if same else columns)


def _quantised(start: Start, bits: np.ndarray, others: int) -> ClickModel:
    groups = step_groups(bits, start.field_sizes)
    stored = others + int(groups.max(initial=-1)) + 1 + -(-int(bits.sum()) // 8)
    embedding = Quantised(start.table, bits, groups, len(start.field_sizes), stored)
    embedding.quantiser.parts = start.field_sizes
    start.model.embedding = embedding
    return start.model


def _parts(model: ClickModel, inner: Any, bits: dict[str, int],
           parts: dict[str, tuple[int, ...]], others: int) -> ClickModel:
    quantisers, stored = {}, others
    for name, own in bits.items():
        value = inner.get_parameter(name).detach()
        matrix = value.reshape(-1, value.shape[-1])
        each = np.full(matrix.shape, own)
        groups = step_groups(each, parts[name])
        quantisers[name] = Quantiser(matrix, each, groups)
        quantisers[name].parts = parts[name]
        stored += int(groups.max()) + 1 + -(-int(each.sum()) // 8)
    model.embedding = QuantisedParts(inner, quantisers, stored)
    return model


def rows_bytes(field_sizes: Sizes) -> int:
    """A header, and for each field how many rows it has and how many of them were seen.

    >>> rows_bytes((10, 20))
    28
    """
    return HEADER.size + 2 * count_bytes(max(field_sizes)) * len(field_sizes)


def mask_bytes(kept: np.ndarray, count: int) -> int:
    """What says which entries of a field's rows are kept, in the smaller of two forms.

    Rows without an entry cost nothing in either. By pattern: rows are sorted by which columns they
    keep, and each pattern that occurs is stored once with the number of its rows. By bitmap: rows
    are sorted by how many columns they keep, with the number of rows of each, and every row has one
    bit a column.

    Args:
        kept: (rows, D) of bool.
        count: bytes of a number of rows.

    >>> mask_bytes(np.array([[True] * 8] * 50 + [[False] * 8] * 9), 2)
    3
    """
    rows = kept[kept.any(axis=1)]
    bitmap = -(-kept.shape[1] // 8)
    patterns = len(np.unique(np.packbits(rows, axis=1), axis=0)) if len(rows) else 0
    numbers = len(np.unique(rows.sum(axis=1)))
    return min(patterns * (bitmap + count),
               -(-rows.size // 8) + numbers * (count + 1))
