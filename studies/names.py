"""Names of data sets, models and schemes as the paper writes them; labels of settings."""

import json
from collections.abc import Mapping
from typing import Any

MODELS = ("fm", "deepfm", "autoint")  # of the paper's tables
SHOWN = {"movielens": "MovieLens-1M", "criteo": "Criteo", "avazu": "Avazu", "frappe": "Frappe",
         "movielens_ids": "MovieLens-1M with ids",
         "linear": "LR",
         "fm": "FM",
         "deepfm": "DeepFM", "autoint": "AutoInt", "mde": "MDE", "mgqe": "MGQE",
         "darts": "DartsEmb",
         "hash": "double hashing", "qr": "quotient-remainder", "tt": "tensor train",
         "planted_fields": "planted fields",
         # UMEC's baselines
         "umec": "UMEC", "as-umec": "magnitude, widths of UMEC", "taylor": "Taylor expansion",
         "group-lasso": "group lasso", "handmade": "narrow by hand", "random": "random units",
         "dense": "whole model"}
# what AFM's page compares
AFM = {"afm": "AFM", "svd": "SVD of the weights", "random": "random basis", "tt": "tensor train",
       "dense": "dense"}
AFM_BASELINES = {"PEP": "PEP, retrained", "uniform": "smaller dense",
                 "tt": "tensor train from scratch"}


def shown(name: str) -> str:
    """A data set, a model or the label of a curve as the paper writes it; what has no such name
    stays as it is.

    >>> shown("movielens"), shown("mde, lr 0.1"), shown("planted")
    ('MovieLens-1M', 'MDE, lr 0.1', 'planted')
    """
    head, comma, rest = name.partition(",")
    return SHOWN.get(head, head) + comma + rest


def setting(name: str, value: Any, others: Mapping[str, Any]) -> str:
    """A setting in a label; a decay that the table alone has says so.

    Args:
        others: the run's settings, among them `weight_decay`, the decay of all other parameters.

    >>> setting("darts_widths", [1, 2, 8], {}), setting("made", "keep 0.2", {})
    ('darts_widths 1/2/8', 'made keep 0.2')
    >>> setting("l2_regularization", 1e-4, {"weight_decay": 1e-5})
    'l2_regularization 0.0001 (embedding alone; the rest 1e-05)'
    >>> setting("l2_regularization", 1e-4, {"weight_decay": None})
    'l2_regularization 0.0001'
    """
    if isinstance(value, (list, tuple)):
        value = "/".join(map(str, value))
    elif isinstance(value, bool) or value is None:
        value = json.dumps(value)
    label = f"{name} {value}"
    rest = others.get("weight_decay")
    if name == "l2_regularization" and rest not in (None, value):
        label += f" (embedding alone; the rest {rest})"
    return label
