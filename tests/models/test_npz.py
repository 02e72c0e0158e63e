import io
import zipfile

import numpy as np
import pytest

from models import npz
from models.npz import read_npz, write_npz

ARRAYS = {"table": np.arange(6, dtype=np.float32).reshape(2, 3), "meta": np.array("{}"),
          "none": np.zeros((0, 3))}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        write_npz(file, ARRAYS)
    return path


def with_members(path, **members):
    """The same file with other bytes in some members."""
    with zipfile.ZipFile(path) as file:
        old = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {**old, **{f"{name}.npy": made for name, made in members.items()}
                              }.items():
            file.writestr(name, content)


def npy(array, header=None):
    made = io.BytesIO()
    if header is None:
        np.save(made, array, allow_pickle=True)
    else:
        np.lib.format.write_array_header_1_0(made, header)
        made.write(array.tobytes())
    return made.getvalue()


def test_what_was_written_is_read(path):
    found = read_npz(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("changed", [
    ARRAYS["table"][::-1], ARRAYS["table"].reshape(3, 2), ARRAYS["table"].astype(np.int32),
    np.where(ARRAYS["table"] == 2, np.nan, ARRAYS["table"])],
    ids=["swapped", "shape", "type", "nan"])
def test_a_changed_array_is_refused_though_the_archive_is_whole(path, changed):
    with_members(path, table=npy(changed))
    with pytest.raises(ValueError, match=rf"{path} cannot be read .*another checksum"):
        read_npz(path)


def test_an_older_file_without_a_checksum_is_read(tmp_path):
    np.savez(tmp_path / "old.npz", a=np.ones(2))
    assert read_npz(tmp_path / "old.npz")["a"].tolist() == [1, 1]


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return type(self.mark).mkdir, (self.mark,)


def test_objects_are_refused_and_never_unpickled(path, tmp_path):
    with_members(path, table=npy(np.array([Payload(tmp_path / "mark")], object)))
    with pytest.raises(ValueError, match="Python objects"):
        read_npz(path)
    assert not (tmp_path / "mark").exists()


def test_a_shape_that_its_bytes_do_not_fill_is_refused_before_memory_is_taken(path):
    huge = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)}
    with_members(path, table=npy(np.zeros(3, np.float32), huge))
    with pytest.raises(ValueError, match=r"shape \(1099511627776, 4\) and type float32 has 12"):
        read_npz(path)


def test_a_file_that_unpacks_to_more_than_the_memory_is_refused_unread(path, monkeypatch):
    with_members(path, table=npy(np.zeros(1 << 18)))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(npz, "available_memory", lambda: 1 << 20)
    monkeypatch.setattr(np.lib.format, "read_array", None)
    with pytest.raises(ValueError, match=r"its arrays take 2,0\d\d,\d\d\d bytes, and 1,048,576"):
        read_npz(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"[" * 9999])
def test_what_is_no_archive_is_refused_by_name(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} cannot be read"):
        read_npz(path)


def test_an_absent_file_is_absent(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "no.npz")


def test_large_arrays_go_to_files_that_have_no_name(tmp_path, monkeypatch):
    path, array = tmp_path / "a.npz", np.arange(600.0).reshape(30, 20)
    with path.open("wb") as file:
        write_npz(file, {"table": array, "meta": np.array("{}")})
    monkeypatch.setattr(npz, "LARGE", 1000)
    monkeypatch.setattr(npz, "available_memory", lambda: 999)  # for all others
    found = read_npz(path, folder=tmp_path / "files")
    assert isinstance(found["table"], np.memmap)
    assert found["table"].tolist() == array.tolist()
    assert not isinstance(found["meta"], np.memmap)
    assert list((tmp_path / "files").iterdir()) == []
    with pytest.raises(ValueError, match="its arrays take 5,"):
        read_npz(path)
    with_members(path, table=npy(array + 1))
    with pytest.raises(ValueError, match="another checksum"):
        read_npz(path, folder=tmp_path / "files")
