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
from engine.optim.step import UPDATES
from models.build import EMBEDDINGS, MODELS
from models.dlrm import INTERACTIONS
from models.embedding.pep import THRESHOLD_DECAYS, THRESHOLD_TYPES
from models.kernels.threshold import GATES
from utils.text import unknown


def option(default: Any, *, choices: Any = None, low: float | None = None,
           below: float | None = None, unused_by: tuple[str, ...] = (), in_id: bool = True,
           id_name: str | None = None, neutral: Any = ...) -> Any:
    """One setting: its default, what is allowed, and how it enters a run's id.

    Every setting enters the id unless the run's model or embedding is known not to use it, so that
    a model or embedding added later can never be given another run's result.

    Args:
        default: what the setting is when a dict does not name it.
        choices: allowed names, or a function that gives them.
        low, below: low <= value < below; for a list, every element.
        unused_by: models and embeddings for which the setting changes nothing (see `all_but`).
        in_id: False for a setting that cannot change a result.
        id_name: its name in the id, where an earlier version had another one.
        neutral: the value that leaves no trace in the id; the default when not given. It never
            changes, so that old runs stay reachable when a default does.
    """
    rules = {"choices": choices, "low": low, "below": below, "unused_by": unused_by,
             "in_id": in_id, "id_name": id_name, "neutral": default if neutral is ... else neutral}
    return field(default=default, metadata=rules)


SHIPPED_MODELS = ("linear", "fm", "deepfm", "autoint", "dlrm")
SHIPPED_EMBEDDINGS = ("uniform", "pep", "darts", "mde", "mgqe", "hash", "qr", "tt", "masked")
COUNTING = ("mde", "mgqe")  # embeddings that are made by popularity
VALIDATION_METRICS = ("auc", "loss")  # that patience may look at
PUBLISHED_PATIENCE = "published_protocol"  # patience on the mean of per-batch test AUCs


def all_but(*users: str) -> tuple[str, ...]:
    """The shipped models, or the shipped embeddings, that are not among `users`.

    Of embeddings, `linear` is one that uses none of their settings. A model or embedding that is
    not listed here counts as a user of every setting.

    >>> all_but("deepfm", "autoint")
    ('linear', 'fm', 'dlrm')
    """
    if users[0] in SHIPPED_MODELS:
        return tuple(name for name in SHIPPED_MODELS if name not in users)
    return ("linear", *(name for name in SHIPPED_EMBEDDINGS if name not in users))


def _known_embeddings() -> tuple[str, ...]:
    return (*EMBEDDINGS, "masked")


@dataclass(frozen=True)
class DataSettings:
    """Which rows."""

    dataset: str = option("movielens", choices=DATASETS)
    with_ids: bool = option(False)  # MovieLens: add user and movie id (9 fields)
    vocabulary: str = option("all", choices=("all", "train"))  # rows whose values are counted
    # random 80/10/10, or ids:FILE; the data's hash tells them apart
    split: str = option("random", in_id=False)


@dataclass(frozen=True)
class ModelSettings:
    """Which model, around which embedding."""

    model: str = option("fm", choices=MODELS)
    embedding: str = option("pep", choices=_known_embeddings, unused_by=("linear",))
    latent_dim: int = option(64, low=1, unused_by=("linear", "darts"))  # width of a vector
    mlp_dims: tuple[int, ...] = option((100, 100), low=1, unused_by=all_but("deepfm", "autoint"))
    dropout: float = option(0.2, low=0, below=1, unused_by=all_but("deepfm", "autoint"))
    # hidden; then latent_dim
    arch_mlp_bot: tuple[int, ...] = option((512, 256, 64), low=1, unused_by=all_but("dlrm"))
    # hidden; then 1
    arch_mlp_top: tuple[int, ...] = option((512, 256), low=1, unused_by=all_but("dlrm"))
    arch_interaction_op: str = option("cat", choices=INTERACTIONS, unused_by=all_but("dlrm"))
    num_heads: int = option(2, low=1, unused_by=all_but("autoint"))
    num_layers: int = option(3, low=1, unused_by=all_but("autoint"))
    att_dropout: float = option(0.4, low=0, below=1, unused_by=all_but("autoint"))
    atten_embed_dim: int = option(64, low=1, unused_by=all_but("autoint"))
    has_residual: bool = option(True, unused_by=all_but("autoint"))
    full_part: bool = option(True, unused_by=all_but("autoint"))
    with_linear: bool = option(False, unused_by=all_but("autoint"))
    threshold_type: str = option("feature_dim", choices=THRESHOLD_TYPES, unused_by=all_but("pep"))
    threshold_init: float = option(-15.0, unused_by=all_but("pep"))
    g_type: str = option("sigmoid", choices=GATES, unused_by=all_but("pep"))
    gk: float = option(1.0, low=1e-9, unused_by=all_but("pep"))
    threshold_decay: str = option("coupled", choices=THRESHOLD_DECAYS, unused_by=all_but("pep"))
    threshold_gradient: bool = option(True, unused_by=all_but("pep"))  # False: decay alone moves s
    darts_widths: tuple[int, ...] = option((2, 4, 16), low=1, unused_by=all_but("darts"))
    # rising; the last is the common one
    popularity: str = option("train", in_id=False, unused_by=all_but(*COUNTING))
    # or a file, whose content the run's id knows
    mde_blocks: int = option(8, low=1, unused_by=all_but("mde"))
    mde_alpha: float = option(0.1, low=0, unused_by=all_but("mde"))
    mgqe_subspaces: int = option(8, low=1, unused_by=all_but("mgqe"))
    mgqe_centroids: int = option(256, low=1, unused_by=all_but("mgqe"))
    hash_rows: int = option(1000, low=1, unused_by=all_but("hash"))
    qr_collisions: int = option(4, low=2, unused_by=all_but("qr"))
    tt_rank: int = option(16, low=1, unused_by=all_but("tt"))


@dataclass(frozen=True)
class TrainSettings:
    """How parameters move and when training ends."""

    batch_size: int = option(1024, low=2)
    lr: float = option(1e-3, low=0)
    l2_regularization: float = option(1e-5, low=0, unused_by=("linear",))  # decay of all parameters
    weight_decay: float | None = option(None, low=0, id_name="l2_penalty", neutral=1e-5)
    # of the parameters beside the embedding; None: l2_regularization, as published
    l2_penalty: float = option(0.0, low=0, id_name="vector_penalty")  # see `engine.optim.step.Step`
    grad_clip: float = option(100.0, low=1e-9)
    max_epochs: int = option(100, low=1)
    eval_interval: int = option(2, low=1)  # epochs
    early_stop: int = option(8, low=1)  # evaluations without gain
    early_stop_metric: str = option("auc", choices=(*VALIDATION_METRICS, PUBLISHED_PATIENCE))
    log_interval: int = option(10, low=1, unused_by=all_but("pep"))  # steps between counts
    compile: str = option("auto", choices=("auto", "on", "off"), in_id=False)
    cuda_graph: str = option("auto", choices=("auto", "on", "off"), in_id=False)
    table_update: str = option("auto", choices=UPDATES, in_id=False)
    tensorboard: bool = option(True, in_id=False)
    checkpoint_seconds: float = option(60.0, low=0, in_id=False)
    optimizer: str = option("adam", choices=("adam", "sgd"))

    @property
    def decay_of_others(self) -> float:
        """Weight decay of the parameters beside the embedding."""
        return self.l2_regularization if self.weight_decay is None else self.weight_decay


@dataclass(frozen=True)
class SearchSettings:
    """Which budgets a search saves."""

    candidate_p: tuple[int, ...] = option((), low=1, unused_by=all_but("pep"))
    budget: str = option("exact", choices=("exact", "as_reached"), unused_by=all_but("pep"))
    darts_epochs: int = option(20, low=1, unused_by=all_but("darts"))
    # of the search; max_epochs is that of the training after it
    darts_lr: float = option(1e-2, low=0, unused_by=all_but("darts"))  # of the mixture's weights


@dataclass(frozen=True)
class RetrainSettings:
    """Which snapshot is retrained, and from which values."""

    retrain_emb_param: int | str = option("all", in_id=False)
    re_init: bool = option(False, unused_by=all_but("masked"))
    rewind: str = option("all", choices=("embedding", "all"), unused_by=all_but("masked"),
                         neutral="embedding")


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
_TYPES = {name: kind for record in RECORDS.values() for name,
          kind in typing.get_type_hints(record).items()}
SNAPSHOT_DECIDES = (*(item.name for item in fields(DataSettings)),
                    *(item.name for item in fields(ModelSettings) if item.name != "embedding"))


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
    for name in given:
        if name not in _FIELDS:
            raise ValueError(unknown("setting", name, _FIELDS))
    checked = {name: _check(name, value) for name, value in given.items()}
    settings = Settings(**{key: record(**{item.name: checked[item.name] for item in fields(record)
                                          if item.name in checked}) for key,
                           record in RECORDS.items()})
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

    Left out are values equal to their neutral one, so that a new setting keeps old ids, and
    settings that this run's model or embedding is known not to use.
    """
    flat = settings.flat()
    flat["weight_decay"] = settings.train.decay_of_others
    kept = {}
    for name, value in flat.items():
        rules = _FIELDS[name].metadata
        unused = {flat["model"], flat["embedding"]} & set(rules["unused_by"])
        if rules["in_id"] and not unused and value != rules["neutral"]:
            kept[rules["id_name"] or name] = value
    return json.dumps(kept, sort_keys=True)


def _check(name: str, value: Any) -> Any:
    kind, rules = _TYPES[name], _FIELDS[name].metadata
    if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        value = tuple(_typed(name, element, int, value) for element in value)
    else:
        value = _typed(name, value, kind, value)
    choices = rules["choices"]() if callable(rules["choices"]) else rules["choices"]
    if choices is not None and value not in choices:
        raise ValueError(unknown(name, value, choices))
    if value is None:
        return value
    for element in value if isinstance(value, tuple) else (value,):
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
    allowed = (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType)
        else (typing.get_origin(kind) or kind,)
    )
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = {tuple: "a list of whole numbers", types.NoneType: "None"}
        wanted = " or ".join(names.get(one, one.__name__) for one in allowed)
        raise ValueError(f"{name} must be {wanted}, got {whole!r} ({type(value).__name__})")
    return value


def _check_together(settings: Settings) -> None:
    check_name(settings.data.split)
    targets = settings.search.candidate_p
    if list(targets) != sorted(set(targets), reverse=True):
        raise ValueError(f"candidate_p must be strictly decreasing, got {list(targets)}")
    model = settings.model
    if model.model == "linear" and settings.train.l2_penalty:
        raise ValueError(f"l2_penalty={settings.train.l2_penalty} is a penalty on embedding "
                         "vectors, and model linear has none; leave it at 0, or use weight_decay")
    if settings.train.optimizer == "sgd" and (model.embedding,
                                              model.threshold_decay) == ("pep", "decoupled"):
        raise ValueError("threshold_decay=decoupled is a form of Adam's decay; with optimizer=sgd "
                         "the two are one. Leave one of them away")
    if model.model == "autoint" and model.atten_embed_dim % model.num_heads:
        raise ValueError(f"atten_embed_dim {model.atten_embed_dim} must be a multiple of num_heads "
                         f"{model.num_heads}")
    if (
        model.embedding == "mgqe"
        and model.model != "linear"
        and model.latent_dim % model.mgqe_subspaces
    ):
        raise ValueError(f"mgqe_subspaces must divide latent_dim {model.latent_dim}, got "
                         f"{model.mgqe_subspaces}")
