"""From a trained dense model to a table of few bits: what a budget gives, and the packed file."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compression.calibration import CalibrationBatches
from compression.loaded_run import LoadedRun
from compression.lowbit.start import Start, start_of
from compression.waterline.allocation import Allocation, Level, column_worth, row_classes
from compression.waterline.options import COLUMN, COUNTS, ENERGY, FIELD, NOTHING
from compression.waterline.rotation import of_fields
from compression.waterline.sensitivity import ROWS, sensitivities
from engine.record import pick_device
from models.base import ClickModel
from models.embedding.quantised import MOST, Quantised, step_groups
from models.kernels.quantise import bytes_of, codes_of
from models.packed_table import UNSEEN, PackedTable, pack

PACKED = "table.packed"  # in a run's folder
ORDER = "row_order.npy"  # where each id of the data set stands in it


@dataclass(frozen=True)
class Shape:
    """What the bits follow; the defaults are the method, others its ablations.

    Args:
        rotation: rotate the table to its principal axes first.
        width: keep the first columns of the (rotated) table alone; None for all.
        rows: a row's class follows its count and its energy, its count alone, or nothing.
        columns: a column's number is its own, or one for all columns of a field, but for the last
            bytes of a budget, which single columns fill.
        most: bits of an entry at most.
        rung: where it is not 0, an entry has this many bits or none.
        samples: training rows that the sensitivities are taken from.
    """

    rotation: bool = True
    width: int | None = None
    rows: str = ENERGY
    columns: str = COLUMN
    most: int = MOST
    rung: int = 0
    samples: int = ROWS

    def __post_init__(self) -> None:
        if self.rows not in (ENERGY, COUNTS, NOTHING) or self.columns not in (COLUMN, FIELD):
            raise ValueError(f"rows follow {ENERGY}, {COUNTS} or {NOTHING}, columns {COLUMN} or "
                             f"{FIELD}; got {self.rows} and {self.columns}")
        if not 1 <= self.most <= MOST or not 0 <= self.rung <= MOST:
            raise ValueError(f"most takes 1 to {MOST} bits, rung 0 to {MOST}; got {self.most} and "
                             f"{self.rung}")
        if self.rung and self.most != MOST:
            raise ValueError(f"with a rung of {self.rung} bits an entry has these or none, and "
                             f"most ({self.most}) changes nothing; leave one of the two away")

    def identity(self) -> dict[str, Any]:
        """What differs from the method, for a run's id and for tables."""
        return {name: value for name, value in vars(self).items()
                if value != getattr(Shape, name)}


def level_of(trained: LoadedRun, shape: Shape) -> tuple[Start, Level]:
    """The start of a run, and all that its bits depend on but for the level.

    Raises:
        ValueError: a rotation or fewer columns are asked for and the model is not invariant, or the
            table has no such width.
    """
    start = start_of(trained, shape.rotation,
                     None if shape.width is None else np.arange(shape.width))
    device = pick_device(trained.run.context.device)
    model = start.model.to(device)
    batches = CalibrationBatches(trained.run, bool(model.num_dense), device, shape.samples)
    felt = sensitivities(model, batches.batches("sensitivities")).numpy()
    model.cpu()
    table, counts, sizes = start.table.numpy(), start.counts, start.field_sizes
    worth = column_worth(table, counts, felt, sizes)
    if shape.columns == FIELD:
        means = np.log2(np.exp2(2 * worth).mean(axis=1, keepdims=True)) / 2
        worth = np.broadcast_to(means, worth.shape)
    if shape.rows == NOTHING:
        classes = np.where(counts > 0, 0, UNSEEN).astype(np.int8)
    else:
        classes = row_classes(table, counts, felt, sizes, energy=shape.rows == ENERGY)
    return start, Level(sizes, classes, worth, shape.most, shape.rung)


def quantised(start: Start, allocation: Allocation) -> ClickModel:
    """A copy of the start's model with its table at the bits of an allocation."""
    bits = allocation.bits()
    model = copy.deepcopy(start.model)
    model.embedding = Quantised(start.table, bits, step_groups(bits, start.field_sizes),
                                len(start.field_sizes), allocation.stored_bytes())
    return model


@torch.no_grad()
def packed(embedding: Quantised, allocation: Allocation) -> PackedTable:
    """The table as it is stored.

    Raises:
        ArithmeticError: the packed table is larger than what was counted, or a row that is read
            alone is not the row that was scored. That is a defect of this code.
    """
    quantiser = embedding.quantiser
    codes = codes_of(embedding.weight, quantiser.step, quantiser.bound).cpu().numpy()
    made = pack(codes, bytes_of(quantiser.steps()), allocation.classes, allocation.columns,
                allocation.field_sizes, allocation.most, allocation.rung)
    size, counted = len(made.to_bytes()), allocation.stored_bytes()
    places = torch.from_numpy(allocation.order())
    apart = (made.lookup(places) - embedding.table().cpu()).abs().max()
    if size > counted or apart > 1e-6:
        raise ArithmeticError(f"the packed table has {size} bytes, {counted} were counted, and "
                              f"differs from the scored one by {apart:g}")
    return made


def save(embedding: Quantised, allocation: Allocation, folder: Path) -> dict[str, Any]:
    """Write the packed table and the order of its rows into a run's folder; returns what the record
    says of them."""
    made = packed(embedding, allocation)
    made.save(folder / PACKED)
    with (folder / ORDER).open("wb") as file:
        np.save(file, allocation.order())
    bits = allocation.bits()
    by_field = {str(field): round(float(bits[rows].mean()), 3)
                for field, rows in enumerate(of_fields(allocation.field_sizes))}
    return {"packed_bytes": (folder / PACKED).stat().st_size, "bits_by_field": by_field,
            "bits_of_entries": np.bincount(bits.reshape(-1), minlength=MOST + 1).tolist()}
