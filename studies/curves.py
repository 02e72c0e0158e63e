"""What is shipped beside runs.csv: tables that runs share, and what pictures draw by epoch.

A page looks for a run's own files first (curve.jsonl, popularity.npy, snapshots, weights); here
is what was kept of those that a shipped picture was drawn from, so that it can be drawn again.
"""

import csv
import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from utils import flat
from utils.files import atomic_path

SHIPPED = Path(__file__).resolve().parent.parent / "experiments"
RUNS_CSV = "runs.csv"
FOLDER = "curves"
TRACES = ("sparsity", "thresholds")  # of a result: `lines`, one an epoch
UNUSED = "unused_unknown_rows"
DATA_COLUMNS = ("manifest", "rows", "positives", UNUSED, "fields", "field_sizes")
# of an evaluation, what a picture draws
DRAWN = ("epoch", "step", "train_loss", "test_auc", "test_logloss", "num_embedding_params")

UNUSED = "unused_unknown_rows"  # of a data set: ids of unknown values that no row has

Evaluations = list[dict[str, Any]]


@dataclass
class Tables:
    """What lines of runs.csv refer to."""

    # by manifest; "fields" is there where the order of the fields is known
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    spectra: dict[str, dict[str, Any]] = field(default_factory=dict)
    traces: dict[str, dict[str, Evaluations]] = field(
        default_factory=lambda: {name: {} for name in TRACES})

    def copy(self) -> "Tables":
        """With dicts of its own; what they hold is shared."""
        return Tables(dict(self.data), dict(self.spectra),
                      {name: dict(by_run) for name, by_run in self.traces.items()})

    def add_data(self, manifest: str, data: dict[str, Any] | None) -> str:
        """Keep what a result says of its data; returns how much that is: nothing, "sizes" of the
        fields, or "fields" with their order too.

        Raises:
            ValueError: other results say something else of the same data.
        """
        if data is None:
            return ""
        known = self.data.get(manifest, {})
        if any(known[name] != data[name] for name in set(known) & set(data)):
            raise ValueError(f"data {manifest} are recorded as {known} and as {data}")
        self.data[manifest] = {**known, **data}
        return "fields" if "fields" in data else "sizes"

    def data_of(self, manifest: str, known: str) -> dict[str, Any]:
        """What `add_data` was given, by what it returned."""
        data = self.data[manifest]
        without_order = {name: value for name, value in data.items() if name != "fields"}
        return {"fields": data, "sizes": without_order}[known]

    def fields_of(self, manifest: str) -> dict[str, int]:
        """Sizes of the fields; none where no result has them."""
        return self.data.get(manifest, {}).get("field_sizes", {})

    def add_spectra(self, run_id: str, spectra: dict[str, Any] | None) -> str:
        """Keep spectra; returns their name, which runs with equal ones share ("" for None)."""
        if spectra is None:
            return ""
        for name, known in self.spectra.items():
            if known == spectra:
                return name
        while run_id in self.spectra:
            run_id += "+"  # the run was run again, and others may share its former spectra
        self.spectra[run_id] = spectra
        return run_id

    def add_trace(self, name: str, run_id: str, trace: dict[str, Any]) -> dict[str, Any]:
        """Keep the lines of one of TRACES; returns the rest of it."""
        self.traces[name][run_id] = trace["lines"]
        return {key: value for key, value in trace.items() if key != "lines"}

    def trace(self, name: str, run_id: str, rest: dict[str, Any]) -> dict[str, Any]:
        """What `add_trace` was given, by what it returned."""
        return {**rest, "lines": self.traces[name][run_id]}


def read_tables(folder: Path) -> Tables:
    """The tables beside folder/runs.csv; empty ones where there are no files."""
    tables = Tables()
    for row in _read(folder / FOLDER / "data.csv"):
        fields = flat.load(row["field_sizes"])
        tables.data[row["manifest"]] = {
            "rows": int(row["rows"]), "positives": int(row["positives"]), "field_sizes": fields}
        if row.get(UNUSED):
            tables.data[row["manifest"]][UNUSED] = int(row[UNUSED])
        if row["fields"]:
            tables.data[row["manifest"]]["fields"] = [unquote(name)
                                                      for name in row["fields"].split()]
        if row.get(UNUSED):  # older results lack it
            tables.data[row["manifest"]][UNUSED] = int(row[UNUSED])
    for row in _read(folder / FOLDER / "spectra.csv"):
        part = tables.spectra.setdefault(row["run_id"], {}).setdefault(row["part"], {})
        if row["name"]:
            part[row["name"]] = [float(value) for value in row["values"].split()]
    for name in TRACES:
        tables.traces[name] = _by_run(folder / FOLDER / f"{name}.csv")
    return tables


def write_tables(folder: Path, tables: Tables) -> None:
    """Write the tables beside folder/runs.csv, each file whole or not at all."""
    _write(folder / FOLDER / "data.csv", DATA_COLUMNS,
           [{"manifest": manifest, **data,
             "fields": " ".join(map(flat.as_name, data.get("fields", ()))),
             "field_sizes": flat.dump(data["field_sizes"])}
            for manifest, data in sorted(tables.data.items())])
    rows = []
    for run_id, spectra in sorted(tables.spectra.items()):
        for part, by_name in spectra.items():
            for name, values in by_name.items() or [("", ())]:
                rows.append({"run_id": run_id, "part": part, "name": name,
                             "values": " ".join(map(str, values))})
    _write(folder / FOLDER / "spectra.csv", ("run_id", "part", "name", "values"), rows)
    for name, by_run in tables.traces.items():
        _write_by_run(folder / FOLDER / f"{name}.csv", by_run)


def evaluations(run_id: str) -> Evaluations:
    """What is shipped of a run's curve.

    Raises:
        FileNotFoundError: nothing is.
    """
    return _of_run(_shipped("by_epoch.csv"), run_id)


def frequencies(manifest: str) -> np.ndarray:
    """(N,) how often each feature occurs in the training rows of data.

    Raises:
        FileNotFoundError: that is not shipped.
    """
    with np.load(_frequencies_path(SHIPPED, manifest), allow_pickle=False) as arrays:
        return arrays["frequencies"]


def mask(run_id: str, budget: int) -> np.ndarray:
    """(N, D) bool of a search's snapshot at a budget.

    Raises:
        FileNotFoundError: it is not shipped.
    """
    with np.load(_masks_path(SHIPPED, run_id), allow_pickle=False) as arrays:
        if str(budget) not in arrays:
            raise FileNotFoundError(f"run {run_id}, budget {budget}")
        rows, width = arrays["shape"]
        return np.unpackbits(arrays[str(budget)], count=rows * width).reshape(rows, width) != 0


def interactions(run_id: str, fields: Sequence[str]) -> np.ndarray:
    """(F, F) how much the fields of a run's table interact (`studies.figures.fig5`).

    Raises:
        FileNotFoundError: that is not shipped.
    """
    matrix = np.full((len(fields), len(fields)), np.nan)
    for row in _of_run(_shipped("interactions.csv"), run_id):
        i, j = fields.index(row["field"]), fields.index(row["other_field"])
        matrix[i, j] = matrix[j, i] = row["interaction"]
    return matrix


def keep_evaluations(folder: Path, by_run: dict[str, Evaluations]) -> None:
    """Add curves to those that are shipped in a folder, or put them in the place of those of the
    same runs: of each evaluation what is DRAWN."""
    path = folder / FOLDER / "by_epoch.csv"
    known = _by_run(path)
    for run_id, lines in by_run.items():
        known[run_id] = [{name: line[name] for name in DRAWN if name in line} for line in lines]
    _write_by_run(path, known)


def keep_frequencies(folder: Path, manifest: str, counts: np.ndarray) -> None:
    """Add the frequencies of data's features, (N,)."""
    path = _frequencies_path(folder, manifest)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, frequencies=counts)


def keep_mask(folder: Path, run_id: str, budget: int, kept: np.ndarray) -> None:
    """Add a search's mask, (N, D) bool, at a budget."""
    path = _masks_path(folder, run_id)
    arrays: dict[str, np.ndarray] = {}
    if path.exists():
        with np.load(path, allow_pickle=False) as known:
            arrays = dict(known)
    arrays |= {"shape": np.array(kept.shape), str(budget): np.packbits(kept)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **dict(sorted(arrays.items())))


def keep_interactions(folder: Path, run_id: str, fields: Sequence[str],
                      matrix: np.ndarray) -> None:
    """Add the interactions of a run's fields, (F, F)."""
    path = folder / FOLDER / "interactions.csv"
    known = _by_run(path)
    pairs = itertools.combinations(range(len(fields)), 2)
    known[run_id] = [{"field": fields[i], "other_field": fields[j],
                      "interaction": float(matrix[i, j])} for i, j in pairs]
    _write_by_run(path, known)


def _frequencies_path(folder: Path, manifest: str) -> Path:
    return folder / FOLDER / "frequencies" / f"{manifest}.npz"


def _masks_path(folder: Path, run_id: str) -> Path:
    return folder / FOLDER / "masks" / f"{run_id}.npz"


def _shipped(name: str) -> dict[str, Evaluations]:
    path = SHIPPED / FOLDER / name
    return _read_once(path, path.stat().st_mtime_ns) if path.exists() else {}


@functools.lru_cache(maxsize=4)
def _read_once(path: Path, changed: int) -> dict[str, Evaluations]:
    """`_by_run`; a file is read again when the time of its last change is another."""
    return _by_run(path)


def _of_run(found: dict[str, Any], name: str) -> Any:
    if name not in found:
        raise FileNotFoundError(f"nothing is shipped of {name}")
    return found[name]


def _read(path: Path) -> list[dict[str, str]]:
    """Rows of a csv; none without one."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, names: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _by_run(path: Path) -> dict[str, Evaluations]:
    """Rows of a csv by their run_id; an empty cell is no value."""
    found: dict[str, Evaluations] = defaultdict(list)
    for row in _read(path):
        run_id = row.pop("run_id")
        found[run_id].append({name: flat.from_text(text) for name, text in row.items() if text})
    return dict(found)


def _write_by_run(path: Path, by_run: dict[str, Evaluations]) -> None:
    names: dict[str, None] = {}
    rows = []
    for run_id, lines in sorted(by_run.items()):
        for line in lines:
            names |= dict.fromkeys(line)
            rows.append({"run_id": run_id,
                         **{name: flat.as_text(value) for name, value in line.items()}})
    _write(path, ("run_id", *names), rows)
