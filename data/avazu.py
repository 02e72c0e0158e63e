"""Avazu's click-through challenge as PEP uses it: the row's id dropped, the hour as it stands, 22
fields."""

from pathlib import Path

from data import store
from data.raw import ingest
from data.raw.layout import DECIMAL, HEX, ID, LABEL, Column, Layout

LAYOUT = Layout(
    name="avazu", separator=",", has_header=True,
    columns=(
        Column("id", ID), Column("click", LABEL), Column("hour", DECIMAL), Column("C1", DECIMAL),
        Column("banner_pos", DECIMAL),
        *(Column(name, HEX) for name in (
            "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category",
            "device_id",
            "device_ip", "device_model")),
        Column("device_type", DECIMAL), Column("device_conn_type", DECIMAL),
        *(Column(f"C{i}", DECIMAL) for i in range(14, 22))),
    file_names=("train", "train.csv"),
    url="https://www.kaggle.com/c/avazu-ctr-prediction",
    archives=("avazu-ctr-prediction.zip",),
)


def open_dataset(folder: str | None, cache: Path, with_ids: bool = False, vocabulary: str = "all",
                 split: str = "random", processes: int = 1) -> store.Dataset:
    """The encoded data set; see `data.raw.ingest.open_raw`."""
    return ingest.open_raw(LAYOUT, folder, cache, with_ids, vocabulary, split, processes)
