"""The form of runs.csv: one line a run, with what pages read of its result.

Numbers have all their digits, and the run's id can be computed again from its identity. What is
long or the same in many runs (curves by epoch, spectra, the sizes of fields) stands in tables
beside the csv (`studies.curves`). What no page reads is left out (NOT_KEPT).
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studies import curves, result_files
from utils import flat
from utils.files import atomic_path, sha256_of

Result = dict[str, Any]

# never numbers, though all their letters may be digits
TEXT = ("run_id", "manifest", "commit", "stop_reason", "device")
# a column, and where its value stands in a result
COLUMNS = {
    "run_id": "run_id", "stage": "stage", "dataset": "settings/dataset",
    "model": "settings/model", "embedding": "settings/embedding", "seed": "seed",
    "manifest": "manifest", "num_embedding_params": "num_embedding_params",
    "num_embedding_params_dense": "num_embedding_params_dense",
    "inference_bytes": "inference_bytes", "test_auc": "test_auc", "test_logloss": "test_logloss",
    "test_accuracy": "test_accuracy", "validation_auc": "validation_auc",
    "validation_logloss": "validation_logloss", "train_loss": "train_loss",
    "best_test_auc": "published_protocol/best_test_auc", "epochs": "epochs",
    "selected_epoch": "selected_epoch",
    "stop_reason": "stop_reason", "seconds": "seconds", "device": "device", "threads": "threads",
    "commit": "commit"}
# nested values, each as one text (`utils.flat`)
NESTED = ("settings", "identity", "extra", "snapshot", "compression", "other")
PLANTED = "planted"  # the kind of planted data that a run is of; empty for real data
DATA = "data"  # what a result says of its data: nothing, "sizes", or "fields" (with their order)
SIZES = "sizes"  # widths by field, in the order of the fields' names
SPECTRA = "spectra"  # the run whose spectra these are
HEAD = (PLANTED, *COLUMNS, DATA, SIZES, SPECTRA, *NESTED)
NOT_KEPT = ("versions", "peak_memory_bytes", "samples_per_second", "processor_seconds", "compiled",
            "values_hash", "steps", "seconds_per_epoch", "validation_accuracy")
ALGORITHM_VERSION = 1  # of lines that name none
# settings that most runs have, in these values: a line names those that differ
COMMON: dict[str, Any] = {
    "arch_interaction_op": "cat", "arch_mlp_bot": [512, 256, 64], "arch_mlp_top": [512, 256],
    "att_dropout": 0.4, "atten_embed_dim": 64, "batch_size": 1024, "budget": "exact",
    "candidate_p": [100000, 50000, 23675, 15000, 10000, 9281, 8604, 6541],
    "checkpoint_seconds": 60.0, "compile": "auto", "cuda_graph": "auto",
    "darts_epochs": 20, "darts_lr": 0.01, "darts_widths": [2, 4, 16], "dropout": 0.2,
    "early_stop": 8, "early_stop_metric": "auc", "eval_interval": 2,
    "full_part": True, "g_type": "sigmoid", "gk": 1.0, "grad_clip": 100.0,
    "has_residual": True, "hash_rows": 1000, "l2_penalty": 0.0, "l2_regularization": 1e-05,
    "latent_dim": 64, "log_interval": 10, "lr": 0.001, "max_epochs": 300, "mde_alpha": 0.1,
    "mde_blocks": 8, "mgqe_centroids": 256, "mgqe_subspaces": 8, "mlp_dims": [100, 100],
    "num_heads": 2, "num_layers": 3, "optimizer": "adam", "popularity": "train",
    "qr_collisions": 4, "re_init": False, "retrain_emb_param": "all", "rewind": "embedding",
    "split": "random", "table_update": "auto", "tensorboard": False,
    "threshold_decay": "coupled", "threshold_gradient": True, "threshold_init": -15.0,
    "threshold_type": "feature_dim", "tt_rank": 16, "vocabulary": "all", "weight_decay": 1e-05,
    "with_ids": False, "with_linear": False,
    # of own tables
    "label": "", "name": "", "fields": [], "dense": [], "bucket": "quantiles", "dates": None,
    "multi": None, "ignore": [], "positive": [], "min_count": 10}


def read(path: Path, planted: str = "") -> list[Result]:
    """The results of a csv, in the order of run ids.

    Args:
        planted: the kind of planted data to read the runs of; "" is those of real data.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has other columns than this version writes, or a line cannot be read.
    """
    tables = curves.read_tables(path.parent)
    return [_result(line, path, tables) for line in lines(path) if line[PLANTED] == planted]


def kinds(path: Path) -> list[str]:
    """The kinds of planted data that a csv has runs of, "" for real data among them."""
    return sorted({line[PLANTED] for line in lines(path)})


def kind_of(folder: Path) -> str:
    """The kind of synthetic data that the runs of a folder are of; "" of real data.

    >>> kind_of(Path("tmp/planted/20000_rows")), kind_of(Path("tmp"))
    ('20000_rows', '')
    """
    folder = folder.resolve()
    return folder.name if folder.parent.name == "planted" else ""


def lines(path: Path) -> list[dict[str, str]]:
    """The lines of a csv, by column.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has other columns than this version writes, or a line is cut short.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names, found = tuple(reader.fieldnames or ()), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); restore it (git checkout -- "
                         f"{path})") from error
    if set(names) != set(HEAD):
        raise ValueError(
            f"{path} is of another form. Columns that are not known: {_listed(names, HEAD)}; "
            f"columns that it lacks: {_listed(HEAD, names)}. Take the file that belongs to "
            f"this version of the code (git checkout -- {path})")
    for number, line in enumerate(found, 2):
        if None in line or None in line.values():
            raise ValueError(f"{path}, line {number} has not the columns of the head: it was cut "
                             f"short or edited; restore it (git checkout -- {path})")
    return found


def _listed(names: Iterable[str], without: Iterable[str]) -> str:
    return ", ".join(sorted(set(names) - set(without))) or "none"


def append(path: Path, out: Path, replace: bool = False) -> tuple[list[str], list[str]]:
    """Add the runs of a folder, and of its folders of planted data, to a csv; one line a run.

    Args:
        path: of the csv, made when it is not there; it is written anew and renamed.
        out: the folder that holds runs/, and planted/<kind>/runs.
        replace: runs that are there already, with another result, get the new one.

    Returns:
        The ids of the runs that were written, and of those that differ from their line and were
        left as they are.

    Raises:
        FileNotFoundError: no run is there.
        ValueError: the csv is of another form.
    """
    by_id = {line["run_id"]: line for line in lines(path)} if path.exists() else {}
    folders = {kind_of(out): out, **{each.name: each for each in sorted(out.glob("planted/*"))}}
    tables = curves.read_tables(path.parent)
    written, differ, seen = [], [], 0
    for planted, folder in folders.items():
        for result in result_files.in_folder(folder):
            seen += 1
            run_id = result["run_id"]
            known, changed = by_id.get(run_id), tables.copy()
            line = _line(result, planted, changed)
            if known == line and changed == tables:
                continue
            if known is None or replace:
                by_id[run_id], tables = line, changed
                written.append(run_id)
            else:
                differ.append(run_id)
    if not seen:
        raise FileNotFoundError(f"there is no finished run in {out / 'runs'}; name the folder that "
                                f"results were written to (--out of the scripts)")
    curves.write_tables(path.parent, tables)
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEAD, lineterminator="\n")
        writer.writeheader()
        writer.writerows(by_id[run_id] for run_id in sorted(by_id))
    return written, differ


def run_id_of(result: Result) -> str:
    """The id that follows from what a result depends on, as `engine.run.Run.run_id` computes it."""
    identity = result["identity"]
    return sha256_of(f"v{identity['algorithm_version']}",
                     json.dumps(identity["settings"], sort_keys=True), result["manifest"],
                     str(result["seed"]), json.dumps(identity["extra"], sort_keys=True))[:12]


def _line(result: Result, planted: str, tables: curves.Tables) -> dict[str, str]:
    """A result by column; what is kept apart is added to `tables`."""
    rest = {name: value for name, value in result.items() if name not in NOT_KEPT}
    rest["published_protocol"] = {"best_test_auc": result["published_protocol"]["best_test_auc"]}
    line = {PLANTED: planted, DATA: tables.add_data(result["manifest"], rest.pop("data", None))}
    settings, identity = rest.pop("settings"), rest.pop("identity")
    compression = dict(rest.pop("compression", {}))
    compression.pop("history", None)  # of a descent, epoch by epoch; no page reads it
    line[SPECTRA] = tables.add_spectra(result["run_id"], compression.pop("spectra", None))
    line[SIZES] = _sizes(compression, result["manifest"], tables)
    for name in ("sparsity", "thresholds"):
        if name in rest:
            rest[name] = tables.add_trace(name, result["run_id"], rest[name])
    values = {**rest, "settings": settings}
    for column, place in COLUMNS.items():
        line[column] = _cell(column, _within(values, place))
    line |= {"settings": flat.dump({name: value for name, value in settings.items()
                                    if f"settings/{name}" not in COLUMNS.values()
                                    and not (name in COMMON and _equal(value, COMMON[name]))}),
             "identity": _shared(identity["settings"], settings),
             "extra": _shared(identity.get("extra", {}), compression),
             "snapshot": flat.dump(rest.pop("snapshot", {})),
             "compression": flat.dump(compression)}
    known = {place.split("/")[0] for place in COLUMNS.values()}
    other = {name: value for name, value in rest.items() if name not in known}
    if (version := identity.get("algorithm_version", ALGORITHM_VERSION)) != ALGORITHM_VERSION:
        other["algorithm_version"] = version
    line["other"] = flat.dump(other)
    return line


def _result(line: dict[str, str], path: Path, tables: curves.Tables) -> Result:
    """The result of a line.

    Raises:
        ValueError: it is not one, or what is kept apart is not there.
    """
    try:
        compression = flat.load(line["compression"])
        if line[SPECTRA]:
            compression["spectra"] = tables.spectra[line[SPECTRA]]
        if line[SIZES]:
            compression["widths"] = _widths(line[SIZES], line["manifest"], tables)
        other = flat.load(line["other"])
        settings = {**COMMON, **flat.load(line["settings"])}
        result: Result = {"settings": settings}
        for column, place in COLUMNS.items():
            if line[column]:
                _put(result, place, line[column] if column in TEXT
                     else flat.from_text(line[column]))
        result["identity"] = {"settings": _from_shared(line["identity"], settings),
                              "extra": _from_shared(line["extra"], compression),
                              "algorithm_version": other.pop("algorithm_version",
                                                                 ALGORITHM_VERSION)}
        if snapshot := flat.load(line["snapshot"]):
            result["snapshot"] = snapshot
        if compression:
            result["compression"] = compression
        if line[DATA]:
            result["data"] = tables.data_of(line["manifest"], line[DATA])
        result |= other
        for name in ("sparsity", "thresholds"):
            if name in other:
                result[name] = tables.trace(name, result["run_id"], other[name])
        return result_files.checked(result)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: the line of run {line['run_id']} cannot be read ({error!r}); "
                         f"restore it (git checkout -- {path.parent})") from error


def _cell(column: str, value: Any) -> str:
    if value is _ABSENT:
        return ""
    return str(value) if column in TEXT else flat.as_text(value)


_ABSENT = object()


def _within(values: Any, place: str) -> Any:
    for name in place.split("/"):
        if not isinstance(values, dict) or name not in values:
            return _ABSENT
        values = values[name]
    return values


def _put(result: Result, place: str, value: Any) -> None:
    *outer, name = place.split("/")
    for each in outer:
        result = result.setdefault(each, {})
    result[name] = value


def _shared(part: Result, whole: Result) -> str:
    """A dict as text; names alone where another dict has the same value.

    >>> _shared({"lr": 0.1, "model": "fm", "made": 1}, {"lr": 0.1, "model": "fm", "made": 2})
    'lr model made=1'
    """
    same = [name for name in sorted(part) if name in whole and _equal(part[name], whole[name])]
    own = flat.dump({name: value for name, value in part.items() if name not in same})
    return " ".join([*same, own]).strip()


def _from_shared(text: str, whole: Result) -> Result:
    parts = text.split()
    same = {name: whole[name] for name in parts if "=" not in name}
    return {**same, **flat.load(" ".join(part for part in parts if "=" in part))}


def _equal(one: Any, other: Any) -> bool:
    """As JSON: 1 is neither 1.0 nor True there."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _sizes(compression: Result, manifest: str, tables: curves.Tables) -> str:
    """Takes the widths out of `compression`, where the data's fields name them."""
    widths = compression.get("widths")
    if not widths or any(not isinstance(width, int) for width in widths.values()):
        return ""
    fields = tables.fields_of(manifest)
    dense = sorted(set(widths) - set(fields))  # the dense features' vector has a width too
    if len(dense) > 1 or set(fields) - set(widths):
        return ""
    del compression["widths"]
    listed = " ".join(str(widths[name]) for name in sorted(fields))
    return listed + "".join(f" {name}={widths[name]}" for name in dense)


def _widths(text: str, manifest: str, tables: curves.Tables) -> dict[str, int]:
    parts = text.split()
    listed = [int(part) for part in parts if "=" not in part]
    widths = dict(zip(sorted(tables.fields_of(manifest)), listed, strict=True))
    return widths | flat.load(" ".join(part for part in parts if "=" in part))
