"""What only a CUDA device can show: Triton's kernels, recorded steps, the order made there, runs
that resume."""

import pytest
import tiny
import torch
from training import BATCH, Training, assert_close, assert_same

from data.loader import shuffled
from engine.hooks import Evaluate
from engine.optim.gpu import recorded
from engine.optim.step import Step, build_optimizer
from models.build import EMBEDDINGS, MODELS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class OnCuda(Training):
    """A training whose model and batches are on the device."""

    def __init__(self, update, **values):
        super().__init__(update, **values)
        self.model.cuda()
        self.optimizer = build_optimizer(self.model, 0.01, 0.03, 0.03)
        self.advance = Step(self.model, self.optimizer, 100.0, values.get("l2_penalty", 0.0),
                            update)

    def batch(self, rows=BATCH):
        return tuple(part.cuda() for part in super().batch(rows))

    def state(self):
        self.optimizer.refresh()
        self.model.cpu()
        for state in self.optimizer.state.values():
            state |= {name: value.cpu() for name, value in state.items()}
        return super().state()


@pytest.mark.parametrize("update", ["streamed", "lazy"])
def test_triton_takes_the_steps_of_plain_torch_on_a_cpu(monkeypatch, update):
    found = OnCuda(update).run(60).state()
    monkeypatch.setattr(Step, "as_on_device", True)
    assert_close(found, Training(update).run(60).state())


def some_steps(update, monkeypatch=None, **values):
    """Forty steps, some of them of short batches and the last ones with another rate."""
    if monkeypatch is not None:
        monkeypatch.setattr(recorded, "FIRST", 1_000)
    training = OnCuda(update, **values).run(12).run(1, 5).run(12)
    for group in training.optimizer.param_groups:
        group["lr"] = 0.003
    training.run(12).run(1, 3)
    return training.run(6, 2 * BATCH)


@pytest.mark.parametrize("update", ["streamed", "lazy"])
@pytest.mark.parametrize("values", [
    {}, {"embedding": "uniform"}, {"embedding": "masked"}, {"threshold_type": "field"},
    {"model": "linear", "embedding": "none"}, {"model": "deepfm"}, {"model": "autoint"},
    {"l2_penalty": 0.01}], ids=lambda values: " ".join(map(str, values.values())) or "pep")
def test_a_recorded_step_has_the_bits_of_one_taken_call_by_call(monkeypatch, update, values):
    training = some_steps(update, **values)
    assert training.advance.recorded.graph is not None
    found = training.state()
    assert_same(found, some_steps(update, monkeypatch, **values).state())


def test_a_parameter_that_lies_elsewhere_has_the_step_recorded_anew():
    training, undisturbed = OnCuda("lazy").run(8), OnCuda("lazy").run(16)
    bias = training.model.linear.layer.bias
    bias.data = bias.data.clone()
    training.run(2)
    assert training.advance.recorded.graph is None
    training.run(6)
    assert training.advance.recorded.graph is not None
    assert_same(training.state(), undisturbed.state())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_every_embedding_and_model_is_trained(tmp_path, monkeypatch, model, embedding):
    if MODELS[model].embedding or MODELS[model].reads_dense:
        pytest.skip("brings its own, or needs other data")
    tiny.install(monkeypatch, tiny.dataset(rows=600))
    own = {"candidate_p": [550], "hash_rows": 50, "mgqe_centroids": 16, "mgqe_subspaces": 2}
    losses = [tiny.train(tmp_path / device, places={"device": device}, model=model,
                         embedding=embedding, max_epochs=1, **own)["train_loss"]
              for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)  # another order, another dropout


@pytest.mark.parametrize("changes", [
    {"model": "fm"}, {"model": "deepfm"}, {"model": "autoint"},
    {"model": "fm", "threshold_type": "feature"}], ids=lambda changes: " ".join(changes.values()))
def test_a_run_in_lanes_is_trained_as_on_a_cpu(tmp_path, monkeypatch, changes):
    tiny.install(monkeypatch, tiny.dataset(rows=600))
    values = {**changes, "embedding": "pep", "candidate_p": [550], "dropout": 0.0,
              "att_dropout": 0.0, "max_epochs": 1, "lanes": 4}
    losses = [tiny.train(tmp_path / device, places={"device": device}, **values)["train_loss"]
              for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 100_003])
def test_the_order_is_that_of_every_device(rows):
    assert torch.equal(shuffled(rows, 12345, "cuda").cpu(), shuffled(rows, 12345, "cpu"))


@pytest.mark.parametrize("changes", [
    {"embedding": "pep", "candidate_p": [550, 20], "lr": 0.05},
    {"model": "deepfm", "embedding": "uniform"},
    {"model": "deepfm", "embedding": "pep", "candidate_p": [550, 20], "batch_size": 45,
     "table_update": "lazy"}])
def test_a_killed_run_ends_with_the_bits_of_one_that_was_left_alone(tmp_path, monkeypatch, changes):
    class Killed(BaseException):
        pass

    def evaluate(self, state):
        if len(self.history) == 2:
            raise Killed
        return original(self, state)

    tiny.install(monkeypatch, tiny.dataset(rows=600))
    settings = {**changes, "max_epochs": 4, "early_stop": 9, "checkpoint_seconds": 0.0}
    whole = tiny.train(tmp_path / "whole", places={"device": "cuda"}, **settings)
    original = Evaluate.__call__
    with monkeypatch.context() as patch:
        patch.setattr(Evaluate, "__call__", evaluate)
        with pytest.raises(Killed):
            tiny.train(tmp_path / "cut", places={"device": "cuda"}, **settings)
    resumed = tiny.train(tmp_path / "cut", places={"device": "cuda"}, **settings)
    assert tiny.without_times(resumed) == tiny.without_times(whole)
