"""What a run says when a constant prediction would do better. (Metrics: golden/test_metrics.py.)"""

import logging
import math

import numpy as np
import pytest
import tiny

from engine.evaluate import base_rate_logloss
from studies import table
from utils.files import read_record

DATA = tiny.dataset()


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
                      f"{base:.6g}", "smaller lr"):
            assert words in said[0]
    last = table.of_results([result]).splitlines()[-1]
    assert last.startswith(f"! run {result['run_id']}: validation log-loss") == useless


def test_the_table_takes_results_from_before_the_field(tmp_path, monkeypatch):
    tiny.install(monkeypatch, DATA)
    result = tiny.train(tmp_path, embedding="uniform", max_epochs=1)
    del result["validation_logloss_base_rate"]
    assert table.of_results([result]).splitlines()[-1].startswith("* published protocol")
