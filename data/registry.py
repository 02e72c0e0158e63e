"""The data sets by name. A new one is a file with `open_dataset` and one line here."""

from data import movielens, planted

DATASETS = {"movielens": movielens.open_dataset, "planted": planted.open_dataset}
