import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from engine import snapshots
from engine.hooks import EarlyStop, EveryEpochs, EverySteps
from engine.loop import State

DATA = tiny.dataset()
FLIPPED = tiny.with_test_labels(DATA, lambda labels: 1 - labels)
TRAINING = {"model": "deepfm", "embedding": "uniform", "max_epochs": 40, "early_stop": 3,
            "lr": 0.05}
SEARCH = {"embedding": "pep", "candidate_p": [550, 400, 150], "max_epochs": 6}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Train on a data set; return the result, the final weights, the curve and the snapshots."""
    seen = tiny.spy(monkeypatch)

    def train(made, **settings):
        tiny.install(monkeypatch, made)
        out = tmp_path / made.hash
        result = tiny.train(out, **settings)
        curve = (out / "runs" / result["run_id"] / "curve.jsonl").read_text().splitlines()
        tables = {path.name: snapshots.read(path)[0].table
                  for path in out.glob("embedding/*/*/*.npz")}
        return result, seen[-1][0].state_dict(), [json.loads(line) for line in curve], tables

    return train


def without_test(record):
    return {name: value for name, value in record.items() if not name.startswith("test_")}


@pytest.mark.parametrize("settings", [TRAINING, {**TRAINING, "early_stop_metric": "loss"}, SEARCH])
def test_other_test_labels_change_no_choice(run, settings):
    result, weights, curve, tables = run(DATA, **settings)
    other, other_weights, other_curve, other_tables = run(FLIPPED, **settings)
    chosen = ("selected_epoch", "stop_reason", "epochs", "steps", "validation_auc",
              "validation_logloss",
              "train_loss", "num_embedding_params")
    assert {name: result[name] for name in chosen} == {name: other[name] for name in chosen}
    assert [without_test(line) for line in curve] == [without_test(line) for line in other_curve]
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(value, other_weights[name]) for name, value in weights.items())
    assert tables.keys() == other_tables.keys()
    assert all(np.array_equal(table, other_tables[name]) for name, table in tables.items())
    assert result["test_auc"] != other["test_auc"]
    assert result["run_id"] != other["run_id"]


@pytest.mark.parametrize("metric", ["auc", "loss"])
def test_result_and_weights_are_those_of_the_best_validation(run, metric):
    result, _, curve, _ = run(DATA, **TRAINING, early_stop_metric=metric)
    score = {"auc": lambda line: line["validation_auc"],
             "loss": lambda line: -line["validation_logloss"]}[metric]
    best = max(curve, key=score)  # the first of equal ones
    assert result["stop_reason"] == "early_stop"
    assert result["selected_epoch"] == best["epoch"] == curve[-1]["epoch"] - 3 < result["epochs"]
    assert result["validation_auc"] == best["validation_auc"]
    assert result["validation_logloss"] == best["validation_logloss"]
    assert result["test_auc"] == best["test_auc"]
    assert result["test_auc"] != max(line["test_auc"] for line in curve)
    assert result["published_protocol"] == {
        "best_test_auc": max(line["test_auc_mean_of_batches"] for line in curve),
        "best_test_logloss": min(line["test_logloss"] for line in curve), "patience": metric}


def test_published_patience_ends_a_run_on_test_and_keeps_what_validation_chose(run):
    result, _, curve, _ = run(DATA, **TRAINING, early_stop_metric="published_protocol")
    tests = [line["test_auc_mean_of_batches"] for line in curve]
    assert result["stop_reason"] == "published_patience"
    assert len(tests) == tests.index(max(tests)) + 1 + TRAINING["early_stop"]
    assert result["selected_epoch"] == max(curve, key=lambda line: line["validation_auc"])["epoch"]
    assert result["published_protocol"]["patience"] == "published_protocol"
    other, *_ = run(FLIPPED, **TRAINING, early_stop_metric="published_protocol")
    assert other["epochs"] != result["epochs"]  # test labels end it, under this name alone


@pytest.mark.parametrize("metric", ["auc", "published_protocol"])
def test_a_search_ends_with_its_last_weights_and_has_no_patience(run, metric):
    result, _, curve, _ = run(DATA, embedding="pep", candidate_p=[1], max_epochs=5, early_stop=1,
                              lr=0.1, early_stop_metric=metric)
    assert (result["stop_reason"], result["epochs"], len(curve)) == ("max_epochs", 5, 5)
    assert result["published_protocol"]["patience"] is None
    assert result["validation_auc"] == curve[-1]["validation_auc"] != max(line["validation_auc"]
                                                                          for line in curve)


class Scripted:
    """Feeds an EarlyStop one evaluation after the other and records when it stops."""

    def __init__(self, metric, patience):
        self.history = []
        self.stop = EarlyStop(lambda: self.history, metric, patience)
        self.model = torch.nn.Linear(1, 1)
        self.state = State(self.model, None, torch.zeros(()))

    def run(self, values):
        for number, value in enumerate(values, 1):
            assert self.stop(self.state) is None  # a step without a new evaluation
            with torch.no_grad():
                self.model.weight.fill_(number)
            self.history.append({"epoch": number, "validation_auc": value,
                                 "validation_logloss": value})
            if reason := self.stop(self.state):
                assert reason == "early_stop"
                return number
        return None


@pytest.mark.parametrize(("metric", "values", "patience", "stopped", "best"), [
    ("auc", [0.5, 0.6, 0.55, 0.59, 0.7], 2, 4, 2),
    ("auc", [0.5, 0.6, 0.55, 0.61, 0.6, 0.6], 2, 6, 4),
    ("auc", [0.6, 0.6, 0.6], 2, 3, 1),  # an equal score is no gain
    ("auc", [0.5, 0.6, 0.7], 1, None, 3),
    ("auc", [0.7, 0.6], 1, 2, 1),
    ("loss", [0.7, 0.6, 0.65, 0.62, 0.5], 2, 4, 2),
    ("loss", [0.7, 0.6, 0.5], 1, None, 3),
])
def test_patience_counts_evaluations_without_gain(metric, values, patience, stopped, best):
    script = Scripted(metric, patience)
    assert script.run(values) == stopped
    assert script.stop.best["epoch"] == best
    assert script.stop.best_weights["weight"].item() == best


def test_patience_goes_on_counting_after_a_restore():
    script = Scripted("auc", 3)
    assert script.run([0.6, 0.5, 0.5]) is None
    again = Scripted("auc", 3)
    again.history = list(script.history)
    again.stop.load_state_dict(script.stop.state_dict())
    assert again.stop(again.state) is None
    again.history.append({"epoch": 4, "validation_auc": 0.5})
    assert again.stop(again.state) == "early_stop"
    assert again.stop.best_weights["weight"].item() == 1


def calls(hook, epochs, batches):
    """(step, epoch) of every call that a wrapped hook sees."""
    seen = []
    wrapped = hook(lambda state: seen.append((state.step, state.epoch)))
    for step in range(1, epochs * batches + 1):
        done = step % batches == 0
        wrapped(SimpleNamespace(step=step, epoch=step // batches, epoch_done=done))
    return seen


def test_every_steps_acts_at_each_nth_step_and_at_the_end_of_each_epoch():
    assert [step for step, _ in calls(lambda hook: EverySteps(4, hook), 2, 10)] == [4, 8, 10, 12,
                                                                                    16, 20]


def test_every_epochs_acts_at_each_nth_epoch_and_the_last():
    assert calls(lambda hook: EveryEpochs(2, 5, hook), 5, 3) == [(6, 2), (12, 4), (15, 5)]
