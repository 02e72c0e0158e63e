"""Traces of plugged and of compact tables, with ids of other numbers than the example's; lookups of
compact ones."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from models.embedding.pep import Thresholds
from models.plug_in.compact import CompactTable
from models.plug_in.table import PepTable, TicketTable

ROWS, WIDTH = 50, 4
SHAPES = [(1, 1), (2, 3), (7, 5), (60, 1), (1, 80)]
TABLES = {
    "compact": lambda plain: CompactTable(
        plain, torch.where(torch.rand(ROWS, WIDTH) < 0.4, torch.randn(ROWS, WIDTH), 0.0)
    ),
    "ticket": lambda plain: TicketTable(
        plain, nn.Parameter(torch.randn(ROWS, WIDTH)), torch.rand(ROWS, WIDTH) < 0.5
    ),
    "searched": lambda plain: PepTable(plain, Thresholds(init=-1.0)),
}
PLAIN = {
    "embedding": lambda: nn.Embedding(ROWS, WIDTH),
    "padded": lambda: nn.Embedding(ROWS, WIDTH, padding_idx=2),
    "bag": lambda: nn.EmbeddingBag(ROWS, WIDTH, padding_idx=2),
    "maxima": lambda: nn.EmbeddingBag(ROWS, WIDTH, mode="max"),
}


def traced(table, *inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(table, inputs, check_trace=False)


@pytest.mark.parametrize("example", [(1, 1), (7, 5)])
@pytest.mark.parametrize("plain", PLAIN)
@pytest.mark.parametrize("kind", TABLES)
def test_a_trace_is_right_for_ids_of_any_number(kind, plain, example):
    torch.manual_seed(0)
    table = TABLES[kind](PLAIN[plain]())
    trace = traced(table, torch.randint(ROWS, example))
    for shape in SHAPES:
        ids = torch.randint(ROWS, shape)
        torch.testing.assert_close(trace(ids), table(ids))


@pytest.mark.parametrize("kind", TABLES)
def test_a_trace_of_one_id_is_right_for_each(kind):
    torch.manual_seed(0)
    table = TABLES[kind](nn.Embedding(ROWS, WIDTH))
    for row in range(12):  # of no entry, of one, of more
        trace = traced(table, torch.tensor([row]))
        for ids in (*torch.arange(ROWS).split(1), torch.arange(ROWS)):
            assert torch.equal(trace(ids), table(ids))


def test_a_trace_with_offsets():
    torch.manual_seed(0)
    for make in TABLES.values():
        table = make(nn.EmbeddingBag(ROWS, WIDTH, mode="sum"))
        trace = traced(table, torch.randint(ROWS, (5,)), torch.tensor([0, 2]))
        inputs = torch.randint(ROWS, (9,)), torch.tensor([0, 1, 3, 8])
        torch.testing.assert_close(trace(*inputs), table(*inputs))


@pytest.mark.parametrize("row", [-1, ROWS, -ROWS])
def test_a_trace_refuses_ids_outside(row):
    trace = traced(TABLES["compact"](nn.Embedding(ROWS, WIDTH)), torch.tensor([3]))
    with pytest.raises(RuntimeError, match="index out of range"):
        trace(torch.tensor([row]))


@pytest.mark.parametrize("ids", [[3, -1], [ROWS], [0, 2**31 + 1]], ids=str)
def test_a_lookup_refuses_ids_outside(ids):
    table = TABLES["compact"](nn.Embedding(ROWS, WIDTH))
    with pytest.raises(IndexError, match=rf"ids must be in 0 .. {ROWS - 1}, got"):
        table(torch.tensor(ids))
    with pytest.raises(TypeError, match=r"ids must be int32 or int64, got torch\.float32"):
        table(torch.ones(2))


def test_a_lookup_follows_its_table_to_where_it_is():
    torch.manual_seed(0)
    table, other = (TABLES["compact"](nn.Embedding(ROWS, WIDTH)) for _ in range(2))
    ids = torch.arange(ROWS)
    wanted = table(ids).clone()
    for same in (copy.deepcopy(table), pickle.loads(pickle.dumps(table)), table.share_memory()):
        assert torch.equal(same(ids), wanted)
    table.entries.zero_()
    assert not table(ids).any()
    for name in ("entries", "masks", "places", "offsets"):
        getattr(table, name).data = getattr(other, name).clone()
    assert torch.equal(table(ids), other(ids))
    assert table.double()(ids).dtype == torch.float64


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_vectors_are_of_the_type_that_the_model_was_moved_to(kind):
    dense = torch.where(torch.rand(ROWS, WIDTH) < 0.4, torch.randn(ROWS, WIDTH), 0.0)
    compact = CompactTable(nn.Embedding(ROWS, WIDTH), dense)
    model = nn.Sequential(compact, nn.Linear(WIDTH, 1)).to(kind)
    ids = torch.arange(ROWS)
    assert torch.equal(compact(ids), dense.to(kind))
    assert model(ids).dtype == kind
