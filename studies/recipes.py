"""How a model is trained on a data set that nobody has published settings for: trials of one
uniform table, chosen on validation rows. All schemes of such a data set are trained that way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studies import tuning
from utils.text import unknown

Point = tuning.Point
LINEAR = "linear"
LIMITS = {"max_epochs": 300, "tensorboard": False}  # early stopping ends a run, not this
OF_OTHERS = {"weight_decay": 1e-5}  # of the parameters beside the embedding
_RATES, _AVERAGES = [1e-3, 3e-3, 1e-2], [0.0, 0.999]
_TABLE = {"lr": _RATES, "l2_regularization": [1e-6, 1e-5, 1e-4, 1e-3], "ema": _AVERAGES}
# deep models remember pairs of values and are best after fewer epochs, so stronger decays and
# shorter averages are tried
_DECAYS = [1e-4, 1e-3, 1e-2, 1e-1]
_DEEP = {"lr": _RATES, "l2_regularization": _DECAYS, "ema": [0.0, 0.99]}
_MLP = {**_DEEP, "dropout": [0.0, 0.2, 0.5]}


@dataclass(frozen=True)
class Recipe:
    """A model whose training settings are chosen.

    Args:
        model: its name in the registry.
        grid: setting -> values that are tried, see `trials`.
        own: settings that make it another model than the preset's.
        published: test AUC that others report for it, if any.
    """

    model: str
    grid: Mapping[str, Sequence[Any]]
    own: Mapping[str, Any] = field(default_factory=dict)
    published: float | None = None


# By data set and name. The test AUCs of Frappe are those of the BARS leaderboard, width 10.
RECIPES: dict[str, dict[str, Recipe]] = {
    "frappe": {
        LINEAR: Recipe(LINEAR, {"lr": _RATES, "weight_decay": [0.0, 1e-6, 1e-5, 1e-4],
                                "ema": _AVERAGES}, published=0.935584),
        "fm": Recipe("fm", _TABLE, published=0.967108),
        "deepfm": Recipe("deepfm", _MLP, published=0.984243),
        "deepfm_wide": Recipe("deepfm", _MLP, {"mlp_dims": [400, 400, 400]}, published=0.984243),
        "autoint": Recipe("autoint", _MLP, {"att_dropout": 0.0}, published=0.984812),
        # of the leaderboard's shape, and its falling rate
        "attention": Recipe("autoint", {"lr": _RATES, "l2_regularization": _DECAYS,
                                        "att_dropout": [0.4, 0.2, 0.0]},
                            {"full_part": False, "att_layer": "paper", "num_layers": 6,
                             "atten_embed_dim": 128, "num_heads": 4, "lr_schedule": "plateau"},
                            published=0.983085),
        "dlrm": Recipe("dlrm", {**_DEEP, "arch_interaction_op": ["cat", "dot"]},
                       {"arch_mlp_top": [400, 400, 400]}, published=0.983995)},
    "movielens_ids": {"fm": Recipe("fm", _TABLE), "deepfm": Recipe("deepfm", _MLP)}}
TRIALS = 12  # of each
WIDTHS = {"frappe": 10, "movielens_ids": 16}  # of the tables that are tried


def known(dataset: str, name: str) -> Recipe:
    """The recipe of a data set by its name.

    Raises:
        ValueError: the data set has none of this name, or none at all.
    """
    if dataset not in RECIPES:
        raise ValueError(f"{dataset} is trained as published; settings are chosen for "
                         f"{' and '.join(RECIPES)}: give --dataset {next(iter(RECIPES))}")
    if name not in RECIPES[dataset]:
        raise ValueError(unknown("model", name, tuple(RECIPES[dataset])))
    return RECIPES[dataset][name]


def published(dataset: str) -> bool:
    """Whether others report numbers for a data set."""
    return any(recipe.published for recipe in RECIPES.get(dataset, {}).values())


def trials(dataset: str, name: str) -> list[Point]:
    """The trials of a recipe: all pairs of values of its first two settings, and with each the
    values of the others in turn, so that every value meets every one of the first setting.

    >>> [(each["lr"], each["weight_decay"], each["ema"]) for each in trials("frappe", LINEAR)][:3]
    [(0.001, 0.0, 0.0), (0.001, 1e-06, 0.999), (0.001, 1e-05, 0.0)]
    """
    recipe = known(dataset, name)
    (first, rows), (second, columns), *others = recipe.grid.items()
    made = []
    for row, value in enumerate(rows):
        for column, other in enumerate(columns):
            turn = row + column
            made.append({"latent_dim": WIDTHS[dataset], **recipe.own, first: value, second: other,
                         **{each: values[turn % len(values)] for each, values in others}})
    return made


def file_of(out: Path, dataset: str, name: str) -> Path:
    """Where a chosen recipe stands: in `out`, else the shipped one where there is one."""
    own = own_file(out, dataset, name)
    shipped = tuning.SHIPPED / own.name
    return shipped if shipped.exists() and not own.exists() else own


def own_file(out: Path, dataset: str, name: str) -> Path:
    """Where a recipe that is chosen in `out` goes."""
    return out / "tuned" / f"recipe_{dataset}_{name}.json"


def chosen(out: Path, dataset: str, name: str) -> dict[str, Any] | None:
    """The chosen trial; None for a data set that is trained as published, and before anything is
    chosen."""
    path = file_of(out, dataset, name)
    if name not in RECIPES.get(dataset, {}) or not path.exists():
        return None
    return tuning.chosen(path)[0]


def settings_of(out: Path, dataset: str, name: str) -> Point:
    """The settings of the chosen trial; {} where there is none."""
    trial = chosen(out, dataset, name)
    return dict(trial["settings"]) if trial else {}


def training_of(out: Path, dataset: str, model: str) -> Point:
    """The chosen settings for tables of every width."""
    return {name: value for name, value in settings_of(out, dataset, model).items()
            if name != "latent_dim"}


def require(out: Path, dataset: str, *names: str) -> None:
    """Raise FileNotFoundError where a data set's recipe is not chosen yet."""
    for name in names:
        known_here = name in RECIPES.get(dataset, {})
        if known_here and not file_of(out, dataset, name).exists():
            raise FileNotFoundError(
                f"how {name} is trained on {dataset} is not chosen yet; first run `python "
                f"reproduce.py recipe --dataset {dataset} --model {name}` with the same --out")
