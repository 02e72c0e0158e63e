"""Learn embedding sizes on MovieLens-1M (the search), or train a baseline with --embedding uniform.

    python train_movielens.py             # FM, about two minutes on 2 cores
    python train_movielens.py --model deepfm --seed 2
    python train_movielens.py --embedding uniform --set latent_dim=8
    python train_movielens.py --model linear
    python train_movielens.py --settings  # all settings, with default and range
"""

from studies import scripts

SETTINGS = {
    "dataset": "movielens",
    # what is trained
    "model": "fm",  # linear, fm, deepfm, autoint, dlrm
    "embedding": "pep",  # or a baseline: uniform, mde, mgqe, darts, hash, qr, tt
    "latent_dim": 64,  # width d of a vector: 4,129 x 64 = 264,256 parameters
    "with_ids": False,  # True adds user and movie id: 9 fields instead of the paper's 7
    # PEP: thresholds s, a vector's entry V is kept where |V| > gk * g(s)
    "threshold_type": "feature_dim",  # global, dimension, feature, field, feature_dim, field_dim
    "threshold_init": -15.0,  # every s starts here
    "g_type": "sigmoid",  # sigmoid, softplus
    "gk": 1.0,  # factor of the gate g
    "threshold_decay": "coupled",  # coupled, as published; decoupled (AdamW's); none
    "threshold_gradient": True,  # False: decay alone moves the thresholds, the loss does not
    # budgets, in parameters, falling; the last three are Table 4's: of AutoInt, DeepFM and FM
    "candidate_p": [100_000, 50_000, 23_675, 15_000, 10_000, 9_281, 8_604, 6_541],
    "budget": "exact",  # exact: cut to the very number; as_reached: what the step landed on
    "log_interval": 10,  # steps between counts of the remaining parameters
    # the MLP of DeepFM and AutoInt
    "mlp_dims": [100, 100],  # hidden layers
    "dropout": 0.2,
    # training
    "batch_size": 1024,  # rows
    "lr": 1e-3,  # Adam's
    # weight decay, coupled, of table and thresholds: it is what moves the thresholds
    "l2_regularization": 1e-5,
    "weight_decay": None,  # the same of all other parameters; None: l2_regularization, as published
    # in the loss: times the sum of squares of a batch's vectors, as pruned, over its rows
    "l2_penalty": 0.0,
    "max_epochs": 100,  # 577.4 steps each
    "eval_interval": 2,  # epochs
    "early_stop": 8,  # evaluations without gain; a search is never stopped early
    # running; none of these changes a result
    "tensorboard": True,
    "checkpoint_seconds": 60.0,
}

if __name__ == "__main__":
    scripts.search(__doc__, SETTINGS)
