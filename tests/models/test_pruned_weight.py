"""Writing into `weight` of a plugged table is an error; reading it is reading a tensor."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.testing._internal.two_tensor import TwoTensor

from models import masked, snapshot, unplug
from models.plug_in.plug import plug

ROWS, WIDTH = 12, 4


def plugged_model(state="searched"):
    torch.manual_seed(0)
    model = nn.ModuleDict({"item": nn.Embedding(ROWS, WIDTH)})
    plug(model, threshold_init=-1.0)
    if state != "searched":
        masked(model, snapshot(model, 20, allow_magnitude=True))
    if state == "compact":
        unplug(model, compact=True)
    return model


WRITES = {
    "nn.init": lambda weight: nn.init.xavier_uniform_(weight),
    "nn.init of data": lambda weight: nn.init.normal_(weight.data),
    "data.normal_": lambda weight: weight.data.normal_(),
    "data =": lambda weight: setattr(weight, "data", torch.ones(ROWS, WIDTH)),
    "fill of a row": lambda weight: weight[0].fill_(0),
    "item": lambda weight: weight.__setitem__(0, 0.0),
    "copy_": lambda weight: weight.copy_(torch.ones(ROWS, WIDTH)),
    "+=": lambda weight: weight.__iadd__(1),
    "out=": lambda weight: torch.add(torch.ones(ROWS, WIDTH), 1, out=weight.data),
    "in a list": lambda weight: torch._foreach_add_([weight], 1.0),
    "transposed": lambda weight: weight.T.zero_(),
    "data.set_": lambda weight: weight.data.set_(torch.ones(ROWS, WIDTH)),
    "detached": lambda weight: weight.detach().zero_(),
    "a row of the detached": lambda weight: weight.detach()[0].copy_(torch.ones(WIDTH)),
    "inplace=": lambda weight: functional.relu(weight, inplace=True),
    "apply_": lambda weight: weight.data.apply_(lambda value: 0.0),
}
MODES = {"with gradients": torch.enable_grad, "without": torch.no_grad,
         "inference": torch.inference_mode}


@pytest.mark.parametrize("state", ["searched", "masked", "compact"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("write", WRITES)
def test_what_would_be_lost_is_refused(write, mode, state):
    model = plugged_model(state)
    before = copy.deepcopy(model.state_dict())
    message = r"would write into `weight` of a plugged table.*before plug\(\).*`values`"
    with MODES[mode](), pytest.raises(RuntimeError, match=message):
        WRITES[write](model["item"].weight)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("state", ["searched", "masked", "compact"])
@pytest.mark.parametrize("array", [lambda weight: weight.detach().numpy(),
                                   lambda weight: weight.numpy(force=True),
                                   lambda weight: np.asarray(weight.detach()[2:])])
def test_arrays_that_share_its_memory_are_read_only(array, state):
    weight = plugged_model(state)["item"].weight
    with pytest.raises(ValueError, match="read-only"):
        array(weight)[0] = 0.0


@pytest.mark.parametrize("state", ["searched", "masked", "compact"])
def test_assigning_and_resetting_say_what_to_do(state):
    table = plugged_model(state)["item"]
    for value in (nn.Parameter(torch.ones(ROWS, WIDTH)), torch.ones(ROWS, WIDTH)):
        with pytest.raises(AttributeError, match=r"cannot be replaced; unplug\(model\), change"):
            table.weight = value
    with pytest.raises(RuntimeError, match=r"cannot be initialised anew; unplug\(model\), change"):
        table.reset_parameters()


def test_a_model_whose_reset_writes_into_it_is_told():
    class LightGCN(nn.Module):
        """As PyTorch Geometric's."""

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(ROWS, WIDTH)
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.xavier_uniform_(self.embedding.weight)

    model = LightGCN()
    plug(model)
    with pytest.raises(RuntimeError, match=r"uniform_ would write into `weight`"):
        model.reset_parameters()


def test_reading_is_that_of_a_tensor():
    model = plugged_model()
    table, weight = model["item"], model["item"].weight
    plain = table.table()
    assert isinstance(weight, torch.Tensor)
    assert not weight.is_leaf
    assert torch.equal(weight, plain)
    for read in (
        weight.clone(),
        weight + 0,
        weight.detach().clone(),
        functional.embedding(torch.arange(ROWS), weight),
    ):
        assert type(read) is torch.Tensor
        assert torch.equal(read, plain)
    assert torch.equal(torch.zeros(ROWS, WIDTH).copy_(weight), plain)
    assert torch.equal(nn.Embedding.from_pretrained(weight.detach()).weight, plain)
    assert (weight.detach().numpy() == plain.detach().numpy()).all()
    file = io.BytesIO()
    torch.save({"item": weight}, file)
    file.seek(0)
    assert type(torch.load(file)["item"]) is torch.Tensor
    weight.retain_grad()
    (torch.ones(1, WIDTH) @ weight.T).sum().backward()
    assert torch.equal(weight.grad, torch.ones(ROWS, WIDTH))
    assert torch.equal(table.values.grad != 0, table.margins() > 0)


@pytest.mark.parametrize("state", ["searched", "masked"])
def test_in_torch_func_and_in_inference_mode(state):
    model = plugged_model(state)
    parameters = dict(model.named_parameters())

    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, user):
            return (user @ self.inner["item"].weight.T).sum()

    whole, users = Scores(), torch.randn(3, WIDTH)
    loss = lambda parameters, user: torch.func.functional_call(  # noqa: E731
        whole, {f"inner.{name}": value for name, value in parameters.items()}, (user,)
    )
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, users)
    whole(users).backward()
    torch.testing.assert_close(each["item.values"].sum(0), model["item"].values.grad)
    with torch.inference_mode():
        weight = model["item"].weight
        assert torch.equal(users @ weight.T, users @ model["item"].table().T)
        assert type(weight.clone()) is torch.Tensor


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_the_gradient_of_a_gradient(kind):
    model = plugged_model().to(kind)
    table = model["item"]
    (first,) = torch.autograd.grad((table(torch.arange(ROWS)) ** 3).sum(), table.values,
                                   create_graph=True)
    (first ** 2).sum().backward()
    shrunk = table.table().detach()  # d/dv (3 S^2)^2 = 36 S^3 where an entry is kept
    torch.testing.assert_close(table.values.grad, 36 * shrunk ** 3)


def test_assigned_values_are_those_of_the_module_that_was_there():
    model = plugged_model()
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()},
                          assign=True)
    assert model["item"].plain[0].weight is model["item"].values


def test_a_compiled_model_that_reads_it():
    model = plugged_model()
    torch._dynamo.reset()
    user = torch.randn(2, WIDTH)
    compiled = torch.compile(lambda user: (user @ model["item"].weight.T).sum(),
                             backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(user), (user @ model["item"].table().T).sum())


@pytest.mark.parametrize("write", [
    lambda weight: weight.data.unbind(0)[0].zero_(), lambda weight: weight.data.chunk(2)[0].zero_(),
    lambda weight: [row.zero_() for row in weight.data]])
def test_a_write_through_one_of_several_views_is_refused_too(write):
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(50, 8)})
    plug(model, threshold_init=-15.0)
    with pytest.raises(RuntimeError, match="would write into `weight` of a plugged table"):
        write(model["table"].weight)


@pytest.mark.parametrize("state", ["searched", "ticket", "compact"])
@pytest.mark.parametrize("rows", [3, 5_000])
def test_what_takes_the_operations_sees_them(state, rows):
    """A loop's result would be a constant to them, or memory that nobody has written."""
    model = plugged_model(state)["item"]
    ids, others = torch.randint(ROWS, (rows,)), torch.randint(ROWS, (rows,))
    expected = model(others)
    assert torch.equal(make_fx(model)(ids)(others), expected)
    assert torch.equal(torch.func.functionalize(model)(others), expected)
    assert torch.equal(torch.func.vmap(model)(others), expected)
    assert torch.equal(model(TwoTensor(others, others.clone())), expected)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(torch.zeros(3, dtype=torch.long)).shape == (3, WIDTH)


@pytest.mark.parametrize("state", ["searched", "compact"])
def test_a_detached_weight_can_be_copied_deeply(state):
    weight = plugged_model(state)["item"].weight
    for given in (weight.data, weight.detach()):
        found = copy.deepcopy({"best": given})["best"]
        assert type(found) is torch.Tensor
        assert torch.equal(found, weight)
        found.fill_(0)
    assert weight.any()
