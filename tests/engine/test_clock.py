"""Folded into a clock or not, a search leaves the same bits."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from engine.checkpoint import load_checkpoint
from engine.optim import step as optim
from engine.optim.step import Step, StepForm, build_optimizer
from engine.pep.budgets import SaveAtBudgets
from engine.pep.clock import Unfold
from models.build import build_embedding, build_model
from models.embedding.pep import FOLDED_BELOW, LANES, THRESHOLD_TYPES, Pep, Thresholds
from models.kernels.threshold import GATES

SIZES, WIDTH, BATCH = (60, 3, 80), 5, 64
ENTRIES = sum(SIZES) * WIDTH  # more than LANES, and no multiple of it
VALUES = {"model": "fm", "embedding": "pep", "latent_dim": WIDTH, "threshold_type": "feature_dim",
          "gk": 1e12,
          "g_type": "sigmoid", "threshold_init": -150.0, "mlp_dims": (6,), "dropout": 0.2}


class Search:
    """A PEP search on random batches, step by step; the last row of each field is in none of
    them."""

    def __init__(self, folded, lr=1.0, decay=1e-5, clip=100.0, compiled=False, **values):
        values = {**VALUES, **values}
        self.embedding = build_embedding(SIZES, values, 1)
        with torch.no_grad():
            self.embedding.weight[1, :2] = torch.tensor([0.0, -0.0])
        self.model = build_model(SIZES, values, 1, self.embedding).train()
        if folded:
            self.embedding.fold()
            assert self.embedding.clock is not None
        self.optimizer = build_optimizer(self.model, lr, decay, decay)
        self.advance = Step(self.model, self.optimizer, clip, StepForm(BATCH, compiled))
        self.step, self.unfolded_after = 0, None
        self.unfold = Unfold(self.embedding)
        self.generator = torch.Generator().manual_seed(0)

    def run(self, steps):
        starts = torch.tensor([0, *itertools.accumulate(SIZES[:-1])])
        for _ in range(steps):
            columns = [torch.randint(size - 1, (BATCH,), generator=self.generator)
                       for size in SIZES]
            labels = torch.randint(2, (BATCH,), generator=self.generator).float()
            torch.manual_seed(self.step)  # of the dropout
            self.advance((torch.stack(columns, 1) + starts).int(), labels)
            self.step += 1
            before = self.embedding.clock
            self.unfold(self)
            if before is not None and self.embedding.clock is None:
                self.unfolded_after = self.step
        return self

    def bits(self):
        """All that the steps have made, as bytes; a clock is spread first."""
        embedding = self.embedding
        spread = embedding.spread if embedding.clock is not None else lambda tensor: tensor
        s = embedding.thresholds if embedding.clock is None else embedding.clock
        # a zero has no sign: in which code clamp(-0, -0, 0) falls decides it
        kept = {"table": embedding.table() + 0.0,
                "thresholds": spread(s.detach()), "count": embedding.num_params()}
        kept |= {f"thresholds {name}": value if name == "step" else spread(value)
                 for name, value in self.optimizer.state[s].items()}
        for name, parameter in self.model.named_parameters():
            if parameter is not s:
                kept |= {name: parameter,
                         **{f"{name} {k}": v for k, v in self.optimizer.state[parameter].items()}}
        return {name: value.detach().numpy().tobytes() if torch.is_tensor(value) else value
                for name, value in kept.items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} == set()


CASES = [*({"threshold_type": kind, "g_type": gate} for kind in THRESHOLD_TYPES for gate in GATES),
         {"clip": 0.01}, {"model": "deepfm"}, {"threshold_decay": "decoupled", "decay": 0.012}]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_folded_and_full_are_the_same_bits_before_and_after_the_unfolding_and_into_the_pruning(
    case,
):
    folded, full = Search(True, **case), Search(False, **case)
    for steps in (1, 19, 20, 110, 15):
        assert_same(folded.run(steps).bits(), full.run(steps).bits())
    assert 20 < folded.unfolded_after < 40
    assert folded.embedding.num_params() < ENTRIES - 20
    s = full.embedding.thresholds.detach()
    assert s.unique().numel() > 1 or s.numel() == 1  # by then the data have had their say


@pytest.mark.parametrize("case", [
    pytest.param({}, marks=pytest.mark.slow),
    pytest.param({"threshold_type": "dimension", "g_type": "softplus"}, marks=pytest.mark.slow),
    # other bits where model and gradient are not compiled apart
    {"threshold_type": "feature", "clip": 0.01},
], ids=lambda case: " ".join(map(str, case.values())) or "feature_dim")
def test_compiled_they_are_the_same_bits_too(case):
    folded, full = Search(True, compiled=True, **case), Search(False, compiled=True, **case)
    for steps in (20, 20, 110, 15):
        assert_same(folded.run(steps).bits(), full.run(steps).bits())
    assert 20 < folded.unfolded_after < 40
    assert folded.embedding.num_params() < ENTRIES - 20


def test_without_decay_the_clock_never_moves_and_never_unfolds():
    folded, full = Search(True, decay=0.0).run(60), Search(False, decay=0.0).run(60)
    assert_same(folded.bits(), full.bits())
    assert folded.unfolded_after is None
    assert torch.equal(folded.embedding.clock, torch.full_like(folded.embedding.clock, -150.0))


@pytest.mark.parametrize("start", [0.0, -0.0])
@pytest.mark.parametrize("folded", [True, False])
def test_an_entry_that_is_exactly_zero_gets_no_gradient_and_stays(folded, start):
    search = Search(folded)
    ids = torch.tensor([[1, 60, 63]])
    with torch.no_grad():
        search.embedding.weight[1, :2] = start
    search.model(ids).sum().backward()
    assert (search.embedding.weight.grad[1] != 0).tolist() == [False, False, True, True, True]
    assert not (search.embedding.clock if folded else search.embedding.thresholds).grad.any()
    search.run(15)
    assert (search.embedding.weight[1] != 0).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("kind", THRESHOLD_TYPES)
def test_folded_it_counts_and_shows_the_table_itself(kind):
    embedding = Search(True, threshold_type=kind).embedding
    assert embedding.num_params() == ENTRIES - 2
    assert torch.equal(embedding.table(), embedding.weight)
    assert torch.equal(embedding.margins_of(**embedding.parts()), embedding.weight.abs())
    assert sum(parameter.numel() for parameter in embedding.parameters()) <= ENTRIES + 2 * LANES
    embedding.unfold()
    assert embedding.num_params() == ENTRIES - 2
    assert torch.equal(embedding.thresholds, torch.full(embedding.shape, -150.0))


def test_denormals_are_counted_alike():
    embedding = Search(True).embedding
    torch.set_flush_denormal(False)
    try:
        with torch.no_grad():
            embedding.weight[3] = 1e-40
        for flush in (False, True):
            torch.set_flush_denormal(flush)
            folded = embedding.num_params()
            assert (
                folded == int(torch.count_nonzero(embedding.table())) == ENTRIES - 2 - WIDTH * flush
            )
    finally:
        torch.set_flush_denormal(True)  # as in the rest of the suite


@pytest.mark.parametrize(("init", "folds"),
                         [(-15.0, False), (FOLDED_BELOW, False), (-110.01, True)])
def test_it_folds_only_far_below_zero(init, folds):
    embedding = build_embedding(SIZES, {**VALUES, "threshold_init": init}, 1)
    embedding.fold()
    assert (embedding.clock is not None) == folds
    assert [name for name, _ in embedding.named_parameters()] == ["weight", "clock" if folds
                                                                  else "thresholds"]


@pytest.mark.parametrize("gate", GATES)
def test_where_it_folds_gate_and_slope_are_exactly_zero_with_room_to_spare(gate):
    """Without flushing denormals, one at a time and vectorised."""
    torch.set_flush_denormal(False)
    try:
        for entries in (1, 64):
            s = torch.full((entries,), FOLDED_BELOW + 5, requires_grad=True)
            g = GATES[gate](s)
            g.sum().backward()
            assert not g.any()
            assert not s.grad.any()
    finally:
        torch.set_flush_denormal(True)


# ---- when it unfolds
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lr", "init"), [(1e-3, -110.05), (0.03, -111.0), (0.7, -150.0),
                                          (40.0, -150.0), (1e4, -1e3)])
def test_no_step_is_taken_folded_above_the_border_and_when_it_unfolds_does_not_hang_on_when_it_looked(
    lr, init
):
    search, looking = Search(True, lr=lr, threshold_init=init), Search(True, lr=lr,
                                                                       threshold_init=init)
    looks = 0
    while search.unfolded_after is None:
        assert search.embedding.clock.max() <= FOLDED_BELOW
        before = search.unfold.next_look
        search.run(1)
        looks += search.unfold.next_look != before
        looking.unfold = Unfold(looking.embedding)
        looking.run(1)
    assert looking.unfolded_after == search.unfolded_after
    assert looks < 60
    assert search.embedding.thresholds.max() > FOLDED_BELOW - 9 * lr  # and not long before


def test_it_seldom_looks():
    search = Search(True, lr=1e-3).run(1)
    assert search.unfold.next_look > 5000
    assert Search(True, lr=0.0).run(1).unfold.next_look > 1e9


def test_it_says_once_that_it_starts_and_once_that_it_ends(caplog):
    caplog.set_level("INFO", "pep")
    Search(True).run(60)
    first, last = (text for record in caplog.records
                   if (text := record.getMessage()).startswith("thresholds"))
    assert (
        first
        == "thresholds: one clock for all (s = -149.0000 after step 1), until it comes to -110"
    )
    assert last.startswith("thresholds: each for itself (s = -11")


# ---- budgets
# --------------------------------------------------------------------------------------------------------


def cut_by_size(weight, count):
    kept = np.argsort(-np.abs(weight).ravel(), kind="stable")[:count]
    table = np.zeros(weight.size, np.float32)
    table[kept] = weight.ravel()[kept]
    return table.reshape(weight.shape)


@pytest.mark.parametrize("kind", THRESHOLD_TYPES)
@pytest.mark.parametrize("when", ["folded", "at the first count after"])
def test_a_budget_is_cut_from_the_last_folded_count(kind, when):
    embedding, saved = Search(True, threshold_type=kind).embedding, {}
    saver = SaveAtBudgets(embedding, (300, 10), True, lambda name, table,
                          meta: saved.update({name: table}))
    state = SimpleNamespace(epoch=0, step=1, refresh=lambda: None)
    with torch.no_grad():
        embedding.weight += 0.1
    assert saver(state) is None
    last = embedding.weight.detach().numpy().copy()
    with torch.no_grad():
        embedding.weight *= -0.5
        embedding.weight[:100] = 0.0
    if when != "folded":
        embedding.unfold()
    assert saver(state) is None
    assert list(saved) == ["300"]
    assert np.array_equal(saved["300"], cut_by_size(last, 300))


# ---- whole runs
# -----------------------------------------------------------------------------------------------------

RUN = {"embedding": "pep", "threshold_init": -150.0, "lr": 1.2, "candidate_p": [550, 300, 20],
       "max_epochs": 20,
       "log_interval": 3, "gk": 1e12}  # 8 steps an epoch, the last on half a batch


def unfold_at_once(monkeypatch):
    fold = Pep.fold
    monkeypatch.setattr(Pep, "fold", lambda embedding: (fold(embedding), embedding.unfold()))


def files(out):
    return {str(path.relative_to(out)): path.read_bytes()
            for path in (*out.glob("runs/*/curve.jsonl"), *out.glob("embedding/*/*/*.npz"))}


@pytest.fixture
def seen(monkeypatch):
    tiny.install(monkeypatch, tiny.dataset(rows=600))
    return tiny.spy(monkeypatch)


@pytest.mark.parametrize("settings", [
    {}, {"budget": "as_reached", "model": "deepfm"},
    {"threshold_type": "dimension", "l2_regularization": 1e-3},
    {"lr": 150.0, "log_interval": 1},  # one step goes all the way
], ids=["exact", "as reached", "dimension", "one leap"])
def test_a_search_leaves_the_same_snapshots_curve_result_and_run_id(tmp_path, seen, monkeypatch,
                                                                    caplog, settings):
    caplog.set_level("INFO", "pep")
    folded = tiny.train(tmp_path / "folded", **{**RUN, **settings})
    assert "each for itself" in caplog.text
    caplog.clear()
    unfold_at_once(monkeypatch)
    full = tiny.train(tmp_path / "full", **{**RUN, **settings})
    assert "clock" not in caplog.text
    assert full["num_embedding_params"] < 400
    assert tiny.without_times(folded) == tiny.without_times(full)
    assert_same(files(tmp_path / "folded"), files(tmp_path / "full"))
    one, other = (model.state_dict() for model, _ in seen)
    assert_same({name: value.numpy().tobytes() for name, value in one.items()},
                {name: value.numpy().tobytes() for name, value in other.items()})


def test_a_search_from_movielens_own_start_has_no_clock(tmp_path, seen, caplog):
    caplog.set_level("INFO", "pep")
    tiny.train(tmp_path, embedding="pep", threshold_init=-15.0, candidate_p=[300], max_epochs=1)
    assert "clock" not in caplog.text
    [(model, before)] = seen
    assert before["embedding.thresholds"].shape == (190, 4)
    assert not model.embedding.foldable


class Killed(BaseException):
    """Nothing catches it but the test."""


def killed(out, after):
    """Kill a run that keeps a checkpoint of every step."""
    advance, steps = optim.Step.__call__, []

    def counted(*arguments):
        if len(steps) == after:
            raise Killed
        steps.append(1)
        return advance(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim.Step, "__call__", counted)
        with pytest.raises(Killed):
            tiny.train(out, **RUN, checkpoint_seconds=0.0)


@pytest.mark.parametrize("after", [10, 40])  # it unfolds after step 26
@pytest.mark.parametrize("written", ["folded", "full"])
def test_a_checkpoint_of_either_form_is_read_into_a_model_of_either_form(tmp_path, seen, written,
                                                                         after):
    expected = tiny.without_times(tiny.train(tmp_path / "whole", **RUN))
    with pytest.MonkeyPatch.context() as patch:
        if written == "full":
            unfold_at_once(patch)
        killed(tmp_path / "killed", after)
    [checkpoint] = tmp_path.glob("killed/runs/*/checkpoint.safetensors")
    content = load_checkpoint(checkpoint)
    assert ("embedding.clock" in content["model"]) == (written == "folded" and after == 10)
    # a new one comes last, so that old checkpoints can be read
    names = {"evaluate", "stopper", "own0", "own1", "own2"}
    assert content["hooks"].keys() == names
    with pytest.MonkeyPatch.context() as patch:
        if written == "folded":
            unfold_at_once(patch)
        resumed = tiny.train(tmp_path / "killed", **RUN)
    assert tiny.without_times(resumed) == expected
    assert_same(files(tmp_path / "killed"), files(tmp_path / "whole"))
    assert torch.equal(seen[0][0].embedding.thresholds, seen[-1][0].embedding.thresholds)


def test_a_state_is_read_folded_or_not_as_it_was_saved():
    thresholds = Thresholds("feature", -150.0)
    folded, full = (Pep(torch.rand(100, 2), (40, 60), thresholds) for _ in range(2))
    folded.fold()
    with torch.no_grad():
        folded.clock.fill_(-140.0)
        full.thresholds.fill_(-130.0)
    saved = {"folded": {name: value.clone() for name, value in folded.state_dict().items()},
             "full": {name: value.clone() for name, value in full.state_dict().items()}}
    for embedding, (name, state) in itertools.product((folded, full), saved.items()):
        embedding.load_state_dict(state)
        assert embedding.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in embedding.state_dict().items())
        assert (embedding.clock is not None) == (name == "folded")
    assert math.prod(folded.shape) % LANES
