"""The data sets by name. A new one is a file with `open_dataset` and one line here."""

from data import avazu, criteo, movielens
from data.synthetic import planted, planted_fields

DATASETS = {"movielens": movielens.open_dataset, "criteo": criteo.open_dataset,
            "avazu": avazu.open_dataset,
            "movielens_ids": movielens.open_with_ids,
            "planted": planted.open_dataset, "planted_fields": planted_fields.open_dataset}
# for models that read numbers as they are; all else as above
WITH_DENSE = {"criteo": criteo.open_with_dense}
IN_RANGES = ("criteo", "avazu")  # whose raw files several processes may read
