"""A model that runs but does not learn fails: floors for the AUC on rows that were never trained
on."""

import pytest
import tiny
from training import few

from engine import stages

SETTINGS = {"max_epochs": 30, "early_stop": 5}
FULL = sum(tiny.SIZES.values()) * tiny.SETTINGS["latent_dim"]


@pytest.fixture(autouse=True)
def data(monkeypatch):
    tiny.install(monkeypatch, tiny.dataset(rows=3000))  # the labels follow pairs of values


@pytest.mark.parametrize(("model", "floor"),
                         few([("fm", 0.92), ("autoint", 0.89), ("deepfm", 0.9)], 0, 1))
def test_models_learn_pairs(tmp_path, model, floor):
    result = tiny.train(tmp_path, model=model, embedding="uniform", **SETTINGS)
    assert result["test_auc"] > floor
    assert result["num_embedding_params"] == FULL


def test_logistic_regression_learns_the_first_order_and_no_more(tmp_path):
    assert 0.7 < tiny.train(tmp_path, model="linear", **SETTINGS)["test_auc"] < 0.82


@pytest.mark.parametrize("threshold_type", few(["feature_dim", "feature", "dimension"], 0))
def test_pep_keeps_what_the_labels_need_and_a_handful_of_entries_is_too_few(tmp_path,
                                                                            threshold_type):
    half = FULL // 2
    settings = {**SETTINGS, "embedding": "pep", "threshold_type": threshold_type,
                "candidate_p": [half, 10]}
    search = tiny.train(tmp_path, **settings)
    assert search["snapshots"][0] == str(half)
    ticket, handful = stages.retrain(tiny.settings(**settings), 1, tiny.context(tmp_path))
    assert ticket["num_embedding_params"] == half
    assert ticket["test_auc"] > 0.87
    assert handful["test_auc"] < ticket["test_auc"] - 0.08


BASELINES = {
    "mde": ({"mde_blocks": 8, "mde_alpha": 0.3}, 0.9),
    "mgqe": ({"mgqe_subspaces": 2, "mgqe_centroids": 64}, 0.9),
    "hash": ({"hash_rows": 100}, 0.84),
    "qr": ({"qr_collisions": 4}, 0.82),
    "tt": ({"tt_rank": 4}, 0.8),
}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_learn_pairs_with_half_of_the_parameters(tmp_path, name):
    settings, floor = BASELINES[name]
    result = tiny.train(tmp_path, embedding=name, **{**SETTINGS, "max_epochs": 15}, **settings)
    assert result["test_auc"] > floor
    assert result["num_embedding_params"] <= FULL // 2
