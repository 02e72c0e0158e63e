"""The result.json files of run folders: found, checked, in today's words."""

import sys
from pathlib import Path
from typing import Any

from studies.kinds import COMPRESSED, FINETUNED
from utils.files import read_record
from utils.recorded import translate_result
from utils.text import counted

Kinds = dict[str, type | tuple[type, ...]]
NUMBER = (int, float)
# what pages take for granted, dots for what lies within; what older runs lack is no part of it
NEEDED: Kinds = {
    "run_id": str, "stage": str, "seed": int, "manifest": str,
    "settings.dataset": str, "settings.model": str, "settings.embedding": str,
    "settings.latent_dim": int,
    "settings.max_epochs": int, "settings.threshold_type": str, "identity.settings": dict,
    "num_embedding_params": int, "num_embedding_params_dense": int, "test_auc": NUMBER,
    "test_logloss": NUMBER,
    "train_loss": NUMBER, "published_protocol.best_test_auc": NUMBER}
OF_STAGE: dict[str, Kinds] = {  # on top of these
    "retrain": {"snapshot.source": str},
    FINETUNED: {"compression.method": str, "validation_auc": NUMBER}}


def in_folder(out: Path) -> list[dict[str, Any]]:
    """Every result under out/runs, in the order of run ids; unreadable ones are listed on standard
    error.

    A run that has not finished has no result and is not looked for. The settings of older records
    are translated into today's (`utils.recorded`), so that pages never see the old words.

    >>> in_folder(Path("no/such/folder"))
    []
    """
    found, unreadable = [], []
    for path in sorted((out / "runs").glob("*/result.json")):
        try:
            found.append(checked(read_record(path)))
        except (OSError, ValueError) as error:
            unreadable.append(f"  {path}: {error}")
    if unreadable:
        print("\n".join([f"{counted(len(unreadable), 'result')} left out, because unreadable:",
                         *unreadable]), file=sys.stderr)
    return found


def checked(result: Any) -> dict[str, Any]:
    """The same result in today's words, read from a file or from the shipped csv.

    Raises:
        ValueError: it lacks what every page takes for granted, or that has another type.
    """
    stage = result.get("stage") if isinstance(result, dict) else None
    needed = NEEDED | OF_STAGE.get(stage if isinstance(stage, str) else "", {})
    if stage in COMPRESSED and result.get("epochs") == 0:  # nothing was trained
        needed.pop("train_loss")
    missing = [name for name, kind in needed.items() if not isinstance(_within(result, name), kind)]
    if missing:
        raise ValueError(f"not a run's result, it lacks {', '.join(missing)}")
    return translate_result(result)


def _within(result: Any, name: str) -> Any:
    """What lies at a name; None where nothing does.

    >>> [_within(result, "settings.model")
    ...  for result in ({"settings": {"model": "fm"}}, {"settings": None})]
    ['fm', None]
    """
    for part in name.split("."):
        result = result.get(part) if isinstance(result, dict) else None
    return result
