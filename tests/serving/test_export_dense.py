"""A model of an own table with dense columns reads raw rows as the run has read them."""

import numpy as np
import pandas as pd
import pytest

from data.split import split_rows
from data.table.options import SPLIT_SEED
from engine import stages
from engine.evaluate import auc
from engine.run import RunContext
from engine.settings import parse
from models.serving.scorer import load
from serving.export import export

SETTINGS = {"dataset": "shop", "label": "buys", "dense": ["stock", "price"], "min_count": 1,
            "split": "auto", "model": "dlrm", "embedding": "uniform", "latent_dim": 4,
            "arch_mlp_bot": [8], "arch_mlp_top": [8], "batch_size": 64, "lr": 0.02,
            "max_epochs": 3, "eval_interval": 1, "log_interval": 1, "tensorboard": False}


@pytest.fixture
def shop(tmp_path):
    """A table with dense columns, the result of a run of it, and the exported model's folder."""
    rng = np.random.default_rng(0)
    price = rng.gamma(2, 20, 600)
    frame = pd.DataFrame({"user": rng.integers(0, 20, 600), "price": price.round(2),
                          "stock": rng.integers(0, 9, 600), "buys": (price < 30).astype(int)})
    context = RunContext(out=tmp_path / "out", cache=tmp_path / "cache", data=frame)
    result = stages.train(parse(SETTINGS), 1, context)
    export(result["run_id"], tmp_path / "model", context=context)
    return frame, result, tmp_path / "model"


def test_dense_columns_in_another_order_than_the_tables(shop):
    frame, result, folder = shop
    held_out = frame.iloc[split_rows(len(frame), SPLIT_SEED)[1]]
    scores = load(folder).score(held_out)
    found = auc(held_out["buys"].to_numpy(), scores)
    assert found == pytest.approx(result["validation_auc"], abs=1e-6)
    assert found > 0.65  # by the price, so that columns that change places would show


def test_bytes_that_are_no_text_in_a_column_of_numbers_are_a_bad_row(shop, tmp_path):
    frame, _, folder = shop
    (tmp_path / "rows.csv").write_bytes(frame[:3].to_csv(index=False).encode().replace(
        b"%g" % frame["price"][1], b"\xff\xfe"))
    done = load(folder).score_file(tmp_path / "rows.csv", tmp_path / "scores.csv")
    assert (done.rows, done.bad) == (3, 1)
    assert "row 1: field 'price' is of numbers" in str(done)


def test_an_infinite_number_is_a_bad_row(shop, tmp_path):
    frame, _, folder = shop
    rows = frame[:3].astype({"price": str})
    rows.loc[1, "price"] = "1e400"
    rows.to_csv(tmp_path / "rows.csv", index=False)
    done = load(folder).score_file(tmp_path / "rows.csv", tmp_path / "scores.csv")
    assert (done.rows, done.bad) == (3, 1)
    assert "field 'price' has an infinite value" in str(done)
    np.testing.assert_array_equal(np.isnan(load(folder).score(rows)), [False, True, False])
