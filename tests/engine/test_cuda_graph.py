"""Steps played back from a recording: the same bits, recorded anew when they must be, and nothing
that waits."""

import pytest
import torch
from recording import record
from training import BATCH, SIZES, Training, assert_same, few, words

from engine.optim.cuda_graph import WARM, CudaGraphStep, maybe_cuda_graph
from engine.optim.step import Step, StepForm, build_optimizer
from models.embedding.pep import THRESHOLD_TYPES

pytestmark = pytest.mark.usefixtures("on_device")
CASES = [*({"threshold_type": kind} for kind in THRESHOLD_TYPES), {"embedding": "uniform"},
         {"embedding": "masked"},
         {"model": "linear", "embedding": "none"}, {"model": "deepfm"}, {"model": "autoint"},
         {"model": "dlrm"}]
UPDATES = ("dense", "streamed", "lazy")


class Recording(Training):
    """A training whose steps are recorded."""

    def __init__(self, update, **values):
        super().__init__(update, **values)
        self.recordings = 0
        self.plain, self.advance = self.advance, CudaGraphStep(self.advance, self.count)

    def count(self, function):
        self.recordings += 1
        return record(function)

    @property
    def rows(self):
        return self.plain.rows


@pytest.mark.parametrize("update", few(UPDATES, 2))
@pytest.mark.parametrize("case", few(CASES, 0), ids=words)
def test_a_recorded_step_has_the_bits_of_the_step(case, update):
    played, taken = Recording(update, **case), Training(update, **case)
    for training in (played, taken):
        training.run(2 * WARM).run(1, 3).run(8)
    assert_same(played.state(), taken.state())
    assert played.recordings == 1


@pytest.mark.parametrize("update", few(UPDATES, 2))
def test_clipping_is_decided_at_each_step(update):
    played, taken = (kind(update, clip=0.05).run(12) for kind in (Recording, Training))
    assert_same(played.state(), taken.state())


@pytest.mark.parametrize("update", few(UPDATES, 2))
def test_another_rate_or_other_parameters_are_recorded_anew(update):
    made = []
    for training in (Recording(update), Training(update)):
        training.run(10)
        for group in training.optimizer.param_groups:
            group["lr"] = 0.003
        training.run(10)
        training.optimizer.load_state_dict(training.optimizer.state_dict())  # as after a checkpoint
        made.append(training.run(10))
    assert_same(made[0].state(), made[1].state())
    assert made[0].recordings == (2 if update == "dense" else 3)


def test_looking_at_the_tables_between_steps_changes_nothing():
    played, taken = Recording("lazy"), Training("lazy")
    for training in (played, taken):
        for _ in range(4):
            training.run(4)
            training.optimizer.refresh()
    assert_same(played.state(), taken.state())


def test_the_loss_outlives_the_next_step():
    played = Recording("streamed").run(WARM)
    losses = [played.advance(*played.batch()) for played.step in range(WARM, WARM + 4)]
    assert len({float(loss) for loss in losses}) == 4


def test_flags_of_the_recording_stay_out_of_checkpoints():
    played = Recording("dense").run(WARM + 2)
    assert not any(group["capturable"] for group in played.optimizer.state_dict()["param_groups"])


def test_a_step_that_cannot_be_recorded_is_taken_as_ever(caplog):
    def fail_once(function):
        tried.append(function)
        if len(tried) == 1:
            raise RuntimeError("operation not permitted\nmore")
        return record(function)

    tried = []
    played, taken = Recording("lazy"), Training("lazy").run(20)
    played.advance.record = fail_once
    assert_same(played.run(20).state(), taken.state())
    assert len(tried) == 2  # the second, empty one clears up
    assert "recording a CUDA graph failed: operation not permitted" in caplog.text


def test_the_setting_decides_where_there_is_a_gpu():
    step, cpu, gpu = Training("dense").advance, torch.device("cpu"), torch.device("cuda")
    assert maybe_cuda_graph(step, "auto", cpu) is step
    assert maybe_cuda_graph(step, "off", gpu) is step
    assert isinstance(maybe_cuda_graph(step, "auto", gpu), CudaGraphStep)
    with pytest.raises(ValueError,
                       match="cuda_graph=on needs a CUDA device, and this run is on cpu"):
        maybe_cuda_graph(step, "on", cpu)


@pytest.mark.parametrize("update", few(UPDATES, 2))
@pytest.mark.parametrize("case", few(CASES, 0), ids=words)
def test_nothing_in_a_step_waits_for_a_value_or_brings_one_from_the_host(monkeypatch, case, update):
    """On meta tensors, which have no values: asking for one, or mixing in a tensor of the host, is
    an error."""
    # refuses meta tensors
    monkeypatch.setattr(torch.nn.utils, "clip_grads_with_norm_", lambda *_, **__: None)
    training = Training(update, **case)
    model = training.model.to("meta")
    optimizer = build_optimizer(model, 0.01, 0.03, 0.03)
    for parameter in model.parameters():  # steps are counted where the host can read them, once
        optimizer.state[parameter] = {"step": torch.zeros(()),
                                      "exp_avg": torch.zeros_like(parameter),
                                      "exp_avg_sq": torch.zeros_like(parameter)}
    optimizer.step = lambda: None  # of this one; torch's own refuses meta tensors
    step = Step(model, optimizer, 100.0, StepForm(BATCH, update=update))
    batch = torch.zeros(BATCH, len(SIZES), dtype=torch.int32,
                        device="meta"), torch.zeros(BATCH, device="meta")
    assert step(*batch).is_meta
