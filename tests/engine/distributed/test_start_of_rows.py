"""Where several processes share a run, none needs memory for a whole table at the start."""

import contextlib
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from engine import snapshots, stages
from engine.distributed.order import own_rows
from engine.initial_model import fresh_model
from engine.pep.search_start import announce_pruning, check_start
from engine.run import Run
from models.embedding.pep import THRESHOLD_TYPES, Pep, Thresholds

ROWS, WIDTH = 200_000, 64
TABLE = 4 * ROWS * WIDTH  # bytes


@contextlib.contextmanager
def memory_for(more):
    """Let this process take so many bytes more; pages of files do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    taken = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (taken + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.fixture
def run(tmp_path):
    """A search on a table of ROWS rows."""
    made = tiny.dataset(300)
    schema = replace(made.schema, sizes=(ROWS - 3, 1, 1, 1))
    settings = tiny.settings(embedding="pep", latent_dim=WIDTH, lanes=8,
                             threshold_init=-15.0)
    return Run(settings, 1, tiny.context(tmp_path), replace(made, schema=schema), "search", {})


def share(monkeypatch):
    """Let this process be the fourth of eight; its rows."""
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    return own_rows(ROWS, 8)


def test_a_search_starts_from_the_rows_of_the_table_of_one_process(run, monkeypatch):
    with memory_for(TABLE * 3 // 4), pytest.raises(RuntimeError, match="allocate memory"):
        fresh_model(run)
    whole = fresh_model(run)
    own = share(monkeypatch)
    assert len(own) == ROWS // 8
    with memory_for(TABLE * 3 // 4):
        model = fresh_model(run)
        check_start(model.embedding, run.settings, (100, ROWS))
        announce_pruning(model.embedding.weight, run.settings, 10)
        mine = {name: value.data[own] for name, value in model.embedding.named_parameters()}
    for name, value in whole.embedding.named_parameters():
        assert torch.equal(value.data[own], mine[name])
    same = dict(model.named_parameters())
    for name, value in whole.named_parameters():
        assert name.startswith("embedding.") or torch.equal(value, same[name])


@pytest.mark.parametrize("kind", THRESHOLD_TYPES)
def test_only_thresholds_of_rows_wait_for_the_cut(kind):
    """One number stands for all of them until then."""
    thresholds = Pep(torch.ones(9, 2), (4, 5), Thresholds(kind), copied=False).thresholds
    one = thresholds.untyped_storage().nbytes() == 4 and thresholds.numel() > 1
    assert one == kind.startswith("feature")
    assert thresholds.shape == Thresholds(kind).shape(9, 2, 2)


def test_a_ticket_starts_from_the_own_rows_of_the_files(run, tmp_path, monkeypatch):
    initial = np.arange(ROWS, dtype=np.float32)[:, None].repeat(WIDTH, 1)
    pruned = np.where(np.arange(ROWS)[:, None] % 3 == 0, initial, np.float32(0))
    paths = [snapshots.save(tmp_path, name, table, {})
             for name, table in ((snapshots.INITIAL, initial), ("1", pruned))]
    monkeypatch.setattr(stages, "execute", lambda run, model, *others, **more: (run, model))
    whole, _ = of_files(run, paths)
    own = share(monkeypatch)
    with memory_for(TABLE * 3 // 4):
        again, model = of_files(run, paths)
    assert again.run_id == whole.run_id
    assert model.embedding.num_rows == ROWS
    assert torch.equal(model.embedding.weight, torch.from_numpy(pruned[own]))
    assert torch.equal(model.embedding.mask, torch.from_numpy((pruned != 0)[own]).float())


def of_files(run, paths):
    """The run and the model of a ticket."""
    (initial, others), (ticket, _) = map(snapshots.read, paths)
    return stages.retrain_one(run.settings, 1, run.context, run.dataset, ticket, initial.table,
                              others)
