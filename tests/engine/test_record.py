import importlib.metadata
import subprocess

import pytest
import torch

from engine import record


def test_cuda_asked_for_and_absent_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError,
                       match=r"--device cuda was asked for, but torch .* sees no CUDA device.*"
                                           r"--device auto or cpu"):
        record.pick_device("cuda")


@pytest.mark.parametrize(("name", "available", "expected"), [
    ("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cpu", False, "cpu"),
    ("cuda", True, "cuda")])
def test_auto_takes_cuda_when_there_is_one(monkeypatch, name, available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert record.pick_device(name) == torch.device(expected)


def test_provenance_names_commit_versions_device_and_threads():
    found = record.provenance(torch.device("cpu"))
    assert set(found) == {"commit", "versions", "device", "threads"}
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(found["versions"]) == {"python", "torch", "torchfm", "numpy", "scipy", "numba"}
    assert found["device"]
    assert found["threads"] == torch.get_num_threads()


def test_a_package_without_metadata_does_not_end_a_finished_run(monkeypatch):
    def version(name):
        if name == "torchfm":  # copied, not installed
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    versions = record.provenance(torch.device("cpu"))["versions"]
    assert versions["torchfm"] is None
    assert versions["torch"] == "1"


def git(folder, *arguments):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder,
                   check=True,
                   capture_output=True)


def test_commit_marks_changed_files_and_ignores_new_ones(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "a")
    clean = record.commit_of(tmp_path)
    assert len(clean) == 40
    (tmp_path / "b").write_text("new")
    assert record.commit_of(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    assert record.commit_of(tmp_path) == f"{clean}+changes"


def test_a_process_names_the_commit_that_it_began_with(tmp_path, monkeypatch):
    began = record.commit()
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert record.commit() == began == record.provenance(torch.device("cpu"))["commit"]


def test_commit_is_none_outside_a_checkout_and_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.commit_of(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert record.commit_of(tmp_path) is None


def test_peak_memory_is_in_bytes():
    # this process has torch loaded
    assert 50 * 2**20 < record.peak_memory_bytes(torch.device("cpu")) < 2**40
