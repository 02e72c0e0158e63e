"""A run that is killed anywhere and started again ends with the bits of one that was left alone."""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import engine.trainer
from engine import checkpoint, cli, snapshots, stages
from engine.checkpoint import load_checkpoint
from engine.hooks import Checkpoint, Evaluate
from engine.optim import step as optim
from utils.files import read_record, write_record

DATA = tiny.dataset(rows=600)  # 8 steps an epoch, the last on half a batch
CASES = {
    "deepfm": {"model": "deepfm", "embedding": "uniform", "max_epochs": 4, "mlp_dims": [32],
               "lr": 0.2,
               "early_stop": 9},  # the first epoch is the best
    "search": {"embedding": "pep", "candidate_p": [550, 300, 20], "max_epochs": 4, "lr": 0.05,
               "log_interval": 3},
    "darts": {"embedding": "darts", "darts_widths": [1, 3], "darts_epochs": 1, "max_epochs": 3},
    "no decay": {"embedding": "pep", "candidate_p": [550, 20], "max_epochs": 4, "lr": 0.05,
                 "threshold_decay": "none"},
    "decoupled": {"embedding": "pep", "candidate_p": [550, 20], "max_epochs": 4, "lr": 0.05,
                  "threshold_decay": "decoupled", "l2_regularization": 0.01},
    "averaged": {"model": "deepfm", "embedding": "uniform", "max_epochs": 4, "mlp_dims": [32],
                 "ema": 0.9, "lr_schedule": "cosine", "early_stop": 9},
    "plateau": {"model": "deepfm", "embedding": "uniform", "max_epochs": 4, "mlp_dims": [32],
                "lr": 0.2, "lr_schedule": "plateau", "early_stop": 2},  # falls after two epochs
    "by row": {"model": "deepfm", "embedding": "pep", "candidate_p": [550, 20], "max_epochs": 4,
               "lr": 0.02,
               # 198 rows; 180 ids in a batch
               "batch_size": 45, "log_interval": 7, "table_update": "lazy"},
}
EACH_STEP = {"checkpoint_seconds": 0.0}


class Killed(BaseException):
    """Stands in for a power cut: nothing catches it but the test."""


@pytest.fixture
def seen(monkeypatch):
    """Every model that is trained, and its state before."""
    tiny.install(monkeypatch, DATA)
    return tiny.spy(monkeypatch)


def bits(out, result, seen):
    """All that the last run left: its result, its curve, its snapshots and its model's weights."""
    model, _ = seen[-1]
    files = [*out.glob("runs/*/curve.jsonl"), *out.glob("embedding/*/*/*.npz")]
    return {"result": tiny.without_times(result),
            **{str(path.relative_to(out)): path.read_bytes() for path in files},
            **{name: value.numpy().tobytes() for name, value in model.state_dict().items()}}


def same(one, other):
    assert one.keys() == other.keys()
    assert {name for name, value in one.items() if value != other[name]} == set()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What each case leaves when nobody kills it."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, DATA)
        models = tiny.spy(patch)
        for name, settings in CASES.items():
            out = tmp_path_factory.mktemp(name)
            made[name] = bits(out, tiny.train(out, **settings), models)
    assert any(name.endswith("300.npz") for name in made["search"])
    assert made["deepfm"]["result"]["selected_epoch"] == 1
    return made


def half_a_file(tensors, path, metadata):
    """A checkpoint of which only the first half reaches the disk."""
    original_save_file(tensors, path, metadata=metadata)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:len(content) // 2])


original_save_file = checkpoint.save_file
PLACES = {
    "before the update": (optim.Step, "__call__", None, False),
    "after the update": (optim.Step, "__call__", None, True),
    "before the evaluation": (Evaluate, "__call__", None, False),
    "after the evaluation": (Evaluate, "__call__", None, True),
    "before the snapshot": (snapshots, "save", None, False),
    "after the snapshot": (snapshots, "save", None, True),
    "halfway through the checkpoint": (checkpoint, "save_file", half_a_file, True),
    "after the checkpoint": (Checkpoint, "__call__", None, True),
    "before the result": (engine.trainer, "write_record", None, False),
}


def kill_at(patch, place, number):
    """Raise Killed at the `number`-th time that a place is reached."""
    owner, name, instead, after = PLACES[place]
    original, calls = getattr(owner, name), []

    def counted(*arguments, **named):
        calls.append(1)
        if len(calls) != number:
            return original(*arguments, **named)
        if after:
            (instead or original)(*arguments, **named)
        raise Killed

    patch.setattr(owner, name, counted)


def killed(out, place, number, every=1, **settings):
    """Whether a run was killed; `every` spaces its checkpoints, in steps."""
    with pytest.MonkeyPatch.context() as patch:
        save = Checkpoint.__call__
        patch.setattr(Checkpoint, "__call__", lambda hook, state: None if state.step % every
                      else save(hook, state))
        kill_at(patch, place, number)
        try:
            tiny.train(out, **settings, **EACH_STEP)
        except Killed:
            return True
    return False


FREQUENT = ["before the update", "after the update", "halfway through the checkpoint",
            "after the checkpoint"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", CASES)
def test_killed_twice_at_random_steps(tmp_path, seen, undisturbed, case, seed):
    rng = np.random.default_rng(seed)
    every = int(rng.choice([1, 5]))  # with 5, steps are lost and done again
    for _ in range(2):
        assert killed(tmp_path, rng.choice(FREQUENT), rng.integers(2, 16 // every), every,
                      **CASES[case])
    same(bits(tmp_path, tiny.train(tmp_path, **CASES[case]), seen), undisturbed[case])


@pytest.mark.parametrize("settings", [
    {"embedding": "mde", "mde_blocks": 4, "mde_alpha": 0.4}, {"embedding": "hash", "hash_rows": 50},
    {"embedding": "mgqe", "mgqe_subspaces": 2, "mgqe_centroids": 16}, {"embedding": "qr"}],
    ids=lambda settings: settings["embedding"])
def test_baselines_killed_at_a_step(tmp_path, seen, settings):
    settings = {**settings, "max_epochs": 2, "lr": 0.05}
    expected = bits(tmp_path / "whole", tiny.train(tmp_path / "whole", **settings), seen)
    assert killed(tmp_path / "killed", "after the update", 11, **settings)
    same(bits(tmp_path / "killed", tiny.train(tmp_path / "killed", **settings), seen), expected)


# the end of an epoch, and the very next step
SEAMS = [("after the checkpoint", 8), ("after the evaluation", 2),
         ("before the update", 9), ("before the evaluation", 2),
         ("before the update", 1)]  # nothing is saved yet
# 1 is the initial one
OTHERS = ("deepfm", "darts", "averaged")
SNAPSHOTS = [("before the snapshot", 1), ("before the snapshot", 2), ("after the snapshot", 2)]


@pytest.mark.parametrize(("case", "place", "number"), [
    *(("search", *seam) for seam in SEAMS),
    *((case, *SEAMS[0]) for case in OTHERS), *((case, *SEAMS[1]) for case in OTHERS),
    *(("search", *seam) for seam in SNAPSHOTS),
    ("plateau", "after the update", 19)])  # the rate has fallen
def test_killed_at_the_seams(tmp_path, seen, undisturbed, case, place, number):
    assert killed(tmp_path, place, number, **CASES[case])
    same(bits(tmp_path, tiny.train(tmp_path, **CASES[case]), seen), undisturbed[case])


@pytest.mark.parametrize(("settings", "reason"), [
    (CASES["deepfm"], "max_epochs"),
    ({**CASES["deepfm"], "early_stop": 2}, "early_stop"),
    (CASES["search"], "max_epochs"),
    ({**CASES["search"], "candidate_p": [550, 300]}, "budgets_met"),
], ids=["epochs", "early stop", "search", "budgets met"])
def test_killed_after_the_last_step_and_before_the_result(tmp_path, seen, settings, reason):
    result = tiny.train(tmp_path / "whole", **settings)
    assert result["stop_reason"] == reason
    expected = bits(tmp_path / "whole", result, seen)
    assert killed(tmp_path / "killed", "before the result", 1, **settings)
    same(bits(tmp_path / "killed", tiny.train(tmp_path / "killed", **settings), seen), expected)


def test_a_killed_retraining_goes_on(tmp_path, seen):
    tiny.train(tmp_path, **CASES["search"])
    settings = tiny.settings(**CASES["search"], **EACH_STEP, retrain_emb_param=300)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, "after the update", 13)
        with pytest.raises(Killed):
            stages.retrain(settings, 1, tiny.context(tmp_path))
    [resumed] = stages.retrain(settings, 1, tiny.context(tmp_path))
    weights = seen[-1][0].state_dict()
    [whole] = stages.retrain(settings, 1, tiny.context(tmp_path, force=True))
    assert tiny.without_times(resumed) == tiny.without_times(whole)
    assert all(torch.equal(value, weights[name]) for name,
               value in seen[-1][0].state_dict().items())


def test_a_curve_that_was_lost_after_its_last_evaluation_is_written_again(tmp_path, seen):
    assert killed(tmp_path, "before the result", 1, **CASES["deepfm"])
    [curve] = tmp_path.glob("runs/*/curve.jsonl")
    whole = curve.read_bytes()
    curve.unlink()
    tiny.train(tmp_path, **CASES["deepfm"])
    assert curve.read_bytes() == whole


def test_resuming_does_not_repeat_finished_steps(tmp_path, seen, monkeypatch):
    assert killed(tmp_path, "before the update", 20, **CASES["deepfm"])
    steps, original = [], optim.Step.__call__
    monkeypatch.setattr(optim.Step, "__call__",
                        lambda *arguments: (steps.append(1), original(*arguments))[1])
    assert tiny.train(tmp_path, **CASES["deepfm"])["steps"] == 32
    assert len(steps) == 32 - 19


def without_format(content):
    del content["format"]


def without_a_hook(content):
    del content["hooks"]["sparsity_trace"]


@pytest.mark.parametrize(("change", "message"), [
    (without_format, r"was written by another version of this code \(format 1, .*--force"),
    (without_a_hook, r"has the hooks early_stop, evaluate, save_at_budgets, threshold_trace, and "
                     r"the run has early_stop, evaluate, save_at_budgets, sparsity_trace, .*"),
])
def test_a_checkpoint_of_another_version_is_refused(tmp_path, seen, change, message):
    assert killed(tmp_path, "before the update", 20, **CASES["search"])
    [path] = tmp_path.glob("runs/*/checkpoint.safetensors")
    content = load_checkpoint(path)
    change(content)
    checkpoint.save_checkpoint(path, content)
    with pytest.raises(ValueError, match=message):
        tiny.train(tmp_path, **CASES["search"])


def test_a_finished_run_leaves_no_checkpoint_and_no_temporary_file(tmp_path, seen):
    result = tiny.train(tmp_path, **CASES["search"], **EACH_STEP)
    assert {path.name for path in (tmp_path / "runs" / result["run_id"]).iterdir()} == {
        "curve.jsonl", "result.json", "feature_counts.npy", ".lock"}
    [alias] = (tmp_path / "embedding" / "fm").iterdir()
    assert {path.name for path in alias.iterdir()} == {
        "550.npz", "300.npz", "20.npz", "20.magnitude.npz", "initial.npz", "search.json"}


# ---- damaged checkpoints, broken losses


def checkpoint_of(out):
    [path] = out.glob("runs/*/checkpoint.safetensors")
    return path


def without_record(path):
    original_save_file({"a": torch.ones(1)}, path)


def without_dice(path):
    content = load_checkpoint(path)
    del content["rng"]
    checkpoint.save_checkpoint(path, content)


DAMAGES = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(os.urandom(999)),
    "without its record": without_record,
    "without its dice": without_dice,
}


def test_a_corrupt_checkpoint_is_an_error_that_names_it_and_force_starts_again(tmp_path, seen,
                                                                               undisturbed):
    assert killed(tmp_path, "before the update", 12, **CASES["deepfm"])
    path = checkpoint_of(tmp_path)
    whole = path.read_bytes()
    for damage in DAMAGES.values():
        path.write_bytes(whole)
        damage(path)
        damaged = path.read_bytes()
        with pytest.raises(ValueError,
                           match=r"checkpoint\.safetensors is corrupt .*delete it, or .*--force"):
            tiny.train(tmp_path, **CASES["deepfm"])
        assert path.read_bytes() == damaged
    result = tiny.train(tmp_path, places={"force": True}, **CASES["deepfm"])
    same(bits(tmp_path, result, seen), undisturbed["deepfm"])


# counts at each step, and only at the end of an epoch
@pytest.mark.parametrize("log_interval", [1, 100])
def test_a_broken_loss_is_an_error_that_names_the_step_and_the_last_good_checkpoint_stays(
        tmp_path, seen, undisturbed, log_interval):
    settings = {**CASES["deepfm"], "log_interval": log_interval}
    original, steps = optim.Step.__call__, []

    def broken(step, ids, labels):
        steps.append(1)
        with torch.no_grad():
            if len(steps) == 13:
                step.optimizer.param_groups[0]["params"][0].fill_(float("inf"))
        return original(step, ids, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim.Step, "__call__", broken)
        with pytest.raises(FloatingPointError,
                           match=r"run \w+: the loss is .* at step 13 "
                                 r"\(epoch 1, batch 5\); lower lr"):
            tiny.train(tmp_path, **settings, **EACH_STEP)
    content = load_checkpoint(checkpoint_of(tmp_path))
    assert content["counters"]["step"] == 12
    assert all(value.isfinite().all() for value in content["model"].values())
    resumed = bits(tmp_path, tiny.train(tmp_path, **settings), seen)
    assert resumed["embedding.weight"] == undisturbed["deepfm"]["embedding.weight"]


def test_a_checkpoint_of_another_number_of_threads_is_resumed_with_a_warning(tmp_path, seen,
                                                                             caplog):
    assert killed(tmp_path, "before the update", 12, **CASES["deepfm"])
    path = checkpoint_of(tmp_path)
    content = load_checkpoint(path)
    checkpoint.save_checkpoint(path, {**content, "threads": 17})
    tiny.train(tmp_path, **CASES["deepfm"])
    assert "written with 17 threads, now there are 1" in caplog.text


def test_a_checkpoint_of_a_gpu_is_not_resumed_on_a_cpu(tmp_path, seen):
    assert killed(tmp_path, "before the update", 12, **CASES["deepfm"])
    path = checkpoint_of(tmp_path)
    content = load_checkpoint(path)
    content["rng"]["cuda"] = torch.zeros(16, dtype=torch.uint8)
    checkpoint.save_checkpoint(path, content)
    written = path.read_bytes()
    with pytest.raises(ValueError, match="written with --device cuda, and this is cpu"):
        tiny.train(tmp_path, **CASES["deepfm"])
    assert path.read_bytes() == written


# ---- real processes

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import json, sys, time
import torch
torch.set_num_threads(1)
import tiny
from data.registry import DATASETS
from engine import cli
from engine.optim import step as optim
from pathlib import Path

made = tiny.dataset(rows=600)
DATASETS["movielens"] = lambda *arguments: made
step = optim.Step.__call__
optim.Step.__call__ = lambda *arguments: (time.sleep(0.3), step(*arguments))[1]
cli.main(lambda: print(tiny.train(Path(sys.argv[1]), **json.loads(sys.argv[2]))["run_id"]))
"""


def test_a_killed_process_is_resumed_and_keeps_others_out_while_it_runs(tmp_path, seen,
                                                                        undisturbed):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path),
                              json.dumps({**CASES["search"], **EACH_STEP})],
                             env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE,
                             text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/checkpoint.safetensors")):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(BlockingIOError, match="in use by another process"):
        tiny.train(tmp_path, **CASES["search"])
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert 1 <= load_checkpoint(checkpoint_of(tmp_path))["counters"]["step"] < 32
    same(bits(tmp_path, tiny.train(tmp_path, **CASES["search"]), seen), undisturbed["search"])


def test_sigterm_ends_a_run_with_a_checkpoint_and_code_130(tmp_path, seen, undisturbed,
                                                           monkeypatch, capsys):
    step, steps = optim.Step.__call__, []

    def terminate_once(*arguments):
        steps.append(1)
        if len(steps) == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    def several():
        for _ in range(2):
            with contextlib.suppress(Exception):  # a loop of a user's that goes on after errors
                tiny.train(tmp_path, **CASES["deepfm"])

    monkeypatch.setattr(optim.Step, "__call__", terminate_once)
    with pytest.raises(SystemExit) as stop:
        cli.main(several)
    assert stop.value.code == 130
    messages = capsys.readouterr().err
    assert load_checkpoint(checkpoint_of(tmp_path))["counters"]["step"] == 12
    assert "interrupted at step 12; the same command goes on from there" in messages
    assert "Traceback" not in messages
    same(bits(tmp_path, tiny.train(tmp_path, **CASES["deepfm"]), seen), undisturbed["deepfm"])


@pytest.mark.parametrize("lost", ["the folder", "one snapshot", "to another search"])
def test_a_search_whose_snapshots_are_gone_does_not_go_on_without_them(tmp_path, seen, undisturbed,
                                                                       lost):
    case, places = CASES["search"], {"alias": "x"}
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, "after the checkpoint", 29)
        with pytest.raises(Killed):
            tiny.train(tmp_path, places=places, **case, **EACH_STEP)
    [folder] = tmp_path.glob("embedding/*/x")
    assert "550" in snapshots.names(folder)
    if lost == "the folder":
        shutil.rmtree(folder)
    elif lost == "one snapshot":
        (folder / "550.npz").unlink()
    else:
        other = case | {"gk": 0.5, "max_epochs": 1}
        tiny.train(tmp_path, places=places | {"overwrite": True}, **other)
        places = places | {"overwrite": True}
    with pytest.raises(FileNotFoundError, match=r"snapshots 550.* are gone; search .*--force"):
        tiny.train(tmp_path, places=places, **case)
    result = tiny.train(tmp_path, places=places | {"force": True}, **case)
    assert sorted(result["snapshots"]) == sorted(undisturbed["search"]["result"]["snapshots"])


def test_a_forced_search_that_is_killed_goes_on_from_its_own_checkpoint_alone(tmp_path, seen,
                                                                              undisturbed):
    case = CASES["search"]
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, "after the checkpoint", 29)
        with pytest.raises(Killed):
            tiny.train(tmp_path, **case, **EACH_STEP)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, "after the update", 2)  # before it has a checkpoint
        with pytest.raises(Killed):
            tiny.train(tmp_path, places={"force": True}, **case)
    same(bits(tmp_path, tiny.train(tmp_path, **case), seen), undisturbed["search"])


def test_a_finished_search_that_is_forced_and_killed_is_one_that_is_not_finished(
        tmp_path, seen, undisturbed, caplog):
    """Its old snapshots are gone: tickets of what is left would be said to be all."""
    case = CASES["search"]
    tiny.train(tmp_path, **case)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, "after the checkpoint", 29)
        with pytest.raises(Killed):
            tiny.train(tmp_path, places={"force": True}, **case, **EACH_STEP)
    stages.tickets(tiny.settings(**case), 1, tiny.context(tmp_path))
    assert "has no result: it is not finished" in caplog.text
    same(bits(tmp_path, tiny.train(tmp_path, **case), seen), undisturbed["search"])


def test_how_a_forced_run_goes_on(tmp_path, seen):
    for result, said in ((False, "the same command without --force goes on from there"),
                         (True, "the result of before is still there, and --force begins anew")):
        if result:
            tiny.train(tmp_path, **CASES["deepfm"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.trainer.Trainer, "train", lambda *arguments: "interrupted")
            with pytest.raises(KeyboardInterrupt, match=said):
                tiny.train(tmp_path, places={"force": True}, **CASES["deepfm"])


def test_a_retraining_of_an_unfinished_search_says_what_is_open(tmp_path, seen, caplog):
    case = CASES["search"]
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, "after the checkpoint", 29)
        with pytest.raises(Killed):
            tiny.train(tmp_path, **case, **EACH_STEP)
    stages.tickets(tiny.settings(**case), 1, tiny.context(tmp_path))
    assert "has no result: it is not finished" in caplog.text
    assert re.search(r"Of its budgets these are not there: (300, )?20$", caplog.text.strip())


def test_a_search_that_is_kept_out_leaves_the_other_ones_snapshots_alone(tmp_path, seen):
    first = tiny.train(tmp_path, **CASES["search"])
    before = {path: path.read_bytes() for path in tmp_path.glob("embedding/*/*/*")}
    with checkpoint.only_one(tmp_path / "runs" / first["run_id"]), pytest.raises(BlockingIOError):
        tiny.train(tmp_path, places={"force": True}, **CASES["search"])
    assert {path: path.read_bytes() for path in tmp_path.glob("embedding/*/*/*")} == before


def test_a_checkpoint_with_one_changed_number_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    content = {"model": {"table": torch.ones(4, 2), "half": torch.ones(3, dtype=torch.bfloat16),
                         "none": torch.zeros(0, 2), "step": torch.tensor(3)}, "epoch": 1}
    checkpoint.save_checkpoint(path, content)
    whole = path.read_bytes()
    assert load_checkpoint(path)["model"]["half"].dtype == torch.bfloat16
    for at, bit in ((-1, 1), (-20, 64), (whole.index(b"epoch") + 8, 1)):
        changed = bytearray(whole)
        changed[at] ^= bit
        path.unlink()  # tensors that were read are maps of the file
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=f"{path} is corrupt"):
            load_checkpoint(path)


def test_damage_to_the_name_of_the_checksum_makes_no_older_file(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save_checkpoint(path, {"model": {"table": torch.ones(4, 2)}})
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[-1] ^= 1
    for at, letter in ((0, b"%"), (3, b"o")):  # of $digest
        changed[whole.index(b"$digest") + at] = letter[0]
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=r"is corrupt \(its checksum has the name '%dioest"):
        load_checkpoint(path)
    write_record(tmp_path / "b.json", {"auc": 0.84})
    text = (tmp_path / "b.json").read_text()
    (tmp_path / "b.json").write_text(text.replace("0.84", "0.85").replace("checksum", "ch%cksqm"))
    with pytest.raises(ValueError, match="its checksum has the name 'ch%cksqm'"):
        read_record(tmp_path / "b.json")
    (tmp_path / "b.json").write_text(re.sub(' *"checksum": .*\n', "", text))
    with pytest.raises(ValueError, match="its checksum is gone"):
        read_record(tmp_path / "b.json")


def test_a_checkpoint_of_an_older_version_without_a_checksum_is_read(tmp_path):
    original_save_file({"t.a": torch.ones(2)}, tmp_path / "old",
                       metadata={"content": '{"a": {"$tensor": "t.a"}}'})
    assert load_checkpoint(tmp_path / "old")["a"].tolist() == [1, 1]


def test_brackets_without_end_in_a_checkpoint_are_an_error_that_names_it(tmp_path):
    original_save_file({"t": torch.ones(2)}, tmp_path / "deep", metadata={"content": "[" * 99_999})
    with pytest.raises(ValueError, match=r"deep is corrupt"):
        load_checkpoint(tmp_path / "deep")


def test_the_same_content_gives_the_same_bytes(tmp_path):
    """A run that was killed ends with the files of one that was left alone."""
    content = {"model": {str(number): torch.ones(number) for number in range(9)}}
    for name in "abcdef":
        checkpoint.save_checkpoint(tmp_path / name, content)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_folder_that_was_removed_while_the_run_worked_makes_no_finished_run(tmp_path, seen,
                                                                              monkeypatch):
    """Its weights would be missing from a run that counts as done."""
    result = engine.trainer.Trainer.result

    def removed(own, reason):
        shutil.rmtree(tmp_path / "runs")
        return result(own, reason)

    with monkeypatch.context() as patch:
        patch.setattr(engine.trainer.Trainer, "result", removed)
        with pytest.raises(FileNotFoundError, match="was removed while this run wrote"):
            tiny.train(tmp_path, **CASES["deepfm"])
    assert not list(tmp_path.glob("runs/*/result.json"))
    save = Checkpoint.__call__

    def too_late(own, state):
        if state.step == 9:
            shutil.rmtree(tmp_path / "runs")
        return save(own, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "__call__", too_late)
        with pytest.raises(FileNotFoundError, match="was removed while this run wrote"):
            tiny.train(tmp_path, **CASES["deepfm"], **EACH_STEP)
    assert not list(tmp_path.glob("runs/*/checkpoint*"))
    again = tiny.train(tmp_path, **CASES["deepfm"])
    assert (tmp_path / "runs" / again["run_id"] / "model.safetensors").exists()


def test_a_checkpoint_that_outlived_its_run_is_removed(tmp_path, seen):
    """The process was killed right after it had written the result."""
    result = tiny.train(tmp_path, **CASES["deepfm"])
    left = tmp_path / "runs" / result["run_id"] / "checkpoint.safetensors"
    left.touch()
    with checkpoint.only_one(left.parent):  # another process runs it again by force
        assert tiny.train(tmp_path, **CASES["deepfm"]) == result
    assert left.exists()
    assert tiny.train(tmp_path, **CASES["deepfm"]) == result
    assert not left.exists()


@pytest.mark.parametrize(("change", "why"), [
    ({"test_auc": 0.99}, "changed after it was written"), ({"run_id": "other"}, None)])
def test_a_result_that_was_changed_is_an_error_that_names_it(tmp_path, seen, change, why):
    result = tiny.train(tmp_path, **CASES["deepfm"])
    path = tmp_path / "runs" / result["run_id"] / "result.json"
    if why:
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    else:
        write_record(path, {**result, **change})
    with pytest.raises(ValueError, match=rf"{path} is corrupt \(.*{why or 'is of the run .other'}"):
        tiny.train(tmp_path, **CASES["deepfm"])


@pytest.mark.parametrize("change", [{"alias": "../../elsewhere"}, {"snapshots": ["../../x"]},
                                    {"snapshots": [["x"]]}])
def test_names_in_a_result_lead_nowhere_else(tmp_path, seen, change):
    """A result of a stranger must not have files copied from or to another folder."""
    result = tiny.train(tmp_path, **CASES["search"])
    path = tmp_path / "runs" / result["run_id"] / "result.json"
    write_record(path, {**result, **change})
    with pytest.raises(ValueError, match=r"is corrupt: it names .* no plain file name"):
        tiny.train(tmp_path, places={"alias": "other"}, **CASES["search"])
    assert not (tmp_path / "embedding" / "fm" / "other").exists()


def test_what_a_killed_search_left_of_a_snapshot_is_removed(tmp_path, seen, dead_process):
    alias = tmp_path / "embedding" / "fm" / "mine"
    alias.mkdir(parents=True)
    (alias / f".550.npz.{platform.node()}-{dead_process}.x.part.npz").touch()
    tiny.train(tmp_path, places={"alias": "mine"}, **CASES["search"])
    assert not list(alias.glob(".*"))


def test_a_second_interrupt_puts_no_traceback_in_the_place_of_the_message(monkeypatch, capsys):
    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    say = cli._say
    monkeypatch.setattr(cli, "_say", lambda *words: (os.kill(os.getpid(), signal.SIGINT),
                                                     say(*words))[1])
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
        cli.main(interrupted)
    assert stop.type is SystemExit
    assert stop.value.code == 130
    assert "interrupted; finished runs stay" in capsys.readouterr().err


@pytest.mark.usefixtures("seen")
def test_what_safetensors_has_left_of_a_killed_write_is_removed_when_the_run_goes_on(tmp_path):
    assert killed(tmp_path, "after the update", 13, **CASES["deepfm"])
    [folder] = (tmp_path / "runs").iterdir()
    (folder / ".tmpAbC123").touch()
    tiny.train(tmp_path, **CASES["deepfm"])
    assert not list(folder.glob(".tmp*"))
