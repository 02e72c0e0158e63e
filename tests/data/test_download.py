import hashlib
import http.client
import io
import urllib.error
import urllib.request
import zipfile

import pytest

from data.raw import download

URL = "https://example.org/toy.zip"
MEMBERS = ("ratings.dat", "users.dat")
CONTENT = {"ml-1m/": b"", "ml-1m/README": b"read me", "ml-1m/ratings.dat": b"ratings",
           "ml-1m/users.dat": b"users"}


def archive(content=CONTENT):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, data in content.items():
            made.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def md5(data):
    return hashlib.md5(data).hexdigest()


class Answer(io.BytesIO):
    """What urlopen returns; after its bytes it raises `error` when there is one."""

    def __init__(self, data, error=None):
        super().__init__(data)
        self.headers = {"Content-Length": str(len(data))}
        self.error = error

    def read(self, size=-1):
        data = super().read(size)
        if not data and self.error:
            raise self.error
        return data


def serve(monkeypatch, answer):
    def urlopen(url, timeout=None):
        assert url == URL
        assert timeout > 0
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(answer)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file()}


def test_the_right_archive_is_unpacked_to_the_named_members_only(tmp_path, monkeypatch, capsys):
    data = archive()
    serve(monkeypatch, data)
    download.fetch_zip(URL, md5(data), MEMBERS, tmp_path / "new" / "ml-1m", "Toy")
    assert files(tmp_path) == {"new/ml-1m/ratings.dat": b"ratings", "new/ml-1m/users.dat": b"users"}
    assert "downloading Toy" in capsys.readouterr().err


def test_an_older_file_is_replaced(tmp_path, monkeypatch):
    data = archive()
    (tmp_path / "ratings.dat").write_bytes(b"old")
    serve(monkeypatch, data)
    download.fetch_zip(URL, md5(data), MEMBERS, tmp_path, "Toy")
    assert (tmp_path / "ratings.dat").read_bytes() == b"ratings"


@pytest.mark.parametrize("served", [archive()[:-9], archive({"ratings.dat": b"other",
                                                             "users.dat": b"other"}), b""],
                         ids=["cut off", "another archive", "empty"])
def test_another_checksum_is_an_error_and_nothing_is_written(tmp_path, monkeypatch, served):
    serve(monkeypatch, served)
    with pytest.raises(ValueError,
                       match=rf"{URL}: MD5 is {md5(served)}, published is {md5(archive())}"):
        download.fetch_zip(URL, md5(archive()), MEMBERS, tmp_path / "ml-1m", "Toy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["../../evil/", "/tmp/evil-of-this-test/", "a/../../../evil/"])
def test_member_names_are_never_followed_out_of_the_target(tmp_path, monkeypatch, prefix):
    data = archive({f"{prefix}ratings.dat": b"r", f"{prefix}users.dat": b"u"})
    serve(monkeypatch, data)
    target = tmp_path / "a" / "b" / "ml-1m"
    download.fetch_zip(URL, md5(data), MEMBERS, target, "Toy")
    assert files(tmp_path) == {"a/b/ml-1m/ratings.dat": b"r", "a/b/ml-1m/users.dat": b"u"}
    assert not (target / prefix / "ratings.dat").resolve().exists()


def test_an_archive_that_lacks_a_member_is_an_error_and_nothing_is_written(tmp_path, monkeypatch):
    data = archive({"ml-1m/ratings.dat": b"r", "ml-1m/users.dat.bak": b"u"})
    serve(monkeypatch, data)
    with pytest.raises(ValueError, match=r"the archive lacks users\.dat"):
        download.fetch_zip(URL, md5(data), MEMBERS, tmp_path / "ml-1m", "Toy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [
    urllib.error.URLError("Temporary failure in name resolution"), TimeoutError("timed out"),
    urllib.error.HTTPError(URL, 404, "Not Found", None, None),
    Answer(b"abc", ConnectionResetError("reset by peer")),
    Answer(b"abc", http.client.IncompleteRead(b"abc", 9))],
    ids=["no network", "timeout", "no such address", "connection lost", "answer cut off"])
def test_no_network_is_an_error_that_names_address_folder_files_and_demo(tmp_path, monkeypatch,
                                                                         answer):
    serve(monkeypatch, answer)
    target = tmp_path / "ml-1m"
    with pytest.raises(FileNotFoundError) as caught:
        download.fetch_zip(URL, md5(b""), MEMBERS, target, "Toy")
    assert all(word in str(caught.value)
               for word in (URL, str(target), "ratings.dat, users.dat", "--data", "demo.py"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_unpacking_leaves_no_half_file(tmp_path, monkeypatch):
    data = archive()
    serve(monkeypatch, data)
    (tmp_path / "ratings.dat").write_bytes(b"old")

    def fill(source, copy, *rest):
        copy.write(source.read(3))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.shutil, "copyfileobj", fill)
    with pytest.raises(OSError, match="No space left"):
        download.fetch_zip(URL, md5(data), MEMBERS, tmp_path, "Toy")
    assert files(tmp_path) == {"ratings.dat": b"old"}
