"""One whole compression: which ranks, from which directions, and the model that comes out."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from compression.afm.factor import (
    choose_layers,
    deep_readers,
    factor_layer,
    factor_table,
    fuse,
    probe,
    replaced,
    svd_layer,
)
from compression.afm.low_rank import (
    Factor,
    Spectrum,
    check_rank,
    decompose,
    error,
    random_factor,
    rank_for_energy,
    ranks_for_ratio,
    svd_factor,
)
from compression.afm.statistics import Moments, least_codes, linear_at, table_moments
from models.base import Inputs
from models.embedding.tensor_train import radices_for, ranks_for, tensor_train_of

Measure = Callable[[Any, list[str]], dict[str, Moments]]  # moments of the named layers of a model
METHODS = ("afm", "svd", "random", "tt")


class Fields(Protocol):
    """Names and sizes of a table's fields."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Names."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each."""


@dataclass(frozen=True)
class Choice:
    """What to factor, how far, and from which directions; None leaves a part as it is."""

    method: str = "afm"
    emb_rank: int | None = None
    emb_energy: float | None = None
    ratio: float | None = None
    field_ranks: tuple[tuple[str, int], ...] | None = None  # (field, rank), of every field
    mlp_rank: int | None = None
    mlp_energy: float | None = None
    layers: tuple[str, ...] | None = None
    act: str = "none"
    act_init: str = "paper"
    fused: bool = True
    sequential: bool = False
    smoothing: float = 0.0
    max_samples: int | None = None

    @property
    def table(self) -> bool:
        """Whether the table is to be factored."""
        return any(value is not None
                   for value in (self.emb_rank, self.emb_energy, self.ratio, self.field_ranks))

    @property
    def mlp(self) -> bool:
        """Whether layers are."""
        return self.mlp_rank is not None or self.mlp_energy is not None

    def check(self) -> None:
        """Raise ValueError for what cannot be, whatever the model."""
        if self.method not in METHODS:
            raise ValueError(f"the method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not self.table and not self.mlp:
            raise ValueError("there is nothing to factor: name --emb-rank, --emb-energy, --ratio "
                             "or --field-rank-file for the table, --mlp-rank or --mlp-energy for "
                             "the layers")
        for name, rank in (("--emb-rank", self.emb_rank), ("--mlp-rank", self.mlp_rank)):
            if rank is not None and rank < 1:
                raise ValueError(f"{name} must be at least 1, got {rank}")
        if self.method == "tt" and (self.emb_rank is None or self.mlp):
            raise ValueError("tt makes a tensor train of the table and of nothing else: name its "
                             "rank with --emb-rank")
        if self.act_init == "shift" and self.act != "relu":
            raise ValueError("--act-init shift keeps the function past a ReLU: it needs --act relu")
        if self.method != "afm" and self.act_init == "shift":
            raise ValueError("--act-init shift needs the codes of --method afm")
        if self.layers is not None and not self.mlp:
            raise ValueError("--layers names what to factor: give --mlp-rank or --mlp-energy too")
        if not self.mlp and (self.act != "none" or self.sequential):
            raise ValueError("--act and --sequential are about layers: give --mlp-rank or "
                             "--mlp-energy too")
        if not self.table and (self.smoothing or not self.fused):
            raise ValueError("--smoothing and --no-fuse are about the table: give --emb-rank, "
                             "--emb-energy, --ratio or --field-rank-file too")
        if not self.mlp and self.max_samples is not None:
            raise ValueError("--max-samples is about layers, whose outputs are sampled: give "
                             "--mlp-rank or --mlp-energy too")
        if not 0 <= self.smoothing < math.inf:
            raise ValueError(f"--smoothing must be a number from 0, got {self.smoothing}")
        if self.method == "tt" and (self.smoothing or not self.fused):
            raise ValueError("tt knows no --smoothing and no --no-fuse: it takes the table as it "
                             "is and is never fused")

    def layers_of(self, model: Any) -> list[str]:
        """The layers of a model that are to be factored.

        Raises:
            ValueError: one is not there, or there are none at all.
        """
        if not self.mlp:
            return []
        found = choose_layers(model, self.layers)
        if not found:
            raise ValueError(f"{type(model).__name__} has no layer to factor (an MLP's first and "
                             "its output are left as they are unless --layers names them)")
        return found

    def identity(self) -> dict[str, Any]:
        """What sets the outcome apart: the values that are not the neutral ones, and the method."""
        neutral = asdict(Choice())
        return {"method": self.method, **{name: list(value) if isinstance(value, tuple) else value
                                          for name, value in asdict(self).items()
                                          if value != neutral[name]}}


@dataclass
class Compression:
    """A compressed model, in evaluation mode, and how it came about."""

    model: Any
    spectra: dict[str, dict[str, list[float]]]  # eigenvalues by field, and by layer
    # share of the variance that is lost, of `fields`
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    # weighted by frequency and, beside it, with every id counted once: AFM gives up rare ids for
    # frequent ones


def compress(model: Any, choice: Choice, fields: list[Moments], schema: Fields, measure: Measure,
             batches: Callable[[], Iterable[Inputs]], seed: int) -> Compression:
    """The compressed model; `model`, in evaluation mode, stays as it is.

    Ranks always come from the spectra of the outputs, so that all methods have equal ranks.

    Args:
        fields: moments of each field's vectors.
        measure: gives moments of layers; asked layer by layer of what is factored so far if
            `sequential`, else once of the dense model.
        batches: gives calibration batches, for the shifted start.
        seed: of a random basis.

    Raises:
        ValueError: a rank above a width or not below the sample count, or a layer that is not
            there.
    """
    choice.check()
    layers = choice.layers_of(model)
    generator = torch.Generator().manual_seed(seed)
    spectra = [decompose(moments) for moments in fields]
    of_fields = _values(dict(zip(schema.fields, spectra, strict=True)))
    compression = Compression(model, {"fields": of_fields, "layers": {}})
    if choice.table:
        _table(compression, choice, fields, spectra, schema, generator)
    dense = {} if choice.sequential or not layers else measure(model, layers)
    for name in layers:
        moments = measure(compression.model, [name])[name] if choice.sequential else dense[name]
        _layer(compression, choice, name, moments, batches, generator)
    return compression


def _table(compression: Compression, choice: Choice, fields: list[Moments], spectra: list[Spectrum],
           schema: Fields,
           generator: torch.Generator) -> None:
    table = compression.model.embedding.table()
    if choice.method == "tt":
        assert choice.emb_rank is not None
        most = max(ranks_for(radices_for(len(table)), table.shape[1], choice.emb_rank))
        if most < choice.emb_rank:
            raise ValueError(f"--emb-rank {choice.emb_rank} is more than a tensor train of this "
                             f"table can have: {most}")
        train = tensor_train_of(table, choice.emb_rank, len(schema.sizes))
        compression.model = replaced(compression.model, "embedding", train)
        return
    ranks = table_ranks(choice, spectra, schema)
    factors = [_factor(choice.method, spectrum, rank, partial(svd_factor, part, rank), generator)
               for part, spectrum,
               rank in zip(table.split(list(schema.sizes)), spectra, ranks, strict=True)]
    once = table_moments(table, torch.ones((), dtype=torch.int64).expand(len(table)), schema.sizes)
    for what, moments in (("fields", fields), ("fields_unweighted", once)):
        compression.errors[what] = {
            name: _share(factor, of_field)
            for name, factor, of_field in zip(schema.fields, factors, moments, strict=True)}
    compression.model = factor_table(compression.model, factors, schema.sizes)
    inputs = probe(compression.model, schema.sizes)
    if choice.fused and deep_readers(compression.model, inputs):
        compression.model = fuse(compression.model, inputs)


def table_ranks(choice: Choice, spectra: list[Spectrum], schema: Fields) -> list[int]:
    """Of each field.

    Raises:
        ValueError: a rank above the width, or not below the sample count; a field without a rank,
            or one that is not there.
    """
    if choice.ratio is not None:
        return ranks_for_ratio([spectrum.values for spectrum in spectra], schema.sizes,
                               choice.ratio)
    if choice.emb_energy is not None:
        return [rank_for_energy(spectrum.values, choice.emb_energy) for spectrum in spectra]
    least = 0 if choice.field_ranks is not None else 1
    if choice.field_ranks is not None:
        named = dict(choice.field_ranks)
        if set(named) != set(schema.fields):
            raise ValueError(f"there must be one rank for each of the fields "
                             f"{', '.join(schema.fields)}; got ranks for "
                             f"{', '.join(named) or 'none'}")
        ranks = [named[name] for name in schema.fields]
    else:
        assert choice.emb_rank is not None
        ranks = [choice.emb_rank] * len(spectra)
    for rank, spectrum in zip(ranks, spectra, strict=True):
        check_rank(rank, len(spectrum.values), spectrum.count, least)
    return ranks


def _layer(compression: Compression, choice: Choice, name: str, moments: Moments,
           batches: Callable[[], Iterable[Inputs]], generator: torch.Generator) -> None:
    spectrum = decompose(moments)
    compression.spectra["layers"] |= _values({name: spectrum})
    if choice.mlp_energy is not None:
        rank = max(rank_for_energy(spectrum.values, choice.mlp_energy), 1)
    else:
        assert choice.mlp_rank is not None
        rank = choice.mlp_rank
    check_rank(rank, len(spectrum.values), spectrum.count, least=1)
    if choice.method == "svd":
        most = min(linear_at(compression.model, name).weight.shape)
        compression.model = svd_layer(compression.model, name, min(rank, most), choice.act)
        return
    factor = _factor(choice.method, spectrum, rank, lambda: spectrum.first(rank), generator)
    least = None
    if choice.act_init == "shift":
        def least(model: Any, project: Any) -> Tensor:
            return least_codes(model, batches(), name, project)
    compression.model = factor_layer(compression.model, name, factor, choice.act, least)
    compression.errors.setdefault("layers", {})[name] = _share(factor, moments)


def _factor(method: str, spectrum: Spectrum, rank: int, svd: Callable[[], Factor],
            generator: torch.Generator) -> Factor:
    if method == "svd":
        return svd()
    return random_factor(spectrum.mean, rank,
                         generator) if method == "random" else spectrum.first(rank)


def _share(factor: Factor, moments: Moments) -> float:
    total = float(torch.trace(moments.covariance()))
    return max(error(factor, moments), 0.0) / total if total else 0.0


def _values(spectra: dict[str, Spectrum]) -> dict[str, list[float]]:
    return {name: [float(f"{value:.6g}") for value in spectrum.values.tolist()] for name,
            spectrum in spectra.items()}
