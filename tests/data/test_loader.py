import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data import loader as loaders
from data.loader import Loader, choose_place, free_memory, in_order, put, shuffled
from engine import evaluate


def make(rows=103, batch_size=10, seed=3):
    ids = np.stack([np.arange(rows), 1000 + np.arange(rows)], axis=1).astype(np.int32)
    return Loader(ids, np.arange(rows, dtype=np.float32), batch_size, seed)


def rows_of(loader, epoch, start=0):
    return [labels.tolist() for ids, labels in loader.epoch(epoch, start)]


def test_same_seed_and_epoch_give_the_same_order_and_others_differ():
    assert rows_of(make(), 4) == rows_of(make(), 4)
    assert rows_of(make(), 4) != rows_of(make(), 5)
    assert rows_of(make(seed=3), 4) != rows_of(make(seed=4), 4)


def test_the_order_is_pinned_so_that_it_is_the_same_in_any_process():
    assert make(rows=8).order(2).tolist() == [2, 3, 5, 7, 4, 0, 6, 1]


def test_two_seeds_do_not_share_their_orders_at_shifted_epochs():
    orders = {tuple(make(seed=seed).order(epoch).tolist())
              for seed, epoch in itertools.product(range(6), range(6))}
    assert len(orders) == 36


@given(st.integers(2, 90), st.integers(2, 30), st.integers(0, 2**40), st.integers(0, 500))
def test_every_row_comes_exactly_once_an_epoch(rows, batch_size, seed, epoch):
    loader = make(rows, batch_size, seed)
    batches = rows_of(loader, epoch)
    seen = list(itertools.chain.from_iterable(batches))
    left_out = rows % batch_size == 1
    assert len(set(seen)) == len(seen) == rows - left_out
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert len(batches) == loader.batches


def test_a_last_batch_of_a_single_row_is_left_out_and_that_row_is_not_always_the_same():
    loader = make(rows=101)
    assert loader.batches == 10
    left_out = {set(range(101)).difference(*rows_of(loader, epoch)).pop() for epoch in range(20)}
    assert len(left_out) > 10


def test_a_batch_size_below_2_is_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        make(batch_size=1)


@given(st.integers(0, 50), st.integers(1, 20))
def test_in_order_yields_all_rows_in_their_stored_order(rows, batch_size):
    ids = torch.arange(rows)[:, None]
    batches = list(in_order(ids, torch.device("cpu"), batch_size))
    assert torch.equal(torch.cat(batches) if batches else ids[:0], ids)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def mixed(word):
    """SplitMix64's finaliser, in whole numbers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


@given(st.integers(1, 200), st.integers(0, 2**63 - 1))
def test_a_device_shuffles_by_a_hash_of_place_and_seed(rows, seed):
    words = [mixed((row * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03) % 2**64)
             for row in range(rows)]
    signed = [word - 2**64 if word >> 63 else word for word in words]
    assert len(set(words)) == rows
    assert shuffled(rows, seed, "cpu").tolist() == sorted(range(rows), key=signed.__getitem__)


def test_every_order_of_a_few_rows_comes_about_as_often_as_any_other():
    often = Counter(tuple(shuffled(4, seed, "cpu").tolist()) for seed in range(2400))
    assert len(often) == 24
    # chi-squared, 23 degrees: 0.1 %
    assert sum((count - 100) ** 2 / 100 for count in often.values()) < 50


# where the rows are

PLACES = ("device", "host", "mapped")
ROW = 3 * 4 + 4  # bytes of three ids and a label


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Memory maps of the ids (503, 3) and the labels of 503 rows, opened as an encoded set's
    are."""
    folder = tmp_path_factory.mktemp("mapped")
    rows = np.arange(503)
    np.save(folder / "ids.npy", np.stack([rows, 1000 + rows, 5000 - rows], axis=1).astype(np.int32))
    np.save(folder / "labels.npy", rows.astype(np.float32))
    return np.load(folder / "ids.npy", mmap_mode="c"), np.load(folder / "labels.npy", mmap_mode="c")


def placed(monkeypatch, arrays, place, chunk_bytes, batch_size=10):
    """A loader of these arrays at that place, which gathers so many bytes at a time."""
    monkeypatch.setattr(loaders, "choose_place", lambda size, device: place)
    monkeypatch.setattr(loaders, "CHUNK_BYTES", chunk_bytes if place != "mapped" else None)
    monkeypatch.setattr(loaders, "MAPPED_CHUNK_BYTES", chunk_bytes if place == "mapped" else None)
    made = Loader(*arrays, batch_size, seed=3)
    assert made.place == place
    return made


@pytest.mark.parametrize("chunk_bytes", [1, 25 * ROW, 70 * ROW, 10**9],
                         ids=["a byte", "2.5 batches", "7", "all"])
@pytest.mark.parametrize("start", [0, 1, 7, 50, 51])
@pytest.mark.parametrize("place", PLACES)
def test_the_batches_are_slices_of_the_order_wherever_the_rows_are(monkeypatch, mapped, place,
                                                                   start, chunk_bytes):
    loader = placed(monkeypatch, mapped, place, chunk_bytes)
    order = loader.order(2).numpy()
    expected = [order[first:first + 10] for first in range(10 * start, 503, 10)]
    found = list(loader.epoch(2, start))
    assert len(found) == len(expected) == 51 - start
    for (ids, labels), rows in zip(found, expected, strict=True):
        assert torch.equal(ids, torch.from_numpy(mapped[0][rows]))
        assert torch.equal(labels, torch.from_numpy(mapped[1][rows]))
        assert (ids.dtype, labels.dtype) == (torch.int32, torch.float32)


@pytest.mark.parametrize("place", PLACES)
def test_chunks_are_as_large_as_they_may_be_and_no_larger(monkeypatch, mapped, place):
    """Of 2.5 batches two, of less than one still one; and those before the start are not made."""
    for chunk_bytes, sizes in ((25 * ROW, [20] * 25 + [3]), (5 * ROW, [10] * 50 + [3]),
                               (10**9, [503])):
        loader, seen = placed(monkeypatch, mapped, place, chunk_bytes), []
        gather = loader._gather
        monkeypatch.setattr(loader, "_gather", lambda rows, gather=gather, seen=seen: (
            seen.append(len(rows)), gather(rows))[1])
        list(loader.epoch(0))
        assert seen == sizes
        seen.clear()
        list(loader.epoch(0, start=49))  # rows 490 to 502
        assert seen == {25: [20, 3], 5: [10, 3]}.get(chunk_bytes // ROW, [503])


def test_a_mapped_set_is_not_copied_and_one_in_memory_is(mapped):
    ids, _ = mapped
    cpu = torch.device("cpu")
    assert put(ids, "mapped", cpu).data_ptr() == ids.ctypes.data
    for place in ("host", "device"):
        copy = put(ids, place, cpu)
        assert copy.data_ptr() != ids.ctypes.data
        assert torch.equal(copy, torch.from_numpy(ids))


def test_a_mapped_file_is_swept_from_front_to_back_in_every_chunk(monkeypatch, mapped):
    loader, read = placed(monkeypatch, mapped, "mapped", 70 * ROW), []

    class Watched:
        def __init__(self, array):
            self.array, self.dtype, self.shape = array, array.dtype, array.shape

        def __getitem__(self, rows):
            if isinstance(rows, torch.Tensor):
                read.append(rows.tolist())
            return self.array[rows]

        def index_select(self, dim, rows):
            return self[rows]

        def __len__(self):
            return len(self.array)

    loader.ids = Watched(loader.ids)
    list(loader.epoch(0))
    assert [len(rows) for rows in read] == [70] * 7 + [13]
    assert all(rows == sorted(rows) for rows in read)


def test_rows_are_kept_in_memory_when_they_take_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(loaders, "free_memory", lambda: 1000)
    cpu = torch.device("cpu")
    assert [choose_place(size, cpu) for size in (0, 500, 501, 10**15)] == ["host", "host", "mapped",
                                                                           "mapped"]


def test_rows_are_kept_on_the_device_when_they_take_half_of_what_is_free_there(monkeypatch):
    monkeypatch.setattr(loaders, "free_memory", lambda: 3000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 10**9))
    cuda = torch.device("cuda")
    assert [choose_place(size, cuda) for size in (500, 501, 1500, 1501)] == ["device", "host",
                                                                             "host", "mapped"]


def test_a_loader_asks_for_room_for_ids_and_labels(monkeypatch, mapped):
    monkeypatch.setattr(loaders, "free_memory", lambda: 2 * 503 * ROW)
    assert Loader(*mapped, 10, seed=0).place == "host"
    monkeypatch.setattr(loaders, "free_memory", lambda: 2 * 503 * ROW - 1)
    assert Loader(*mapped, 10, seed=0).place == "mapped"


@pytest.fixture
def system(monkeypatch, tmp_path):
    """Files that the system would have; returns what writes one."""
    monkeypatch.setattr(loaders, "Path", lambda name: tmp_path / name.removeprefix("/"))

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal: 99 kB\nMemFree: 5 kB\nMemAvailable:      12 kB\n")
    return write


def test_free_memory_is_what_the_system_says_is_available(monkeypatch, system, tmp_path):
    assert free_memory() == 12 * 1024
    (tmp_path / "proc/meminfo").unlink()
    monkeypatch.setattr(loaders.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}.get)
    assert free_memory() == 20_480


@pytest.mark.parametrize("names", [("memory.max", "memory.current", "memory.stat", "inactive_file"),
                                   ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
                                    "memory/memory.stat", "total_inactive_file")])
@pytest.mark.parametrize(("limit", "free"), [("10000", 10000 - 7000 + 50), ("6000", 0),
                                             ("90000", 12 * 1024), ("max", 12 * 1024)])
def test_a_container_has_no_more_than_it_may_take(system, names, limit, free):
    for name, text in zip(names, (f"{limit}\n", "7000\n",
                                  f"anon 9\n{names[3]} 50\nactive_file 8\n"), strict=False):
        system(f"sys/fs/cgroup/{name}", text)
    assert free_memory() == free


def test_scores_of_a_mapped_split_are_those_of_one_in_memory(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    # more than two batches
    np.save(tmp_path / "ids.npy", rng.integers(0, 50, (40_000, 3)).astype(np.int32))
    ids, labels = np.load(tmp_path / "ids.npy", mmap_mode="c"), np.zeros(40_000, np.float32)
    table = torch.nn.EmbeddingBag(50, 1, mode="sum",
                                  _weight=torch.from_numpy(rng.normal(size=(50, 1))))
    logits = []
    for place in PLACES:
        monkeypatch.setattr(evaluate, "choose_place", lambda size, device, place=place: place)
        split = evaluate.Split(ids, labels)
        assert (split.ids.data_ptr() == ids.ctypes.data) == (place == "mapped")
        logits.append(evaluate.logits_of(table, split))
    expected = table.weight.detach().numpy()[np.asarray(ids), 0].sum(axis=1)
    assert np.allclose(logits[0][:, 0], expected, atol=1e-5)
    assert np.array_equal(logits[0], logits[1])
    assert np.array_equal(logits[0], logits[2])


@pytest.mark.parametrize("odd", ["ids", "labels", "numbers"])
def test_ids_labels_and_numbers_of_unequal_lengths_are_an_error_with_the_lengths(odd):
    rows = {"ids": 10, "labels": 10, "numbers": 10, odd: 9}
    lengths = ", ".join(map(str, rows.values()))
    with pytest.raises(ValueError, match=rf"same number of rows, got {lengths};"):
        Loader(np.zeros((rows["ids"], 2), np.int32), np.zeros(rows["labels"], np.float32), 4, 0,
               dense=np.zeros((rows["numbers"], 3), np.float32))


def test_without_proc_and_sysconf_some_memory_is_taken_to_be_free(monkeypatch):
    """As on Windows."""
    monkeypatch.setattr(loaders.Path, "exists", lambda path: False)
    monkeypatch.delattr(loaders.os, "sysconf")
    assert free_memory() == loaders.UNKNOWN_MEMORY
