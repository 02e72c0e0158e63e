"""Folders that are written whole or not at all."""

import pytest

from models.new_files import new_folder


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
