"""Files and folders that are written whole or not at all."""

import os
import threading
from pathlib import Path

import pytest

from models.new_files import MANIFEST, new_file, new_folder


def write(folder, error):
    with new_folder(folder) as temporary:
        (temporary / "some").write_text("bytes")
        raise error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"),
                                   OSError("200 requested and 72 written")])
def test_a_disk_that_takes_no_more_is_named_with_the_need(tmp_path, error):
    said = (rf"{error.strerror or error} in {tmp_path} to write model, "
            r"which needs more than 5 bytes \(free: [\d,]+\); make room there")
    with pytest.raises(OSError, match=said):
        write(tmp_path / "model", error)
    assert not list(tmp_path.iterdir())


def test_other_errors_and_paths_stay_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), new_folder(tmp_path / "model"):
        (tmp_path / "absent").read_text()
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "model"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"), new_file(tmp_path):
        raise AssertionError("it must not come here")


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with new_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with new_file(tmp_path / "pipe") as file:
        file.write(b"bytes")
    reader.join()
    assert read == [b"bytes"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["link", "folder", "."])
def test_an_empty_folder_that_is_there_is_filled(tmp_path, monkeypatch, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    inode = (tmp_path / "folder").stat().st_ino  # a mount cannot be replaced
    monkeypatch.chdir(tmp_path / "folder" if name == "." else tmp_path)
    with new_folder(Path(name)) as temporary:
        (temporary / MANIFEST).write_text("about")
        (temporary / "some").mkdir()
        (temporary / "some" / "file").write_text("bytes")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [MANIFEST, "some"]
    assert (tmp_path / "folder").stat().st_ino == inode
    assert (tmp_path / "link").is_symlink()


def test_what_is_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"), new_folder(tmp_path / "file"):
        pass
    with pytest.raises(FileExistsError, match="not empty"), new_folder(tmp_path):
        pass


def test_a_new_folder_has_the_mode_of_any_new_one(tmp_path):
    tmp_path.chmod(0o1777)
    with new_folder(tmp_path / "model"):
        pass
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode
