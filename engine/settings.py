"""Settings: a script's flat dict, checked into frozen records before any data is read."""

import ast
import json
import math
import types
import typing
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from data.registry import DATASETS
from data.split import check_name
from models.build import EMBEDDINGS, MODELS
from models.dlrm import INTERACTIONS
from models.embedding.pep import THRESHOLD_DECAYS, THRESHOLD_TYPES
from models.kernels.threshold import GATES
from utils.names import unknown


def option(default: Any, *, choices: Any = None, low: float | None = None, below: float | None = None,
           only: tuple[str, ...] = (), named: bool = True) -> Any:
    """One setting: its neutral default and what is allowed.

    Args:
        default: what the setting is when a dict does not name it; a value equal to it does not enter a run's id.
        choices: allowed names.
        low, below: low <= value < below; for a list, every element.
        only: the models or embeddings that the setting changes anything for; () is all.
        named: False for a setting that cannot change a result and so never enters a run's id.
    """
    rules = {"choices": choices, "low": low, "below": below, "only": only, "named": named}
    return field(default=default, metadata=rules)


_DEEP = ("deepfm", "autoint")
COUNTING = ("mde", "mgqe")  # embeddings that are made by popularity


@dataclass(frozen=True)
class DataSettings:
    """Which rows."""

    dataset: str = option("movielens", choices=DATASETS)
    with_ids: bool = option(False)  # MovieLens: add user and movie id (9 fields)
    vocabulary: str = option("all", choices=("all", "train"))  # rows whose values are counted
    split: str = option("random", named=False)  # random 80/10/10, or ids:FILE; the data's hash tells them apart


@dataclass(frozen=True)
class ModelSettings:
    """Which model, around which embedding."""

    model: str = option("fm", choices=MODELS)
    embedding: str = option("pep", choices=(*EMBEDDINGS, "masked"))
    latent_dim: int = option(64, low=1)  # width of a vector
    mlp_dims: tuple[int, ...] = option((100, 100), low=1, only=_DEEP)
    dropout: float = option(0.2, low=0, below=1, only=_DEEP)
    arch_mlp_bot: tuple[int, ...] = option((512, 256, 64), low=1, only=("dlrm",))  # hidden; then latent_dim
    arch_mlp_top: tuple[int, ...] = option((512, 256), low=1, only=("dlrm",))  # hidden; then 1
    arch_interaction_op: str = option("cat", choices=INTERACTIONS, only=("dlrm",))
    num_heads: int = option(2, low=1, only=("autoint",))
    num_layers: int = option(3, low=1, only=("autoint",))
    att_dropout: float = option(0.4, low=0, below=1, only=("autoint",))
    atten_embed_dim: int = option(64, low=1, only=("autoint",))
    has_residual: bool = option(True, only=("autoint",))
    full_part: bool = option(True, only=("autoint",))
    with_linear: bool = option(False, only=("autoint",))
    threshold_type: str = option("feature_dim", choices=THRESHOLD_TYPES, only=("pep",))
    threshold_init: float = option(-15.0, only=("pep",))
    g_type: str = option("sigmoid", choices=GATES, only=("pep",))
    gk: float = option(1.0, low=1e-9, only=("pep",))
    threshold_decay: str = option("coupled", choices=THRESHOLD_DECAYS, only=("pep",))
    threshold_gradient: bool = option(True, only=("pep",))  # False: the loss's gradient does not reach the thresholds
    darts_widths: tuple[int, ...] = option((2, 4, 16), low=1, only=("darts",))  # rising; the last is the common one
    popularity: str = option("train", named=False, only=COUNTING)  # or a file, whose content the run's id knows
    mde_blocks: int = option(8, low=1, only=("mde",))
    mde_alpha: float = option(0.1, low=0, only=("mde",))
    mgqe_subspaces: int = option(8, low=1, only=("mgqe",))
    mgqe_centroids: int = option(256, low=1, only=("mgqe",))
    hash_rows: int = option(1000, low=1, only=("hash",))
    qr_collisions: int = option(4, low=2, only=("qr",))
    tt_rank: int = option(16, low=1, only=("tt",))


@dataclass(frozen=True)
class TrainSettings:
    """How parameters move and when training ends."""

    batch_size: int = option(1024, low=2)
    lr: float = option(1e-3, low=0)
    l2_regularization: float = option(1e-5, low=0)  # embedding and thresholds
    l2_penalty: float = option(1e-5, low=0)  # all other parameters
    grad_clip: float = option(100.0, low=1e-9)
    max_epochs: int = option(100, low=1)
    eval_interval: int = option(2, low=1)  # epochs
    early_stop: int = option(8, low=1)  # evaluations without gain
    early_stop_metric: str = option("auc", choices=("auc", "loss"))
    log_interval: int = option(10, low=1, only=("pep",))  # steps between counts
    compile: str = option("auto", choices=("auto", "on", "off"), named=False)
    cuda_graph: str = option("auto", choices=("auto", "on", "off"), named=False)
    table_update: str = option("auto", choices=("auto", "whole", "dense", "deferred"), named=False)
    tensorboard: bool = option(True, named=False)
    checkpoint_seconds: float = option(60.0, low=0, named=False)
    optimizer: str = option("adam", choices=("adam", "sgd"))


@dataclass(frozen=True)
class SearchSettings:
    """Which budgets a search saves."""

    candidate_p: tuple[int, ...] = option((), low=1, only=("pep",))
    budget: str = option("exact", choices=("exact", "as_reached"), only=("pep",))
    darts_epochs: int = option(20, low=1, only=("darts",))  # of the search; max_epochs is that of the training after it
    darts_lr: float = option(1e-2, low=0, only=("darts",))  # of the mixture's weights


@dataclass(frozen=True)
class RetrainSettings:
    """Which snapshot is retrained, and from which values."""

    retrain_emb_param: int | str = option("all", named=False)
    re_init: bool = option(False, only=("masked",))
    rewind: str = option("embedding", choices=("embedding", "all"), only=("masked",))


@dataclass(frozen=True)
class Settings:
    """All records of one run."""

    data: DataSettings
    model: ModelSettings
    train: TrainSettings
    search: SearchSettings
    retrain: RetrainSettings

    def flat(self) -> dict[str, Any]:
        """Every setting by its published name."""
        return {name: value for record in asdict(self).values() for name, value in record.items()}


RECORDS: dict[str, type] = {"data": DataSettings, "model": ModelSettings, "train": TrainSettings,
                            "search": SearchSettings, "retrain": RetrainSettings}
_FIELDS = {item.name: item for record in RECORDS.values() for item in fields(record)}
_TYPES = {name: kind for record in RECORDS.values() for name, kind in typing.get_type_hints(record).items()}
SNAPSHOT_DECIDES = (*(item.name for item in fields(DataSettings)),
                    *(item.name for item in fields(ModelSettings) if item.name != "embedding"))


def parse(given: dict[str, Any]) -> Settings:
    """Check a flat dict of settings.

    Raises:
        ValueError: an unknown key (the nearest known one is named), a wrong type, or a value that is not allowed.

    >>> parse({"latent_dim": 8}).model.latent_dim
    8
    >>> parse({"laten_dim": 8})
    Traceback (most recent call last):
    ValueError: unknown setting 'laten_dim'; did you mean 'latent_dim'? Known: ...
    """
    for name in given:
        if name not in _FIELDS:
            raise ValueError(unknown("setting", name, _FIELDS))
    checked = {name: _check(name, value) for name, value in given.items()}
    settings = Settings(**{key: record(**{item.name: checked[item.name] for item in fields(record)
                                          if item.name in checked}) for key, record in RECORDS.items()})
    _check_together(settings)
    return settings


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` of --set; the value is a Python literal, true or false, or else a plain word.

    >>> parse_assignment("mlp_dims=[100, 100]"), parse_assignment("budget=exact"), parse_assignment("re_init=true")
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

    Left out are values equal to their neutral default, so that a new setting keeps old ids, and settings that do
    nothing for this run's model and embedding.
    """
    flat = settings.flat()
    active = {flat["model"], flat["embedding"] if flat["model"] != "linear" else ""}
    kept = {}
    for name, value in flat.items():
        rules = _FIELDS[name].metadata
        concerned = not rules["only"] or bool(active & set(rules["only"]))
        if flat["model"] == "linear" and name in ("embedding", "latent_dim", "l2_regularization"):
            concerned = False
        if flat["embedding"] == "darts" and name == "latent_dim":
            concerned = False
        if rules["named"] and concerned and value != _FIELDS[name].default:
            kept[name] = value
    return json.dumps(kept, sort_keys=True)


def _check(name: str, value: Any) -> Any:
    kind, rules = _TYPES[name], _FIELDS[name].metadata
    if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        value = tuple(_typed(name, element, int, value) for element in value)
    else:
        value = _typed(name, value, kind, value)
    if rules["choices"] is not None and value not in rules["choices"]:
        raise ValueError(unknown(name, value, rules["choices"]))
    for element in value if isinstance(value, tuple) else (value,):
        too_low = rules["low"] is not None and not element >= rules["low"]
        if too_low or (rules["below"] is not None and not element < rules["below"]):
            upper = f" and below {rules['below']}" if rules["below"] is not None else ""
            raise ValueError(f"{name} must be at least {rules['low']}{upper}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return value


def _typed(name: str, value: Any, kind: Any, whole: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (typing.get_origin(kind) or kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        wanted = " or ".join("a list of whole numbers" if one is tuple else one.__name__ for one in allowed)
        raise ValueError(f"{name} must be {wanted}, got {whole!r} ({type(value).__name__})")
    return value


def _check_together(settings: Settings) -> None:
    check_name(settings.data.split)
    targets = settings.search.candidate_p
    if list(targets) != sorted(set(targets), reverse=True):
        raise ValueError(f"candidate_p must be strictly decreasing, got {list(targets)}")
    model = settings.model
    if settings.train.optimizer == "sgd" and (model.embedding, model.threshold_decay) == ("pep", "decoupled"):
        raise ValueError("threshold_decay=decoupled is a form of Adam's decay; with optimizer=sgd the two are one. "
                         "Leave one of them away")
    if model.model == "autoint" and model.atten_embed_dim % model.num_heads:
        raise ValueError(f"atten_embed_dim {model.atten_embed_dim} must be a multiple of num_heads {model.num_heads}")
    if model.embedding == "mgqe" and model.model != "linear" and model.latent_dim % model.mgqe_subspaces:
        raise ValueError(f"mgqe_subspaces must divide latent_dim {model.latent_dim}, got {model.mgqe_subspaces}")
