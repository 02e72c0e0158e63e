"""What a search records of rare and of frequent features."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from engine.pep.sparsity_trace import GROUPS, SparsityTrace


class Fixed:
    """An embedding whose table is given."""

    def __init__(self, table):
        self.values = torch.tensor(table, dtype=torch.float32)

    def table(self):
        return self.values


def at(epoch, done=True):
    return SimpleNamespace(epoch=epoch, epoch_done=done, refresh=lambda: None)


def test_groups_go_by_popularity_and_lines_hold_mean_and_spread():
    table = [[1, 1], [0, 0], [0, 1], [0, 0], [1, 1], [0, 1], [1, 1]]
    recorder = SparsityTrace(Fixed(table), torch.tensor([9, 1, 4, 2, 8, 5, 7]), interval=2)
    assert recorder.about == [{"features": 2, "least": 1, "most": 2},
                              {"features": 2, "least": 4, "most": 5},
                              {"features": 1, "least": 7, "most": 7},
                              {"features": 1, "least": 8, "most": 8},
                              {"features": 1, "least": 9, "most": 9}]
    for state in (at(1), at(2, done=False), at(2)):
        recorder(state)
    assert recorder.lines == [{"epoch": 2, "mean": [1.0, 0.5, 0.0, 0.0, 0.0], "std": [0.0] * 5}]
    recorder.embedding.values[2, 1] = 0.0
    recorder(at(4))
    assert recorder.lines[1] == {"epoch": 4, "mean": [1.0, 0.75, 0.0, 0.0, 0.0],
                                 "std": [0.0, 0.25, 0.0, 0.0, 0.0]}


def test_fewer_features_than_groups_are_groups_of_one():
    recorder = SparsityTrace(Fixed([[1], [0]]), torch.tensor([3, 1]), interval=1)
    recorder.record(0)
    assert recorder.lines == [{"epoch": 0, "mean": [1.0, 0.0], "std": [0.0, 0.0]}]


def test_a_search_leaves_its_trajectory_and_its_popularity(tmp_path, monkeypatch):
    made = tiny.dataset()
    tiny.install(monkeypatch, made)
    result = tiny.train(tmp_path, embedding="pep", candidate_p=[2], lr=0.02, max_epochs=5,
                        eval_interval=2)
    sparsity = result["sparsity"]
    assert [line["epoch"] for line in sparsity["lines"]] == [0, 2, 4, 5]
    assert len(sparsity["groups"]) == GROUPS
    assert sparsity["lines"][0]["mean"] == pytest.approx([0.0] * GROUPS, abs=0.5)
    assert sparsity["lines"][-1]["mean"][0] > sparsity["lines"][0]["mean"][0]
    counts = np.load(tmp_path / "runs" / result["run_id"] / "feature_counts.npy")
    assert counts.sum() == 4 * made.counts[0]
    assert result["data"] == {"rows": 1500, "positives": int(made.labels.sum()),
                              "fields": list(tiny.SIZES),
                              "field_sizes": tiny.SIZES, "unused_unknown_rows": 0}
