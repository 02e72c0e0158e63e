"""The scripts of Criteo and Avazu as a user runs them, on small planted files."""

import json
import re
import sys

import numpy as np
import pytest
import shipped
from training import few

from data.raw import ingest
from data.synthetic import raw_planted
from engine import cli, snapshots
from studies.published import PRESETS

ROWS = 3000
FILES = {"criteo": "train.txt", "avazu": "train"}
QUICK = ("latent_dim=4", "max_epochs=2", "batch_size=512", "tensorboard=false")
SMALL = {"fm": (), "deepfm": ("mlp_dims=[8]",),
         "autoint": ("mlp_dims=[8]", "num_layers=1", "atten_embed_dim=4")}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder as PEP_DATA names one, and a cache that all tests share."""
    folder = tmp_path_factory.mktemp("raw")
    for name, file in FILES.items():
        raw_planted.write(name, ROWS, folder / name / file)
    return folder


@pytest.fixture
def shell(raw, tmp_path, monkeypatch, capsys):
    """Run a script with quick settings; (exit code, standard output, standard error)."""
    monkeypatch.setenv("PEP_DATA", str(raw))
    monkeypatch.setenv("PEP_CACHE", str(raw / "cache"))

    def run(script, *arguments, sets=()):
        words = [f"--set={assignment}" for assignment in (*QUICK, *sets)]
        monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "out"), *words, *arguments])
        code = 0
        try:
            cli.main(vars(shipped)[script].main)
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return run


def folder_of(tmp_path, model, alias):
    return tmp_path / "out" / "embedding" / model / alias


@pytest.mark.parametrize(("name", "model"), few([
    ("criteo", "fm"), ("avazu", "deepfm"), ("criteo", "autoint"), ("avazu", "fm"),
    ("criteo", "deepfm"), ("avazu", "autoint")], 0, 1, 2))
def test_a_fine_and_a_coarse_search_leave_their_snapshots_side_by_side_and_retrain(shell, tmp_path,
                                                                                   name, model):
    seen = {}
    for grain, alias in (((), f"{name}_pep_d4_seed1"),
                         (("--coarse",), f"{name}_pep_dimension_d4_seed1")):
        sets = ("candidate_p=[900, 300]", "threshold_init=-4", *SMALL[model])
        code, _, error = shell(f"train_{name}", "--model", model, "--alias", alias, *grain,
                               sets=sets)
        assert code == 0, error
        folder = folder_of(tmp_path, model, alias)
        assert {"900", "300"} <= set(snapshots.names(folder))
        code, output, error = shell(f"train_{name}_retrain", "--model", model, "--alias",
                                    alias, *grain, sets=("retrain_emb_param=300",))
        assert code == 0, error
        assert re.search(r"retrain  300†? ", output)
        seen[alias] = json.loads((folder / "search.json").read_text())["settings"]["threshold_type"]
    assert list(seen.values()) == ["feature_dim", "dimension"]


def test_encode_only_reads_the_raw_file_by_as_many_processes_as_jobs_says(shell, raw, tmp_path,
                                                                          monkeypatch):
    asked = []
    monkeypatch.setattr(ingest, "number_ranges", lambda *arguments: asked.append(arguments[-1]))
    outputs = [shell("train_criteo", "--encode-only", "--cache", str(tmp_path / name), *jobs)
               for name, jobs in (("1", ()), ("2", ("--jobs", "2")))]
    assert outputs[0][:2] == outputs[1][:2]
    assert asked == [2]
    files = [sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
             for name in "12"]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


@pytest.mark.parametrize(("script", "arguments", "message"), [
    ("train_criteo", ("--jobs", "2"), "--jobs 2 goes with --encode-only"),
    ("train_criteo", ("--encode-only", "--jobs", "0"), "--jobs must be between 1 and"),
    ("train_movielens", ("--encode-only", "--jobs", "2"),
     "the raw files of movielens are read by one process; leave --jobs away"),
])
def test_jobs_that_nothing_can_be_done_with_are_refused(shell, script, arguments, message):
    code, _, error = shell(script, *arguments)
    assert code == 2
    assert message in error


def test_encode_only_says_what_the_set_is_and_trains_nothing(shell, tmp_path):
    code, output, _ = shell("train_avazu", "--encode-only")
    assert code == 0
    assert output.startswith(f"avazu: {ROWS:,} rows (train 2,400, validation 300, test 300), ")
    assert "22 fields" in output
    assert "device_ip" in output
    assert not (tmp_path / "out" / "runs").exists()


def test_the_same_search_on_another_split_is_another_run(shell, tmp_path):
    parts = np.split(np.random.default_rng(0).permutation(ROWS), [2000, 2500])
    np.savez(tmp_path / "split.npz", train=parts[0], validation=parts[1], test=parts[2])
    for split in ([], ["--split", f"ids:{tmp_path / 'split.npz'}"]):
        assert shell("train_criteo", "--embedding", "uniform", *split)[0] == 0
    results = [json.loads(path.read_text())
               for path in (tmp_path / "out").glob("runs/*/result.json")]
    assert len({result["run_id"] for result in results}) == len({result["manifest"]
                                                                 for result in results}) == 2
    assert {result["settings"]["split"] for result in results} == {"random",
                                                                   f"ids:{tmp_path / 'split.npz'}"}


@pytest.mark.parametrize(("split", "message"), [
    ("stratified", "split must be 'random' or 'ids:FILE', got 'stratified'"),
    ("ids:absent.npz", "split: there is no file 'absent.npz'")])
def test_a_wrong_split_is_an_error_of_one_line_before_any_data_is_looked_for(shell, monkeypatch,
                                                                             split, message):
    monkeypatch.setenv("PEP_DATA", "/nowhere")
    code, _, error = shell("train_criteo", "--split", split)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


def test_the_presets_hold_the_published_settings():
    for dataset, budget in (("criteo", 1_067), ("avazu", 1_479)):
        published = {"latent_dim": 24, "threshold_init": -150.0, "mlp_dims": [400, 400, 400],
                     "att_dropout": 0.0,
                     "batch_size": 1024, "early_stop": 5, "eval_interval": 1}
        assert {name: PRESETS[dataset][name] for name in published} == published
        assert budget in PRESETS[dataset]["candidate_p"]
