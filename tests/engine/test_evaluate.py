"""How often an evaluation computes a table, and what a run says when a constant prediction would do
better. (Metrics: golden/test_metrics.py.)"""

import logging
import math

import numpy as np
import pytest
import tiny
import torch

from data.loader import in_order
from engine.evaluate import Split, base_rate_logloss, logits_of, measure, measure_both, measure_test
from models.deepfm import DeepFM
from models.embedding.masked import Masked
from models.embedding.pep import THRESHOLD_TYPES, Pep, Thresholds
from models.embedding.uniform import Uniform
from models.fm import FM
from studies import table
from utils.files import read_record

DATA = tiny.dataset()
SIZES = (40, 60)
INITIAL = torch.randn(100, 5, generator=torch.Generator().manual_seed(3)) / 2
EMBEDDINGS = {
    **{kind: lambda kind=kind: Pep(INITIAL, SIZES, Thresholds(kind, init=-1.0, scale=0.9))
       for kind in THRESHOLD_TYPES},
    "masked": lambda: Masked(INITIAL, INITIAL > -0.2, 2),
    "uniform": lambda: Uniform(INITIAL, 2),
}
MODELS = {"fm": FM, "deepfm": lambda embedding: DeepFM(embedding, (4,), 0.2)}


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, 40, count), rng.integers(40, 100, count)], 1).astype(np.int32)
    return Split(ids, np.arange(count, dtype=np.float32) % 2)


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("model", MODELS)
def test_a_table_computed_once_gives_the_bits_of_one_computed_in_each_batch(model, name):
    made, split = MODELS[model](EMBEDDINGS[name]()), rows(3000)
    with torch.no_grad():
        batches = [made.eval()(ids) for ids in in_order(split.ids, split.device)]
    assert np.array_equal(logits_of(made.train(), split), torch.cat(batches).numpy())


def spied(monkeypatch):
    """The tables that a Pep computes from now on."""
    computed, whole = [], Pep.table
    monkeypatch.setattr(Pep, "table", lambda self: computed.append(self) or whole(self))
    return computed


def test_two_splits_are_evaluated_with_one_table(monkeypatch):
    model, validation, test = FM(EMBEDDINGS["feature_dim"]()), rows(3000), rows(2500, seed=1)
    apart = measure(model, validation), measure_test(model, test, 100)
    computed = spied(monkeypatch)
    assert measure_both(model, validation, test, 100) == apart
    assert len(computed) == 1
    assert model.embedding is computed[0]


def test_a_few_rows_do_not_compute_a_whole_table(monkeypatch):
    model, computed = FM(EMBEDDINGS["feature_dim"]()), spied(monkeypatch)
    logits_of(model, rows(49))  # 98 ids, 100 rows of the table
    assert not computed
    logits_of(model, rows(50))
    assert len(computed) == 1


def test_the_embedding_is_put_back_after_an_error():
    model = FM(EMBEDDINGS["masked"]())
    embedding = model.embedding
    with pytest.raises(IndexError):
        logits_of(model, Split(np.full((60, 2), 100, np.int32), np.zeros(60, np.float32)))
    assert model.embedding is embedding


def test_the_base_rate_is_that_of_the_training_rows():
    train, validation = np.array([1.0, 0.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0])
    by_hand = -(2 * math.log(0.25) + math.log(0.75)) / 3
    assert base_rate_logloss(validation, train) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_training_rows_of_one_class_give_a_finite_number(label):
    found = base_rate_logloss(np.array([0.0, 1.0]), np.full(10, label))
    assert found == pytest.approx(-(math.log(0.05) + math.log(0.95)) / 2, rel=1e-12)


@pytest.mark.parametrize(("lr", "useless"), [(1e6, True), (0.01, False)])
@pytest.mark.parametrize("embedding", ["uniform", "pep"])
def test_a_run_that_is_worse_than_a_constant_says_so_and_what_to_try(
        tmp_path, monkeypatch, caplog, embedding, lr, useless):
    tiny.install(monkeypatch, DATA)
    with caplog.at_level(logging.WARNING, "pep"):
        result = tiny.train(tmp_path, lr=lr, embedding=embedding, candidate_p=[300])
    labels = DATA.split("validation")[1]
    share = DATA.split("train")[1].mean(dtype=np.float64)
    base = -np.mean(labels * np.log(share) + (1 - labels) * np.log(1 - share))
    assert result["validation_logloss_base_rate"] == pytest.approx(base, rel=1e-6)
    assert (result["validation_logloss"] > base) == useless
    written = read_record(tmp_path / "runs" / result["run_id"] / "result.json")
    assert written == result
    messages = [record.getMessage() for record in caplog.records]
    said = [message for message in messages if "positives for every row" in message]
    assert len(said) == useless
    if useless:
        for words in (f"run {result['run_id']}", f"{result['validation_logloss']:.6g}",
                      f"{base:.6g}", "smaller learning rate"):
            assert words in said[0]
        assert ("early_stop_metric" in said[0]) == (embedding != "pep")
    last = table.of_results([result]).splitlines()[-1]
    assert last.startswith(f"! run {result['run_id']}: validation log-loss") == useless


def test_the_table_takes_results_from_before_the_field(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    result = tiny.train(tmp_path, embedding="uniform", max_epochs=1)
    del result["validation_logloss_base_rate"]
    assert table.of_results([result]).splitlines()[-1].startswith("* published protocol")
