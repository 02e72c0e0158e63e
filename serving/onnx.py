"""ONNX: one file for any runtime, with a dynamic number of rows.

The table is stored as small as in the exported model, and unpacked once when the runtime loads it
(`unpacked`), which then looks rows up as fast as in a dense table and needs the memory of one; or
it is stored as dense rows of what is kept (`rows`), larger on disk and smaller in memory.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from models.serving.model import ServedModel
from models.serving.plain import FORMS, UNPACKED, plain

FILE = "model.onnx"
NEEDED = ("onnx", "onnxscript")


def require() -> None:
    """Raise an ImportError that says what to install, unless ONNX is there."""
    for name in NEEDED:
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(f"writing ONNX needs {name}, which is not installed: pip install "
                              f"{' '.join(NEEDED)} onnxruntime; or export without --onnx"
                              ) from error


def program(model: ServedModel, form: str = UNPACKED) -> torch.export.ExportedProgram:
    """The model by torch.export, for any number of rows, 0 and 1 among them.

    Args:
        form: of FORMS.
    """
    made = plain(model, form)
    rows = torch.export.Dim.DYNAMIC
    inputs = example(model, 3)
    shapes = tuple({0: rows} for _ in inputs)
    return torch.export.export(made, inputs, dynamic_shapes=shapes)


def example(model: ServedModel, rows: int) -> tuple[torch.Tensor, ...]:
    """Ids (rows, F), and numbers (rows, M) if the model reads some."""
    ids = torch.zeros((rows, model.table.num_fields), dtype=torch.int64)
    numbers = (torch.zeros((rows, model.num_dense)),) if model.num_dense else ()
    return (ids, *numbers)


def write(model: ServedModel, path: Path, form: str = UNPACKED) -> None:
    """Write a model as ONNX: inputs `ids` (rows, F) int64 and, if read, `numbers` (rows, M); output
    `logits` (rows,).

    Raises:
        ImportError: ONNX is not installed.
        ValueError: the form is unknown.
    """
    require()
    if form not in FORMS:
        raise ValueError(f"the form must be one of {', '.join(FORMS)}, got {form!r}")
    names = ["ids", "numbers"][:1 + bool(model.num_dense)]
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: Any = torch.onnx.export(program(model, form), input_names=names,
                                          output_names=["logits"], optimize=False, verbose=False)
            made.save(str(path))
    finally:
        loud.setLevel(level)
