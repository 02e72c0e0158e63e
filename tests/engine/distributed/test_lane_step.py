"""A step over lanes in one process against the step without lanes, and its parts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training import SIZES, Training

from engine import snapshots
from engine.distributed.lanes import LaneModel, LaneStep, lane_sizes
from engine.distributed.order import GROUP
from engine.distributed.rows import LaneLoader
from engine.distributed.shards import Shards
from engine.distributed.world import World
from models.base import ClickModel
from models.fm import FM
from models.kernels import attention, norm_relu_dropout


class InLanes(Training):
    """The same training, whose step goes over lanes; in this process alone."""

    def __init__(self, lanes=4, **values):
        super().__init__("lazy", **values)
        self.shards = Shards(self.model, World(lanes), Path("."))
        self.sizes_of_lanes = lanes
        self.advance = LaneStep(self.shards, self.model, 1, self.optimizer, self.advance.grad_clip,
                                self.advance.l2_penalty, "lazy")

    def batch(self, rows=16):
        ids, labels = super().batch(rows)
        sizes = lane_sizes(rows, self.sizes_of_lanes)
        return list(zip(ids.split(sizes), labels.split(sizes), strict=True)), torch.tensor(rows)

    def state(self):
        """In the order of the rows."""
        order = np.argsort(self.shards.rows_at(np.arange(sum(SIZES))))
        return {name: value[order] if value.shape[:1] == order.shape and "losses" not in name
                else value for name, value in super().state().items()}


@pytest.fixture
def by_autograd(monkeypatch):
    """An FM's step goes through autograd, as all lanes do, and layers are their definitions: the
    fast forms have last bits of their own, and a bound of their own in their tests."""
    monkeypatch.setattr(FM, "by_hand", ClickModel.by_hand)
    for kernel in (attention, norm_relu_dropout):
        monkeypatch.setattr(kernel, "runs_on_numba", lambda *tensors: False)


@pytest.mark.parametrize("values", [
    {}, {"threshold_type": "dimension"}, {"threshold_type": "field_dim"},
    {"threshold_type": "feature"}, {"embedding": "uniform"}, {"embedding": "masked"},
    {"model": "deepfm", "dropout": 0.0}, {"model": "deepfm", "dropout": 0.0, "clip": 0.01,
                                          "l2_penalty": 0.1},
    {"model": "autoint", "dropout": 0.0, "att_dropout": 0.0},
], ids=lambda values: " ".join(map(str, values.values())) or "pep")
@pytest.mark.parametrize(("rows", "on_device"), [(16, False), (3, False), (16, True)])
def test_ten_steps_are_those_without_lanes_but_for_the_last_bits(values, rows, on_device,
                                                                 by_autograd, monkeypatch):
    monkeypatch.setattr(LaneStep, "as_on_device", on_device)  # 3 rows: a lane has none
    values = {"decay": 1e-5, "lr": 0.001, **values}
    expected = Training("lazy", **values).run(10, rows).state()
    found = InLanes(**values).run(10, rows).state()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        # a batch norm cancels the one, the softmax a part of the other: nothing but rounding
        if name.startswith("mlp.mlp.0.bias") or "in_proj_bias" in name:
            continue
        apart = np.abs(found[name] - value) / (1 + np.abs(value))
        # where a gradient is next to nothing Adam makes its rounding as large as any: on another
        # processor a few entries differ by more
        assert np.mean(apart > 2e-6) <= 0.001, name
        assert np.max(apart, initial=0) < 2e-5, name


def test_one_lane_of_fm_has_the_bits_of_the_step_without_lanes(by_autograd):
    expected = Training("lazy", threshold_init=-3.0).run(10).state()
    found = InLanes(lanes=1, threshold_init=-3.0).run(10).state()
    assert {name for name in found if found[name].tobytes() != expected[name].tobytes()} == set()


@pytest.mark.parametrize("model", ["deepfm", "autoint"])
def test_dropout_of_lanes_draws_nothing_from_the_global_generator(model):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    training = InLanes(model=model, dropout=0.5, att_dropout=0.5)
    drawn = torch.get_rng_state()
    training.advance(*training.batch())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(before, drawn)


def test_lanes_are_read_on_the_cpu_whatever_the_device():
    ids, labels = np.zeros((10, 2), np.int32), np.ones(10, np.float32)
    loader = LaneLoader(World(4), ids, labels, 10, 1, torch.device("meta"), None)
    [(lanes, rows)] = loader.epoch(0)
    assert int(rows) == 10
    assert [(lane_ids.device.type, lane_labels.device.type)
            for lane_ids, lane_labels in lanes] == [("cpu", "cpu")] * 4


def test_an_id_outside_the_tables_is_named():
    made = InLanes().run(1)
    lanes, rows = made.batch()
    lanes[2] = (torch.full_like(lanes[2][0], 10**6), lanes[2][1])
    with pytest.raises(IndexError, match=r"the batch has the id 1000000; ids are 0 \.\. 299"):
        made.advance(lanes, rows)


def test_a_lane_that_fails_ends_the_step_and_no_lane_waits_for_it(monkeypatch):
    made = InLanes(model="deepfm").run(1)
    put = LaneModel.put

    def fail(lane, *tables):
        if lane is made.advance.lanes[2]:
            raise MemoryError("in a lane")
        put(lane, *tables)

    monkeypatch.setattr(LaneModel, "put", fail)
    with pytest.raises(MemoryError, match="in a lane"):
        made.run(1)


@pytest.mark.parametrize("rows", [4, 7, GROUP, 299, 1000])
def test_the_order_of_rows_is_a_permutation_and_spreads_neighbours(rows):
    shards = Shards(Training("lazy", sizes=(rows - 3, 3)).model, World(4), Path("."))
    places = shards.places(np.arange(rows))
    assert sorted(places) == list(range(rows))
    assert shards.rows_at(places).tolist() == list(range(rows))
    if rows == 1000:  # 20 groups of neighbours, 5 a quarter
        assert np.bincount(places[:160] * 4 // rows, minlength=4).max() <= 7 * GROUP


def test_the_cut_over_shards_is_the_cut_of_the_whole_table():
    rng = np.random.default_rng(0)
    shards = Shards(Training("lazy").model, World(4), Path("."))
    rows = shards.rows_at(np.arange(shards.num_rows))
    values = rng.normal(size=(shards.num_rows, 5)).astype(np.float32)
    margins = rng.integers(-3, 4, values.shape).astype(np.float32)  # many ties, and both zeros
    margins[margins == 0] = rng.choice([0.0, -0.0], (margins == 0).sum())
    for count in (1, 10, 400, 1499, 1500):
        expected = snapshots.cut_to(values, margins, count)
        found = shards.cut_to(values[rows], margins[rows], count)
        assert found.tobytes() == expected[rows].tobytes()
    with pytest.raises(ValueError, match="cannot keep 1501 of 1500"):
        shards.cut_to(values, margins, 1501)
