"""ONNX and torch.export, held against the exported model for 0, 1 and more rows."""

import numpy as np
import pytest
import torch
from test_serving_forms import SIZES, built, ids_of

from models.embedding.none import NoEmbedding
from models.serving.plain import FORMS
from serving import onnx
from serving.forms import served
from tests.contracts.test_embeddings import CASES

runtime = pytest.importorskip("onnxruntime")
ROWS = (0, 1, 2, 33)
# each scheme once; the others under `slow`, as each takes seconds
CHOSEN = ("mgqe", "mde", "pep feature_dim sigmoid")


def feeds(model, new_ids, rows):
    ids = torch.from_numpy(new_ids)[ids_of(rows)]
    ids[1:2, 0] = sum(SIZES)  # not known
    numbers = (torch.randn(rows, model.num_dense),) if model.num_dense else ()
    return (ids, *numbers)


def hold(model, folder, form="unpacked", values="float32"):
    small, new_ids = served(model, values)
    onnx.write(small, folder / "m.onnx", form)
    session = runtime.InferenceSession(folder / "m.onnx")
    for rows in ROWS:
        given = feeds(small, new_ids, rows)
        named = dict(zip(("ids", "numbers"), (part.numpy() for part in given), strict=False))
        [found] = session.run(None, named)
        np.testing.assert_allclose(found, small(*given).numpy(), atol=1e-5)


def cases():
    return [pytest.param(case, marks=() if case in CHOSEN else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize("case", cases())
def test_every_embedding_in_onnx(case, tmp_path):
    embedding = CASES[case](1)
    if getattr(embedding, "fused", False):
        pytest.skip("no model reads it unfused")
    hold(built("fm", embedding), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["linear", "deepfm", "autoint", "dlrm"])
def test_every_model_in_onnx(model, tmp_path):
    embedding = NoEmbedding(SIZES) if model == "linear" else CASES["masked"](1)
    hold(built(model, embedding, 4 if model == "dlrm" else 0), tmp_path)


@pytest.mark.parametrize(("form", "values"), [("rows", "float16"), ("unpacked", "int8")])
def test_both_forms_and_small_types(form, values, tmp_path):
    assert form in FORMS
    hold(built("fm", CASES["masked"](1)), tmp_path, form, values)


def test_torch_export_takes_any_number_of_rows():
    small, new_ids = served(built("deepfm", CASES["masked"](1)), "float32")
    program = onnx.program(small)
    for rows in ROWS:
        given = feeds(small, new_ids, rows)
        torch.testing.assert_close(program.module()(*given), small(*given), atol=1e-5, rtol=0)


def test_an_unknown_form_is_refused(tmp_path):
    small, _ = served(built("fm", CASES["masked"](1)), "float32")
    with pytest.raises(ValueError, match="the form must be one of unpacked, rows, got 'dense'"):
        onnx.write(small, tmp_path / "m.onnx", "dense")
