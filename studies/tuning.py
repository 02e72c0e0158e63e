"""Choosing settings on validation rows: the same number of trials for every scheme, and a file with
what was chosen."""

import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import read_record, write_json

log = logging.getLogger("pep")

TRIALS = 12  # of every scheme
Point = dict[str, Any]  # the settings of one trial that differ from the script's
KEPT = ("run_id", "num_embedding_params", "inference_bytes", "validation_auc", "validation_logloss",
        "epochs",
        "seconds")
DIVERGED = "diverged"  # of a trial whose training ended in a number that is not finite: its message

# settings of a retraining, not of the search before it
RETRAINING = ("retrain_emb_param", "re_init", "rewind", "ema", "lr_schedule")
# what was chosen here, for those who do not tune
SHIPPED = Path(__file__).parents[1] / "experiments" / "tuned"


def file_of(out: Path, dataset: str, model: str, embedding: str) -> Path:
    """Where a scheme's chosen settings stand."""
    return out / "tuned" / f"{dataset}_{model}_{embedding}.json"


def found(out: Path, dataset: str, model: str, embedding: str) -> Path:
    """The file to read: that of `file_of`, else the shipped one where there is one."""
    own = file_of(out, dataset, model, embedding)
    shipped = SHIPPED / own.name
    return shipped if shipped.exists() and not own.exists() else own


def of_search(point: Point) -> Point:
    """A point's settings without those of a retraining."""
    return {name: value for name, value in point.items() if name not in RETRAINING}


def departs(script: Mapping[str, Any], own: Point) -> Point:
    """Those of a scheme's own settings that are not the script's."""
    return {name: value for name, value in own.items() if value != script.get(name)}


def alias_of(script: Mapping[str, Any], scheme: str, own: Point, seed: int) -> str:
    """The name of a scheme's snapshots; it names the settings that differ from the script's.

    >>> alias_of({"dataset": "movielens", "latent_dim": 64}, "pep", {"threshold_init": -8.0}, 1)
    'movielens_pep_threshold_init_-8.0_d64_seed1'
    """
    suffix = "".join(f"_down_to_{min(value)}" if name == "candidate_p" else f"_{name}_{value}"
                     for name, value in departs(script, own).items())
    return f"{script['dataset']}_{scheme}{suffix}_d{script['latent_dim']}_seed{seed}"


def points(grid: Mapping[str, Sequence[Any]], trials: int) -> list[Point]:
    """At most `trials` points of a grid, as many of each value of its first setting, which sets the
    size.

    The other settings' combinations are taken evenly spaced, in the order in which the grid lists
    them.

    Raises:
        ValueError: there are more sizes than trials.

    >>> points({"d": [4, 8], "a": [1, 2, 3]}, 4)
    [{'d': 4, 'a': 1}, {'d': 4, 'a': 3}, {'d': 8, 'a': 1}, {'d': 8, 'a': 3}]
    """
    size, *others = grid
    if trials < len(grid[size]):
        raise ValueError(f"--trials {trials} is fewer than one for each of the {len(grid[size])} "
                         f"sizes ({size} {grid[size]})")
    combinations = list(itertools.product(*(grid[name] for name in others)))
    each = min(len(combinations), trials // len(grid[size]))
    taken = [combinations[round(place)] for place in np.linspace(0, len(combinations) - 1, each)]
    return [{size: value, **dict(zip(others, rest, strict=True))}
            for value, rest in itertools.product(grid[size], taken)]


def require_no_fewer(path: Path, wanted: Sequence[Point]) -> None:
    """Raise ValueError when the file at `path` holds more trials than these."""
    if path.exists() and len(before := _read(path, "trials")) > len(wanted):
        raise ValueError(f"{path} holds {len(before)} trials, more than these {len(wanted)}; move "
                         f"it away first")


def tune(wanted: Sequence[Point], run: Callable[[Point], dict[str, Any]], path: Path,
         about: dict[str, Any],
         training: Callable[[Point], Point] = lambda point: {}) -> list[Point]:
    """Run every point and write all trials and the chosen ones: of each size, the best validation
    AUC.

    Nothing of the test rows is looked at here or written. Finished runs are not run again, so that
    a tuning that was stopped goes on. A trial that diverged is written as one, and never chosen.

    Args:
        wanted: whose first setting sets the size.
        run: trains one point and returns its result, or {DIVERGED: message}.
        path: of the file to write.
        about: what the file says of itself: data set, model, scheme, seed.
        training: the settings beside a point's own that its run had in place of the script's.

    Raises:
        ValueError: the file there holds more trials, or all of these diverged.
    """
    require_no_fewer(path, wanted)
    trials = []
    for number, point in enumerate(wanted, 1):
        result = run(point)
        kept = (DIVERGED,) if DIVERGED in result else KEPT
        trials.append({"settings": point, "training": training(point),
                       **{name: result[name] for name in kept}})
        if DIVERGED in result:
            print(f"{number}/{len(wanted)} {describe(point)}: diverged, never chosen", flush=True)
            continue
        print(f"{number}/{len(wanted)} {describe(point)}: {result['num_embedding_params']:,} "
              f"parameters, {result['inference_bytes']:,} bytes, validation AUC "
              f"{result['validation_auc']:.4f}", flush=True)
    size = next(iter(wanted[0]))
    best: dict[str, dict[str, Any]] = {}
    finished = [trial for trial in trials if DIVERGED not in trial]
    if not finished:
        raise ValueError(f"all {len(trials)} trials diverged, the first so: "
                         f"{trials[0][DIVERGED]}")
    for trial in finished:
        own = json.dumps(trial["settings"][size])
        if own not in best or trial["validation_auc"] > best[own]["validation_auc"]:
            best[own] = trial
    chosen = sorted(best.values(), key=lambda trial: trial["num_embedding_params"])
    write_json(path, {**about, "trials": trials, "chosen": chosen})
    return [trial["settings"] for trial in chosen]


def chosen(path: Path) -> list[dict[str, Any]]:
    """The chosen trials by rising parameters, each with its `settings`.

    Raises:
        FileNotFoundError: nothing has been tuned there.
        ValueError: the file is corrupt.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; run `python reproduce.py tune` for this "
                                f"scheme first")
    return _read(path, "chosen")


def _read(path: Path, name: str) -> list[dict[str, Any]]:
    """A file's list of trials."""
    try:
        trials = read_record(path)[name]
        if not trials or not all(trial["settings"] and (DIVERGED in trial
                                                        or trial["num_embedding_params"] >= 0)
                                 for trial in trials):
            raise ValueError(f"no trials under {name!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is corrupt ({error}); delete it and run `python reproduce.py "
                         f"tune` again") from error
    return trials


def diverged(path: Path, about: dict[str, Any]) -> dict[str, str]:
    """The trials that diverged of the file that says this of itself, if there is one: `key` of
    their settings -> what was said."""
    if not path.exists() or not read_record(path).items() >= about.items():
        return {}
    return {key(trial["settings"]): trial[DIVERGED] for trial in _read(path, "trials")
            if DIVERGED in trial}


def chosen_for(path: Path, most: int) -> tuple[Point, Point]:
    """The chosen settings with the most parameters up to `most`, and those that their run had
    beside them.

    Raises:
        FileNotFoundError: nothing has been tuned there.
        ValueError: everything there is larger, or the file is older than what it has to say of the
            runs.
    """
    trials = chosen(path)
    fitting = [trial for trial in trials if trial["num_embedding_params"] <= most]
    if not fitting:
        raise ValueError(f"nothing in {path} has at most {most} parameters; the sizes are "
                         f"{[trial['num_embedding_params'] for trial in trials]}")
    if "training" not in fitting[-1]:
        raise ValueError(f"{path} does not say how long its runs were: it is older; run `python "
                         "reproduce.py tune` for this scheme once more, finished runs are not run "
                         "again")
    point, training = fitting[-1]["settings"], fitting[-1]["training"]
    # of the embedding alone, also in files from before that was a setting
    if "l2_regularization" in {**training, **point}:
        training = {"weight_decay": 1e-5, **training}
    return point, training


def key(point: Point) -> str:
    """The same for the same settings, in whatever order.

    >>> key({"lr": 0.1, "latent_dim": 8}) == key({"latent_dim": 8, "lr": 0.1})
    True
    """
    return json.dumps(point, sort_keys=True)


def describe(point: Point) -> str:
    """As it is written after --set.

    >>> describe({"latent_dim": 8, "mde_alpha": 0.1})
    'latent_dim=8 mde_alpha=0.1'
    """
    return " ".join(f"{name}={value}" for name, value in point.items())
