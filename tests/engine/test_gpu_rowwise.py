"""Tables by row as on a device, run on a CPU: shapes that do not depend on the data, and the bits
of `RowwiseAdam`."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training import SIZES, Training, assert_close, assert_same, few, words

from engine.optim.gpu import adam as adam_device
from engine.optim.gpu import rowwise
from engine.optim.gpu.adam import PLAIN, operations_for, triton_installed
from engine.optim.gpu.rowwise import RowwiseAdam
from engine.optim.step import Step
from models.embedding.pep import THRESHOLD_TYPES

CASES = [*({"threshold_type": kind} for kind in THRESHOLD_TYPES), {"embedding": "uniform"},
         {"embedding": "masked"},
         {"model": "linear", "embedding": "none"}, {"model": "deepfm", "latent_dim": 3},
         {"model": "autoint", "latent_dim": 1},
         # the penalty has FM's step on the host take its gradients from autograd, as a device does:
         # without a decay, gradients that are rounding alone decide where a row goes
         {"decay": 0.0, "l2_penalty": 1e-3}, {"threshold_init": -150.0}]


@pytest.mark.parametrize("case", few(CASES, 0), ids=words)
def test_a_device_takes_the_same_steps(monkeypatch, request, case):
    # plain torch takes a late step as long as any
    monkeypatch.setitem(rowwise.INTERVALS, "lazy", 8)
    host = Training("streamed", **case).run(70).state()
    request.getfixturevalue("on_device")
    dense, late = Training("streamed", **case).run(70), Training("lazy", **case).run(70)
    assert isinstance(late.rows, RowwiseAdam)
    assert (dense.rows.interval, late.rows.interval) == (1, 8)
    assert_same(dense.state(), late.state())
    assert_close(dense.state(), host)


@pytest.mark.usefixtures("on_device")
def test_clipping_is_done_without_looking_at_the_norm():
    one = Training("lazy", clip=0.01).run(50)
    assert_close(one.state(), Training("dense", clip=0.01).run(50).state())
    assert not np.allclose(one.state()["embedding.weight"],
                           Training("lazy").run(50).state()["embedding.weight"])


@pytest.mark.usefixtures("on_device")
def test_lines_of_the_small_tables_stand_where_ids_first_come():
    training = Training("lazy").run(1)
    ids = torch.tensor([[5, 61, 70, 270], [5, 60, 70, 280]], dtype=torch.int32)
    local, small = training.rows.gather(ids)
    assert local.tolist() == [[0, 1, 2, 3], [0, 5, 2, 7]]
    for name, table in training.rows.tables.items():
        assert torch.equal(small[name][local.long()], table.parameter[ids.long()])


@pytest.mark.usefixtures("on_device")
def test_small_tables_keep_their_shape_and_never_look_like_the_whole_one():
    training = Training("streamed").run(3)
    shapes = {tuple(table.shape) for table in training.rows.compact.values()}
    training.run(2, 3).run(2, 1)
    assert {tuple(table.shape) for table in training.rows.compact.values()} == shapes
    training.run(1, sum(SIZES) // 4)
    assert training.rows.capacity == sum(SIZES) + 1


@pytest.mark.usefixtures("on_device")
def test_rates_are_sent_ahead_and_a_change_of_lr_spares_the_steps_before_it(monkeypatch):
    monkeypatch.setattr(rowwise, "AHEAD", 20)
    made = []
    for update in ("lazy", "streamed", "dense"):
        training = Training(update).run(37)
        for group in training.optimizer.param_groups:
            group["lr"] = 0.0003
        made.append(training.run(40).state())
    assert_same(made[0], made[1])
    assert_close(made[0], made[2])


@pytest.mark.usefixtures("on_device")
@pytest.mark.slow
def test_rates_outlive_the_ring_that_holds_them(monkeypatch):
    for module in (rowwise, adam_device):
        monkeypatch.setattr(module, "MEMORY", 64)
    late, whole = Training("lazy").run(80), Training("dense").run(80)
    assert_close(late.state(), whole.state())


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("other", few(["dense", "host"], 0))
def test_a_device_goes_on_from_any_state_and_any_form_from_its(monkeypatch, other):
    straight = Training("lazy").run(60).state()
    for first_on_device in (True, False):
        update = "dense" if other == "dense" else "streamed"
        monkeypatch.setattr(Step, "as_on_device", first_on_device or other == "dense")
        started = Training("lazy" if first_on_device else update).run(25)
        states = started.optimizer.state_dict(), started.model.state_dict()
        monkeypatch.setattr(Step, "as_on_device", not first_on_device or other == "dense")
        resumed = Training(update if first_on_device else "lazy")
        resumed.model.load_state_dict(states[1])
        resumed.optimizer.load_state_dict(states[0])
        resumed.step, resumed.losses = 25, list(started.losses)
        assert_close(resumed.run(35).state(), straight)


@pytest.mark.usefixtures("on_device")
def test_a_gradient_that_is_not_finite_is_seen_in_the_loss():
    training = Training("lazy").run(9)
    with torch.no_grad():
        training.model.linear.layer.bias.fill_(torch.nan)
    assert np.isnan(training.run(1).losses[-1])


def test_plain_torch_stands_in_where_triton_cannot_run(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert operations_for(torch.zeros(1)) is PLAIN
    monkeypatch.setattr(adam_device, "triton_installed", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert operations_for(torch.zeros(1)) is PLAIN


def test_moments_that_cannot_be_read_as_one_block_are_refused():
    table = torch.zeros(3, 4)
    state = {"step": torch.zeros(()), "exp_avg": torch.zeros(4, 3).t(),
             "exp_avg_sq": torch.zeros(3, 4)}
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="must be contiguous"):
        RowwiseAdam({"table": (table, state, group)}, {}, "streamed")


@pytest.mark.slow
@pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
@pytest.mark.parametrize("script", ["triton_in_its_interpreter.py", "triton_compiled.py"])
def test_triton(script):
    """In a process of its own: whether Triton interprets or compiles is settled when it is first
    imported."""
    here = Path(__file__).resolve().parent
    done = subprocess.run([sys.executable, str(here / script)], capture_output=True, text=True,
                          check=False, env={
        **os.environ, "TRITON_INTERPRET": "1" if "interpreter" in script else "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here.parent), str(here.parent.parent)])})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all checks passed\n")
