"""Settings as records have them, in today's names and meanings."""

from typing import Any

GONE = ("popularity",)  # settings of old records that are none today; all had one value


def translate(recorded: dict[str, Any]) -> dict[str, Any]:
    """The settings of a record, a snapshot or a checkpoint, whenever it was made.

    Records from before `weight_decay` was a setting called it `l2_penalty`; the published penalty
    of that name was not there, so it is 0 in them. What has no `rewind` rewound the embedding
    alone. Settings that are GONE are left out.

    >>> translate({"l2_penalty": 1e-5, "lr": 0.1})
    {'l2_penalty': 0.0, 'lr': 0.1, 'weight_decay': 1e-05, 'rewind': 'embedding'}
    >>> translate({"l2_penalty": 0.0, "weight_decay": None})
    {'l2_penalty': 0.0, 'weight_decay': None}
    """
    recorded = {name: value for name, value in recorded.items() if name not in GONE}
    if "weight_decay" in recorded or "l2_penalty" not in recorded:
        return recorded
    older = {"l2_penalty": 0.0, "weight_decay": recorded["l2_penalty"]}
    return {**recorded, **older, "rewind": recorded.get("rewind", "embedding")}
