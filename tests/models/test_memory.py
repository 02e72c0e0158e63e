"""Tables that the memory does not hold are refused before anything is taken."""

import errno
import logging
import os

import numpy as np
import pytest
import tiny

from models import memory
from models.build import build_embedding
from models.memory import array_in_file, available_memory, require_memory

MIB = 1 << 20


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    tiny.install(monkeypatch, tiny.dataset(300))


def test_the_available_memory_is_a_number_of_bytes():
    assert MIB < available_memory() < 1 << 50


@pytest.mark.parametrize(("limit", "used", "cached"), memory.CONTAINERS)
@pytest.mark.parametrize(("most", "left"), [("1000", 400), ("100", 0), ("max", None),
                                            (str(1 << 63), None)])
def test_a_container_may_leave_less(tmp_path, monkeypatch, limit, used, cached, most, left):
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text(f"{most}\n")
    (tmp_path / used).write_text("900\n")
    (tmp_path / limit).with_name("memory.stat").write_text(
        "anon 1\n" + "".join(f"{name} 150\n" for name in cached))
    monkeypatch.setattr(memory, "GROUP", tmp_path / "none")
    machine = available_memory()
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    if left is None:
        assert abs(available_memory() - machine) < machine / 2
    else:
        assert available_memory() == left


def test_a_need_above_what_is_available_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 30)
    require_memory(1 << 30, "a table")
    with pytest.raises(ValueError, match=r"a table takes 2.00 GiB, and 1.00 GiB of memory are"):
        require_memory(1 << 31, "a table")


def test_a_table_is_refused_before_it_is_drawn():
    values = {"model": "fm", "embedding": "uniform", "latent_dim": 16}
    with pytest.raises(ValueError, match=r"a table of 4,000,000,000,000 x 16 takes 238,4"):
        build_embedding((4 * 10**12,), values, 1)


@pytest.mark.parametrize(("changes", "wanted"), [
    ({}, "optimizer=adam and table_update=auto takes"),
    ({"optimizer": "sgd", "table_update": "dense"}, "optimizer=sgd and table_update=dense takes")])
def test_what_the_training_takes_is_refused_before_the_first_step(tmp_path, monkeypatch, changes,
                                                                  wanted):
    free = iter([1 << 30])  # for the table; nothing is left for its moments or its gradient
    monkeypatch.setattr(memory, "available_memory", lambda: next(free, 0))
    with pytest.raises(ValueError, match=wanted):
        tiny.train(tmp_path, embedding="uniform", **changes)
    assert not list(tmp_path.rglob("result.json"))


def test_plain_descent_without_a_gradient_table_needs_no_more(tmp_path, monkeypatch):
    free = iter([1 << 30])
    monkeypatch.setattr(memory, "available_memory", lambda: next(free, 0))
    tiny.train(tmp_path, embedding="uniform", optimizer="sgd", table_update="lazy")


def test_large_tables_say_what_they_take(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("engine.trainer.GIB", 1 << 10)
    with caplog.at_level(logging.INFO, "pep"):
        tiny.train(tmp_path, embedding="uniform", table_update="dense")
    assert "their moments take" in caplog.text


def test_an_array_in_a_file_is_of_zeros_and_leaves_nothing(tmp_path):
    array = array_in_file((3, 2), np.float32, tmp_path / "new")
    assert array.tolist() == [[0, 0]] * 3
    array[1] = 5
    assert array.sum() == 10
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        array_in_file((3, 2), np.float32, tmp_path)
    assert list(tmp_path.iterdir()) == []
