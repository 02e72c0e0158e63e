"""Learn embedding sizes on Avazu (the search), or train a baseline with --embedding uniform.

    python train_avazu.py --encode-only             # raw file -> encoded set, once
    python train_avazu.py                           # FM, a threshold for each entry: PEP-0, PEP-1
    python train_avazu.py --coarse                  # for whole dimensions: PEP-2 to PEP-4
    python train_avazu.py --set threshold_init=-15  # pruning starts 135,000 steps earlier
    python train_avazu.py --embedding uniform --set latent_dim=16
    python train_avazu.py --settings                # all settings, with default and range
"""

from studies import scripts

SETTINGS = {
    "dataset": "avazu",
    # what is trained
    "model": "fm",  # linear, fm, deepfm, autoint, dlrm
    "embedding": "pep",  # or a baseline: uniform, mde, mgqe, darts, hash, qr, tt
    "latent_dim": 24,  # width d of a vector; the paper's text says 64, its scripts 24
    # rows whose values get an id of their own: all, as the paper's Table 3 counts; train
    "vocabulary": "all",
    # PEP: thresholds s, a vector's entry V is kept where |V| > gk * g(s)
    "threshold_type": "feature_dim",  # global, dimension, feature, field, feature_dim, field_dim
    # every s starts here, rises by about lr a step, and g(s) is exactly 0 below -104
    "threshold_init": -150.0,
    "g_type": "sigmoid",  # sigmoid, softplus
    "gk": 1.0,  # factor of the gate g
    "threshold_decay": "coupled",  # coupled, as published; decoupled (AdamW's); none
    "threshold_gradient": True,  # False: decay alone moves the thresholds, the loss does not
    # budgets, in parameters, falling; the last four are Table 4's: of
    # AutoInt, AutoInt+LR, DeepFM and FM
    "candidate_p": [1_000_000, 300_000, 100_000, 30_000, 10_000, 2_805, 2_225, 2_215, 1_479],
    "budget": "exact",  # exact: cut to the very number; as_reached: what the step landed on
    "log_interval": 100,  # steps between counts of the remaining parameters
    # the MLP of DeepFM and AutoInt, and AutoInt's attention
    "mlp_dims": [400, 400, 400],  # hidden layers
    "dropout": 0.2,
    "att_dropout": 0.0,
    # training
    "batch_size": 1024,  # rows
    "lr": 1e-3,  # Adam's
    # weight decay, coupled, of table and thresholds: it is what moves the thresholds
    "l2_regularization": 1e-5,
    "weight_decay": None,  # the same of all other parameters; None: l2_regularization, as published
    # in the loss: times the sum of squares of a batch's vectors, as pruned, over its rows
    "l2_penalty": 0.0,
    "max_epochs": 30,  # 31,586 steps each on the whole file
    "eval_interval": 1,  # epochs
    "early_stop": 5,  # evaluations without gain; a search is never stopped early
    # running; none of these changes a result
    "tensorboard": True,
    "checkpoint_seconds": 600.0,
}

if __name__ == "__main__":
    scripts.search(__doc__, SETTINGS)
