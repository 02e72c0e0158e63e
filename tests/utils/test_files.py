import errno
import fcntl
import json
import os
import platform
import stat

import pytest
import tiny

from compression.umec import command as umec
from data import store
from studies.figures import budget_curve
from utils import files
from utils.files import (
    atomic_path,
    read_record,
    require_writable,
    sha256_of,
    sha256_of_file,
    write_json,
    write_record,
)
from utils.text import unknown

FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt(), ValueError("x")])
def test_an_error_while_writing_leaves_the_old_file_whole_and_no_temporary_one(tmp_path, error):
    target = tmp_path / "a.json"
    target.write_text("old")

    def interrupted():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert target.read_text() == "old"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == target.parent  # a rename works within one file system only
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_an_error_at_the_end_of_writing_leaves_the_old_file_too(tmp_path, monkeypatch, step):
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail(*arguments, **options):
        raise FULL

    for name in {"fsync": ["fsync"], "rename": ["rename", "replace"]}[step]:
        monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="No space left"):
        write_json(target, {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert target.read_text() == "old"


def test_bytes_reach_the_disk_before_the_rename(tmp_path, monkeypatch):
    target, seen, original = tmp_path / "a.txt", [], os.fsync
    monkeypatch.setattr(os, "fsync",
                        lambda number: (seen.append(target.exists()), original(number)))
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert seen[:1] == [False]


@pytest.fixture
def umask():
    mask = 0o027
    before = os.umask(mask)
    yield mask
    left = os.umask(before)
    assert left == mask  # looking at it has not changed it


def test_every_file_of_a_run_has_the_mode_that_the_umask_leaves(tmp_path, monkeypatch, umask):
    tiny.install(monkeypatch, tiny.dataset())
    shape = {"arch_mlp_top": [4], "max_epochs": 1}
    searched = tiny.train(tmp_path, embedding="pep", candidate_p=[300], **shape)
    trained = tiny.train(tmp_path, embedding="uniform", model="dlrm", **shape)
    base = umec.load(trained["run_id"], "field", tiny.context(tmp_path))
    umec.compress(base, umec.Task(0.6, epochs=1, finetune_epochs=1), tiny.context(tmp_path))
    budget_curve.save(budget_curve.new_figure((1, 1)), tmp_path / "figures" / "curve.png")
    store.save(tiny.dataset(), tmp_path / "cache" / "tiny", {})
    write_json(tmp_path / "tuned.json", {})
    assert searched["snapshots"]
    modes = {path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode)
             for path in tmp_path.rglob("*") if path.is_file()}
    names = {path.name for path in modes}
    assert names > {"model.safetensors", "compressed.safetensors", "result.json", "curve.jsonl",
                    "feature_counts.npy", "initial.npz", "300.npz", "curve.png", "ids.npy",
                    "manifest.json", "tuned.json"}
    assert {path: oct(mode) for path, mode in modes.items() if mode != 0o666 & ~umask} == {}


def test_write_json_makes_folders_and_sorts_keys(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    write_json(path, {"b": [1, None], "a": "é"})
    assert json.loads(path.read_text()) == {"a": "é", "b": [1, None]}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')


def test_write_json_of_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert (tmp_path / "a.json").read_text() == "old"


def test_hashes_are_pinned_and_parts_do_not_run_together(tmp_path):
    assert (sha256_of("ab", b"c")
            == "43ee655579de01ca739b3f95c1c2d3f46d353b2c0df818064ea594506cdb2617")
    assert sha256_of("ab", "c") != sha256_of("a", "bc")
    (tmp_path / "a").write_bytes(b"abc")
    assert (sha256_of_file(tmp_path / "a")
            == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_require_writable_makes_the_folder_and_leaves_it_empty(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_cannot_be_written_is_an_error_that_names_it_and_the_option(tmp_path, below):
    (tmp_path / "file").write_text("x")
    folder = tmp_path / "file" / below if below else tmp_path / "file"
    with pytest.raises(OSError, match=rf"cannot write to the folder {folder} .*--out"):
        require_writable(folder)
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_in_which_no_file_can_be_made_is_refused(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("utils.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(OSError,
                       match=rf"cannot write to the folder {tmp_path} .*Permission denied"):
        require_writable(tmp_path)


def test_unknown_names_the_nearest_only_when_one_is_near():
    assert unknown("model", "deepfn", ["fm", "deepfm"]) == (
        "unknown model 'deepfn'; did you mean 'deepfm'? Known: deepfm, fm")
    assert unknown("model", "zzz", ["fm", "deepfm"]) == "unknown model 'zzz'. Known: deepfm, fm"
    assert "Known: fm" in unknown("model", 3, ["fm"])


def test_a_file_is_synced_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows refuses any other."""
    modes = []
    monkeypatch.setattr(files.os, "fsync", lambda handle: modes.append(
        fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE))
    files.write_json(tmp_path / "a.json", {})
    assert modes == [os.O_RDWR]


class LikeSafetensors(Exception):
    """An error without a number, as safetensors raises."""


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"),
                                   OSError(errno.EDQUOT, "Disk quota exceeded"),
                                   LikeSafetensors("I/O error: No space left on device")])
def test_a_full_disk_is_named_with_the_need(tmp_path, error):
    path = tmp_path / "there" / "model.bin"
    with pytest.raises(OSError, match="No space left") as raised, files.atomic_path(path, 4000):
        raise error
    message = str(raised.value)
    assert f"No space left in {path.parent} to write model.bin, which needs 4,000 bytes" in message
    assert "--out (runs) or --cache (data sets)" in message
    assert list(path.parent.iterdir()) == []


def test_without_a_known_need_it_is_more_than_was_written(tmp_path):
    def write():
        with files.atomic_path(tmp_path / "a") as temporary:
            temporary.write_bytes(b"x" * 10)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="needs more than 10 bytes"):
        write()


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(OSError, match=r"^kaputt$"), files.atomic_path(tmp_path / "a", 5):
        raise OSError("kaputt")


# ---- records


def test_a_record_comes_back_without_its_checksum(tmp_path):
    path = tmp_path / "a.json"
    write_record(path, {"auc": 0.84, "widths": {2: 1, 10: 3}, "none": float("nan")})
    found = read_record(path)
    assert found.pop("none") != found
    assert found == {"auc": 0.84, "widths": {"2": 1, "10": 3}}


@pytest.mark.parametrize(("content", "why"), [
    (b"[" * 99_999, "nested too deep"), (b"[1]", "it holds a list"), (b"{", "Expecting"),
    (b"\xff", "decode"), (b"{\"a\": 2, \"checksum\": \"x\"}", "changed after it was written")])
def test_what_is_no_record_is_refused_with_a_reason(tmp_path, content, why):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read_record(tmp_path / "a.json")


def test_an_older_record_without_a_checksum_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"auc": 1})
    assert read_record(tmp_path / "a.json") == {"auc": 1}


# ---- killed processes, copies, limits


def test_the_next_write_removes_what_dead_processes_left_and_nothing_else(tmp_path, dead_process):
    here = platform.node()
    left = [tmp_path / f".a.json.{here}-{dead_process}.x.part.json"]
    kept = [tmp_path / f".a.json.{here}-{os.getpid()}.x.part.json",
            tmp_path / f".a.json.elsewhere-{dead_process}.x.part.json",
            tmp_path / f".b.json.{here}-{dead_process}.x.part.json",
            tmp_path / f".a.json.{here}-word.x.part.json"]
    for path in [*left, *kept]:
        path.touch()
    write_json(tmp_path / "a.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", *(path.name for path in kept)}


def test_a_temporary_file_bears_the_name_by_which_it_is_found_again(tmp_path):
    with atomic_path(tmp_path / "a.json") as temporary:
        assert temporary.name.startswith(f".a.json.{platform.node()}-{os.getpid()}.")


def test_a_copy_is_whole_or_not_there(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    files.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new"

    def half(source, target):
        target.write_text("ne")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.shutil, "copyfile", half)
    with pytest.raises(OSError, match=f"No space left in {tmp_path} to write c"):
        files.copy_file(tmp_path / "a", tmp_path / "c")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.EFBIG, "File too large"), r"File too large \(see ulimit -f\)"),
    (LikeSafetensors("I/O error: File too large (os error 27)"), r"File too large \(see ulimit"),
    (OSError("13000 requested and 0 written"), "No space left")])
def test_a_limit_on_files_and_a_short_write_are_named_with_the_need(tmp_path, error, words):
    with pytest.raises(OSError, match=rf"{words}.* in {tmp_path} to write a, which needs 4,000"), \
            files.atomic_path(tmp_path / "a", 4000):
        raise error
