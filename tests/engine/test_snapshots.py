import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import snapshots
from models.pruned_tables import PrunedTables

OWNER = {"run_id": "aaaa", "settings": {"dataset": "movielens"}, "seed": 1, "manifest": "ff"}
OTHER = {**OWNER, "run_id": "bbbb", "seed": 2}


def table(count=3, shape=(4, 2)):
    values = np.zeros(shape, np.float32)
    values.flat[:count] = np.arange(1, count + 1) / 8
    return values


def put(folder, name, count=3, **meta):
    return snapshots.save(folder, name, table(count), {"num_embedding_params": count, **meta})


# cutting


@given(st.lists(st.sampled_from([-1.5, -1.0, -0.0, 0.0, 1.0, 1.5, 2.0]), min_size=1, max_size=40),
       st.data())
def test_cut_to_keeps_exactly_the_largest_margins_and_of_ties_the_lower_indices(margins, data):
    count = data.draw(st.integers(0, len(margins)))
    values = np.arange(1.0, len(margins) + 1)
    kept = sorted(range(len(margins)), key=lambda index: (-margins[index], index))[:count]
    expected = [values[index] if index in kept else 0.0 for index in range(len(margins))]
    cut = snapshots.cut_to(values[None], np.array([margins]), count)
    assert cut.tolist() == [expected]
    assert np.count_nonzero(cut) == count


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**20), st.data())
def test_cut_to_reads_a_table_row_by_row_and_keeps_shape_and_type(rows, width, seed, data):
    count = data.draw(st.integers(0, rows * width))
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, width)).astype(np.float32)
    margins = rng.integers(-2, 3, (rows, width)).astype(np.float32)
    cut = snapshots.cut_to(values, margins, count)
    # stable, and ndindex goes row by row
    order = sorted(np.ndindex(rows, width), key=lambda at: -margins[at])
    assert {at for at in np.ndindex(rows, width) if cut[at] != 0} == set(order[:count])
    assert all(cut[at] == values[at] for at in order[:count])
    assert (cut.shape, cut.dtype) == ((rows, width), np.float32)


def test_cut_to_refuses_to_keep_more_than_there_is():
    with pytest.raises(ValueError, match="cannot keep 9 of 8 entries"):
        snapshots.cut_to(table(), table(), 9)


# files


def test_save_and_read_round_trip(tmp_path):
    meta = {"num_embedding_params": 3, "source": "cut", "budgets": [3], "name": "é"}
    path = snapshots.save(tmp_path / "new", "3", table(), meta, bias=np.float32([2.5]))
    snapshot, more = snapshots.read(path)
    assert path == tmp_path / "new" / "3.npz"
    assert snapshot.table.tolist() == table().tolist()
    assert snapshot.table.dtype == np.float32
    assert snapshot.meta == meta
    assert snapshot.num_params() == 3
    assert list(more) == ["bias"]
    assert more["bias"].tolist() == [2.5]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["3.npz"]


def test_a_file_of_an_older_version_is_read(tmp_path):
    np.savez_compressed(tmp_path / "3.npz", table=table(3), bias=np.float32([2.5]),
                        meta=np.array('{"num_embedding_params": 3}'))
    snapshot, more = snapshots.read(tmp_path / "3.npz")
    assert snapshot.table.tolist() == table(3).tolist()
    assert snapshot.meta == {"num_embedding_params": 3}
    assert list(more) == ["bias"]


def test_plug_and_the_scripts_share_one_file_format(tmp_path):
    path = snapshots.save(tmp_path, "3", table(3), {"num_embedding_params": 3})
    assert PrunedTables.load(path).values["embedding"].tolist() == table(3).tolist()
    other = PrunedTables({"user": torch.ones(2, 2)}).save(tmp_path / "4.npz")
    with pytest.raises(ValueError, match=r"4\.npz is corrupt"):
        snapshots.read(other)


def test_the_mask_hash_is_pinned_and_follows_mask_and_shape_but_not_the_values():
    def mask_hash(values):
        return snapshots.mask_hash(snapshots.pruned_table(values, {}))

    assert mask_hash(table(3)) == "83108af12f82aa1b"
    assert mask_hash(table(3) * 2) == mask_hash(table(3))
    assert mask_hash(table(4)) != mask_hash(table(3))
    assert mask_hash(table(3).reshape(2, 4)) != mask_hash(table(3))


@pytest.mark.parametrize("keep", [0, -1])
def test_a_truncated_snapshot_is_an_error_that_names_the_file_and_what_to_do(tmp_path, keep):
    path = put(tmp_path, "3")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"3\.npz is corrupt .*run the search again with --force"):
        snapshots.read(path)


def read_or_complaint(path):
    try:
        return snapshots.read(path)[0].table
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("flips", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_any_damaged_byte_is_found_or_harmless(tmp_path, flips):
    """Bytes take turns with the way they are damaged, or each is damaged in every way."""
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    path = snapshots.save(tmp_path, "24", values, {"num_embedding_params": 24})
    whole = path.read_bytes()
    for position, turn in itertools.product(range(len(whole)), range(flips)):
        flipped = (0x01, 0x08, 0xFF)[(position + turn) % 3]
        path.write_bytes(whole[:position] + bytes([whole[position] ^ flipped])
                         + whole[position + 1:])
        found = read_or_complaint(path)
        assert "corrupt" in found if isinstance(found, str) else np.array_equal(found, values), (
            position
        )


def test_a_snapshot_without_table_or_record_is_corrupt(tmp_path):
    for arrays in ({"table": table()}, {"meta": np.array("{}")},
                   {"table": table(), "meta": np.array("{half")},
                   {"table": table(), "meta": np.array("[]")}):
        np.savez_compressed(tmp_path / "3.npz", **arrays)
        with pytest.raises(ValueError, match=r"3\.npz is corrupt"):
            snapshots.read(tmp_path / "3.npz")


def test_a_count_that_is_not_the_recorded_one_is_an_error_that_names_both(tmp_path):
    path = snapshots.save(tmp_path, "5", table(3), {"num_embedding_params": 5})
    with pytest.raises(ValueError,
                       match=r"5\.npz is corrupt: it holds 3 parameters, its record says 5"):
        snapshots.read(path)


# names


def test_names_fall_by_count_with_magnitude_cuts_last_and_without_the_initial_table(tmp_path):
    for name in ("500", "10000", "9000", "500.magnitude", "9000.magnitude", "initial"):
        put(tmp_path, name)
    (tmp_path / ".500.npz.abc.part.npz").write_bytes(b"of a killed process")
    assert snapshots.names(tmp_path) == ["10000", "9000", "500", "9000.magnitude", "500.magnitude"]


def test_a_file_of_another_name_beside_the_snapshots_does_no_harm(tmp_path):
    put(tmp_path, "500")
    put(tmp_path, "my_backup")
    assert snapshots.names(tmp_path) == ["500"]


def test_resolve_by_count_by_budget_and_all(tmp_path):
    put(tmp_path, "481", count=4, budgets=[500])
    put(tmp_path, "190", count=3, budgets=[300, 200])
    put(tmp_path, "100", count=2, budgets=[100])
    put(tmp_path, "100.magnitude", count=2, budgets=[])
    assert snapshots.resolve(tmp_path, 481) == ["481"]
    assert snapshots.resolve(tmp_path, "481") == ["481"]
    assert snapshots.resolve(tmp_path, 500) == ["481"]
    assert snapshots.resolve(tmp_path, 200) == snapshots.resolve(tmp_path, 300) == ["190"]
    assert snapshots.resolve(tmp_path, "all") == ["481", "190", "100"]
    assert snapshots.resolve(tmp_path, 100) == ["100"]
    assert snapshots.resolve(tmp_path, "100.magnitude") == ["100.magnitude"]


@pytest.mark.parametrize("wanted", [7, "7", "al"])
def test_a_missing_snapshot_is_an_error_that_lists_the_existing_ones(tmp_path, wanted):
    put(tmp_path, "481", budgets=[500])
    put(tmp_path, "190", budgets=[200])
    with pytest.raises(FileNotFoundError,
                       match=rf"no snapshot {wanted!r} in .*there are: 481, 190"):
        snapshots.resolve(tmp_path, wanted)


def test_a_folder_without_snapshots_says_to_run_the_search_first(tmp_path):
    put(tmp_path, "initial")
    with pytest.raises(FileNotFoundError, match=r"no snapshots in .*run the search"):
        snapshots.resolve(tmp_path, "all")


# whose folder


def test_claim_records_the_search_and_may_be_repeated_by_it(tmp_path):
    folder = tmp_path / "fm" / "alias"
    assert snapshots.owner_of(folder) is None
    snapshots.claim(folder, OWNER, overwrite=False)
    put(folder, "481")
    snapshots.claim(folder, OWNER, overwrite=False)
    assert snapshots.owner_of(folder) == OWNER
    assert snapshots.names(folder) == ["481"]


def test_claim_refuses_another_search_and_names_both_ways_out(tmp_path):
    snapshots.claim(tmp_path, OWNER, overwrite=False)
    put(tmp_path, "481")
    with pytest.raises(FileExistsError,
                       match=r"belongs to another search \(run aaaa, movielens, seed 1\).*--alias.*"
                                              r"--overwrite"):
        snapshots.claim(tmp_path, OTHER, overwrite=False)
    assert snapshots.owner_of(tmp_path) == OWNER
    assert snapshots.names(tmp_path) == ["481"]


def test_claim_with_overwrite_takes_the_folder_and_clears_its_snapshots(tmp_path):
    snapshots.claim(tmp_path, OWNER, overwrite=False)
    put(tmp_path, "481")
    put(tmp_path, "initial")
    snapshots.claim(tmp_path, OTHER, overwrite=True)
    assert snapshots.owner_of(tmp_path) == OTHER
    assert [path.name for path in tmp_path.iterdir()] == ["search.json"]


@pytest.mark.parametrize("content",
                         ["", "{", "[]", "null", "{}", '{"run_id": "aaaa", "settings": 3}', "\x00",
                                     json.dumps({**OWNER, "settings": {}})])
def test_a_corrupt_search_record_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "search.json").write_text(content)
    for use in (lambda: snapshots.owner_of(tmp_path),
                lambda: snapshots.claim(tmp_path, OWNER, overwrite=False)):
        with pytest.raises(ValueError,
                           match=r"search\.json is corrupt .*--alias or delete the folder"):
            use()
