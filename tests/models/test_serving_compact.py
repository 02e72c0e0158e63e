"""Compact tables: what a file holds, and what a lookup gives by each of its ways."""

import numpy as np
import pytest
import torch

from models.kernels.expand import expand_rows_plain, has_avx512
from models.kernels.fm import fm_plain
from models.serving.compact import Compact, CompactRows, place_bytes, stored_bytes
from models.serving.model import ServedModel
from models.serving.parts import FirstOrder, Pairs
from models.serving.tables import CompactTable
from models.serving.values import Rows

TOLERANCES = {"float32": 0.0, "float16": 2e-3, "int8": 2e-2}


def pruned(rows, width, seed=0):
    """A table whose rows keep from nothing to everything."""
    rng = np.random.default_rng(seed)
    kept = rng.random((rows, width)) < rng.random((rows, 1)) ** 3
    table = np.where(kept, rng.normal(size=(rows, width)), 0).astype(np.float32)
    table[:5], table[5] = 0, 1
    return table


@pytest.mark.parametrize("values", TOLERANCES)
@pytest.mark.parametrize("width", [1, 3, 16, 17, 64, 70, 300])
def test_every_way_of_a_lookup_gives_the_table(width, values):
    table = pruned(60, width)
    packed, new_ids = CompactRows.pack(table, values)
    read = CompactRows.read(packed.tensors("t"), "t")
    ids = torch.from_numpy(new_ids)
    plain = expand_rows_plain(read.kept(), ids)
    assert (plain - torch.from_numpy(table)).abs().max() <= TOLERANCES[values]
    assert torch.equal(Compact(read, by_mask=False)(ids), plain)
    if has_avx512():
        assert torch.equal(Compact(read, by_mask=True)(ids), plain)
        assert torch.equal(Compact(read, by_mask=True)(ids.int().view(3, 4, 5)).view(60, -1), plain)
    behind = torch.tensor([60, 10_000])  # any id from R on keeps nothing
    assert not Compact(read)(behind).any()


@pytest.mark.parametrize("values", TOLERANCES)
@pytest.mark.parametrize("width", [3, 64, 300])
def test_its_size_is_counted_without_packing_it(width, values):
    table = pruned(60, width)
    packed, _ = CompactRows.pack(table, values)
    stored = sum(array.nbytes for array in packed.tensors("t").values())
    scale = 2 if values == "int8" else 0
    assert stored == stored_bytes((table != 0).sum(1), width, packed.values.itemsize, scale)


def test_an_entry_costs_at_most_5_bytes_and_no_row_without_entries_costs_any():
    table = pruned(500, 64)
    entries = int((table != 0).sum())
    longer = np.concatenate([table, np.zeros((10_000, 64), np.float32)])
    for values, each in (("float32", 5), ("float16", 3)):
        sizes = [sum(array.nbytes for array in CompactRows.pack(one, values)[0].tensors("t")
                     .values()) for one in (table, longer)]
        assert sizes[0] == sizes[1] <= each * entries + 2 * 64
    assert (place_bytes(64) <= np.arange(65)).all()


def test_a_table_without_entries():
    packed, new_ids = CompactRows.pack(np.zeros((4, 3), np.float32), "float32")
    for by_mask in (True, False)[not has_avx512():]:
        assert not Compact(packed, by_mask)(torch.from_numpy(new_ids)).any()
    assert packed.num_rows == 0


def test_very_wide_rows_are_not_worth_a_loop():
    table = pruned(20, 3_000)
    packed, new_ids = CompactRows.pack(table, "float32")
    assert not packed.kept().has_loop
    assert (Compact(packed)(torch.from_numpy(new_ids)).numpy() == table).all()


@pytest.mark.parametrize("name", ["values", "columns", "counts"])
def test_a_file_that_holds_too_little_is_refused(name):
    tensors = CompactRows.pack(pruned(60, 64), "float32")[0].tensors("t")
    tensors[f"t.{name}"] = tensors[f"t.{name}"][:-1] if name != "counts" else np.ones(64, np.uint16)
    with pytest.raises(ValueError, match="compact table whose rows keep"):
        CompactRows.read(tensors, "t").masks()


@pytest.mark.parametrize("by_mask", [True, False])
def test_a_negative_id_is_refused(by_mask):
    if by_mask and not has_avx512():
        pytest.skip("the processor has no AVX-512")
    table = Compact(CompactRows.pack(pruned(60, 64), "float32")[0], by_mask)
    with pytest.raises(IndexError):
        table(torch.tensor([0, -1]))


def test_a_value_too_large_for_float16_is_refused():
    with pytest.raises(ValueError, match="does not fit float16"):
        CompactRows.pack(np.full((1, 2), 1e6, np.float32), "float16")


def test_vectors_are_float32_whatever_the_default_type_is():
    table = Compact(CompactRows.pack(pruned(60, 64), "float32")[0])
    torch.set_default_dtype(torch.float64)
    try:
        assert table(torch.arange(60)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ids_that_do_not_lie_side_by_side(count):
    table = Compact(CompactRows.pack(pruned(60, 64), "float32")[0])
    ids = torch.arange(2 * count).view(count, 2).T
    assert torch.equal(table(ids), table(ids.contiguous()))
    assert table(ids).shape == (2, count, 64)


@pytest.mark.parametrize("values", ["float16", "int8"])
@pytest.mark.parametrize("width", [2, 16, 37])
def test_small_types_are_widened_by_a_loop_as_by_torch(values, width, monkeypatch):
    rows = Rows.of(np.random.default_rng(0).normal(size=(20, width)).astype(np.float32), values)
    ids = torch.randint(20, (4, 5))
    found = rows(ids)
    assert torch.equal(rows(ids.int()), found)
    assert torch.equal(rows(ids.T), found.transpose(0, 1))
    assert rows(ids[:0]).shape == (0, 5, width)
    for wrong in (-1, 20):
        with pytest.raises(IndexError, match=r"ids must be in 0 \.\. 19, got"):
            rows(torch.tensor([3, wrong]))
    monkeypatch.setattr("models.serving.values.runs_on_numba", lambda ids: False)
    assert torch.equal(rows(ids), found)


@pytest.mark.skipif(not has_avx512(), reason="the loop needs AVX-512")
@pytest.mark.parametrize("values", TOLERANCES)
@pytest.mark.parametrize("width", [1, 16, 24, 300])
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_a_factorisation_machine_in_one_loop_is_its_definition(kind, width, values):
    packed, _ = CompactRows.pack(pruned(60, width), values)
    weights = Rows.of(np.random.default_rng(1).normal(size=(60, 1)).astype(np.float32), "float32")
    model = ServedModel(CompactTable(packed, 60, 5), [FirstOrder(weights, torch.ones(1)), Pairs()])
    assert model.kept is not None
    ids = torch.from_numpy(np.random.default_rng(2).integers(61, size=(33, 5))).to(kind)
    table = torch.cat([expand_rows_plain(packed.kept(), torch.arange(60)), torch.zeros(1, width)])
    wanted = 1 + fm_plain(table.double(), ids, model.parts[0].weight[:, None].double(), ids)
    torch.testing.assert_close(model(ids).double(), wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(model(ids[:0]), torch.zeros(0))
    torch.testing.assert_close(model(ids.T.contiguous().T), model(ids))
    torch.testing.assert_close(model(ids.T.contiguous().T[4:5]), model(ids[4:5]))
    torch.testing.assert_close(model(ids.repeat_interleave(2, 1)[:, ::2]), model(ids))
    with pytest.raises(TypeError, match=r"ids must be int32 or int64, got torch\.uint8"):
        model(ids.to(torch.uint8))
    for wrong in (-1, 61):
        ids[7, 2] = wrong
        with pytest.raises(IndexError, match=r"ids must be in 0 \.\. 60, got"):
            model(ids)


def test_a_machine_of_another_shape_is_not_in_one_loop():
    packed, _ = CompactRows.pack(pruned(60, 3), "float32")
    first, table = FirstOrder(Rows.of(np.ones((60, 1)), "float32"), torch.ones(1)), CompactTable(
        packed, 60, 5)
    assert ServedModel(table, [first]).kept is None
    assert ServedModel(table, [first, Pairs(), Pairs()]).kept is None
