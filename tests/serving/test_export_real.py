"""Real data from raw rows to a trained model to a folder, and raw rows to scores again."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from test_table_scripts import say

from engine.evaluate import auc
from engine.run import RunContext
from models import load
from serving.export import export
from serving.runs import load_trained
from studies import scripts

pytestmark = pytest.mark.real
QUICK = {"embedding": "uniform", "latent_dim": 4, "max_epochs": 1, "batch_size": 4096, "lr": 0.01,
         "tensorboard": False}


def taken_home(run_id, context, folder, raw):
    """The scores of raw rows by the exported model, held against those of the run's own."""
    export(run_id, folder, context=context)
    scorer, trained = load(folder), load_trained(run_id, context)
    fields = trained.run.dataset.vocabulary.fields
    columns = [field.info.column or field.name for field in fields]
    ids = np.stack([field.lookup(raw[column].tolist())
                    for field, column in zip(fields, columns, strict=True)], 1)
    assert set(scorer.columns) == set(columns)
    found = scorer.score(raw)
    with torch.no_grad():
        wanted = torch.sigmoid(trained.model(torch.from_numpy(ids))).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    return scorer, found


def test_frappe_with_a_user_that_training_has_not_seen(tmp_path):
    folder = Path(os.environ["PEP_DATA"]) / "frappe"
    script = {"label": "", **QUICK, "vocabulary": "train"}
    said, code = say(tmp_path, scripts.search, script, "--data", str(folder), "--label", "label")
    assert code == 0, said
    [path] = (tmp_path / "out" / "runs").glob("*/result.json")
    context = RunContext(tmp_path / "out", tmp_path / "cache", str(folder), "cpu")
    raw = pd.read_csv(folder / "test.csv")
    scorer, found = taken_home(json.loads(path.read_text())["run_id"], context, tmp_path / "home",
                               raw.drop(columns="label"))
    assert auc(raw["label"].to_numpy(), found) > 0.75
    known = set(pd.read_csv(folder / "train.csv")["user"])
    strangers = raw[~raw["user"].isin(known)].head(3)
    strangers = pd.concat([strangers, raw.head(2).assign(user="nobody")])
    user = scorer.vocabulary.field("user")
    assert set(user.lookup(strangers["user"].tolist())) == {user.unknown}
    assert np.isfinite(scorer.score(strangers)).all()
    (tmp_path / "new.csv").write_text(strangers.to_csv(index=False))
    assert scorer.score_file(tmp_path / "new.csv", tmp_path / "out.csv").bad == 0


def test_movielens(tmp_path, real_cache):
    folder = Path(os.environ["PEP_DATA"]) / "ml-1m"
    context = RunContext(tmp_path / "out", real_cache, str(folder), "cpu")
    run_id = tiny.train(tmp_path / "out", dataset="movielens", **QUICK, places={
        "data": str(folder), "cache": real_cache})["run_id"]
    options = {"sep": "::", "engine": "python", "encoding": "latin-1", "header": None}
    ratings = pd.read_csv(folder / "ratings.dat", names=["user", "movie", "rating", "timestamp"],
                          nrows=3000, **options)
    users = pd.read_csv(folder / "users.dat", names=["user", "gender", "age", "occupation", "zip"],
                        dtype={"zip": str}, **options)
    movies = pd.read_csv(folder / "movies.dat", names=["movie", "title", "genres"], **options)
    movies["year"] = movies["title"].str.extract(r"\((\d{4})\)")
    raw = ratings[ratings["rating"] != 3].merge(users, on="user").merge(movies, on="movie")
    scorer, found = taken_home(run_id, context, tmp_path / "home", raw)
    assert auc((raw["rating"] > 3).to_numpy().astype(int), found) > 0.7
    assert np.isfinite(scorer.score(raw.head(2).assign(zip="no such place"))).all()


def test_the_sample_of_avazu_without_its_clicks(tmp_path):
    folder = Path(os.environ["PEP_DATA"]) / "avazu"
    context = RunContext(tmp_path / "out", tmp_path / "cache", str(folder), "cpu")
    run_id = tiny.train(tmp_path / "out", dataset="avazu", **QUICK, places={
        "data": str(folder), "cache": tmp_path / "cache"})["run_id"]
    raw = pd.read_csv(folder / "train", dtype=str)
    scorer, found = taken_home(run_id, context, tmp_path / "home", raw.drop(columns="click"))
    raw.drop(columns="click").to_csv(tmp_path / "rows.csv", index=False, lineterminator="\r\n")
    done = scorer.score_file(tmp_path / "rows.csv", tmp_path / "out.csv")
    assert (done.rows, done.bad) == (len(raw), 0)
    scores = pd.read_csv(tmp_path / "out.csv")["probability"]
    np.testing.assert_allclose(scores, found, rtol=1e-6)
    strange = raw.head(1).assign(device_model="ffffffff", site_id="ffffffff")
    assert np.isfinite(scorer.score(strange)).all()
