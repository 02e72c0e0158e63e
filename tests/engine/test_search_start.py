import logging
import re

import pytest
import tiny
import torch

from engine import stages
from engine.pep.search_start import BEGIN, announce_pruning, start_by_rule, steps_to_pruning
from engine.pep.threshold_trace import DecayOnlyThreshold
from engine.settings import parse
from models.embedding.base import initial_table
from models.start import share_below

TABLE = initial_table(400, 16, torch.Generator().manual_seed(1))
SEARCH = {"embedding": "pep", "candidate_p": [550, 100], "max_epochs": 2}


@pytest.fixture(autouse=True)
def data(monkeypatch):
    tiny.install(monkeypatch, tiny.dataset())


def test_a_start_that_leaves_less_than_a_budget_is_refused_and_the_one_that_is_named_is_taken(
        tmp_path):
    with pytest.raises(ValueError, match=r"threshold_init=-1 prunes 100.0% of the table.*: 0 of "
                                         r"800 entries are left, "
                       r"and candidate_p asks for 550. Start at -\d+(\.\d)? or lower \(--set "
                       r"threshold_init=-") as refused:
        tiny.train(tmp_path, **SEARCH, threshold_init=-1.0)
    assert not list(tmp_path.glob("**/*.npz")) + list(tmp_path.glob("**/result.json"))
    named = float(str(refused.value).split("threshold_init=")[-1].split(")")[0])
    assert tiny.train(tmp_path, **SEARCH, threshold_init=named)["snapshots"]


def test_a_start_that_prunes_a_part_is_warned_of(tmp_path, caplog):
    tiny.train(tmp_path, embedding="pep", candidate_p=[500], max_epochs=1, threshold_init=-3.0)
    assert "threshold_init=-3 prunes 25.6 % of the table before the first step" in caplog.text


@pytest.mark.parametrize("changed", [
    {}, {"l2_regularization": 1e-7}, {"threshold_decay": "decoupled", "l2_regularization": 0.1},
    {"optimizer": "sgd", "l2_regularization": 0.1}, {"gk": 3.0}, {"g_type": "softplus"}])
def test_the_expected_beginning_is_where_decay_brings_the_thresholds(changed):
    settings = parse({"threshold_init": -12.0, "lr": 2e-3, **changed})
    steps, model = steps_to_pruning(TABLE, settings), settings.embedding
    decay_only = DecayOnlyThreshold(settings)
    shares = [share_below(TABLE, model.g_type, model.gk, decay_only.at(int(steps * part)))
              for part in (0.9, 1.2)]
    assert shares[0] < BEGIN < shares[1]


@pytest.mark.parametrize("changed", [
    {"threshold_decay": "none"}, {"l2_regularization": 0.0}, {"lr": 0.0},
    # a start that prunes a part moves no threshold either
    {"threshold_decay": "none", "threshold_init": -2.0}])
def test_without_decay_nothing_is_ever_expected(changed):
    assert steps_to_pruning(TABLE, parse({"threshold_init": -12.0, **changed})) == float("inf")


def test_the_epoch_of_the_beginning_is_said(caplog):
    with caplog.at_level(logging.INFO, "pep"):
        announce_pruning(TABLE, parse({"threshold_init": -15.0, "max_epochs": 100}), 1000)
    steps = steps_to_pruning(TABLE, parse({"threshold_init": -15.0}))
    assert (
        f"pruning begins after about {steps:,.0f} steps, in epoch {int(steps / 1000) + 1} of 100"
        in caplog.text
    )
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("changed", "words"), [
    ({"threshold_init": -150.0},
     "the search ends with epoch 3: .* a cut by magnitude, not PEP's. Set a higher"),
    ({"threshold_decay": "none"},
     "decay never moves the thresholds: .* Coupled decay is what moves the thresholds")])
def test_a_search_that_ends_before_pruning_begins_is_warned_of(caplog, changed, words):
    announce_pruning(TABLE, parse({"max_epochs": 3, **changed}), 1000)
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert re.search(words, record.getMessage())


def test_a_start_by_rule_is_read_off_a_uniform_table_and_is_the_search_of_that_number(tmp_path,
                                                                                      caplog):
    caplog.set_level(logging.INFO, "pep")
    settings = SEARCH | {"candidate_p": [100], "lr": 0.05}
    by_rule = tiny.train(tmp_path, **settings, threshold_init="auto")
    start = float(re.search(r"threshold_init=auto: (-?[\d.]+) ", caplog.text)[1])
    assert by_rule["settings"]["threshold_init"] == start
    again = parse({**tiny.SETTINGS, **settings, "threshold_init": "auto"})
    assert [ticket["snapshot"]["budgets"] for ticket in stages.retrain(
        again, 1, tiny.context(tmp_path), frozenset({"threshold_init"}))] == [[100]]
    by_hand = tiny.train(tmp_path / "other", **settings, threshold_init=start)
    assert by_hand["run_id"] == by_rule["run_id"]
    dense = tiny.train(tmp_path, **settings | {"embedding": "uniform"})
    assert f"run {dense['run_id']} is best after epoch {dense['selected_epoch']}" in caplog.text


@pytest.mark.parametrize("steps", [0, 1000, 100_000])
def test_a_later_best_epoch_gives_an_earlier_start_and_none_prunes_much_of_the_table(steps):
    settings = parse(SEARCH)
    start = start_by_rule(TABLE, 10 * TABLE, steps, settings)
    median = start_by_rule(1000 * TABLE, 10 * TABLE, 0, settings)  # no limit from so large a V0
    assert start <= median - 0.001 * 0.4 * steps + 0.05
    assert share_below(TABLE, "sigmoid", 1.0, start) <= 0.2
    largest = int(0.95 * TABLE.numel())
    start = start_by_rule(TABLE, 10 * TABLE, steps, settings, largest)
    assert share_below(TABLE, "sigmoid", 1.0, start) <= 0.05


def test_the_start_that_an_error_proposes_fits(tmp_path):
    settings = SEARCH | {"candidate_p": [800]}  # all of the table
    with pytest.raises(ValueError, match="candidate_p asks for 800") as error:
        tiny.train(tmp_path, **settings, threshold_init=-3.0)
    start = float(re.search(r"Start at (\S+) or lower", str(error.value))[1])
    tiny.train(tmp_path, **settings, threshold_init=start)


@pytest.mark.parametrize(("settings", "message"), [
    ({"threshold_init": "later"}, "threshold_init must be a number or 'auto', got 'later'"),
    ({"threshold_init": "auto", "threshold_decay": "none"}, "counts on the pace of coupled decay"),
    ({"threshold_init": "auto", "optimizer": "sgd"}, "optimizer=sgd")])
def test_a_start_by_rule_is_refused_where_it_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        parse(SEARCH | settings)


def test_a_start_by_rule_is_not_for_several_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="threshold_init=auto runs in one process"):
        tiny.train(tmp_path, **SEARCH, threshold_init="auto")
