"""Learn embedding sizes on Avazu (the search), or train a baseline with --embedding uniform.

    python train_avazu.py --encode-only                        # raw file -> encoded set, once
    python train_avazu.py                                      # FM, thresholds for every entry: PEP-0 and PEP-1
    python train_avazu.py --coarse                             # thresholds for whole dimensions: PEP-2 to PEP-4
    python train_avazu.py --set threshold_init=-15             # another schedule: pruning starts 135,000 steps earlier
    python train_avazu.py --embedding uniform --set latent_dim=16
"""

from engine import cli
from train_movielens import search

SETTINGS = {
    "dataset": "avazu",
    # all, as the paper's Table 3 counts; train: values of the training rows only
    "vocabulary": "all",
    # random: 80/10/10; ids:FILE: an .npz of row numbers for train, validation and test
    "split": "random",
    "model": "fm",  # linear, fm, deepfm, autoint, dlrm
    "embedding": "pep",  # pep, uniform, mde, mgqe, darts, hash, qr, tt
    "latent_dim": 24,  # width d of a vector; the paper's text says 64, its scripts 24
    # PEP
    "threshold_type": "feature_dim",  # global, dimension, feature, field, feature_dim, field_dim
    # s rises by about lr a step, and g(s) is exactly 0 below -104: see the README
    "threshold_init": -150.0,
    "g_type": "sigmoid",  # sigmoid, softplus
    "gk": 1.0,  # g is multiplied by it
    "threshold_decay": "coupled",  # coupled, as published; decoupled (AdamW's), none
    # False: the loss has no say in the thresholds, decay alone moves them
    "threshold_gradient": True,
    # parameters; the
    "candidate_p": [1_000_000, 300_000, 100_000, 30_000, 10_000, 2_805, 2_225, 2_215, 1_479],
    # last four are Table 4's for AutoInt, AutoInt with first-order part, DeepFM, and FM
    # exact: cut to the very number; as_reached: whatever count the step landed on
    "budget": "exact",
    # baselines
    # mde, mgqe: count the training rows, or an .npy file with a count for each feature
    "mde_blocks": 8,  # mde: blocks of equal popularity; the paper tries 8 and 16
    # mde: width ~ popularity ** alpha, latent_dim for the first block; 0.1, 0.2, 0.3
    "mde_alpha": 0.1,
    "mgqe_subspaces": 8,  # mgqe: parts of a row; 4, 8, 16
    "mgqe_centroids": 256,  # mgqe: values of each part; 64, 128, 256, 512
    "darts_widths": [2, 4, 16],  # darts: candidates of each feature; also [1, 2, 8], [4, 8, 32]
    # darts: of the search over them; max_epochs is that of the training after it
    "darts_epochs": 20,
    "darts_lr": 1e-2,  # darts: of the mixture's weights, on validation rows
    "hash_rows": 100_000,  # hash: rows of the one table for 645,394 features
    "qr_collisions": 4,  # qr: features of a field that share a remainder row
    "tt_rank": 16,  # tt: between the cores of the tensor train
    # models
    "mlp_dims": [400, 400, 400],  # deepfm, autoint
    "dropout": 0.2,  # of the MLP
    "num_heads": 2,  # autoint, and the next six
    "num_layers": 3,
    "att_dropout": 0.0,
    "atten_embed_dim": 64,
    "has_residual": True,
    "full_part": True,  # with the MLP
    "with_linear": False,  # with a first-order part
    # dlrm: hidden layers of the MLP on the numbers, where the data have some
    "arch_mlp_bot": [512, 256, 64],
    "arch_mlp_top": [512, 256],  # dlrm: hidden layers of the MLP on everything
    "arch_interaction_op": "cat",  # dlrm: cat, dot
    # training
    "batch_size": 1024,
    "lr": 1e-3,  # Adam
    "optimizer": "adam",  # adam, sgd
    "l2_regularization": 1e-5,  # coupled, on table and thresholds: it is what moves the thresholds
    # coupled, of the parameters beside the embedding; None: l2_regularization, as published
    "weight_decay": None,
    # in the loss: times the sum of squares of a batch's vectors, as pruned, over its rows
    "l2_penalty": 0.0,
    "grad_clip": 100.0,  # global norm
    "max_epochs": 30,  # 31,586 steps each on the whole file
    "eval_interval": 1,  # epochs
    "early_stop": 5,  # evaluations without gain; a search is never stopped early
    # auc or loss, on validation; published_protocol: on test, see --published
    "early_stop_metric": "auc",
    "log_interval": 100,  # steps between counts of the remaining parameters; an epoch has 31,585
    # running; none of these changes a result
    "compile": "auto",  # on, off; auto compiles long runs
    "tensorboard": True,
    "checkpoint_seconds": 600.0,
}
VARIANTS = {
    "coarse": {"threshold_type": "dimension", "candidate_p": [10_000_000, 5_000_000, 2_000_000]},
    "published": {**cli.PUBLISHED, "latent_dim": 24, "eval_interval": 1, "early_stop": 5},
}


def main() -> None:
    """The script."""
    search(__doc__, SETTINGS, VARIANTS)


if __name__ == "__main__":
    cli.main(main)
