"""What `plug`, the optimiser's first step and `snapshot` say of a search that cannot work."""

import copy
import inspect
import logging
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

from models import Plugged, masked, snapshot, unplug
from models.kernels.threshold import GATES
from models.plug_in.plug import plug
from models.start import share_below

ROWS, WIDTH = 200, 8


class Two(nn.Module):
    """Two tables of normal values; half of the rows never come."""

    def __init__(self, std=1.0):
        super().__init__()
        self.user, self.item = nn.Embedding(ROWS, WIDTH), nn.Embedding(ROWS, WIDTH, padding_idx=0)
        generator = torch.Generator().manual_seed(0)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=std, generator=generator)
        with torch.no_grad():
            self.item.weight[0] = 0.0

    def forward(self, ids):
        return (self.user(ids[:, 0]) * self.item(ids[:, 1])).sum(1)


def train(model, optimizer, steps, penalty=None):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        ids = torch.randint(ROWS // 2, (16, 2), generator=generator)
        labels = torch.randint(2, (16,), generator=generator).float()
        loss = nn.functional.binary_cross_entropy_with_logits(model(ids), labels)
        if penalty:
            loss = loss + penalty(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def adam(plugged, lr=0.05):
    return torch.optim.Adam(plugged.parameter_groups(), lr=lr)


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "pep")
    return caplog


# -- the start --


def test_a_start_that_prunes_most_of_a_table_is_refused_with_one_that_fits():
    model = Two(1e-4)
    before = model.user.weight
    with pytest.raises(
        ValueError,
        match=r"prune 100% of user, 100% of item before.*at threshold_init="
        r"(-\d+\.\d) it is 1% at most.*allow_high_start",
    ) as error:
        plug(model, threshold_init=-6.0)
    assert model.user.weight is before
    assert type(model.user) is nn.Embedding
    start = float(str(error.value).split("at threshold_init=")[2].split(" ")[0])
    plug(model, threshold_init=start)
    for table in Plugged(model).tables.values():
        share = share_below(table.values.detach(), "sigmoid", 1.0, start)
        assert 0 < share <= 0.01


def test_it_can_be_had_all_the_same(warnings):
    plugged = plug(Two(1e-4), threshold_init=-6.0, allow_high_start=True)
    assert plugged.num_params() == 0
    assert (
        "the thresholds prune 100% of user, 100% of item before anything is learned"
        in warnings.text
    )


@pytest.mark.parametrize(("std", "said"), [(0.1, ""), (0.02, "10% of user, 11% of item before")])
def test_a_start_that_prunes_a_part_is_named(std, said, warnings):
    plug(Two(std), threshold_init=-6.0)
    assert bool(warnings.text) == bool(said)
    assert said in warnings.text


@pytest.mark.parametrize("padding", [0.0, 1e-6])
def test_padding_does_not_count_as_pruned(padding, warnings):
    model = nn.ModuleDict({"item": nn.Embedding(3, 4, padding_idx=1)})
    with torch.no_grad():
        model["item"].weight.copy_(torch.ones(3, 4))
        model["item"].weight[1] = padding
    plug(model, threshold_init=-6.0)
    assert not warnings.text


def test_the_factor_and_the_gate_count(warnings):
    with pytest.raises(ValueError, match="at threshold_init=-13"):
        plug(Two(0.02), threshold_init=-7.0, g_type="softplus", gk=100.0)
    plug(Two(0.02), threshold_init=-7.0, g_type="softplus", gk=0.1)
    assert not warnings.text


# -- the optimiser --


def groups(model, **settings):
    return [{"params": list(model.parameters()), **settings}]


OPTIMISERS = {
    "AdamW": (
        lambda model, old: torch.optim.AdamW(groups(model, weight_decay=0.01)),
        "AdamW decouples",
    ),
    "decoupled Adam": (
        lambda model, old: torch.optim.Adam(
            groups(model, weight_decay=0.01), decoupled_weight_decay=True
        ),
        "Adam decouples",
    ),
    "no decay": (
        lambda model, old: torch.optim.Adam(model.parameters()),
        "Adam has a weight_decay of 0",
    ),
    "a decay that is never read": (
        lambda model, old: torch.optim.Rprop(groups(model, weight_decay=0.01)),
        "Rprop has a weight_decay of 0",
    ),
    "SGD": (
        lambda model, old: torch.optim.SGD(groups(model, weight_decay=0.01), lr=0.1),
        "SGD does not scale",
    ),
    "ASGD": (
        lambda model, old: torch.optim.ASGD(groups(model, weight_decay=0.01), lr=0.1),
        "ASGD does not scale",
    ),
    "Adadelta": (
        lambda model, old: torch.optim.Adadelta(groups(model, weight_decay=0.01)),
        "Adadelta does not scale",
    ),
    "made before": (lambda model, old: old, "Adam trains the values but not the thresholds"),
}


@pytest.mark.parametrize("case", OPTIMISERS)
def test_an_optimiser_that_moves_no_threshold_is_named_once_at_its_first_step(case, warnings):
    make, message = OPTIMISERS[case]
    adams = inspect.signature(torch.optim.Adam).parameters
    if case == "decoupled Adam" and "decoupled_weight_decay" not in adams:
        pytest.skip("this torch's Adam has no such option")
    model = Two()
    old = torch.optim.Adam(model.parameters(), weight_decay=1e-5)
    train(model, old, 1)
    plug(model)
    optimizer = make(model, old)
    assert not warnings.text
    train(model, optimizer, 3)
    [record] = warnings.records
    assert re.search(message + ".*user, item", record.getMessage())
    warnings.clear()
    train(model, adam(Plugged(model)), 3)
    assert not warnings.text
    train(model, make(model, old), 1)
    assert bool(warnings.text) == (case != "made before")  # that one has been named


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_watched_too(copied, warnings):
    model = Two()
    plug(model)
    other = copied(model)
    train(other, torch.optim.Adam(other.parameters()), 1)
    assert "weight_decay of 0 for the thresholds of user, item" in warnings.text


@pytest.mark.parametrize(
    "after",
    [
        lambda model: masked(model, snapshot(model, 100, allow_magnitude=True)),
        unplug,
        lambda model: unplug(model, compact=True),
    ],
)
def test_without_thresholds_any_optimiser_will_do(after, warnings):
    model = Two()
    plugged = plug(model)
    held = list(plugged.tables.values()), [table.values for table in plugged.tables.values()]
    after(model)
    warnings.clear()
    for value in held[1]:
        value.grad = torch.ones_like(value)
    torch.optim.AdamW(held[1]).step()
    assert not warnings.text


def test_a_compiled_model_is_watched_too(warnings):
    model = Two()
    plug(model)
    torch._dynamo.reset()
    train(
        torch.compile(model, backend="eager", fullgraph=True),
        torch.optim.AdamW(model.parameters()),
        2,
    )
    assert warnings.text.count("AdamW decouples") == 1


def test_a_step_that_is_compiled_itself_is_not_broken_by_looking_at_it(monkeypatch):
    monkeypatch.setattr("models.plug_in.watch.penalised", lambda table: pytest.fail("looked at"))
    model = Two()
    optimizer = adam(plug(model, threshold_init=-3.0))
    torch._dynamo.reset()
    step = torch.compile(optimizer.step, backend="eager")
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    step()
    assert Plugged(model).tables["user"].mean_threshold() > -3.0


# -- regularisers --


def squares(model):
    return 1e-5 * sum(parameter.square().sum() for parameter in model.parameters())


def norms(model):
    return 1e-5 * sum(parameter.norm() for parameter in model.parameters())


def absolute(model):
    return 1e-5 * sum(parameter.abs().sum() for parameter in model.parameters())


def but_thresholds(model):
    return 1e-5 * sum(
        parameter.square().sum()
        for name, parameter in model.named_parameters()
        if not name.endswith(".thresholds")
    )


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("feature_dim", -15.0),
        ("feature_dim", -3.0),
        ("feature", -15.0),
        ("feature", -3.0),
        ("dimension", -15.0),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 1e-5])
def test_a_regulariser_of_all_parameters_is_noticed(decay, kind, start, warnings):
    model = Two()
    plug(model, threshold_type=kind, threshold_init=start)
    warnings.clear()
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=decay)
    train(model, optimizer, 3, squares)
    [record] = warnings.records
    assert "Adam minimises penalises the thresholds of user, item" in record.getMessage()
    assert "'.thresholds'" in record.getMessage()
    assert Plugged(model).tables["user"].mean_threshold() > start + 2e-3  # they rise


@pytest.mark.parametrize("penalty", [norms, absolute])
def test_other_penalties_of_all_parameters_are_noticed_once(penalty, warnings):
    model = Two()
    plugged = plug(model)
    assert not warnings.text  # nothing to warn of until a penalty is seen
    train(model, adam(plugged), 3, penalty)
    [record] = warnings.records
    assert "Adam minimises penalises the thresholds of user, item" in record.getMessage()


@pytest.mark.parametrize("start", [-15.0, -3.0])
@pytest.mark.parametrize("kind", ["feature_dim", "feature", "dimension", "global"])
@pytest.mark.parametrize("penalty", [None, but_thresholds])
def test_data_alone_are_no_regulariser(penalty, kind, start, warnings):
    model = Two()
    plugged = plug(model, threshold_type=kind, threshold_init=start)
    warnings.clear()
    train(model, adam(plugged), 3, penalty)
    assert not warnings.text


# -- the snapshot --


def searched(steps=60, init=-3.0, **settings):
    model = Two()
    train(model, adam(plug(model, threshold_init=init, **settings)), steps)
    return model


def by_magnitude(model, budget):
    sizes = np.concatenate(
        [
            table.values.detach().abs().numpy()[name == "item" :].ravel()
            for name, table in Plugged(model).tables.items()
        ]
    )
    return set(np.argsort(-sizes)[:budget])


def numpy_evidence(model, budget):
    """Pruned since the start and other than magnitude's, of the definition."""
    sizes, margins, first = [], [], []
    for name, table in Plugged(model).tables.items():
        rows = slice(1, None) if name == "item" else slice(None)
        v, s = (
            table.values.detach().double().numpy()[rows],
            table.thresholds.detach().double().numpy(),
        )
        s = s if table.settings.type in ("global", "dimension") else s[rows]
        sizes.append(np.abs(v).ravel())
        margins.append((np.abs(v) - 1 / (1 + np.exp(-s))).ravel())
        start = 1 / (1 + np.exp(-table.settings.init))
        first.append((np.abs(table.initial.double().numpy()[rows]) - start).ravel())
    sizes, margins, first = map(np.concatenate, (sizes, margins, first))
    kept, largest = np.argsort(-margins)[:budget], np.argsort(-sizes)[:budget]
    return int(((margins <= 0) & (first > 0)).sum()), len(set(kept) - set(largest))


@pytest.mark.parametrize("kind", ["feature_dim", "dimension", "global"])
def test_what_the_search_has_decided_is_counted_and_said(kind, caplog):
    model = searched(threshold_type=kind)
    caplog.set_level(logging.INFO, "pep")
    cut = snapshot(model, 800)
    pruned, differing = numpy_evidence(model, 800)
    assert (cut.meta["pruned"], cut.meta["differing"]) == (pruned, differing)
    assert pruned > 100
    assert differing > 0
    within = snapshot(model, {"user": 400, "item": 400}).meta
    assert within["pruned"] == pruned
    assert (within["differing"] == 0) == (kind == "global")  # its order is that of |V|
    assert (cut.meta["kept"], cut.meta["removed"]) == (800, (2 * ROWS - 1) * WIDTH - 800)
    s = Plugged(model).tables["user"].thresholds.detach().numpy()
    moved = cut.meta["thresholds"]["user"]
    assert moved == pytest.approx(
        {"start": -3.0, "lowest": s.min(), "mean": s.mean(), "highest": s.max()}, rel=1e-5
    )
    assert moved["mean"] > -2.5
    assert f"the search has pruned {pruned:,}" in caplog.text
    assert f"user -3 -> {moved['mean']:.4g}" in caplog.text
    assert cut.meta["taken_back"] == {}


REFUSED = {
    "untrained": lambda model, plugged: None,
    "AdamW": lambda model, plugged: train(
        model, torch.optim.AdamW(model.parameters(), lr=0.05), 60
    ),
    "no decay": lambda model, plugged: train(
        model, torch.optim.Adam(model.parameters(), lr=0.05), 60
    ),
    "too few steps": lambda model, plugged: train(model, adam(plugged), 60),
}


@pytest.mark.parametrize(("case", "budget"), [
    *((case, 100) for case in REFUSED), ("untrained", 1000),
    ("untrained", {"user": 300, "item": 500})])
def test_a_cut_that_no_threshold_decides_is_refused(case, budget, warnings):
    model = Two()
    REFUSED[case](model, plug(model))
    with pytest.raises(
        ValueError,
        match=r"no threshold acts, so this would be plain magnitude pruning"
        r".*user -15 -> -1.*AdamW, a decay of 0.*too few steps.*"
        r"reloads its best checkpoint at the end of fit\(\).*"
        r"allow_magnitude=True",
    ):
        snapshot(model, budget)
    cut = snapshot(model, budget, allow_magnitude=True)
    assert "this cut is plain magnitude pruning and not PEP" in warnings.text
    if budget == 1000:
        kept = np.concatenate(
            [table.numpy()[name == "item" :].ravel() for name, table in cut.values.items()]
        )
        assert len(set(np.flatnonzero(kept)) - by_magnitude(model, 1000)) <= 1


def test_where_nothing_is_cut_either_it_says_that():
    with pytest.raises(ValueError, match="no threshold acts, so this would cut nothing"):
        snapshot(plug(Two()))


def test_thresholds_that_prune_and_never_move_do_not_act():
    """As where AdamW shrinks the values: they fall under one and the same number."""
    model = Two()
    plug(model, threshold_init=-1.5)
    with torch.no_grad():
        for table in Plugged(model).tables.values():
            table.values.mul_(0.5)
    assert numpy_evidence(model, 500)[0] > 300
    with pytest.raises(ValueError, match="no threshold acts"):
        snapshot(model, 500)


def test_thresholds_that_differ_act_before_they_prune():
    model = Two()
    plug(model, threshold_init=-6.0)
    with torch.no_grad():
        for table in Plugged(model).tables.values():
            table.values.copy_(table.values.sign() * (1 + table.values.abs()))
            table.thresholds.copy_(torch.linspace(-6, 0, ROWS)[:, None].expand(ROWS, WIDTH))
    cut = snapshot(model, 1500)
    assert cut.meta["pruned"] == 0
    assert cut.meta["differing"] == numpy_evidence(model, 1500)[1] > 50


@pytest.mark.parametrize("assign", [False, True])
def test_a_best_checkpoint_that_is_reloaded_is_the_cause_that_is_named(assign, warnings):
    model = Two()
    plugged = plug(model, threshold_init=-8.0)
    optimizer = adam(plugged)
    train(model, optimizer, 1)
    best = copy.deepcopy(model.state_dict())
    train(model, optimizer, 150)
    last = snapshot(model, 900)
    model.load_state_dict(best, assign=assign)
    with pytest.raises(
        ValueError,
        match=r"no threshold acts.*load_state_dict has taken thresholds "
        r"back \(on average: user -2\.\d+ -> -7\.9\d, item .*switch "
        r"that off, or call snapshot\(\) before",
    ):
        snapshot(model, 900)
    cut = snapshot(model, 900, allow_magnitude=True)
    assert "load_state_dict has taken thresholds back" in warnings.text
    assert set(cut.meta["taken_back"]) == {"user", "item"}
    assert not last.meta["taken_back"]
    warnings.clear()
    train(model, adam(Plugged(model)), 250)  # the search again, and further
    assert snapshot(model, 700).meta["taken_back"] == {}
    assert not warnings.text


def test_a_search_that_is_resumed_from_a_file_is_no_loss(warnings):
    model = searched()
    other = Two()
    plug(other, threshold_init=-3.0)
    other.load_state_dict(model.state_dict())
    assert snapshot(other, 900).meta == snapshot(model, 900).meta
    assert not warnings.text


@pytest.mark.parametrize("kind", ["global", "dimension", "feature", "feature_dim"])
@pytest.mark.parametrize("gate", GATES)
def test_the_count_is_that_of_the_table(kind, gate, monkeypatch):
    model = searched(threshold_type=kind, g_type=gate)
    with torch.no_grad():
        model.item.values[0] = 5.0  # a padding row need not be zero, and is no part of the count
    expected = {
        name: int(table.table().count_nonzero()) for name, table in Plugged(model).tables.items()
    }
    for counted in (1, 1000, 1 << 20):  # entries at a time
        monkeypatch.setattr("models.plug_in.table.COUNTED", counted)
        for name, table in Plugged(model).tables.items():
            padding = int(table.table()[0].count_nonzero()) if name == "item" else 0
            assert table.num_params() == expected[name] - padding
    assert 0 < sum(expected.values()) < (2 * ROWS - 1) * WIDTH
