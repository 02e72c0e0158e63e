"""What the paper and its scripts published, as settings by data set.

`reproduce.py`, the figures and the benchmarks read these. A training script has a dict of its own,
which starts with the same values (a test compares them) and may be edited at will.
"""

from typing import Any

Preset = dict[str, Any]

_THRESHOLDS: Preset = {"threshold_type": "feature_dim", "threshold_init": -15.0,
                       "g_type": "sigmoid", "gk": 1.0, "threshold_decay": "coupled",
                       "threshold_gradient": True, "budget": "exact"}
_TRAINING: Preset = {"batch_size": 1024, "lr": 1e-3, "l2_regularization": 1e-5,
                     "weight_decay": None, "l2_penalty": 0.0,
                     "tensorboard": True, "checkpoint_seconds": 60.0}
_MOVIELENS: Preset = {
    "dataset": "movielens", "model": "fm", "embedding": "pep", "latent_dim": 64, "with_ids": False,
    **_THRESHOLDS,
    "candidate_p": [100_000, 50_000, 23_675, 15_000, 10_000, 9_281, 8_604, 6_541],
    "log_interval": 10,
    "mlp_dims": [100, 100], "dropout": 0.2,
    **_TRAINING, "max_epochs": 100, "eval_interval": 2, "early_stop": 8}
_LARGE: Preset = {  # Criteo and Avazu
    "model": "fm", "embedding": "pep", "latent_dim": 24, "vocabulary": "all",
    **_THRESHOLDS, "threshold_init": -150.0, "log_interval": 100,
    "mlp_dims": [400, 400, 400], "dropout": 0.2, "att_dropout": 0.0,
    **_TRAINING, "max_epochs": 30, "eval_interval": 1, "early_stop": 5, "checkpoint_seconds": 600.0}

PRESETS: dict[str, Preset] = {
    "movielens": _MOVIELENS,
    # the last four budgets are Table 4's: of AutoInt, DeepFM, AutoInt+LR and FM
    "criteo": {**_LARGE, "dataset": "criteo", "candidate_p": [
        1_000_000, 300_000, 100_000, 30_000, 10_000, 3_116, 1_227, 1_117, 1_067]},
    # ... of AutoInt, AutoInt+LR, DeepFM and FM
    "avazu": {**_LARGE, "dataset": "avazu", "candidate_p": [
        1_000_000, 300_000, 100_000, 30_000, 10_000, 2_805, 2_225, 2_215, 1_479]},
    "movielens_ids": {**_MOVIELENS, "dataset": "movielens_ids",
                      "candidate_p": [200_000, 100_000, 50_000, 23_675]},
    "planted_fields": {**_MOVIELENS, "dataset": "planted_fields"},
    # no paper's: a public leaderboard's split (BARS, Frappe_x1), read as a table of one's own
    "frappe": {**_MOVIELENS, "dataset": "frappe", "label": "label", "min_count": 1, "split": "auto",
               "candidate_p": [100_000, 50_000, 20_000, 10_000, 5_000], "lr": 3e-3,
               "max_epochs": 150, "eval_interval": 1},
}

# what the scripts of an own table begin with
OWN_TABLE: Preset = {
    "label": "", "positive": [], "fields": [], "ignore": [], "dense": [], "bucket": "quantiles",
    "dates": {}, "multi": {}, "min_count": 10, "split": "auto", "vocabulary": "all",
    **{name: _MOVIELENS[name] for name in (
        "model", "embedding", "latent_dim", "threshold_type", "threshold_init", "mlp_dims",
        "dropout", "batch_size", "lr", "l2_regularization", "weight_decay", "tensorboard",
        "checkpoint_seconds", "max_epochs", "eval_interval", "early_stop")},
    "candidate_p": []}

LEADERBOARDS = ("frappe",)  # data sets of which others report numbers (`studies.recipes`)
# schemes of a comparison on data sets of no paper's; all on the others
COMPARED = {"frappe": ("lr", "uniform", "pep", "magnitude", "mgqe", "mde", "qr"),
            "movielens_ids": ("uniform", "pep", "magnitude")}

# which search
_WHICH = ("dataset", "label", "split", "model", "embedding", "latent_dim", "threshold_type")


def _retraining(search: Preset, **changes: Any) -> Preset:
    kept = (*_WHICH, *_TRAINING, "max_epochs", "eval_interval", "early_stop")
    return {**{name: search[name] for name in kept if name in search},
            "retrain_emb_param": "all", "re_init": False, "rewind": "all", **changes}


RETRAIN: dict[str, Preset] = {
    # small tables still gain after 150
    "movielens": _retraining(PRESETS["movielens"], max_epochs=300),
    "criteo": _retraining(PRESETS["criteo"]), "avazu": _retraining(PRESETS["avazu"])}
RETRAIN_OWN_TABLE = _retraining(OWN_TABLE)

# a run's patience is on the mean of per-batch test AUCs, as in the published scripts
PATIENCE = "published_protocol"
NO_END = 100_000  # epochs: a published run ends with its budgets (search) or its patience
_PUBLISHED: Preset = {"candidate_p": [50_000, 30_000, 20_000], "budget": "as_reached",
                      "log_interval": 1, "early_stop_metric": PATIENCE,
                      "max_epochs": NO_END}
_PUBLISHED_LARGE: Preset = {**_PUBLISHED, "latent_dim": 24, "eval_interval": 1, "early_stop": 5}

# Better than the published training, chosen on validation rows: weights that are averaged, another
# decay of the table. The data set is MovieLens-1M; "recipe_<model>" in VARIANTS.
_AVERAGED: Preset = {"embedding": "uniform", "ema": 0.999, "weight_decay": 1e-5, "eval_interval": 1}
RECIPES: dict[str, Preset] = {
    "fm": {**_AVERAGED, "model": "fm", "latent_dim": 64, "l2_regularization": 3e-5,
           "max_epochs": 36},
    "deepfm": {**_AVERAGED, "model": "deepfm", "latent_dim": 16, "l2_regularization": 1e-3,
               "lr": 2e-3, "lr_schedule": "cosine", "max_epochs": 14},
    "autoint": {**_AVERAGED, "model": "autoint", "latent_dim": 64, "l2_regularization": 3e-5,
                "max_epochs": 36},
}

# options of a data set's scripts that change several settings at once
VARIANTS: dict[str, dict[str, Preset]] = {
    "movielens": {"published": {**_PUBLISHED, "latent_dim": 32, "eval_interval": 5,
                                "early_stop": 40},
                  **{f"recipe_{model}": recipe for model, recipe in RECIPES.items()}},
    "criteo": {"coarse": {"threshold_type": "dimension",
                          "candidate_p": [20_000_000, 10_000_000, 3_000_000]},
               "published": _PUBLISHED_LARGE},
    "avazu": {"coarse": {"threshold_type": "dimension",
                         "candidate_p": [10_000_000, 5_000_000, 2_000_000]},
              "published": _PUBLISHED_LARGE},
}
