"""Settings: a script's flat dict, checked into frozen records before any data is read.

The settings of every run stand here. Those of one model or embedding stand in a record beside its
class, which its registry entry names (`models.build`).
"""

import ast
import json
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from itertools import chain
from typing import Any

from data.registry import DATASETS
from data.split import check_name
from data.table.options import TableOptions, check_split
from engine.optim.step import UPDATES
from models.build import EMBEDDINGS, MODELS, embedding_entry
from models.options import option, record_of
from utils.text import unknown

MASKED = "masked"  # the embedding of a retraining: a snapshot's mask, not a scheme to choose
PEP = "pep"  # the embedding that is searched, with the budgets below
NO_EMBEDDING = "none"  # what a model has that takes no embedding
VALIDATION_METRICS = ("auc", "loss")  # that patience may look at
PUBLISHED_PATIENCE = "published_protocol"  # patience on the mean of per-batch test AUCs
CONSTANT, COSINE, PLATEAU = "constant", "cosine", "plateau"  # courses of the learning rate


def _embeddings() -> tuple[str, ...]:
    return (*EMBEDDINGS, MASKED)


@dataclass(frozen=True)
class DataSettings:
    """Which rows."""

    dataset: str = option("movielens", "which data set", choices=DATASETS)
    with_ids: bool = option(False, "MovieLens: add user and movie id, 9 fields in place of 7")
    vocabulary: str = option("all", "rows whose values get an id of their own; all, as the paper's "
                             "Table 3 counts", choices=("all", "train"))
    # the data's hash, which is in the id, tells splits apart
    split: str = option("random", "random: 80/10/10; ids:FILE: an .npz of row numbers for train, "
                        "validation and test", in_id=False)


@dataclass(frozen=True)
class TableSettings:
    """How a table of the user's own becomes fields; the data's hash, which is in the id, tells two
    such readings apart."""

    label: str = option("", "own table: the column to predict, of two values", in_id=False)
    name: str = option("", "own table: the data set's name; empty: its file's", in_id=False)
    fields: tuple[str, ...] = option((), "own table: columns that are fields; none named: all "
                                     "others", in_id=False)
    dense: tuple[str, ...] = option((), "own table: columns that DLRM reads as numbers, and others "
                                    "as buckets floor(ln(v)^2)", in_id=False)
    bucket: str | Mapping[str, Any] = option(
        "quantiles", "own table: rule of columns of numbers, quantiles, quantiles:N, log2 or none; "
        "one for all that have fractions, or {column: rule}", in_id=False)
    dates: Mapping[str, Any] | None = option(
        None, "own table: {column: parts of its times that become fields, of hour, weekday, day, "
        "month, year}", in_id=False)
    multi: Mapping[str, Any] | None = option(
        None, "own table: {column: what stands between the several values of a cell}, or "
        "{column: [that, most values of a cell]}", in_id=False)
    ignore: tuple[str, ...] = option((), "own table: columns that are left out", in_id=False)
    positive: tuple[str, ...] = option((), "own table: the label's values that count as 1; none "
                                       "named: 1, true, yes", in_id=False)
    min_count: int = option(10, "own table: rarer values share their field's unknown id", low=1,
                            in_id=False)

    @property
    def options(self) -> TableOptions:
        """As the reader takes them."""
        return TableOptions.of(asdict(self))


@dataclass(frozen=True)
class ModelSettings:
    """Which model, around which embedding."""

    model: str = option("fm", "which model", choices=MODELS)
    embedding: str = option(PEP, "which embedding", choices=_embeddings)
    latent_dim: int = option(64, "width d of a vector", low=1)


@dataclass(frozen=True)
class TrainSettings:
    """How parameters move and when training ends."""

    batch_size: int = option(1024, "rows of a batch", low=2)
    lr: float = option(1e-3, "learning rate", low=0)
    l2_regularization: float = option(1e-5, "weight decay, coupled, of table and thresholds; it is "
                                      "what moves the thresholds", low=0)
    weight_decay: float | None = option(None, "weight decay, coupled, of all other parameters; "
                                        "None: l2_regularization, as published", low=0,
                                        id_name="l2_penalty", neutral=1e-5)
    l2_penalty: float = option(0.0, "in the loss: times the sum of squares of a batch's vectors, "
                               "as pruned, over its rows", low=0, id_name="vector_penalty",
                               source="Liu et al. 2021, the published penalty")
    grad_clip: float = option(100.0, "largest global norm of the gradients", low=1e-9)
    max_epochs: int = option(100, "epochs, at most", low=1)
    eval_interval: int = option(2, "epochs between evaluations", low=1)
    early_stop: int = option(8, "evaluations without gain; a search is never stopped early", low=1)
    early_stop_metric: str = option("auc", "what patience looks at, on validation rows; "
                                    "published_protocol: on test rows",
                                    choices=(*VALIDATION_METRICS, PUBLISHED_PATIENCE))
    log_interval: int = option(10, "steps between counts of the remaining parameters", low=1,
                               id_of=PEP)
    table_update: str = option("auto", "how tables are updated; streamed and lazy, of which auto "
                               "takes one, have the same bits, dense has others",
                               choices=UPDATES, neutral="auto")
    tensorboard: bool = option(True, "write TensorBoard files", in_id=False)
    checkpoint_seconds: float = option(60.0, "seconds between checkpoints", low=0, in_id=False)
    optimizer: str = option("adam", "Adam, or plain gradient descent", choices=("adam", "sgd"))
    ema: float = option(0.0, "decay of an exponential moving average of all weights, which is "
                        "evaluated and kept in their place; 0: none", low=0, below=1)
    lr_schedule: str = option(CONSTANT, "learning-rate schedule; cosine: to 0 over max_epochs; "
                              "plateau: a tenth after every early_stop / 2 evaluations (rounded "
                              "up) without gain",
                              choices=(CONSTANT, COSINE, PLATEAU))
    lanes: int = option(0, "parts that a batch is cut into, for as many processes as divide them "
                        "(torchrun, which sets it to 4); a power of two; 0: one process", low=0)

    @property
    def decay_of_others(self) -> float:
        """Weight decay of the parameters beside the embedding."""
        return self.l2_regularization if self.weight_decay is None else self.weight_decay


@dataclass(frozen=True)
class SearchSettings:
    """Which budgets a search saves."""

    candidate_p: tuple[int, ...] = option((), "budgets, in parameters, falling", low=1, owner=PEP,
                                          source="Liu et al. 2021")
    budget: str = option("exact", "exact: cut to the very number; as_reached: the count that the "
                         "step landed on", choices=("exact", "as_reached"), owner=PEP)


@dataclass(frozen=True)
class RetrainSettings:
    """Which snapshot is retrained, and from which values."""

    retrain_emb_param: int | str = option("all", "a number of parameters, a budget, or all",
                                          owner=MASKED, in_id=False)
    re_init: bool = option(False, "same mask, fresh random values instead of the initial ones",
                           owner=MASKED)
    rewind: str = option("all", "what restarts at the search's initial values; all, as published; "
                         "embedding: the rest fresh", choices=("embedding", "all"), owner=MASKED,
                         neutral="embedding")


@dataclass(frozen=True)
class Settings:
    """All records of one run.

    Args:
        own: the records of all models and embeddings, by name.
    """

    data: DataSettings
    table: TableSettings
    model: ModelSettings
    train: TrainSettings
    search: SearchSettings
    retrain: RetrainSettings
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """The embedding in effect: the chosen one, or `none` under a model that takes none."""
        return self.model.embedding if MODELS[self.model.model].embedding is None else NO_EMBEDDING

    @property
    def embedding(self) -> Any:
        """The own settings of the embedding in effect."""
        return self.own[self.scheme]

    def flat(self) -> dict[str, Any]:
        """Every setting by its published name."""
        records = [self.data, self.table, self.model, *self.own.values(), self.train, self.search,
                   self.retrain]
        named: dict[str, Any] = {}
        for record in records:
            named |= vars(record)
        return named


RECORDS: dict[str, type] = {"data": DataSettings, "table": TableSettings,
                            "model": ModelSettings, "train": TrainSettings,
                            "search": SearchSettings, "retrain": RetrainSettings}


def _own_records() -> dict[str, type]:
    models = {name: entry.settings for name, entry in MODELS.items()}
    return models | {name: entry.settings for name, entry in EMBEDDINGS.items()}


@dataclass(frozen=True)
class Known:
    """What is known of a setting.

    Args:
        kind: its type.
        rules: of its `option`.
        owners: the models and embeddings whose setting it is; none for a setting of every run.
    """

    name: str
    kind: Any
    rules: Mapping[str, Any]
    owners: tuple[str, ...]


@cache
def _of_record(record: type, owner: str | None) -> tuple[Known, ...]:
    kinds = typing.get_type_hints(record)
    found = []
    for item in fields(record):
        owned = owner or item.metadata["owner"]
        found.append(Known(item.name, kinds[item.name], item.metadata, (owned,) if owned else ()))
    return tuple(found)


def known_settings() -> dict[str, Known]:
    """All settings by name. Models that share a setting are its owners together."""
    found: dict[str, Known] = {}
    owned = [(record, name) for name, record in _own_records().items()]
    for record, owner in [*((record, None) for record in RECORDS.values()), *owned]:
        for known in _of_record(record, owner):
            before = found[known.name].owners if known.name in found else ()
            found[known.name] = Known(known.name, known.kind, known.rules,
                                      (*before, *known.owners))
    return found


def snapshot_decides() -> list[str]:
    """The settings that a retraining takes from the search that made the snapshot."""
    records = (DataSettings, TableSettings, ModelSettings)
    shared = [item.name for item in chain.from_iterable(map(fields, records))
              if item.name not in ("embedding", "name")]
    own = [item.name for item in chain.from_iterable(map(fields, _own_records().values()))]
    return [*shared, "log_interval", *dict.fromkeys(own)]


def parse(given: dict[str, Any]) -> Settings:
    """Check a flat dict of settings.

    Raises:
        ValueError: an unknown key (the nearest known one is named), a wrong type, or a value that
            is not allowed.

    >>> parse({"latent_dim": 8}).model.latent_dim
    8
    >>> parse({"laten_dim": 8})
    Traceback (most recent call last):
    ValueError: unknown setting 'laten_dim'; did you mean 'latent_dim'? Known: ...
    """
    known = known_settings()
    for name in given:
        if name not in known:
            raise ValueError(unknown("setting", name, known))
    free = {"dataset"} if "label" in given else set()  # an own table is in no registry
    checked = {name: _check(known[name], value, name in free) for name, value in given.items()}
    records: dict[str, Any] = {key: record_of(record, checked) for key, record in RECORDS.items()}
    own: dict[str, Any] = {name: record_of(record, checked)
                           for name, record in _own_records().items()}
    settings = Settings(**records, own=own)
    _check_together(settings)
    return settings


def require_used(settings: Settings, names: Collection[str], also: Collection[str] = ()) -> None:
    """Refuse settings that change nothing for the chosen model and embedding.

    Args:
        names: the settings that the user set by hand.
        also: further owners that are in use, besides the model and its embedding.

    Raises:
        ValueError: it names the setting, its owner, and how to choose that.

    >>> require_used(parse({}), ["mde_blocks"])
    Traceback (most recent call last):
    ValueError: mde_blocks is a setting of embedding mde, and this run has model fm and embedding
    pep, for which it changes nothing; leave it away, or add --embedding mde
    """
    of_tables = sorted(set(names) & {item.name for item in fields(TableSettings)})
    if of_tables and settings.data.dataset in DATASETS:
        raise ValueError(f"{of_tables[0]} is for a table of your own, and the data set is "
                         f"{settings.data.dataset}; use train_table.py, or leave it away")
    if settings.scheme == MASKED:
        return
    known, used = known_settings(), {settings.model.model, settings.scheme, *also}
    for name in sorted(names):
        owners = known[name].owners
        if not owners or used & set(owners):
            continue
        kind = "model" if owners[0] in MODELS else "embedding"
        instead = f"or add --{kind} {' or '.join(owners)}"
        if owners == (MASKED,):
            instead = "or use the retrain script"
        raise ValueError(f"{name} is a setting of {kind} {' and '.join(owners)}, and this run has "
                         f"model {settings.model.model} and embedding {settings.scheme}, for which "
                         f"it changes nothing; leave it away, {instead}")
    patience = {"early_stop", "early_stop_metric"} & {*names}
    searching = settings.scheme == PEP and MASKED not in also
    if searching and patience and settings.train.early_stop_metric != PUBLISHED_PATIENCE:
        raise ValueError(f"{min(patience)} changes nothing for a search, which is not stopped "
                         "early; give it to the retraining")
    idle = {*_unused(settings)}
    if settings.train.weight_decay is None:  # then this one is of all parameters
        idle.discard("l2_regularization")
    if wrong := sorted(idle & {*names}):
        raise ValueError(f"{wrong[0]} changes nothing for model {settings.model.model} and "
                         f"embedding {settings.scheme}; leave it away")


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` of --set; the value is a Python literal, true or false, or else a plain word.

    >>> tuple(map(parse_assignment, ("mlp_dims=[100, 100]", "budget=exact", "re_init=true")))
    (('mlp_dims', [100, 100]), ('budget', 'exact'), ('re_init', True))
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"--set takes key=value, got {text!r}")
    if value.strip().lower() in ("true", "false"):
        return name.strip(), value.strip().lower() == "true"
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError):
        return name.strip(), value.strip()


def identity(settings: Settings) -> str:
    """Canonical text of the settings that can change this run's result.

    Left out are values equal to their neutral one, so that a new setting keeps old ids, and
    settings that this run's model and embedding do not use.
    """
    flat = settings.flat()
    flat["weight_decay"] = settings.train.decay_of_others
    if flat["table_update"] != "dense":
        flat["table_update"] = "auto"
    used, unused = {settings.model.model, settings.scheme}, _unused(settings)
    kept = {}
    for name, known in known_settings().items():
        rules, owners = known.rules, set(known.owners)
        if owners and not owners & used:
            continue
        if name in unused or rules["id_of"] not in (None, *used):
            continue
        if rules["in_id"] and flat[name] != rules["neutral"]:
            kept[rules["id_name"] or name] = flat[name]
    return json.dumps(kept, sort_keys=True)


def _unused(settings: Settings) -> tuple[str, ...]:
    if settings.scheme == MASKED:
        return ()
    return embedding_entry(settings.model.model, settings.model.embedding).unused


def described(script: dict[str, Any]) -> str:
    """All settings by owner, a line each: name, the script's value, what is allowed, what it is
    and who published it."""
    every = parse(script).flat()
    groups: dict[str, list[Known]] = {}
    for known in known_settings().values():
        kind = "model" if known.owners and known.owners[0] in MODELS else "embedding"
        owner = f"{kind} {', '.join(known.owners)}" if known.owners else "every run"
        groups.setdefault(owner, []).append(known)
    lines = ["setting = value here (default; allowed): what it is [source]"]
    for owner in sorted(groups, key=_order):
        lines += ["", owner, *(_line(known, every[known.name]) for known in groups[owner])]
    return "\n".join(lines)


def _order(owner: str) -> tuple[bool, bool, str]:
    """PEP's settings first, then those of every run, then the others'."""
    return owner != f"embedding {PEP}", owner != "every run", owner


def _line(known: Known, value: Any) -> str:
    rules = known.rules
    here, default = (list(each) if isinstance(each, tuple) else each
                     for each in (value, rules["default"]))
    notes = [f"default {default}", *_allowed(known)]
    source = f" [{rules['source']}]" if rules["source"] else ""
    return f"  {known.name} = {here} ({'; '.join(notes)}): {rules['help']}{source}"


def _allowed(known: Known) -> list[str]:
    rules = known.rules
    if (choices := _choices(rules)) is not None:
        return [", ".join(choices)]
    bounds = []
    if rules["low"] is not None:
        bounds.append(f">= {rules['low']}")
    if rules["below"] is not None:
        bounds.append(f"< {rules['below']}")
    return bounds


def _choices(rules: Mapping[str, Any]) -> Collection[str] | None:
    choices: Collection[str] | Callable[[], Collection[str]] | None = rules["choices"]
    return choices() if callable(choices) else choices


def _check(known: Known, value: Any, free: bool = False) -> Any:
    """The value as it is kept; with `free`, any name is allowed."""
    name, kind, rules = known.name, known.kind, known.rules
    if kind == tuple[str, ...] and isinstance(value, (list, tuple, str, int, float)):
        listed = value.split(",") if isinstance(value, str) else value
        listed = [listed] if isinstance(listed, (int, float)) else listed
        # a column of booleans has the words true and false
        listed = [str(element).lower() if isinstance(element, bool) else element
                  for element in listed]
        value = tuple(_typed(name, str(element) if isinstance(element, (int, float)) else element,
                             str, value) for element in listed if element != "")
    elif typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        value = tuple(_typed(name, element, int, value) for element in value)
    else:
        value = _typed(name, value, kind, value)
    choices = _choices(rules)
    if choices is not None and value not in choices and not free:
        raise ValueError(unknown(name, value, choices))
    if value is None:
        return value
    for element in value if isinstance(value, tuple) else (value,):
        if isinstance(element, str | dict):
            continue
        too_low = rules["low"] is not None and not element >= rules["low"]
        if too_low or (rules["below"] is not None and not element < rules["below"]):
            upper = f" and below {rules['below']}" if rules["below"] is not None else ""
            raise ValueError(f"{name} must be at least {rules['low']}{upper}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return value


def _typed(name: str, value: Any, kind: Any, whole: Any) -> Any:
    whole_number = isinstance(value, int) and not isinstance(value, bool)
    if whole_number and (kind is float or float in typing.get_args(kind)):
        return float(value)
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    allowed = tuple(typing.get_origin(part) or part for part in parts)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = {Mapping: "a dict", tuple: "a list of names" if kind == tuple[str, ...] else
                 "a list of whole numbers", types.NoneType: "None"}
        wanted = " or ".join(names.get(one, one.__name__) for one in allowed)
        raise ValueError(f"{name} must be {wanted}, got {whole!r} ({type(value).__name__})")
    return value


def _check_together(settings: Settings) -> None:
    if settings.data.dataset not in DATASETS:
        check_split(settings.data.split)
    else:
        check_name(settings.data.split)
    targets = settings.search.candidate_p
    if list(targets) != sorted(set(targets), reverse=True):
        raise ValueError(f"candidate_p must be strictly decreasing, got {list(targets)}")
    _check_lanes(settings)
    train = settings.train
    if (train.lr_schedule == PLATEAU and train.early_stop < 2
            and train.early_stop_metric != PUBLISHED_PATIENCE):
        raise ValueError("with lr_schedule plateau and early_stop 1 the run ends where its rate "
                         "would fall for the first time; give early_stop 2 or more")
    flat, model = settings.flat(), settings.model
    MODELS[model.model].check(settings.own[model.model], flat)
    if settings.scheme != MASKED:
        entry = embedding_entry(model.model, model.embedding)
        entry.check(settings.own.get(settings.scheme), flat)


def _check_lanes(settings: Settings) -> None:
    train = settings.train
    if train.lanes & (train.lanes - 1):
        raise ValueError(f"lanes must be 0 or a power of two, got {train.lanes}")
    decay = settings.own[PEP].threshold_decay
    if train.lanes and train.ema:
        raise ValueError("with lanes, weights are not averaged, as their averages are not cut over "
                         "processes; leave ema away, or run with lanes=0 and without torchrun")
    if train.lanes and settings.flat()["precision"] != "float32":
        raise ValueError("with lanes, matrix products are float32; leave precision away, or run "
                         "with lanes=0 and without torchrun")
    if train.lanes and (train.optimizer != "adam" or train.table_update == "dense"
                        or (settings.scheme == PEP and decay == "decoupled")):
        raise ValueError("with lanes, tables are updated row by row in several processes: "
                         "optimizer=sgd, table_update=dense and threshold_decay=decoupled cannot "
                         "do that; leave them away, or run with lanes=0 and without torchrun")
