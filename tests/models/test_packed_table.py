"""The packed table: its file, its size, and rows that are read alone."""

import numpy as np
import pytest
import torch

from models import packed_table
from models.embedding.quantised import Quantised, step_groups
from models.kernels.packed import unpack_rows, unpack_rows_plain
from models.kernels.quantise import bytes_of, codes_of
from models.packed_table import (
    CLASSES,
    HEADER,
    UNSEEN,
    entry_bits,
    fixed_bytes,
    from_bytes,
    pack,
    row_order,
)

SIZES, WIDTH = (90, 3, 70, 5), 7


def parts(seed=0, most=8, rung=0, sizes=SIZES):
    """(embedding, its classes, its columns) with rows of all classes, and some that were not
    seen."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(CLASSES[0], CLASSES[-1] + 1, sum(sizes)).astype(np.int8)
    classes[rng.random(sum(sizes)) < 0.2] = UNSEEN
    columns = rng.integers(-12, 4, (len(sizes), WIDTH)).astype(np.int8)
    fields = np.repeat(np.arange(len(sizes)), sizes)
    bits = entry_bits(classes[:, None], columns[fields], most, rung)
    table = torch.from_numpy(rng.normal(0, 0.2, bits.shape)).float()
    return Quantised(table, bits, step_groups(bits, sizes), len(sizes), 1), classes, columns


def packed(seed=0, most=8, rung=0, sizes=SIZES):
    embedding, classes, columns = parts(seed, most, rung, sizes)
    quantiser = embedding.quantiser
    codes = codes_of(embedding.weight.detach(), quantiser.step, quantiser.bound).numpy()
    return embedding, torch.from_numpy(row_order(classes, sizes)), pack(
        codes, bytes_of(quantiser.steps()), classes, columns, sizes, most, rung)


@pytest.mark.parametrize(("most", "rung"), [(8, 0), (4, 0), (8, 2)])
def test_every_row_read_alone_is_the_row_that_was_scored(tmp_path, most, rung):
    embedding, places, made = packed(1, most, rung)
    made.save(tmp_path / "table")
    again, table = packed_table.load(tmp_path / "table"), embedding.table()
    assert (again.num_rows, again.width, again.field_sizes) == (sum(SIZES), WIDTH, SIZES)
    for row, place in enumerate(places.tolist()):
        assert torch.equal(again.lookup(torch.tensor([[place]]))[0, 0], table[row])
    ids = torch.randint(sum(SIZES), (40, 4), generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.lookup(places[ids]), table[ids])


def test_the_file_has_what_its_description_says():
    embedding, _, made = packed()
    bits = np.log2(embedding.quantiser.bound.numpy() * 2, where=embedding.quantiser.bound.numpy()
                   > 0, out=np.zeros((sum(SIZES), WIDTH)))
    steps = len(embedding.quantiser.steps())
    assert len(made.to_bytes()) == (fixed_bytes(4, WIDTH, 90) + steps + -(-int(bits.sum()) // 8))
    assert fixed_bytes(4, WIDTH, 90) == HEADER.size + 4 * 18 * 2 + 4 * WIDTH


def test_the_loop_has_the_bits_of_the_definition():
    _, _, made = packed(2)
    ids = torch.arange(sum(SIZES), dtype=torch.int32).view(-1, 3)
    assert torch.equal(unpack_rows(made.padded, made.slots, ids),
                       unpack_rows_plain(made.padded, made.slots, ids))


@pytest.mark.parametrize("lookup", [unpack_rows, unpack_rows_plain])
@pytest.mark.parametrize("wrong", [-1, sum(SIZES)])
def test_an_id_outside_the_table_is_an_index_error(lookup, wrong):
    _, _, made = packed()
    with pytest.raises(IndexError, match=f"has 168 rows, ids are 0 .. 167; got {wrong}"):
        lookup(made.padded, made.slots, torch.tensor([[0, wrong]]))


def test_counts_of_large_fields_take_four_bytes():
    sizes = (70_000, 3)
    embedding, places, made = packed(0, 1, 0, sizes)
    again = from_bytes(made.to_bytes())
    assert again.field_sizes == sizes
    ids = torch.tensor([[5, 70_001], [69_999, 70_000]])
    assert torch.equal(again.lookup(places[ids]), embedding.table()[ids])


def test_a_file_that_is_cut_or_changed_or_of_another_version_is_refused(tmp_path):
    data = packed()[2].to_bytes()
    for length in range(len(data)):
        with pytest.raises(ValueError, match="cut"):
            from_bytes(data[:length])
    for place in [*range(6, 40), len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 4
        with pytest.raises(ValueError, match="changed bits"):
            from_bytes(bytes(changed))
    other = bytearray(data)
    other[4] = 9
    with pytest.raises(ValueError, match="is of version 9, this code reads 1"):
        from_bytes(bytes(other))
    (tmp_path / "other").write_bytes(b"something else that is long enough")
    with pytest.raises(ValueError, match="other: this is no packed table"):
        packed_table.load(tmp_path / "other")


def test_codes_that_do_not_fit_their_allocation_are_refused():
    embedding, classes, columns = parts()
    codes = np.zeros((sum(SIZES), WIDTH), np.int64)
    steps = bytes_of(embedding.quantiser.steps())
    with pytest.raises(ValueError, match="has more bits than its entry"):
        pack(codes + 256, steps, classes, columns, SIZES)
    with pytest.raises(ValueError, match=f"has {len(steps)} steps, got {len(steps) - 1}"):
        pack(codes, steps[1:], classes, columns, SIZES)
