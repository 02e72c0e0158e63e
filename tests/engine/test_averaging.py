"""The average of the weights, and the schedule of the learning rate."""

import copy
import json
import math

import pytest
import tiny
import torch

from engine import stages
from engine.averaging import CosineRate, WeightAverage
from engine.checkpoint import load_checkpoint
from engine.evaluate import Split, measure
from engine.loop import State
from engine.optim.step import Step, build_optimizer
from models.build import build_embedding, build_model

DATA = tiny.dataset(rows=600)


@pytest.fixture
def seen(monkeypatch):
    """Every model that is trained, and its state before."""
    tiny.install(monkeypatch, DATA)
    return tiny.spy(monkeypatch)


@pytest.mark.parametrize("update", ["dense", "streamed", "lazy"])
def test_the_average_is_the_definition_whatever_updates_the_tables(update):
    values = tiny.settings(embedding="uniform").flat()
    model = build_model((30, 10), values, 1, build_embedding((30, 10), values, 2))
    optimizer = build_optimizer(model, 0.05, 1e-2, 1e-2)
    step, average = Step(model, optimizer, 100.0, update=update), WeightAverage(model, 0.75)
    state = State(model, optimizer, torch.zeros(()))
    generator, expected = torch.Generator().manual_seed(3), None
    for number in range(1, 10):
        ids = torch.stack([torch.randint(30, (4,), generator=generator),
                           30 + torch.randint(10, (4,), generator=generator)], 1).int()
        step(ids, torch.ones(4))
        average(state)
        state.refresh()
        now = copy.deepcopy(model.state_dict())
        weight = max(0.25, 1 / number)
        expected = now if expected is None else {
            name: expected[name] * (1 - weight) + value * weight for name, value in now.items()}
    with average.in_place(state):
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, expected[name])
    assert all(torch.equal(value, now[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("model", ["fm", "deepfm", "autoint"])
def test_the_averages_are_measured_and_kept_in_place_of_the_weights(tmp_path, seen, model):
    own = {"model": model, "embedding": "uniform", "lr": 0.1, "early_stop": 9}
    result, plain = tiny.train(tmp_path, ema=0.9, **own), tiny.train(tmp_path, **own)
    trained, _ = seen[0]
    kept = load_checkpoint(tmp_path / "runs" / result["run_id"] / "model.safetensors")["model"]
    weights = trained.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in kept.items())
    measured = measure(trained, Split(*DATA.split("validation")))
    assert measured.auc == result["validation_auc"] != plain["validation_auc"]
    # what is averaged never enters the training
    assert result["train_loss"] == pytest.approx(plain["train_loss"], abs=1e-6)


@pytest.fixture
def rates(monkeypatch):
    """The learning rate of each step."""
    seen, call = [], Step.__call__

    def watched(step, *batch):
        seen.append(step.optimizer.param_groups[0]["lr"])
        assert len({group["lr"] for group in step.optimizer.param_groups}) == 1
        return call(step, *batch)

    monkeypatch.setattr(Step, "__call__", watched)
    return seen


def test_the_rate_of_each_step_is_the_cosines_down_to_nothing(tmp_path, rates, seen):
    tiny.train(tmp_path, embedding="uniform", lr=0.1, lr_schedule="cosine", max_epochs=2,
               early_stop=9)
    total = len(rates)
    assert total == 2 * math.ceil(DATA.counts[0] / 64)
    assert rates == [CosineRate(0.1, total).at(step) for step in range(total)]
    assert rates[0] == 0.1
    assert rates[-1] < 0.002


def test_the_rate_is_a_tenth_after_half_of_the_patience_without_gain(tmp_path, rates, seen):
    result = tiny.train(tmp_path, model="deepfm", embedding="uniform", mlp_dims=[32], lr=0.2,
                        lr_schedule="plateau", max_epochs=30, early_stop=4)
    batches = math.ceil(DATA.counts[0] / 64)
    lines = (tmp_path / "runs" / result["run_id"] / "curve.jsonl").read_text().splitlines()
    expected, best, waited, rate = [0.2] * batches, -1.0, 0, 0.2
    for line in lines[:-1]:
        auc = json.loads(line)["validation_auc"]
        best, waited = (auc, 0) if auc > best else (best, waited + 1)
        rate = rate / 10 if waited in {2, 4} else rate
        expected += [rate] * batches
    assert rates == pytest.approx(expected)
    assert result["stop_reason"] == "early_stop"
    assert len(set(expected)) > 1


def test_a_rate_that_would_fall_where_the_run_ends_is_refused():
    with pytest.raises(ValueError, match="give early_stop 2 or more"):
        tiny.settings(embedding="uniform", lr_schedule="plateau", early_stop=1)
    tiny.settings(embedding="uniform", lr_schedule="plateau", early_stop=1,
                  early_stop_metric="published_protocol")


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"lr_schedule": "cosine"},
                                     {"lr_schedule": "plateau"}])
def test_a_search_refuses_both(tmp_path, seen, changes):
    with pytest.raises(ValueError, match="Give both to the retraining"):
        tiny.train(tmp_path, embedding="pep", candidate_p=[300], **changes)


def test_a_retraining_takes_both(tmp_path, seen):
    tiny.train(tmp_path, embedding="pep", candidate_p=[300], lr=0.05, max_epochs=40)
    [result] = stages.retrain(tiny.settings(ema=0.9, lr_schedule="cosine", retrain_emb_param=300),
                              1, tiny.context(tmp_path))
    assert result["settings"]["ema"] == 0.9
    assert result["num_embedding_params"] == 300
