"""A finished run to a folder that scores raw rows: see `export.py`.

The exported model is held against the run's own on all validation rows before anything is written.
"""

import copy
import itertools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data import avazu, criteo
from data.loader import in_order
from data.raw.layout import LABEL, Layout
from engine.evaluate import auc, logloss
from engine.record import provenance
from engine.run import RunContext
from models.memory import require_memory
from models.new_files import require_free
from models.serving import FLOAT16, FLOAT32, INT8, artefact
from models.serving.artefact import Artefact
from models.serving.model import ServedModel
from models.serving.tables import PackedRows
from models.serving.values import check_type
from serving import onnx
from serving.forms import served, served_with
from serving.runs import TrainedModel, load_trained

log = logging.getLogger("pep")

LAYOUTS = {layout.name: layout for layout in (criteo.LAYOUT, avazu.LAYOUT)}
# how far an exported model may be from the run: in probabilities for float32 (or four times the
# run's own rounding, if that is more), in AUC for the others
ALLOWED = {FLOAT32: 1e-6, FLOAT16: 1e-5, INT8: 1e-4}
MOST_ROUNDING = 1e-4  # of a probability, that counts as rounding
FEW_PAIRS = 10  # pairs of a positive and a negative row that any type may put in another order


@dataclass(frozen=True)
class Exported:
    """What was written, and where."""

    folder: Path
    manifest: dict[str, Any]


def export(run_id: str, folder: Path | str, values: str = FLOAT32,
           context: RunContext | None = None, with_onnx: bool = False) -> Exported:
    """Export a finished run.

    Args:
        run_id: of a training, a retraining or a compressed model, or its start.
        folder: new; it is there whole, or not at all.
        values: the type of the table's values: float32, float16 or int8.
        context: where the run and its data lie.
        with_onnx: write model.onnx too.

    Raises:
        FileNotFoundError, ValueError: as `serving.runs.load_trained`; or the exported model differs
            from the run's by more than its type allows.
        FileExistsError: the folder has something in it.
        ImportError: ONNX is asked for and not installed.
    """
    check_type(values)
    if with_onnx:
        onnx.require()
    folder = Path(folder)
    require_free(folder)  # before minutes are spent
    trained = load_trained(run_id, context or RunContext())
    vocabulary = trained.run.dataset.vocabulary
    if vocabulary is None:
        raise ValueError(f"run {trained.result['run_id']} was trained on rows that came encoded: "
                         "there is no vocabulary to read raw rows by")
    model, new_ids = _served(trained, values)
    parity = compared(trained, model, new_ids, values)
    made = Artefact(model, vocabulary.renumbered(new_ids), _about(trained, values, parity))

    def more(temporary: Path) -> None:
        if with_onnx:
            onnx.write(model, temporary / onnx.FILE)

    manifest = artefact.write(made, folder, more)
    log.info("exported run %s to %s", trained.result["run_id"], folder)
    return Exported(folder, manifest)


def _served(trained: TrainedModel, values: str) -> tuple[ServedModel, np.ndarray]:
    if trained.packed is None:
        return served(trained.model, values)
    table, places = trained.packed
    return served_with(trained.model, PackedRows(table), places, values), places


@torch.no_grad()
def compared(trained: TrainedModel, model: ServedModel, new_ids: np.ndarray,
             values: str) -> dict[str, Any]:
    """Scores of the validation rows by the run's model and by the exported one.

    float32 rounds by more than 1e-6 where large terms cancel, in the run as in the export. So the
    run's model computes in double precision too: a score is compared with the nearer of the two,
    and the difference that 99 % of the run's own scores keep below is its rounding. (Some scores of
    a table of few bits are others in double precision, where a value lies between two levels.)

    Returns:
        How far the export's probabilities are off at most, and the rounding; AUC and log-loss of
        the run and of the export.

    Raises:
        ValueError: they differ by more than the type allows, or there is no memory for the copy in
            double precision.
    """
    dataset = trained.run.dataset
    ids, labels = dataset.split("validation")
    dense = dataset.dense_of("validation") if trained.model.num_dense else None
    arrays = [torch.from_numpy(np.asarray(ids))]
    arrays += [] if dense is None else [torch.from_numpy(np.asarray(dense))]
    values_of = itertools.chain(trained.model.parameters(), trained.model.buffers())
    # copied in float32, then made double one by one
    require_memory(12 * sum(value.numel() for value in values_of),
                   "a copy of the model in double precision, which the export is held against")
    moved, exact = torch.from_numpy(new_ids), copy.deepcopy(trained.model.cpu()).double()
    own, precise, other = [], [], []
    for batch in zip(*(in_order(array, torch.device("cpu")) for array in arrays), strict=True):
        own.append(trained.model.cpu()(*batch))
        precise.append(exact(batch[0], *(part.double() for part in batch[1:])))
        other.append(model(moved[batch[0].long()], *batch[1:]))
    before, wanted, after = (torch.cat(logits).numpy() for logits in (own, precise, other))
    run, exact_run, exported = map(_probabilities, (before, wanted, after))
    apart = float(np.minimum(np.abs(exported - run), np.abs(exported - exact_run)).max())
    rounding = float(np.quantile(np.abs(run - exact_run), 0.99))
    found = {"rows": len(labels), "largest_difference": apart, "rounding_of_the_run": rounding,
             "auc": auc(labels, before), "auc_exported": auc(labels, after),
             "logloss": logloss(labels, before), "logloss_exported": logloss(labels, after)}
    positives = int(labels.sum())
    pairs = positives * (len(labels) - positives)
    lost = abs(found["auc"] - found["auc_exported"])
    allowed = ALLOWED[values]
    right = lost <= allowed + FEW_PAIRS / pairs
    if values == FLOAT32:
        allowed = min(max(allowed, 4 * rounding), MOST_ROUNDING)
        right = apart <= allowed
    if not right or not np.isfinite(after).all():
        raise ValueError(f"run {trained.result['run_id']} cannot be exported in {values}: on its "
                         f"validation rows probabilities differ by up to {apart:.2g}, the AUC by "
                         f"{lost:.2g}; allowed is {allowed:.2g} of "
                         f"{'a probability' if values == FLOAT32 else 'AUC'}. Nothing was written; "
                         "take a wider type with --values, or report a defect for float32")
    return found


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _about(trained: TrainedModel, values: str, parity: dict[str, Any]) -> dict[str, Any]:
    """The manifest, without what `artefact.write` adds."""
    run, result = trained.run, trained.result
    keys = ("validation_auc", "validation_logloss", "test_auc", "test_logloss",
            "num_embedding_params", "num_embedding_params_dense")
    return {"run_id": result["run_id"], "stage": result["stage"], "seed": result["seed"],
            "settings": result["settings"], "dataset": run.dataset.schema.name,
            "data": run.dataset.hash, "values": values,
            "fields": list(run.dataset.schema.fields),
            "field_sizes": list(run.dataset.schema.sizes),
            "raw": _raw(trained), "dense": _dense_columns(trained),
            "metrics": {key: result[key] for key in keys if key in result}, "parity": parity,
            "exported_by": {key: value for key, value in provenance(torch.device("cpu")).items()
                            if key in ("commit", "versions")}}


def _raw(trained: TrainedModel) -> dict[str, Any]:
    """What a file of raw rows looks like."""
    settings = trained.run.settings.flat()
    layout = LAYOUTS.get(trained.run.dataset.schema.name)
    if layout is None:
        label = settings.get("label") or None
        return {"separator": ",", "header": True, "columns": None, "label": label}
    return {"separator": layout.separator, "header": layout.has_header,
            "columns": [column.name for column in layout.columns],
            "label": next(column.name for column in layout.columns if column.kind == LABEL)}


def _dense_columns(trained: TrainedModel) -> list[str]:
    """Columns of numbers that the model reads beside its fields, in their order."""
    dataset = trained.run.dataset
    if not trained.model.num_dense:
        return []
    layout: Layout | None = LAYOUTS.get(dataset.schema.name)
    # of an own table in its own order, which is not that of the setting
    names = (layout.dense if layout is not None
             else dataset.manifest.get("table", {}).get("dense", ()))
    if len(names) != trained.model.num_dense:
        raise ValueError(f"the model reads {trained.model.num_dense} dense features, and their "
                         f"columns are not known (there are {len(names)} of these: {list(names)});"
                         " an own table that an older version has encoded must be encoded again: "
                         "delete it from the cache, and train with --data")
    return list(names)


def describe(exported: Exported) -> str:
    """A few lines: what was written, its size by parts, and how near it is to the run."""
    manifest = exported.manifest
    sizes, parity = manifest["bytes"], manifest["parity"]
    total = sum(sizes.values())
    path = exported.folder / onnx.FILE
    beside = f"; {onnx.FILE} beside them {path.stat().st_size:,}" if path.exists() else ""
    parts = ", ".join(f"{name.replace('_', ' ')} {size:,}" for name, size in sizes.items())
    return (f"{exported.folder}: run {manifest['run_id']}, {manifest['values']}, {total:,} bytes "
            f"({parts}){beside}\n"
            f"validation AUC {parity['auc_exported']:.6f} (run: {parity['auc']:.6f}), "
            f"probabilities differ by at most {parity['largest_difference']:.1g}")
