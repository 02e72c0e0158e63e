"""Learn embedding sizes on MovieLens-1M (the search), or train a baseline with --embedding uniform.

    python train_movielens.py                                   # FM, about two minutes on 2 cores
    python train_movielens.py --model deepfm --seed 2
    python train_movielens.py --embedding uniform --set latent_dim=8
    python train_movielens.py --model linear
"""

from typing import Any

from engine import cli, stages
from engine.run import open_data
from studies import table

SETTINGS = {
    "dataset": "movielens",
    "with_ids": False,  # True adds user and movie id: 9 fields instead of the paper's 7
    "model": "fm",  # linear, fm, deepfm, autoint, dlrm
    "embedding": "pep",  # pep, uniform, mde, mgqe, darts, hash, qr, tt
    "latent_dim": 64,  # width d of a vector: 4,129 x 64 = 264,256 parameters
    # PEP
    "threshold_type": "feature_dim",  # global, dimension, feature, field, feature_dim, field_dim
    "threshold_init": -15.0,  # every s starts here
    "g_type": "sigmoid",  # sigmoid, softplus
    "gk": 1.0,  # g is multiplied by it
    "threshold_decay": "coupled",  # coupled, as published; decoupled (AdamW's), none
    # False: the loss has no say in the thresholds, decay alone moves them
    "threshold_gradient": True,
    # budgets, in parameters
    "candidate_p": [100_000, 50_000, 23_675, 15_000, 10_000, 9_281, 8_604, 6_541],
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
    "hash_rows": 1000,  # hash: rows of the one table for 4,129 features
    "qr_collisions": 4,  # qr: features of a field that share a remainder row
    "tt_rank": 16,  # tt: between the cores of the tensor train
    # models
    "mlp_dims": [100, 100],  # deepfm, autoint
    "dropout": 0.2,  # of the MLP
    "num_heads": 2,  # autoint, and the next six
    "num_layers": 3,
    "att_dropout": 0.4,
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
    "max_epochs": 100,  # 577.4 steps each
    "eval_interval": 2,  # epochs
    "early_stop": 8,  # evaluations without gain; a search is never stopped early
    # auc or loss, on validation; published_protocol: on test, see --published
    "early_stop_metric": "auc",
    "log_interval": 10,  # steps between counts of the remaining parameters
    # running; none of these changes a result
    "compile": "auto",  # on, off; auto compiles long runs
    "tensorboard": True,
    "checkpoint_seconds": 60.0,
}
VARIANTS = {"published": {**cli.PUBLISHED, "latent_dim": 32, "eval_interval": 5, "early_stop": 40}}


def search(description: str, script: dict[str, Any], variants: cli.Variants) -> None:
    """Read the command line, train, print the result. The scripts of the other data sets call it
    too.

    Args:
        script: the settings.
        variants: options that change several of them at once.
    """
    options = cli.parser(description, variants).parse_args()
    settings, place, _ = cli.read(options, script, variants)
    if options.encode_only:
        print(open_data(settings, place)[0].describe())
    else:
        print(table.of_results([stages.train(settings, options.seed, place)]))


def main() -> None:
    """The script."""
    search(__doc__, SETTINGS, VARIANTS)


if __name__ == "__main__":
    cli.main(main)
