"""Criteo's display-advertising challenge as PEP uses it: 13 numbers in buckets and 26 categories, 39 fields."""

from pathlib import Path

from data import ingest, store
from data.layout import BUCKET, HEX, LABEL, Column, Layout

LAYOUT = Layout(
    name="criteo", separator="\t", has_header=False,
    columns=(Column("label", LABEL), *(Column(f"I{i}", BUCKET) for i in range(1, 14)),
             *(Column(f"C{i}", HEX) for i in range(1, 27))),
    file_names=("train.txt", "train.csv", "train"),
    url="https://www.kaggle.com/c/criteo-display-ad-challenge",
)


def open_dataset(folder: str | None, cache: Path, with_ids: bool = False, vocabulary: str = "all",
                 split: str = "random") -> store.Dataset:
    """The encoded data set; see `data.ingest.open_raw`."""
    return ingest.open_raw(LAYOUT, folder, cache, with_ids, vocabulary, split)
