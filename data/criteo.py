"""Criteo's display-advertising challenge: 13 numbers and 26 categories.

PEP's models read the numbers in buckets too, as 39 fields; DLRM reads 26 fields beside 13 numbers.
"""

from dataclasses import replace
from pathlib import Path

from data import store
from data.raw import ingest
from data.raw.layout import BUCKET, HEX, LABEL, Column, Layout

LAYOUT = Layout(
    name="criteo", separator="\t", has_header=False,
    columns=(Column("label", LABEL), *(Column(f"I{i}", BUCKET) for i in range(1, 14)),
             *(Column(f"C{i}", HEX) for i in range(1, 27))),
    file_names=("train.txt", "train.csv", "train"),
    url="https://www.kaggle.com/c/criteo-display-ad-challenge",
    archives=("dac.tar.gz",),
)


def open_dataset(folder: str | None, cache: Path, with_ids: bool = False, vocabulary: str = "all",
                 split: str = "random", processes: int = 1) -> store.Dataset:
    """The encoded data set; see `data.raw.ingest.open_raw`."""
    return ingest.open_raw(LAYOUT, folder, cache, with_ids, vocabulary, split, processes)


def open_with_dense(folder: str | None, cache: Path, with_ids: bool = False,
                      vocabulary: str = "all",
                      split: str = "random", processes: int = 1) -> store.Dataset:
    """The same with 26 fields, and the 13 numbers v as log(max(v, 0) + 1) alone; kept apart in the
    cache."""
    return ingest.open_raw(replace(LAYOUT, bucketed=False), folder, cache, with_ids, vocabulary,
                           split, processes)
