import pytest
import tiny

from engine.run import RunContext
from engine.settings import parse
from engine.stages import retrain
from studies import table

SIZE = 800


@pytest.fixture
def printed(monkeypatch, tmp_path):
    """What the scripts print of a search, and of the retraining of its tables."""
    tiny.install(monkeypatch, tiny.dataset())

    def run(**settings):
        settings = {"embedding": "pep", "candidate_p": [400, 100], **settings}
        search = tiny.train(tmp_path, **settings)
        tickets = [] if settings.get("budget") == "as_reached" else retrain(
            parse({**tiny.SETTINGS, **settings, "max_epochs": 1}), 1, RunContext(out=tmp_path))
        return table.of_results([search]), table.of_results(tickets)

    return run


def test_budgets_that_the_thresholds_missed_are_named_and_their_tickets_are_marked(printed):
    search, tickets = printed(max_epochs=10, lr=0.03, candidate_p=[400, 100])
    assert (
        "! budgets 100 were not reached by the thresholds: † cut by margin from the last table, "
        in search
    )
    assert "by magnitude" not in search + tickets
    left = int(search.rsplit("last table, ")[1].split()[0])
    assert left < 400
    lines = tickets.splitlines()
    assert ["†" in line for line in lines[1:3]] == [False, True]
    assert lines[-1] == f"† cut by margin from the last table, {left} of {SIZE} entries left"


@pytest.mark.parametrize("settings", [
    {"threshold_init": -15.0},
    # pruned by the start alone
    {"threshold_init": -4.0, "l2_regularization": 0.0, "threshold_gradient": False}])
def test_a_search_whose_thresholds_decide_nothing_says_that_its_tables_are_cuts_by_magnitude(
    printed, settings
):
    search, tickets = printed(max_epochs=1, **settings)
    assert "! no budget was reached by the thresholds" in search
    assert "; no threshold decided these: cut by magnitude, not PEP's" in search
    assert all(f"; no threshold decided {budget}: cut by magnitude, not PEP's" in tickets
               for budget in (400, 100))
    assert tickets.count("†  ") == 2


def test_of_budgets_as_reached_there_is_no_snapshot(printed):
    search, _ = printed(max_epochs=1, threshold_init=-15.0, budget="as_reached")
    assert "! no budget was reached by the thresholds, and there is no snapshot of them" in search


def test_a_search_that_met_all_its_budgets_has_no_note(printed):
    search, tickets = printed(max_epochs=30, lr=0.03, candidate_p=[400, 300])
    assert search.splitlines()[-1].startswith("* published protocol")
    assert "†" not in tickets
