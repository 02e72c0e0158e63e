"""The data sets by name. A new one is a file with `open_dataset` and one line here."""

from data import avazu, criteo, movielens, planted

DATASETS = {"movielens": movielens.open_dataset, "criteo": criteo.open_dataset, "avazu": avazu.open_dataset,
            "planted": planted.open_dataset}
