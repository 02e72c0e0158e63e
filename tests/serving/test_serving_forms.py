"""Every model with every embedding: exported, written, read, and held against itself."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from compression.afm.factor import factor_table, fuse, probe
from compression.afm.low_rank import Factor
from compression.umec.resources import layout_of
from compression.umec.shrink import shrink
from models.build import MODELS, build_model
from models.embedding.none import NoEmbedding
from models.embedding.uniform import Uniform
from models.serving.model import ServedModel
from models.serving.tensor_file import read_tensors, write_tensors
from serving.forms import served
from tests.contracts.test_embeddings import CASES, SIZES

STARTS = torch.tensor([0, 5, 7])
TOLERANCES = {"float32": 1e-6, "float16": 1e-2, "int8": 0.2}
# a searched table is served as its values, whatever the thresholds were shared by
FORMS = [case for case in CASES if not case.startswith("pep ")] + ["pep field_dim softplus"]
SHAPE = {"mlp_dims": (6, 5), "arch_mlp_bot": (5,), "arch_mlp_top": (7,), "with_linear": True}


def ids_of(rows):
    return torch.stack([torch.randint(size, (rows,)) for size in SIZES], 1) + STARTS


def built(model, embedding, num_dense=0, **more):
    """A model with batch norms that are not at their start."""
    torch.manual_seed(0)
    made = build_model(SIZES, {"model": model, **SHAPE, **more}, 1, embedding, num_dense).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return made


def hold(model, folder, num_dense=0):
    """The exported model, through its file, against the model, in all types of values."""
    ids, numbers = ids_of(200), torch.randn(200, num_dense)
    more = (numbers,) if num_dense else ()
    with torch.no_grad():
        wanted = model(ids, *more)
    for values, tolerance in TOLERANCES.items():
        small, new_ids = served(model, values)
        assert sorted(new_ids) == list(range(sum(SIZES)))
        write_tensors(folder / "t", small.tensors())
        tensors = read_tensors(folder / "t")
        by_library = load_file(folder / "t")
        assert by_library.keys() == tensors.keys()
        assert all(np.array_equal(by_library[name], tensors[name]) for name in tensors)
        again = ServedModel.make(small.shape(), tensors)
        moved = torch.from_numpy(new_ids)[ids]
        scale = 1 + float(wanted.abs().max())
        assert (again(moved, *more) - wanted).abs().max() <= tolerance * scale
        moved[:, 0] = sum(SIZES)  # not known: nothing of the field's rows is read
        assert torch.isfinite(again(moved, *more)).all()


@pytest.mark.parametrize("model", [name for name in MODELS if name != "linear"])
@pytest.mark.parametrize("case", FORMS)
def test_the_exported_model_is_the_model(case, model, tmp_path):
    num_dense = 4 if model == "dlrm" else 0
    embedding = CASES[case](1)
    if getattr(embedding, "fused", False):
        embedding = CASES[case](2)
        embedding = CASES[case](1) if embedding.fused else embedding
    hold(built(model, embedding, num_dense), tmp_path, num_dense)


def test_logistic_regression_and_a_dlrm_of_products(tmp_path):
    hold(built("linear", NoEmbedding(SIZES)), tmp_path)
    hold(built("dlrm", Uniform(torch.randn(16, 3), 3), 4, arch_interaction_op="dot"), tmp_path, 4)


@pytest.mark.parametrize("residual", [True, False])
def test_autoint_with_the_papers_layers(residual, tmp_path):
    hold(built("autoint", Uniform(torch.randn(16, 3), 3), att_layer="paper",
               has_residual=residual), tmp_path)


def test_a_dlrm_that_umec_has_shrunk(tmp_path):
    model = built("dlrm", Uniform(torch.randn(16, 3), 3), 4)
    layout = layout_of(model, SIZES)
    kept = torch.ones(len(layout.counts), max(layout.counts), dtype=torch.bool)
    kept[0, 1], kept[1, 2] = False, False
    hold(shrink(model, layout, kept).eval(), tmp_path, 4)


@pytest.mark.parametrize("fused", [True, False])
def test_a_model_that_afm_has_factored(fused, tmp_path):
    model = built("deepfm", Uniform(torch.randn(16, 3), 3))
    factors = [Factor(torch.randn(rank, 3).double(), torch.randn(3).double())
               for rank in (2, 0, 1)]
    made = factor_table(model, factors, SIZES)
    hold(fuse(made, probe(made, SIZES)) if fused else made, tmp_path)


@pytest.mark.parametrize("case", FORMS)
def test_inference_bytes_are_what_the_file_holds_of_the_table(case):
    embedding = CASES[case](1)
    if case == "darts":
        pytest.skip("a search's mixture of all widths, of which one is trained again")
    if getattr(embedding, "fused", False):
        pytest.skip("no model reads it unfused")
    small, _ = served(built("fm", embedding), "float32")
    assert small.bytes_by_part()["table"] == embedding.inference_bytes()


def test_an_embedding_that_is_in_no_registry_is_exported_as_its_table(tmp_path):
    class Toy(Uniform):
        pass

    hold(built("fm", Toy(torch.randn(16, 3), 3)), tmp_path)


def test_a_value_without_an_id_adds_nothing():
    model = built("fm", Uniform(torch.randn(16, 3), 3))
    small, _ = served(model, "float32")
    absent = torch.full((1, 3), 16)
    assert small(absent).item() == pytest.approx(model.linear.layer.bias.item())
