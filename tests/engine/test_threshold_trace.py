"""What moves the thresholds: settings that take one cause away, and the record that tells the
causes apart."""

import itertools

import numpy as np
import pytest
import tiny
import torch
from training import SIZES, Training

from engine.optim.cpu.rowwise import RowwiseAdam
from engine.optim.step import Adam, state_of
from engine.pep.threshold_trace import DecayOnlyThreshold, ThresholdTrace
from engine.settings import parse
from models.embedding import pep
from models.embedding.pep import Pep, Thresholds

ENTRIES = sum(tiny.SIZES.values()) * tiny.SETTINGS["latent_dim"]
SEARCH = {"embedding": "pep", "candidate_p": [1], "max_epochs": 6, "eval_interval": 2, "lr": 0.02,
          "l2_regularization": 1e-3}
CAUSES = [*itertools.product(("coupled", "decoupled", "none"), (True, False))]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The thresholds' record of a search with each pair of causes."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch, tiny.dataset())
        return {(decay, gradient): tiny.train(tmp_path_factory.mktemp(decay), **SEARCH,
                                              threshold_decay=decay,
                                              threshold_gradient=gradient)["thresholds"]["lines"]
                for decay, gradient in CAUSES}


@pytest.mark.parametrize("causes", CAUSES)
def test_every_entry_is_kept_or_pruned_by_decay_or_by_the_gradient(searched, causes):
    lines = searched[causes]
    assert [line["epoch"] for line in lines] == [0, 2, 4, 6]
    assert lines[0]["least"] == lines[0]["most"] == lines[0]["decay_only"] == -3.0
    assert all(line["kept"] + line["pruned_by_decay"] + line["pruned_by_gradient"] == ENTRIES
               for line in lines)


@pytest.mark.parametrize("decay", ["coupled", "decoupled", "none"])
def test_without_the_losss_gradient_decay_alone_moves_and_prunes(
    searched, decay
):
    for line in searched[decay, False]:
        assert line["least"] == pytest.approx(line["decay_only"], abs=2e-5)
        assert line["most"] == pytest.approx(line["decay_only"], abs=2e-5)
        # an entry within rounding of the border
        assert line["pruned_by_gradient"] + line["kept_by_gradient"] <= 1
    assert any(
        searched[decay, True][-1]["least"] < line["decay_only"] < searched[decay, True][-1]["most"]
        for line in searched[decay, True][-1:]
    )


def test_decay_moves_by_lr_a_step_only_where_it_is_coupled(searched):
    steps = searched["coupled", True][-1]["step"]
    assert searched["none", True][-1]["decay_only"] == -3.0
    expected = pytest.approx(-3 * (1 - 0.02 * 1e-3) ** steps, abs=1e-4)
    assert searched["decoupled", True][-1]["decay_only"] == expected
    assert searched["coupled", True][1]["decay_only"] > -3 + 0.5 * 0.02 * searched["coupled",
                                                                              True][1]["step"]


def test_without_decay_and_gradient_nothing_moves_and_with_the_gradient_it_prunes(searched):
    still = searched["none", False]
    assert {(line["least"], line["most"]) for line in still} == {(-3.0, -3.0)}
    assert any(line["pruned_by_gradient"] for line in searched["none", True])


def test_a_table_by_hand():
    embedding = Pep(torch.tensor([[0.9, 0.4], [0.2, 0.6]]), (1, 1), Thresholds(init=0.0))
    decay_only = DecayOnlyThreshold(parse({"threshold_init": 0.0, "threshold_decay": "none"}))
    with torch.no_grad():
        # g: 1, 0, 0.5, 0.5; of decay alone: 0.5
        embedding.thresholds.copy_(torch.tensor([[9.0, -9.0], [0.0, 0.0]]))
    trace = ThresholdTrace(embedding, decay_only, 1)
    trace.record(3, 30)
    trace.record(3.5, 30)
    [line] = trace.lines
    assert (line["kept"], line["pruned_by_decay"]) == (2, 1)
    assert (line["pruned_by_gradient"], line["kept_by_gradient"]) == (1, 1)
    assert (line["mean_of_kept"], line["mean_of_pruned"], line["mean"]) == (-4.5, 4.5, 0.0)


@pytest.mark.parametrize("kind", ["global", "dimension", "feature", "field", "field_dim"])
def test_other_granularities_have_no_thresholds_of_their_own_entries(kind):
    embedding = Pep(torch.randn(5, 3), (2, 3), Thresholds(kind, init=-1.0))
    trace = ThresholdTrace(embedding, DecayOnlyThreshold(parse({"threshold_init": -1.0})), 1)
    trace.record(0, 0)
    assert trace.lines[0]["kept"] == embedding.num_params()
    assert trace.lines[0]["pruned_by_gradient"] == trace.lines[0]["kept_by_gradient"] == 0
    assert (trace.lines[0]["mean_of_kept"] is None) == (kind != "global")


@pytest.mark.parametrize("kind", ["global", "dimension", "feature", "field", "field_dim",
                                  "feature_dim"])
def test_some_rows_at_a_time_the_same_entries_are_kept(kind, monkeypatch):
    monkeypatch.setattr(pep, "CHUNK", 12)  # 4 rows of 3; 5 parts, the last of 2 rows
    embedding = Pep(torch.randn(18, 3), (7, 11), Thresholds(kind, init=-1.0))
    with torch.no_grad():
        embedding.thresholds += torch.randn(embedding.thresholds.shape)
    parts = list(embedding.kept_by_chunk())
    assert [len(kept) for _, kept in parts] == [4, 4, 4, 4, 2]
    assert torch.equal(torch.cat([kept for _, kept in parts]), embedding.table() != 0)
    assert embedding.row_indexed == (("weight", "thresholds") if kind in ("feature", "feature_dim")
                                else ("weight",))
    trace = ThresholdTrace(embedding, DecayOnlyThreshold(parse({"threshold_init": -1.0})), 1)
    trace.record(0, 0)
    assert trace.lines[0]["kept"] == embedding.num_params()
    assert trace.lines[0]["mean"] == pytest.approx(float(embedding.thresholds.detach().mean()),
                                                    abs=1e-6)


def test_decay_alone_is_adams_own_on_large_tensors_too():
    s = torch.nn.Parameter(torch.full((1000,), -15.0))
    adam = torch.optim.Adam([s], lr=1e-3, weight_decay=1e-5, fused=True)
    decay_only = DecayOnlyThreshold(parse({"threshold_init": -15.0, "table_update": "dense"}))
    for step in range(1, 301):
        s.grad = torch.zeros_like(s)
        adam.step()
        if step % 100 == 0:
            assert decay_only.at(step) == s[0].item()


@pytest.mark.parametrize("form", ["streamed", "lazy"])
def test_decay_alone_is_that_of_a_table_to_the_last_bit(form):
    s = torch.nn.Parameter(torch.full((40, 3), -15.0))
    adam = Adam([s], lr=1e-3, weight_decay=1e-5, fused=True)
    rows = RowwiseAdam({"s": (s, state_of(adam, s), adam.param_groups[0])}, {}, form)
    decay_only = DecayOnlyThreshold(parse({"threshold_init": -15.0, "table_update": form}))
    for step in range(1, 301):
        rows.gather(torch.tensor([[7, 9]], dtype=torch.int32))
        rows.apply({"s": np.zeros((2, 3), np.float32)}, [], 1.0)
        if step % 100 == 0:
            rows.refresh()
            assert s.unique().tolist() == [decay_only.at(step)]


# ---- the step ----


@pytest.mark.parametrize("update", ["dense", "auto"])
def test_decay_of_the_thresholds_alone_is_changed(update):
    made = {}
    for decay in ("coupled", "decoupled", "none"):
        training = Training(update, threshold_init=-150.0, threshold_decay=decay).run(20)
        training.optimizer.refresh()
        made[decay] = (
            training.embedding.thresholds.detach().clone(),
            training.embedding.weight.detach(),
        )
    assert torch.equal(made["none"][0], torch.full((sum(SIZES), 5), -150.0))
    np.testing.assert_allclose(made["decoupled"][0], -150 * (1 - 0.01 * 0.03) ** 20, rtol=1e-6)
    np.testing.assert_allclose(made["coupled"][0], -150 + 0.01 * 20, atol=2e-3)
    for decay in ("decoupled", "none"):
        torch.testing.assert_close(made[decay][1], made["coupled"][1], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["feature_dim", "field", "dimension"])
@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_cut_off_from_the_loss_thresholds_move_alike_and_the_table_still_learns(kind, update):
    training = Training(update, decay=1e-5, threshold_type=kind, threshold_gradient=False,
                        threshold_init=-2.0)
    before = training.embedding.weight.detach().clone()
    training.run(30)
    training.optimizer.refresh()
    thresholds = training.embedding.thresholds.detach()
    assert float(thresholds.max() - thresholds.min()) < 1e-5
    assert float(thresholds.mean()) > -2 + 0.01 * 25
    assert not torch.equal(before, training.embedding.weight)
    free = Training(update, decay=1e-5, threshold_type=kind, threshold_init=-2.0).run(30)
    free.optimizer.refresh()
    assert float((free.embedding.thresholds.max()
                  - free.embedding.thresholds.min()).detach()) > 1e-3
