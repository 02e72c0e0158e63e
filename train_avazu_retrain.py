"""Retrain the pruned tables of a search on Avazu as lottery tickets.

    python train_avazu_retrain.py               # every budget of the default search
    python train_avazu_retrain.py --coarse      # of the one with --coarse
    python train_avazu_retrain.py --set retrain_emb_param=1479
    python train_avazu_retrain.py --alias NAME  # of the search of that name
"""

from studies import scripts

SETTINGS = {
    # whose snapshots: with these a search names its folder; or give its --alias
    "dataset": "avazu",
    "model": "fm",
    "embedding": "pep",
    "latent_dim": 24,
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
    "max_epochs": 30,  # 31,586 steps each on the whole file
    "eval_interval": 1,  # epochs
    "early_stop": 5,  # evaluations without gain; validation decides
    # running; none of these changes a result
    "tensorboard": True,
    "checkpoint_seconds": 600.0,
}

if __name__ == "__main__":
    scripts.retrain(__doc__, SETTINGS)
