import copy
import itertools
import pickle
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

import models.pruned_tables
from models import Plugged, PrunedTables, masked, snapshot, unplug
from models.embedding.pep import Thresholds
from models.kernels.threshold import GATES, soft_threshold_plain
from models.plug_in.compact import CompactTable
from models.plug_in.plug import plug
from models.plug_in.table import PepTable, TicketTable

TYPES = ("global", "dimension", "feature", "feature_dim")
ROWS, WIDTH = 12, 3


def seeded(make, *args, **named):
    torch.manual_seed(0)
    return make(*args, **named)


class Shop(nn.Module):
    """Every way in which a model holds tables: by attribute, in a list, in a dict, at two places,
    as a bag."""

    def __init__(self):
        super().__init__()
        self.users = nn.Embedding(20, 4)
        self.items = nn.Embedding(15, 4, padding_idx=0)
        self.tower = nn.Sequential(self.items, nn.Linear(4, 4))
        self.fields = nn.ModuleList([nn.Embedding(6, 4), nn.Embedding(5, 4)])
        self.words = nn.ModuleDict({"title": nn.EmbeddingBag(30, 4, mode="mean")})
        self.first_order = nn.Embedding(20, 1)
        self.head = nn.Linear(4, 1)

    def forward(self, ids):
        """ids (B, 5) -> (B,)."""
        users, items, a, b, words = ids.unbind(1)
        product = (
            self.users(users) * self.tower(items)
            + self.items(items)
            + self.fields[0](a) * self.fields[1](b)
        )
        title = self.words["title"](torch.stack([words, (words + 7) % 30], 1))
        return (self.head(product + title) + self.first_order(users)).squeeze(1)


TABLES = ["users", "items", "fields.0", "fields.1", "words.title"]
SIZE = 4 * (20 + 15 + 6 + 5 + 30)


def batch(size=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(rows, (size,), generator=generator) for rows in (20, 15, 6, 5, 30)]
    return torch.stack(columns, 1), torch.randint(2, (size,), generator=generator).float()


def train(model, optimizer, steps=3):
    losses = []
    for step in range(steps):
        ids, labels = batch(seed=step)
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(model(ids), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def adam(plugged):
    return torch.optim.Adam(plugged.parameter_groups(), lr=1e-2)


def searched(steps=5, **settings):
    model = seeded(Shop)
    train(model, adam(plug(model, **{"threshold_init": -3.0, **settings})), steps)
    return model


def fingerprint(model):
    """All that must not change: the modules, their classes, the parameters, their values."""
    modules = [(path, id(module), type(module)) for path,
               module in model.named_modules(remove_duplicate=False)]
    return modules, [(name, id(value)) for name,
                     value in model.named_parameters(remove_duplicate=False)], [
        value.clone() for value in model.state_dict().values()]


def same(one, other):
    return one[:2] == other[:2] and all(map(torch.equal, one[2], other[2]))


# -- the tables --


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 3, 5), (0,)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("kind", TYPES)
def test_an_embedding_is_the_definition_with_all_gradients(kind, dtype, shape):
    plain = seeded(nn.Embedding, ROWS, WIDTH, padding_idx=4)
    with torch.no_grad():
        plain.weight[4] = 0.1  # a padding row need not be zero, and is under the threshold
    table = PepTable(plain, Thresholds(kind, -1.0, "softplus", 1.5))
    with torch.no_grad():
        table.thresholds += torch.rand_like(table.thresholds)
    value, s = (parameter.detach().clone().requires_grad_()
                for parameter in (table.values, table.thresholds))
    definition = soft_threshold_plain(value, 1.5 * GATES["softplus"](s))
    definition = torch.where(torch.arange(ROWS)[:, None] == 4, value, definition)
    ids = torch.randint(ROWS, shape, dtype=dtype)
    vectors = functional.embedding(ids, definition, padding_idx=4)
    torch.testing.assert_close(table(ids), vectors)
    assert torch.equal(table(ids) == 0, vectors == 0)
    weights = torch.randn_like(vectors)
    (vectors * weights).sum().backward()
    (table(ids) * weights).sum().backward()
    torch.testing.assert_close(table.values.grad, value.grad)
    torch.testing.assert_close(table.thresholds.grad, s.grad)
    torch.testing.assert_close(table.weight, definition)
    assert not table.values.grad[4].any()
    assert table.num_params() == int(torch.count_nonzero(definition) - WIDTH)


BAGS = [{"mode": mode, "padding_idx": padding, "include_last_offset": last}
        for mode, padding,
        last in itertools.product(("sum", "mean", "max"), (None, 2), (False, True))]
FLAT = torch.tensor([3, 2, 2, 7, 1])
INPUTS = {
    "rows": ((torch.tensor([[3, 2, 2], [7, 1, 2]]),), {}),
    "many": ((torch.arange(30).view(3, 10) % ROWS,), {}),
    "offsets": ((FLAT, torch.tensor([0, 2, 5])), {}),
    "named": ((FLAT.int(),), {"offsets": torch.tensor([0, 0, 4, 5], dtype=torch.int32)}),
    "weighted": ((torch.tensor([[3, 2], [7, 1]]),),
                 {"per_sample_weights": torch.tensor([[0.5, 2.0], [-1.0, 3.0]])}),
}


@pytest.mark.parametrize("form", INPUTS)
@pytest.mark.parametrize("settings", BAGS, ids=str)
def test_a_bag_is_torchs_bag_of_the_pruned_table_with_all_gradients(settings, form):
    inputs, named = INPUTS[form]
    if form == "weighted" and settings["mode"] != "sum":
        with pytest.raises(NotImplementedError, match="per_sample_weights"):
            PepTable(nn.EmbeddingBag(ROWS, WIDTH, **settings), Thresholds())(*inputs, **named)
        return
    table = PepTable(seeded(nn.EmbeddingBag, ROWS, WIDTH, **settings), Thresholds(init=-0.5))
    definition = table.weight.detach().requires_grad_()
    expected = functional.embedding_bag(inputs[0], definition, *inputs[1:], **named, **settings)
    if inputs[0].dim() == 2 and len(expected) < len(inputs[0]):
        pytest.skip("the last bag is lost, and the gradient random, in this torch's own lookup")
    found = table(*inputs, **named)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    kept = table.margins() > 0
    torch.testing.assert_close(table.values.grad, torch.where(kept, definition.grad, 0.0))
    slope = torch.sigmoid(table.thresholds) * (1 - torch.sigmoid(table.thresholds))
    torch.testing.assert_close(table.thresholds.grad.detach(),
                               (-torch.sign(table.values) * table.values.grad * slope).detach())


def test_gradients_reach_the_weights_of_samples():
    plain = seeded(nn.EmbeddingBag, ROWS, WIDTH, mode="sum")
    table = PepTable(plain, Thresholds(init=-150.0))
    ids, weights = torch.tensor([[3, 2], [7, 1]]), torch.ones(2, 2, requires_grad=True)
    plain(ids, per_sample_weights=weights).square().sum().backward()
    expected, weights.grad = weights.grad, None
    table(ids, per_sample_weights=weights).square().sum().backward()
    assert torch.equal(weights.grad, expected)


def test_an_embedding_takes_no_offsets_and_no_id_outside():
    for table in (PepTable(nn.Embedding(ROWS, WIDTH), Thresholds()), CompactTable(
            nn.Embedding(ROWS, WIDTH), torch.ones(ROWS, WIDTH))):
        with pytest.raises(TypeError):
            table(torch.tensor([1]), torch.tensor([0]))
        for ids in (torch.tensor([ROWS]), torch.tensor([-1] * 30)):
            with pytest.raises(IndexError):
                table(ids)


@pytest.mark.parametrize("plain", [nn.Embedding, nn.EmbeddingBag])
def test_ids_that_are_no_whole_numbers_are_refused_in_every_state(plain):
    model = nn.Sequential(seeded(plain, ROWS, WIDTH))
    plug(model)
    cut = snapshot(model, 5, allow_magnitude=True)
    for change in (lambda: None, lambda: masked(model, cut), lambda: unplug(model, compact=True)):
        change()
        for ids in (torch.tensor([[1.7, 2.0]]), torch.tensor([[True, False]])):
            with pytest.raises((TypeError, RuntimeError), match=r"(?i)int32|int|long"):
                model(ids)


# -- plug --


def test_nothing_but_the_tables_is_replaced():
    model = seeded(Shop)
    kept = {name: module for name, module in model.named_modules() if name not in TABLES}
    weights = {name: model.get_submodule(name).weight for name in TABLES}
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    parameters = dict(model.named_parameters())
    plugged = plug(model)
    assert list(plugged.tables) == TABLES
    assert [name for name, _ in model.named_modules(remove_duplicate=False)] == names
    assert all(model.get_submodule(name) is module for name, module in kept.items())
    assert all(plugged.tables[name].values is weight for name, weight in weights.items())
    new = dict(model.named_parameters())
    assert all(new[name] is value for name, value in parameters.items() if name in new)
    assert set(parameters) - set(new) == {f"{name}.weight" for name in TABLES}
    assert model.tower[0] is model.items
    assert plugged.num_params() == SIZE - 4  # but for the padding row
    assert repr(plugged).splitlines()[1] == "items: 56 of 15 x 4"


@pytest.mark.parametrize("kind", TYPES)
def test_far_below_zero_the_model_trains_as_if_nothing_were_there(kind):
    model, plain = seeded(Shop), seeded(Shop)
    plug(model, threshold_type=kind, threshold_init=-150.0)
    for size in (2, 50):
        assert torch.equal(model(batch(size)[0]), plain(batch(size)[0]))
    losses = [train(one, torch.optim.Adam(one.parameters(), lr=1e-2, weight_decay=1e-4))
              for one in (model, plain)]
    assert losses[0] == losses[1]
    for name, table in Plugged(model).tables.items():
        assert torch.equal(table.values, plain.get_submodule(name).weight)
        assert table.has_moved()  # by the decay


def test_at_the_published_start_the_outputs_are_the_same_within_rounding():
    model, plain = seeded(Shop), seeded(Shop)
    plug(model)
    torch.testing.assert_close(model(batch()[0]), plain(batch()[0]), atol=1e-5, rtol=1e-5)


def test_a_model_that_reads_the_weight_sees_the_pruned_table_and_trains_it():
    model = nn.ModuleDict({"item": seeded(nn.Embedding, ROWS, WIDTH)})
    [table] = plug(model, threshold_init=-1.0).tables.values()
    scores = torch.ones(2, WIDTH) @ model["item"].weight.T
    torch.testing.assert_close(scores[0], table(torch.arange(ROWS)).sum(1))
    scores.sum().backward()
    assert torch.equal(table.values.grad != 0, table.margins() > 0)
    assert torch.equal(table.thresholds.grad != 0, table.margins() > 0)


@pytest.mark.parametrize("state", ["searched", "masked"])
def test_a_padding_row_of_zeros_gets_torchs_gradient_where_the_weight_is_read(state):
    class Next(nn.Module):
        """The next item of a sequence, scored against all."""

        def __init__(self):
            super().__init__()
            self.items = nn.Embedding(ROWS, WIDTH, padding_idx=0)

        def forward(self, ids):
            return self.items(ids).mean(1) @ self.items.weight.T

    model, ids = seeded(Next), torch.tensor([[0, 3, 4], [0, 0, 7]])
    plain = copy.deepcopy(model)
    plug(model, threshold_init=-150.0)
    if state == "masked":
        masked(model, snapshot(model, (ROWS - 1) * WIDTH, allow_magnitude=True))
    for one in (model, plain):
        functional.cross_entropy(one(ids), torch.tensor([5, 2])).backward()
    assert plain.items.weight.grad[0].all()
    assert torch.equal(model.items.values.grad, plain.items.weight.grad)


@pytest.mark.parametrize("state", ["searched", "masked", "compact"])
def test_code_that_calls_torchs_lookup_with_what_a_table_says_of_itself(state):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.item, self.bag = nn.Embedding(ROWS, WIDTH,
                                               padding_idx=1), nn.EmbeddingBag(ROWS, WIDTH,
                                                                               norm_type=1.0)

        def forward(self, ids):
            e, b = self.item, self.bag
            items = functional.embedding(ids, e.weight, e.padding_idx, e.max_norm, e.norm_type,
                                         e.scale_grad_by_freq,
                                         e.sparse)
            return items.sum(1) + functional.embedding_bag(
                ids, b.weight, None, b.max_norm, b.norm_type, b.scale_grad_by_freq, b.mode,
                b.sparse, None,
                b.include_last_offset, b.padding_idx)

    model, ids = seeded(Reader), torch.tensor([[1, 4], [7, 7]])
    before = model(ids)
    plug(model, threshold_init=-150.0)
    assert torch.equal(model(ids), before)
    if state != "searched":
        masked(model, snapshot(model, 30, allow_magnitude=True))
    if state == "compact":
        unplug(model, compact=True)
    assert torch.equal(model(ids), model.item(ids).sum(1) + model.bag(ids))
    assert (model.item.norm_type, model.bag.norm_type) == (2.0, 1.0)


def test_which_tables():
    assert list(plug(Shop(), only="users").tables) == ["users"]
    for names in (["tower.0", "first_order"], {"tower.0": 1, "first_order": 1}.keys()):
        assert list(plug(Shop(), only=names).tables) == ["items", "first_order"]
    assert list(plug(Shop(), only=lambda name,
                     module: module.num_embeddings < 10).tables) == ["fields.0", "fields.1"]


def test_the_gate_is_scaled_and_the_granularity_is_within_a_table():
    model = seeded(Shop)
    tables = plug(model, threshold_type="dimension", threshold_init=-2.0, g_type="softplus",
                  gk=0.5).tables
    assert {tuple(table.thresholds.shape) for table in tables.values()} == {(4,)}
    gate = 0.5 * np.log1p(np.exp(-2.0))
    torch.testing.assert_close(tables["users"].margins(), tables["users"].values.detach().abs()
                               - gate)


@pytest.mark.parametrize("state", ["searched", "masked"])
def test_a_traced_model_trains_the_same(state):
    eager = searched(threshold_init=-1.0)
    if state == "masked":
        masked(eager, snapshot(eager, 100))
    compiled = copy.deepcopy(eager)
    torch._dynamo.reset()
    step = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    losses = [train(one, adam(Plugged(whole))) for one, whole in ((eager, eager), (step, compiled))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for mine, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    assert list(Plugged(step).tables) == TABLES


def test_a_padding_row_that_is_not_zero_stays_as_it_is_and_is_not_counted():
    plain = nn.Embedding.from_pretrained(torch.ones(3, 2), freeze=False, padding_idx=1)
    table = PepTable(plain, Thresholds(init=-10.0))
    assert table.num_params() == 4
    assert table.table()[1].tolist() == [1.0, 1.0]


def test_a_table_that_is_compiled_by_itself_is_not_replaced():
    model = nn.ModuleDict({"item": torch.compile(seeded(nn.Embedding, ROWS, WIDTH),
                                                 backend="eager")})
    message = (r"item is a table that is compiled by itself.*put the bare module back "
               r"\(it is item\._orig_mod\)")
    before = fingerprint(model)
    with pytest.raises(ValueError, match=message):
        plug(model)
    assert same(before, fingerprint(model))
    model["item"] = model["item"]._orig_mod
    plug(model)
    cut = snapshot(model, 5, allow_magnitude=True)
    model["item"] = torch.compile(model["item"], backend="eager")
    assert snapshot(model, 5, allow_magnitude=True).num_params() == 5
    before = fingerprint(model)
    with pytest.raises(ValueError, match=message):
        masked(model, PrunedTables({"item._orig_mod": cut.values["item"]},
                               {"item._orig_mod": cut.initial["item"]}))
    with pytest.raises(ValueError, match=message):
        unplug(model)
    assert same(before, fingerprint(model))
    model["item"] = model["item"]._orig_mod
    assert masked(model, cut).num_params() == 5


def test_what_keeps_the_parameters_in_step_is_made_afterwards(tmp_path):
    if torch.distributed.is_initialized():  # by a test of lanes in this process
        torch.distributed.destroy_process_group()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0,
                                         world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(seeded(Shop))
        before = fingerprint(wrapped)
        for function in (plug, lambda model: plug(torch.compile(model)), snapshot, unplug, Plugged):
            with pytest.raises(ValueError, match=r"DistributedDataParallel synchronises.*pass "
                                                 r"its \.module"):
                function(wrapped)
        assert same(before, fingerprint(wrapped))
        plugged = plug(wrapped.module, threshold_init=-3.0)
        alone = copy.deepcopy(wrapped.module)
        losses = [train(one, adam(plugged)) for one, plugged in (
            (nn.parallel.DistributedDataParallel(wrapped.module), plugged),
            (alone, Plugged(alone)))]
        assert losses[0] == losses[1]
    finally:
        torch.distributed.destroy_process_group()


def test_copies_states_pickles_and_types():
    model = searched()
    ids = batch(40)[0]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(ids), model(ids))
        assert not {id(p) for p in model.parameters()} & {id(p) for p in other.parameters()}
        train(other, adam(Plugged(other)))
        unplug(other)
        assert not torch.equal(other.users.weight, model.users.weight)
    other = Shop()
    plug(other).model.load_state_dict(model.state_dict())
    assert torch.equal(other(ids), model(ids))
    assert torch.equal(snapshot(other, 50).initial["users"], seeded(Shop).users.weight)
    other.load_state_dict(model.state_dict(), assign=True)  # other Parameter objects
    table = other.users.weight.detach()
    assert torch.equal(unplug(other)["users"].weight, table)
    double = copy.deepcopy(model).double()
    torch.testing.assert_close(double(ids), model(ids).double(), atol=1e-5, rtol=1e-5)
    assert double.users.thresholds.dtype == double.users.weight.dtype == torch.float64


@pytest.mark.parametrize("device", ["meta", *(["cuda"] if torch.cuda.is_available() else [])])
def test_all_of_a_table_moves_to_a_device(device):
    model = searched()
    for few in (True, False):
        assert (
            copy.deepcopy(model).to(device)(batch(2 if few else 50)[0].to(device)).device.type
            == device
        )
    masked(model, snapshot(model, 50))
    assert model.to(device)(batch()[0].to(device)).device.type == device


@pytest.mark.parametrize("start", [-15.1, np.float32(-15.1), Fraction(-151, 10)])
def test_an_exact_start_is_seen_whatever_its_rounding(start):
    model = seeded(Shop)
    assert not any(table.has_moved() for table in plug(model, threshold_init=start).tables.values())


def test_each_parameter_is_in_one_group():
    model = seeded(Shop)
    groups = plug(model).parameter_groups(2e-5, rest=3e-5)
    assert [group["weight_decay"] for group in groups] == [2e-5, 3e-5]
    grouped = itertools.chain.from_iterable(group["params"] for group in groups)
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))
    assert len(groups[0]["params"]) == 2 * len(TABLES)
    for decays in ((0.0, 0.0), (-1e-5, 0.0), (1e-5, -1.0), (float("nan"), 0.0),
                   (1e-5, float("nan")), (1e-5, np.inf)):
        with pytest.raises(ValueError,
                           match="weight_decay must be positive while there are thresholds"):
            Plugged(model).parameter_groups(*decays)
    for decays, message in (((None, 0.0), "weight_decay must be a number, got None"),
                            ((1e-5, "1"), "rest must be a number, got '1'"),
                            ((True, 0.0), "got True")):
        with pytest.raises(TypeError, match=message):
            Plugged(model).parameter_groups(*decays)
    ticket = masked(model, snapshot(model, allow_magnitude=True))
    assert ticket.parameter_groups(0.0)[0]["weight_decay"] == 0.0


class Scaled(nn.Embedding):
    def forward(self, input):
        return 2 * super().forward(input)


def tied():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    model[1].weight = model[0].weight
    return model


def tied_by_memory():
    model = nn.ModuleList([nn.Embedding(5, 4), nn.Embedding(5, 4)])
    model[1].weight = nn.Parameter(model[0].weight.detach())
    return model


def tied_to_a_buffer():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    model[1].register_buffer("table", model[0].weight.detach())
    return model


def tied_by_some_rows():
    whole = torch.randn(8, 4)
    return nn.Sequential(nn.Embedding(5, 4, _weight=whole[:5]),
                         nn.Embedding(5, 4, _weight=whole[3:]))


def hooked():
    model = nn.Sequential(nn.Embedding(5, 4))
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def with_own_forward():
    model = nn.Sequential(nn.Embedding(5, 4))
    model[0].forward = lambda ids: ids
    return model


def pruned():
    model = nn.Sequential(nn.Embedding(5, 4))
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def parametrised():
    model = nn.Sequential(nn.Embedding(5, 4))
    parametrizations.orthogonal(model[0])
    return model


class Biased(nn.Embedding):
    """Looked up as ever; the model adds what it holds besides."""

    def __init__(self, kind):
        super().__init__(5, 4)
        if kind == "child":
            self.more = nn.Linear(4, 4)
        elif kind == "buffer":
            self.register_buffer("more", torch.ones(4))
        else:
            self.more = nn.Parameter(torch.ones(4))


class Called(nn.EmbeddingBag):
    def __call__(self, *inputs):
        return 2 * super().__call__(*inputs)


def with_hooked_state(register):
    def make():
        model = nn.Sequential(nn.Embedding(5, 4))
        getattr(model[0], register)(lambda *inputs: None)
        return model
    return make


STATE_HOOKS = ("register_state_dict_post_hook", "register_state_dict_pre_hook",
               "register_load_state_dict_pre_hook",
               "register_load_state_dict_post_hook")


def beside_a_good_one(**settings):
    return lambda: nn.Sequential(nn.Embedding(5, 4), nn.Embedding(5, 4, **settings))


def zeros():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Embedding(5, 4))
    nn.init.zeros_(model[1].weight)
    return model


def not_finite():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Embedding(5, 4))
    nn.init.constant_(model[1].weight[3:], torch.inf)  # rows that no batch may ever hold
    return model


@torch.inference_mode()
def of_inference_mode():
    return nn.Sequential(nn.Embedding(5, 4))


REFUSED = {
    "nothing there": (lambda: nn.Linear(2, 2), {}, "Linear holds no nn.Embedding"),
    "itself a table": (lambda: nn.Embedding(2, 2), {}, "itself an Embedding.*put it into a module"),
    "only width 1": (lambda: nn.Sequential(nn.Embedding(5, 1)), {},
                     "no table is chosen; the model has 0 .*width 1"),
    "none chosen": (Shop, {"only": lambda name, module: False},
                    "no table is chosen; the model has users"),
    "unknown table": (Shop, {"only": ["users", "movies"]},
                      "unknown tables 'movies'; the model has: users, items"),
    "unknown type": (Shop, {"threshold_type": "row"}, "unknown threshold_type 'row'; known: "),
    "fields": (Shop, {"threshold_type": "field"}, "needs fields.*'global'"),
    "unknown gate": (Shop, {"g_type": "relu"}, "unknown g_type 'relu'; known: "),
    "start": (Shop, {"threshold_init": float("nan")}, "threshold_init must be finite"),
    "factor": (Shop, {"gk": 0.0}, "gk positive"),
    "tied": (tied, {}, r"0 is tied: 0\.weight, 1\.weight share their memory.*use one module"),
    "tied by memory": (tied_by_memory, {}, r"0\.weight, 1\.weight share their memory"),
    "tied to a buffer": (tied_to_a_buffer, {}, r"0\.weight, 1\.table share their memory"),
    "tied by some rows": (tied_by_some_rows, {}, r"0\.weight, 1\.weight share their memory"),
    "sparse": (beside_a_good_one(sparse=True), {}, "table 1 .*set its sparse = False"),
    "max_norm": (beside_a_good_one(max_norm=1.0), {}, "table 1 .*set its max_norm = None"),
    "scaled": (beside_a_good_one(scale_grad_by_freq=True), {},
               "set its scale_grad_by_freq = False"),
    "half": (beside_a_good_one(dtype=torch.bfloat16), {}, "bfloat16.*float32"),
    "no values": (beside_a_good_one(device="meta"), {}, "no values yet"),
    "frozen": (lambda: nn.Sequential(nn.Embedding(5, 4).requires_grad_(False)), {},
               r"frozen; set requires_grad_"),
    "of inference mode": (of_inference_mode, {}, "made in inference mode.*make it outside"),
    "without rows": (lambda: nn.Sequential(nn.Embedding(0, 4)), {},
                     r"its weight is \(0, 4\) and has nothing to prune"),
    "all zero": (zeros, {}, "all zero.*initialise"),
    "not finite": (not_finite, {}, "table 1 .*not finite; initialise"),
    "hooked": (hooked, {}, "hooks.*remove them first"),
    "own forward": (lambda: nn.Sequential(Scaled(5, 4)), {},
                    r"forward is not the one of nn\.Embedding"),
    "forward put on": (with_own_forward, {}, r"forward is not the one of nn\.Embedding"),
    "own call": (lambda: nn.Sequential(Called(5, 4)), {}, "class Called has a __call__ of its own"),
    **{f"own {kind}": (lambda kind=kind: nn.Sequential(Biased(kind)), {},
                       "besides its weight would be lost: more;")
       for kind in ("parameter", "buffer", "child")},
    **{hook: (with_hooked_state(hook), {}, "has hooks.*remove them first")
       for hook in STATE_HOOKS},
    "pruned": (pruned, {}, "computed by a parametrisation or a pruning"),
    "parametrised": (parametrised, {}, "computed by a parametrisation"),
    "plugged": (lambda: plug(Shop()).model, {}, "already plugged: users, .*unplug"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_plugged_is_refused_and_left_as_it_was(case):
    make, settings, message = REFUSED[case]
    model = make()
    if case == "no values":
        with pytest.raises(ValueError, match=message):
            plug(model, **settings)
        assert type(model[0]) is nn.Embedding
        return
    before = fingerprint(model)
    with pytest.raises(ValueError, match=message):
        plug(model, **settings)
    assert same(before, fingerprint(model))


@pytest.mark.parametrize("padding", [None, 1])
def test_rows_of_zeros_are_named_for_they_stay_so(padding, caplog):
    """As pretrained vectors have for words that they do not know."""
    vectors = torch.randn(ROWS, WIDTH)
    vectors[1:4] = 0
    vectors[5, 0] = 0
    model = nn.ModuleDict({"word": nn.Embedding.from_pretrained(vectors, freeze=False,
                                                                padding_idx=padding)})
    plugged = plug(model, threshold_init=-150.0)
    named = 3 if padding is None else 2
    assert (
        f"{named} of the {ROWS} rows of the table word are all zero and will stay so" in caplog.text
    )
    optimizer = adam(plugged)
    for _ in range(3):
        optimizer.zero_grad()
        model["word"](torch.arange(ROWS)).sum().backward()
        optimizer.step()
    assert (model["word"].weight == 0).all(1).sum() == 3
    caplog.clear()
    plug(seeded(Shop))
    assert not caplog.text


def test_what_has_no_memory_is_tied_to_nothing():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Embedding(5, 4, device="meta"), nn.LazyLinear(3))
    model.register_buffer("edges", torch.eye(3).to_sparse())
    model.register_buffer("none", None)
    model.register_buffer("empty", torch.zeros(0))
    model.register_buffer("later", nn.parameter.UninitializedBuffer())
    assert list(plug(model, only="0").tables) == ["0"]


def test_what_is_refused_can_be_left_out():
    for make in (beside_a_good_one(sparse=True), beside_a_good_one(max_norm=1.0),
                 beside_a_good_one(device="meta")):
        assert list(plug(make(), only="0").tables) == ["0"]


@pytest.mark.parametrize(("settings", "message"), [
    ({"only": 5}, r"only must be names of tables or a function of \(name, module\), got 5"),
    ({"only": ["users", 5]}, r"only must be names of tables.*got \['users', 5\]"),
    ({"only": nn.Embedding}, r"got <class .*Embedding'>; by class: only=lambda"),
    ({"only": nn.Embedding(2, 2)}, r"got Embedding\(2, 2\)"),
    ({"threshold_init": "a"}, "threshold_init must be a number, got 'a'"),
    ({"threshold_init": None}, "threshold_init must be a number, got None"),
    ({"gk": "1"}, "gk must be a number, got '1'"),
])
def test_settings_of_another_kind(settings, message):
    model = seeded(Shop)
    before = fingerprint(model)
    with pytest.raises(TypeError, match=message):
        plug(model, **settings)
    assert same(before, fingerprint(model))


def test_what_is_no_module_is_a_type_error():
    for function in (plug, snapshot, unplug):
        with pytest.raises(TypeError, match=r"a torch\.nn\.Module is expected, got str"):
            function("model")


# -- snapshot --


def numpy_margins(model):
    """|V| - sigmoid(s) of all tables, laid one after the other, without the padding row."""
    parts = []
    for name, table in Plugged(model).tables.items():
        v, s = table.values.detach().numpy(), table.thresholds.detach().numpy().astype(np.float64)
        parts.append((np.abs(v) - 1 / (1 + np.exp(-s)))[1 if name == "items" else 0:].ravel())
    return np.concatenate(parts)


@pytest.mark.parametrize("budget", [1, 17, 100])
def test_a_budget_keeps_the_largest_margins_of_all_tables(budget):
    model = searched()
    before = fingerprint(model)
    cut = snapshot(model, budget)
    assert same(before, fingerprint(model))
    margins = numpy_margins(model)
    kept = np.concatenate([table.numpy()[1 if name == "items" else 0:].ravel() for name,
                           table in cut.values.items()])
    assert np.count_nonzero(kept) == cut.num_params() == budget
    assert set(np.flatnonzero(kept)) == set(np.argsort(-margins)[:budget])
    np.testing.assert_allclose(np.abs(kept[kept != 0]), margins[kept != 0], rtol=1e-5)
    assert not cut.values["items"][0].any()


def test_of_equal_margins_the_first_are_kept():
    model = nn.ModuleList([nn.Embedding.from_pretrained(torch.ones(500, 3), freeze=False)
                           for _ in range(2)])
    plug(model)
    first, second = snapshot(model, 1507, allow_magnitude=True).values.values()
    assert first.all()
    assert second.flatten().nonzero().flatten().tolist() == list(range(7))


def test_budgets_by_table_and_none():
    model = searched()
    left = {name: table.num_params() for name, table in Plugged(model).tables.items()}
    cut = snapshot(model, {"users": 5, "words.title": 80})
    counts = {name: int(table.count_nonzero()) for name, table in cut.values.items()}
    assert counts == {**left, "users": 5, "words.title": 80}
    assert snapshot(model).num_params() == sum(left.values()) < SIZE
    assert torch.equal(snapshot(model).values["users"], model.users.weight)


def test_the_default_device_has_no_say(tmp_path):
    model = searched()
    expected = snapshot(model, 60)
    torch.set_default_device("meta")
    try:
        cuts = snapshot(model, 60), snapshot(model, {"users": 5})
        cuts[0].save(tmp_path / "cut.npz")
        assert {table.device.type for table in PrunedTables.load(tmp_path / "cut.npz").initial
                .values()} == {"cpu"}
        masked(model, cuts[0])
        unplug(model, compact=True)
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(cuts[0].values[name], table) for name, table in expected.values.items())
    assert all(torch.equal(model.get_submodule(name).weight != 0, table != 0)
               for name, table in expected.values.items() if name != "items")


def test_a_table_at_two_places_goes_by_either_name():
    model = seeded(Shop)
    plug(model, only="tower.0", threshold_init=-3.0)
    for name in ("items", "tower.0"):
        cut = snapshot(model, {name: 3}, allow_magnitude=True)
        assert list(cut.values) == ["items"]
        assert cut.num_params() == 3


def test_the_initial_values_are_those_of_the_moment_of_plugging():
    cut = snapshot(searched(), 40)
    for name, initial in cut.initial.items():
        assert torch.equal(initial, seeded(Shop).get_submodule(name).weight)
    cut.initial["users"].zero_()  # a snapshot is a copy


@pytest.mark.parametrize(("budget", "error", "message"), [
    (0, ValueError, "budget: at least 1 entry must be kept, got 0"),
    (-3, ValueError, "at least 1"),
    (SIZE, ValueError, f"cannot keep {SIZE} entries: the tables together have {SIZE - 4}"),
    (1.5, TypeError, "a whole number of entries"),
    (True, TypeError, "a whole number of entries"),
    ("9", TypeError, "a whole number of entries"),
    ({"users": 81}, ValueError, "cannot keep 81 entries: the table users have 80"),
    ({"users": 0}, ValueError, "users: at least 1"),
    ({"users": None}, TypeError, "users: a whole number"),
    ({"movies": 5}, ValueError,
     "unknown table 'movies' in the budget; the plugged ones are: users, items"),
    ({"items": 5, "tower.0": 5}, ValueError,
     "two numbers for the table items, by two of its names"),
    ({"tower.0": 0}, ValueError, r"tower\.0: at least 1"),
])
def test_bad_budgets(budget, error, message):
    model = searched()
    with pytest.raises(error, match=message):
        snapshot(model, budget)


def test_what_is_pruned_already_cannot_be_kept_and_what_is_not_finite_not_be_cut():
    model = searched(threshold_init=0.0)
    left = Plugged(model).num_params()
    with pytest.raises(ValueError,
                       match=f"the thresholds have left {left} of {SIZE - 4}.*at most {left}"):
        snapshot(model, left + 1)
    assert snapshot(model, left).num_params() == left
    with torch.no_grad():
        model.users.values[3, 1] = torch.inf
    with pytest.raises(ValueError, match="of users are not finite"):
        snapshot(model, 10)


@pytest.mark.parametrize("budget", [None, 1, {"users": 1}, {}])
def test_there_is_no_empty_snapshot(budget):
    model = seeded(Shop)
    plug(model, threshold_init=9.0, g_type="softplus", allow_high_start=True)
    with pytest.raises(ValueError, match=r"have left no entry at all; .*a lower threshold_init"):
        snapshot(model, budget)


def test_snapshots_are_of_models_with_thresholds():
    with pytest.raises(ValueError, match=r"is not plugged.*call plug"):
        snapshot(Shop(), 10)
    model = searched()
    masked(model, snapshot(model, 100))
    with pytest.raises(ValueError,
                       match=r"is compact already.*call unplug\(model\), plug\(model\)"):
        snapshot(model, 10)
    unplug(model)
    assert snapshot(plug(model), 10, allow_magnitude=True).num_params() == 10


def test_a_file_round_trip_without_pickle(tmp_path):
    cut = snapshot(searched(), 40)
    path = cut.save(tmp_path / "deep" / "cut.npz", all_initial=True)
    read = PrunedTables.load(path)
    for mine, other in ((cut.values, read.values), (cut.initial, read.initial)):
        assert list(mine) == list(other) == TABLES
        assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert (cut.meta, cut.padding) == (read.meta, read.padding)
    assert cut.meta["kept"] == 40
    assert [file.name for file in path.parent.iterdir()] == ["cut.npz"]
    with np.load(path, allow_pickle=False) as arrays:
        assert {array.dtype.kind for array in arrays.values()} <= {"U", "f", "i"}


def test_a_file_holds_the_initial_values_of_a_ticket_alone(tmp_path):
    torch.manual_seed(0)
    model = nn.ModuleDict({"words": nn.EmbeddingBag(400, 50, padding_idx=7)})
    nn.init.normal_(model["words"].weight)  # of the padding row too
    plug(model, threshold_init=-8.0)
    cut = snapshot(model, 300, allow_magnitude=True)
    small, whole = cut.save(tmp_path / "a.npz"), cut.save(tmp_path / "b.npz", all_initial=True)
    assert small.stat().st_size < 300 * 2 * 8 + 4000 < whole.stat().st_size / 8
    read, other = PrunedTables.load(small), copy.deepcopy(model)
    kept = cut.values["words"] != 0
    kept[7] = True
    assert torch.equal(read.initial["words"], torch.where(kept, cut.initial["words"], 0))
    for each, ticket in ((model, cut), (other, read)):
        masked(each, ticket)
    assert torch.equal(model["words"].weight, other["words"].weight)
    assert other["words"].weight[7].all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_file_of_a_model_in_another_precision(tmp_path, dtype):
    model = searched().to(dtype)
    cut = snapshot(model, 40)
    read = PrunedTables.load(cut.save(tmp_path / "cut.npz", all_initial=True))
    assert cut.num_params() == read.num_params() == 40
    for mine, other in ((cut.values, read.values), (cut.initial, read.initial)):
        assert {table.dtype for table in mine.values()} == {dtype}
        assert all(torch.equal(mine[name].double(), other[name].double()) for name in TABLES)
    again = copy.deepcopy(model)
    masked(again, cut)
    masked(model, read)
    assert Plugged(model).num_params() == 40
    for name, table in Plugged(model).tables.items():
        assert table.weight.dtype == dtype
        assert torch.equal(table.weight, Plugged(again).tables[name].weight)


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = snapshot(searched(), 40).save(tmp_path / "cut.npz")
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(models.pruned_tables.np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="no space left"):
        snapshot(searched(), 20).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_snapshots(tmp_path):
    path = snapshot(searched(), 40).save(tmp_path / "cut.npz")
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        PrunedTables.load(tmp_path / "none.npz")
    np.savez(path, names=np.array(["a"]), table_0=np.ones((2, 2)), initial_0=np.ones((2, 2)),
             meta=np.array("{"))
    half_meta = path.read_bytes()
    for content in (b"", b"text", whole[:len(whole) // 2], whole[:-30], half_meta):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a whole file of pruned tables"):
            PrunedTables.load(path)
    np.savez(path, names=np.array(["a"]), table_0=np.ones((2, 2)), initial_0=np.ones((3, 2)),
             meta=np.array("{}"))
    with pytest.raises(ValueError, match=r"is not a whole file of pruned tables \(pruned and "
                                         r"initial tables must be of the same"):
        PrunedTables.load(path)
    np.savez(path, names=np.array(["a"], dtype=object), table_0=np.ones((2, 2)),
             initial_0=np.ones((2, 2)))
    assert zipfile.is_zipfile(path)
    with pytest.raises(ValueError, match="is not a whole file of pruned tables"):
        PrunedTables.load(path)


# -- masked --


def test_the_ticket_restarts_from_the_masked_initial_values_and_keeps_its_mask():
    model = searched()
    head, values = copy.deepcopy(model.head.weight), {n: table.values for n,
                                                      table in Plugged(model).tables.items()}
    cut = snapshot(model, 60)
    plugged = masked(model, cut)
    assert torch.equal(model.head.weight, head)  # the rest is the user's business
    assert model.tower[0] is model.items
    for name, table in plugged.tables.items():
        assert table.values is values[name]
        mask = cut.values[name] != 0
        expected = torch.where(mask, cut.initial[name], 0.0)
        assert torch.equal(table.weight[name == "items":], expected[name == "items":])
    assert plugged.num_params() == 60
    train(model, adam(plugged), 20)
    for name, table in plugged.tables.items():
        outside = (cut.values[name] == 0)[name == "items":]
        assert not table.weight[name == "items":][outside].any()
        assert not table.values[name == "items":][outside].any()
    assert plugged.num_params() == 60
    assert not torch.equal(model.users.weight,
                           torch.where(cut.values["users"] != 0, cut.initial["users"], 0.0))


def test_a_ticket_of_a_file_goes_into_a_model_built_anew_and_one_ticket_after_another(tmp_path):
    model = searched()
    path = snapshot(model, 60).save(tmp_path / "cut.npz")
    fresh = plug(Shop())
    masked(fresh, PrunedTables.load(path))
    masked(model, snapshot(model, 30))
    assert Plugged(model).num_params() == 30
    masked(model, PrunedTables.load(path))
    for name, table in fresh.tables.items():
        assert torch.equal(table.weight, Plugged(model).tables[name].weight)


@pytest.mark.parametrize("many", [False, True])
def test_a_ticket_reads_the_same_from_few_rows_and_from_all(many):
    table = TicketTable(nn.Embedding(ROWS, WIDTH, padding_idx=1),
                        nn.Parameter(torch.randn(ROWS, WIDTH)),
                        torch.rand(ROWS, WIDTH) < 0.5)
    ids = torch.randint(ROWS, (40 if many else 5,), dtype=torch.int32)
    vectors = table(ids)
    assert torch.equal(vectors, (table.values * table.mask)[ids.long()])
    vectors.sum().backward()
    assert not table.values.grad[1].any()
    assert torch.equal(table.values.grad != 0,
                       table.mask & torch.isin(torch.arange(ROWS), ids[ids != 1])[:, None])


def test_padding_rows_stay_as_they_are_through_it_all():
    model = nn.Sequential(nn.Embedding(8, 4, padding_idx=3))
    row = torch.tensor([0.1, -0.2, 0.0, 3.0])
    with torch.no_grad():
        model[0].weight[3] = row
    plugged = plug(model, threshold_init=-0.5)
    ids = torch.tensor([3, 1, 2])
    for _ in range(5):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        model(ids).square().sum().backward()
        optimizer.step()
    assert torch.equal(model(ids)[0], row)
    cut = snapshot(model, 4)
    assert cut.num_params() == 4
    masked(model, cut)
    assert torch.equal(model(ids)[0], row)
    assert plugged.num_params() == 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(ids).square().sum().backward()
    optimizer.step()
    unplug(model)
    assert torch.equal(model[0].weight[3], row)


def test_a_ticket_that_does_not_fit_is_refused_and_the_model_left_as_it_was():
    model = searched()
    cut = snapshot(model, 60)
    before = fingerprint(model)
    with pytest.raises(TypeError, match=r"takes PrunedTables, got int; call masked\(model, "):
        masked(model, 60)
    for other in ({"users": cut.values["users"]}, {**cut.values, "users": torch.ones(3, 4)}):
        with pytest.raises(ValueError, match="the snapshot is of other tables"):
            masked(model, PrunedTables(other, other))
        with pytest.raises(ValueError, match="must be of the same names and shapes"):
            PrunedTables(cut.values, other)
    with pytest.raises(ValueError, match="has no initial values to restart from"):
        masked(model, PrunedTables(cut.values))
    assert same(before, fingerprint(model))
    with pytest.raises(ValueError, match="Shop has no plugged tables; call plug"):
        masked(Shop(), cut)
    unplug(model, compact=True)
    with pytest.raises(ValueError, match="for inference only"):
        masked(model, cut)


# -- unplug --


@pytest.mark.parametrize("state", ["searched", "masked"])
def test_unplugged_the_very_modules_are_back_with_the_pruned_tables(state):
    model = seeded(Shop)
    before = [(name, id(module)) for name, module in model.named_modules(remove_duplicate=False)]
    weights = {name: model.get_submodule(name).weight for name in TABLES}
    plugged = plug(model, threshold_init=-1.0)
    train(model, adam(plugged))
    if state == "masked":
        train(model, adam(masked(model, snapshot(model, 60))))
    model.eval()
    tables = {name: table.weight.detach().clone() for name, table in plugged.tables.items()}
    expected = model(batch(40)[0])
    found = unplug(model)
    assert [(name, id(module)) for name,
            module in model.named_modules(remove_duplicate=False)] == before
    for name, module in found.items():
        assert module is model.get_submodule(name)
        assert module.weight is weights[name]
        assert torch.equal(module.weight, tables[name])
        assert not module.training
        assert module.weight.grad is None
    assert torch.equal(model(batch(40)[0]), expected)
    assert sorted(model.state_dict()) == sorted(Shop().state_dict())
    with pytest.raises(ValueError, match="has no plugged tables"):
        unplug(model)
    assert len(plug(model).tables) == len(TABLES)  # and again


def test_hooks_put_on_a_plugged_table_are_not_lost_unsaid():
    model = searched()
    cut = snapshot(model, 60)
    hooks = (lambda: model.users.register_forward_hook(lambda module, inputs, output: 2 * output),
             lambda: model.users.register_state_dict_pre_hook(lambda *inputs: None))
    for hook in hooks:
        handle = hook()
        before = fingerprint(model)
        for change in (lambda: masked(model, cut), lambda: unplug(model),
                       lambda: unplug(model, compact=True)):
            with pytest.raises(ValueError, match="the table users has hooks, which would be lost; "
                                                 "remove them first"):
                change()
        assert same(before, fingerprint(model))
        handle.remove()
    assert masked(model, cut).num_params() == 60


@pytest.mark.parametrize("compact", [True, False])
def test_short_of_memory_it_can_be_done_in_two_goes(compact, monkeypatch):
    model = searched(threshold_init=-1.0)
    ids, read, title = batch(2)[0], PepTable.table, model.words["title"]
    expected, left = model(ids), ["words.title"]

    def table_of(table):
        if table is title and left:
            raise RuntimeError(f"out of memory at {left.pop()}")
        return read(table)

    monkeypatch.setattr(PepTable, "table", table_of)
    with pytest.raises(RuntimeError, match=r"out of memory at words\.title"):
        unplug(model, compact)
    assert torch.equal(model(ids), expected)
    assert list(unplug(model, compact)) == (TABLES if compact else ["words.title"])
    assert torch.equal(model(ids), expected)


@pytest.mark.parametrize("training", [True, False])
def test_every_table_is_in_the_mode_of_the_one_before(training):
    model = seeded(Shop).train(not training)
    plugged = plug(model)
    cut = snapshot(model, 60, allow_magnitude=True)
    for change in (lambda: masked(model, cut), lambda: unplug(model, compact=True),
                   lambda: unplug(model), lambda: plug(model)):
        model.train(training)
        change()
        assert {module.training for module in model.modules()} == {training}
    assert len(plugged.tables) == len(TABLES)


def test_compact_tables_give_the_same_vectors_in_fewer_bytes():
    model = searched(threshold_init=-1.0)
    model.eval()
    few, many = batch(2)[0], batch(60)[0]
    expected = [model(few), model(many), model.items.weight.detach().clone()]
    left = {name: table.num_params() for name, table in Plugged(model).tables.items()}
    tables = unplug(model, compact=True)
    with torch.no_grad():
        assert torch.equal(model(few), expected[0])
        assert torch.equal(model(many), expected[1])
    assert torch.equal(model.items.weight, expected[2])
    assert [name for name, _ in model.named_parameters()] == [
        "tower.1.weight", "tower.1.bias", "first_order.weight", "head.weight", "head.bias"]
    for name, table in tables.items():
        assert table.plain[0].weight is None  # the dense table is gone
        assert table.num_params() == left[name]
        assert table.num_bytes() == sum(value.numpy().nbytes
                                        for value in table.state_dict().values())
        assert not table(torch.tensor([1])[:, None]).requires_grad
    other = copy.deepcopy(model)
    assert torch.equal(other(many), expected[1])
    unplug(other)
    assert torch.equal(other.items.weight, expected[2])
    assert type(other.words["title"]) is nn.EmbeddingBag
    assert torch.equal(other(many), expected[1])


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("state", ["searched", "masked"])
def test_modules_that_others_hold_too_keep_their_weight(compact, state):
    """As the feature objects of some libraries do, of which the next model is built."""
    features = {"user": seeded(nn.Embedding, 20, 4), "word": seeded(nn.EmbeddingBag, 30, 4)}
    model = nn.ModuleDict(features)
    plugged = plug(model, threshold_init=-1.0)
    if state == "masked":
        masked(model, snapshot(model, 60, allow_magnitude=True))
    tables = {name: table.table().detach() for name, table in plugged.tables.items()}
    found = unplug(model, compact=compact)
    ids = torch.tensor([[3, 1], [7, 7]])
    following = nn.ModuleDict(features)
    for name, module in following.items():
        assert module.weight.requires_grad
        assert torch.equal(module.weight, tables[name])
        assert torch.equal(module(ids), found[name](ids))
    assert list(plug(following, threshold_init=-150.0).tables) == ["user", "word"]


def test_what_is_compact_stays_so():
    model = searched()
    tables = unplug(model, compact=True)
    before = fingerprint(model)
    assert unplug(model, compact=True) == tables
    assert same(before, fingerprint(model))


@pytest.mark.parametrize("width", [1, 256, 257])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_compact_table_is_what_it_was_made_of(share, width):
    table = torch.where(torch.rand(40, width, generator=torch.Generator().manual_seed(1)) < share,
                        torch.randn(40, width), 0.0)
    compact = CompactTable(nn.Embedding(40, width), table)
    assert torch.equal(compact.weight, table)
    for ids in (torch.tensor(7), torch.zeros(0, dtype=torch.int32),
                torch.arange(40).view(4, 2, 5).int()):
        assert torch.equal(compact(ids), table[ids.long()])
    rows = int(table.any(dim=1).sum())
    assert compact.num_bytes() == 4 * (compact.num_params() + 16) + 40 + 2 * (
        -(-width // 16) * (rows + 1)) + 8 * (width + 1)
    assert compact.num_params() == int(table.count_nonzero())


@pytest.mark.parametrize("thresholds", [Thresholds(decay="none"), Thresholds(learned=False)])
def test_thresholds_that_only_our_own_optimiser_can_serve_are_refused(thresholds):
    with pytest.raises(ValueError, match="the optimiser is yours: give them a group of their own"):
        PepTable(nn.Embedding(ROWS, WIDTH), thresholds)
