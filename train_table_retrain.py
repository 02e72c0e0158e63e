"""Retrain the pruned tables of a search on a table of your own as lottery tickets.

    python train_table_retrain.py --data clicks.csv               # every budget of the search
    python train_table_retrain.py --data clicks.csv --set retrain_emb_param=20000
    python train_table_retrain.py --data clicks.csv --alias NAME  # of the search of that name
"""

from studies import scripts

SETTINGS = {
    # whose snapshots: with these a search names its folder; or give its --alias. How the table is
    # read is as in the search
    "label": "",
    "model": "fm",
    "embedding": "pep",
    "latent_dim": 64,
    "threshold_type": "feature_dim",
    "split": "auto",
    # which of them, and from which values; what the model is like is read from the snapshot
    "retrain_emb_param": "all",  # a number of parameters, a budget, or all
    "re_init": False,  # True: same mask, fresh random values instead of the initial ones
    # all: everything restarts at the search's initial values, as published; embedding: the rest
    # starts fresh
    "rewind": "all",
    # training
    "batch_size": 1024,  # rows
    "lr": 1e-3,  # Adam's
    "l2_regularization": 1e-5,  # weight decay, coupled, of the table
    "weight_decay": None,  # the same of all other parameters; None: l2_regularization
    "max_epochs": 100,
    "eval_interval": 2,  # epochs
    "early_stop": 8,  # evaluations without gain; validation decides
    # running; none of these changes a result
    "tensorboard": True,
    "checkpoint_seconds": 60.0,
}

if __name__ == "__main__":
    scripts.retrain(__doc__, SETTINGS)
