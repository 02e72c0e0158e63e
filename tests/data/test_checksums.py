import logging

import pytest

from data import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "ids.npy").write_bytes(b"ids")
    (tmp_path / "inner" / "values").write_bytes(b"values")
    checksums.write(tmp_path)
    return tmp_path


def test_a_folder_as_it_was_written_holds(folder):
    assert checksums.hold(folder)


@pytest.mark.parametrize("name", ["ids.npy", "inner/values"])
def test_a_changed_absent_or_added_file_is_named(folder, name, caplog):
    with caplog.at_level(logging.WARNING, "pep"):
        (folder / name).write_bytes(b"other")
        assert not checksums.hold(folder)
        assert f"the encoded set {folder} is damaged: {name} changed" in caplog.text
        (folder / name).unlink()
        assert not checksums.hold(folder)
    checksums.write(folder)
    (folder / "more").touch()
    assert not checksums.hold(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 99_999, b"\xff"])
def test_changed_checksums_hold_nothing(folder, content):
    (folder / checksums.FILE).write_bytes(content)
    assert not checksums.hold(folder)


def test_an_older_folder_has_none(tmp_path):
    assert not checksums.hold(tmp_path)
