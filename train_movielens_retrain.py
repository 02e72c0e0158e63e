"""Retrain the pruned tables of a search on MovieLens-1M as lottery tickets.

    python train_movielens_retrain.py                     # every budget of the default search
    python train_movielens_retrain.py --set retrain_emb_param=6541
    python train_movielens_retrain.py --set re_init=true  # same masks, fresh values
    python train_movielens_retrain.py --alias NAME        # of the search of that name
"""

from studies import scripts

SETTINGS = {
    # whose snapshots: with these a search names its folder; or give its --alias
    "dataset": "movielens",
    "model": "fm",
    "embedding": "pep",
    "latent_dim": 64,
    "threshold_type": "feature_dim",
    # which of them, and from which values; what the model is like is read from the snapshot
    "retrain_emb_param": "all",  # a number of parameters, a budget, or all
    "re_init": False,  # True: same mask, fresh random values instead of the initial ones
    # all: everything restarts at the search's initial values, as published; embedding: the rest
    # starts fresh
    "rewind": "all",
    # training
    "batch_size": 1024,  # rows
    "lr": 1e-3,  # Adam's
    # weight decay, coupled, of the table
    "l2_regularization": 1e-5,
    "weight_decay": None,  # the same of all other parameters; None: l2_regularization, as published
    # in the loss: times the sum of squares of a batch's vectors, over its rows
    "l2_penalty": 0.0,
    "max_epochs": 300,  # small tables still gain after 150
    "eval_interval": 2,  # epochs
    "early_stop": 8,  # evaluations without gain; validation decides
    # running; none of these changes a result
    "tensorboard": True,
    "checkpoint_seconds": 60.0,
}

if __name__ == "__main__":
    scripts.retrain(__doc__, SETTINGS)
