from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine import snapshots
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.pep.budgets import SaveAtBudgets
from models.embedding.pep import Pep, Thresholds

ROWS, WIDTH = 10, 5
TARGETS = (33, 28, 12, 4)  # none is a count of the scripted search


def start(init=-150.0):
    generator = torch.Generator().manual_seed(0)
    return Pep(0.4 * torch.randn(ROWS, WIDTH, generator=generator), (4, 6),
               Thresholds("feature", init))


class SparsityTrace:
    """A scripted search: at each step the values drift and one threshold a row takes the place it
    has in the script."""

    def __init__(self, targets, exact, steps=40, embedding=None):
        self.embedding = embedding or start()
        self.saved = {}
        self.saver = SaveAtBudgets(self.embedding, targets, exact, self._note)
        self.steps = steps
        self.state = SimpleNamespace(epoch=0, step=0, refresh=lambda: None)
        self.counts = []
        self.pasts = []  # (values, gates) at the start and after each step

    def _note(self, name, table, meta):
        assert name not in self.saved
        self.saved[name] = (table, meta)

    def move(self):
        step = self.state.step = self.state.step + 1
        self.state.epoch = step // 10
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            self.embedding.weight += 0.02 * torch.randn(ROWS, WIDTH, generator=generator)
            gates = torch.rand(ROWS, 1, generator=generator) * 0.3 + 0.02 * step
            self.embedding.thresholds.copy_(torch.logit(gates.clamp(max=0.999)))

    def look(self):
        weight = self.embedding.weight.detach().double().numpy()
        return weight.copy(), 1 / (1 + np.exp(-self.embedding.thresholds.detach().double().numpy()))

    def run(self, until=None):
        self.pasts = self.pasts or [self.look()]
        while self.state.step < (until or self.steps):
            self.move()
            self.pasts.append(self.look())
            self.counts.append(self.embedding.num_params())
            if reason := self.saver(self.state):
                return reason
        return None


def best(values, margins, count):
    """The entries of the `count` largest margins, by sorting (margin, index) pairs."""
    flat = margins.ravel()
    kept = sorted(range(flat.size), key=lambda index: (-flat[index], index))[:count]
    table = np.zeros(flat.size)
    table[kept] = values.ravel()[kept]
    return table.reshape(values.shape)


def cut(weight, gates, count):
    margins = np.abs(weight) - gates
    return best(np.sign(weight) * margins, margins, count)


def crossing(counts, target):
    """Number of the first step whose count is at most the target, counted from 1."""
    return next(step for step, count in enumerate(counts, 1) if count <= target)


def test_exact_budgets_are_the_largest_margins_of_the_last_table_above():
    search = SparsityTrace(TARGETS, exact=True)
    assert search.run() == "budgets_met"
    assert not set(search.counts) & set(TARGETS)
    assert list(search.saved) == [str(target) for target in TARGETS]
    for target in TARGETS:
        table, meta = search.saved[str(target)]
        step = crossing(search.counts, target)
        np.testing.assert_allclose(table, cut(*search.pasts[step - 1], target), atol=1e-6)
        assert np.count_nonzero(table) == target
        assert meta == {"source": "cut", "step": step, "epoch": step // 10, "budgets": [target],
                        "num_embedding_params": target}
    # it stops as soon as all are met
    assert crossing(search.counts, TARGETS[-1]) == len(search.counts)


def test_a_cut_is_not_the_largest_absolute_values():
    search = SparsityTrace((12,), exact=True)
    search.run()
    table, _ = search.saved["12"]
    weight, _ = search.pasts[len(search.counts) - 1]
    assert ((table != 0) != (best(weight, np.abs(weight), 12) != 0)).any()


def test_ties_keep_the_lower_index():
    embedding = Pep(torch.ones(3, 2), (3,), Thresholds("global", -150.0))
    search = SparsityTrace((4,), exact=True, embedding=embedding)
    with torch.no_grad():
        embedding.thresholds.fill_(150.0)
    assert search.saver(search.state) == "budgets_met"
    assert search.saved["4"][0].tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


def fall_to(search, count):
    """Let the scripted embedding keep exactly its `count` largest values."""
    largest = search.embedding.weight.detach().abs().ravel().sort(descending=True).values
    with torch.no_grad():
        search.embedding.thresholds.fill_(float(torch.logit((largest[count - 1] + largest[count])
                                                            / 2)))
    search.state.step += 1


@pytest.fixture
def by_size():
    embedding = Pep(torch.rand(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)), (4, 6),
                    Thresholds("global", -150.0))
    return lambda targets, exact: SparsityTrace(targets, exact, embedding=embedding)


def test_several_budgets_crossed_at_one_count_are_all_cut_from_the_same_table(by_size):
    search = by_size((30, 20, 10), True)
    fall_to(search, 35)
    assert search.saver(search.state) is None
    above = search.look()
    fall_to(search, 15)
    assert search.saver(search.state) is None
    assert list(search.saved) == ["30", "20"]
    for target in (30, 20):
        np.testing.assert_allclose(search.saved[str(target)][0], cut(*above, target), atol=1e-6)
        assert search.saved[str(target)][1]["step"] == 2


def test_a_count_that_lands_on_its_budget_meets_it(by_size):
    search = by_size((20, 10), True)
    fall_to(search, 20)
    search.saver(search.state)
    assert list(search.saved) == ["20"]


def test_a_budget_is_met_once_though_the_count_rises_again(by_size):
    search = by_size((30, 10), True)
    for count in (25, 40, 28, 40):
        fall_to(search, count)
        assert search.saver(search.state) is None
    assert list(search.saved) == ["30"]
    above = search.look()
    fall_to(search, 5)
    assert search.saver(search.state) == "budgets_met"
    np.testing.assert_allclose(search.saved["10"][0], cut(*above, 10), atol=1e-6)


def test_a_budget_that_the_first_count_meets_is_cut_from_the_initial_table(by_size):
    search = by_size((49,), True)
    initial = search.look()
    fall_to(search, 30)
    assert search.saver(search.state) == "budgets_met"
    np.testing.assert_allclose(search.saved["49"][0], cut(*initial, 49), atol=1e-6)


def test_as_reached_saves_the_table_that_the_step_landed_on_once_with_its_budgets(by_size):
    search = by_size((30, 20, 10), False)
    fall_to(search, 35)
    assert search.saver(search.state) is None
    fall_to(search, 17)
    assert search.saver(search.state) is None
    assert list(search.saved) == ["17"]
    table, meta = search.saved["17"]
    np.testing.assert_array_equal(table, search.embedding.table())
    assert meta == {"source": "reached", "epoch": 0, "step": 2, "budgets": [30, 20],
                    "num_embedding_params": 17}
    assert search.saver.finish(search.state) == [10]  # as-reached budgets are never cut
    assert list(search.saved) == ["17"]


def test_unmet_budgets_are_cut_from_the_last_table_and_by_absolute_value_beside():
    search = SparsityTrace(TARGETS, exact=True, steps=16)
    assert search.run() is None
    unmet = [target for target in TARGETS if target < min(search.counts)]
    assert len(unmet) == 2
    assert search.saver.finish(search.state) == unmet
    assert list(search.saved)[2:] == [str(unmet[0]), f"{unmet[0]}{snapshots.MAGNITUDE}",
                                      str(unmet[1]), f"{unmet[1]}{snapshots.MAGNITUDE}"]
    weight, gates = search.pasts[-1]
    differ = []
    for target in unmet:
        table, meta = search.saved[str(target)]
        np.testing.assert_allclose(table, cut(weight, gates, target), atol=1e-6)
        by_magnitude, beside = search.saved[f"{target}{snapshots.MAGNITUDE}"]
        np.testing.assert_allclose(by_magnitude, best(weight, np.abs(weight), target), atol=1e-6)
        differ.append(int(((table != 0) & (by_magnitude == 0)).sum()))
        assert search.saver.differing[target] == meta["differing"] == differ[-1]
        assert meta["cut_from"] == beside["cut_from"] == search.counts[-1]
        where = {"epoch": 1, "step": 16, "num_embedding_params": target}
        assert {name: meta[name] for name in where} == {name: beside[name]
                                                        for name in where} == where
        assert (meta["source"], beside["source"]) == ("cut_last", "cut_last_magnitude")
        assert meta["budgets"] == [target]
        assert "budgets" not in beside  # so that a budget never resolves to the |V|-only cut
    assert any(differ)  # kept by their margins and not by their size


def test_finish_saves_nothing_when_all_budgets_are_met():
    search = SparsityTrace((40,), exact=True)
    search.run()
    assert search.saver.finish(search.state) == []
    assert list(search.saved) == ["40"]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("at", [1, 7, 15, 25])
def test_a_restored_hook_goes_on_as_if_nothing_had_happened(tmp_path, exact, at):
    whole = SparsityTrace(TARGETS, exact)
    whole.run()
    search = SparsityTrace(TARGETS, exact)
    search.run(until=at)
    save_checkpoint(tmp_path / "checkpoint", {"hook": search.saver.state_dict()})

    # a new process: the hook is made before the weights are read
    again = SparsityTrace(TARGETS, exact)
    again.embedding.load_state_dict(search.embedding.state_dict())
    again.saver.load_state_dict(load_checkpoint(tmp_path / "checkpoint")["hook"])
    again.state = search.state
    assert again.run() == "budgets_met"
    together = {**search.saved, **again.saved}
    assert len(together) == len(search.saved) + len(again.saved)
    assert list(together) == list(whole.saved)
    for name, (table, meta) in whole.saved.items():
        assert np.array_equal(together[name][0], table)
        assert together[name][1] == meta
