"""Names as the paper writes them, of data sets, models and embedding schemes."""

SHOWN = {"movielens": "MovieLens-1M", "criteo": "Criteo", "avazu": "Avazu", "linear": "LR", "fm": "FM",
         "deepfm": "DeepFM", "autoint": "AutoInt", "mde": "MDE", "mgqe": "MGQE", "darts": "DartsEmb",
         "hash": "double hashing", "qr": "quotient-remainder", "tt": "tensor train", "umec": "UMEC"}


def shown(name: str) -> str:
    """A data set, a model or the label of a curve as the paper writes it; what has no such name stays as it is.

    >>> shown("movielens"), shown("mde, lr 0.1"), shown("planted")
    ('MovieLens-1M', 'MDE, lr 0.1', 'planted')
    """
    head, comma, rest = name.partition(",")
    return SHOWN.get(head, head) + comma + rest
