"""Files of others: each trial changes one file and reads it as the code does. Nothing but a refusal
that names the file, or the very content that was written, may come of it."""

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.torture import mutations, works
from benchmarks.torture.trials import Outcome
from compression import loaded_run
from data import movielens, split, store
from engine import darts, snapshots
from engine.checkpoint import checked, load_checkpoint
from engine.record import peak_memory_bytes, reset_peak_memory
from models import npz, packed_table
from models.pruned_tables import PrunedTables
from models.serving import artefact, scorer
from models.vocabulary import Vocabulary
from studies import result_files, runs_csv, tuning

MOST_BYTES = 100 << 20  # that reading a small file may take
CPU = torch.device("cpu")
MEMORY = 50 << 20  # of the machine, as it seems to the code that reads
MARK = "unpickled"  # what a pickle leaves when it is run


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        path: of a whole one.
        form: its format, which says how it may be changed.
        read: gives what the code reads in it; None where it is made again instead.
        others: what may be read in place of the content, where anybody may write such a file.
    """

    path: Path
    form: str
    read: Callable[[Path], Any]
    others: Callable[[Any], bool] = lambda content: False


_made: dict[Path, dict[str, Kind]] = {}


def kinds(folder: Path) -> dict[str, Kind]:
    """Whole files of every kind below a folder, made once."""
    if folder not in _made:
        shutil.rmtree(folder, ignore_errors=True)
        _made[folder] = _make(folder)
    return _made[folder]


def _make(folder: Path) -> dict[str, Kind]:
    out = folder / "out"
    works.retrain(out)
    works.tune(out)
    works.darts(out)
    [alias] = (out / "embedding" / "fm").iterdir()
    weights = min(out.glob("runs/*/model.safetensors"))
    run_id = weights.parent.name
    checkpoint = _checkpoint(folder / "stopped")
    hooks = list(load_checkpoint(checkpoint)["hooks"])
    parts = split.split_rows(works.ROWS, 1)
    np.savez(folder / "parts.npz", **dict(zip(split.SPLITS, parts, strict=True)))
    runs_csv.append(folder / "csv" / "runs.csv", out)
    works.write_movielens(folder / "raw")
    movielens.open_dataset(str(folder / "raw"), folder / "cache")
    [cached] = (folder / "cache").glob("movielens*")
    source = json.loads((cached / "manifest.json").read_text())["source"]
    [widths] = out.glob("runs/*/widths.npz")
    works.export_run(folder / "exported")
    model = folder / "exported" / "model"
    [own] = (folder / "exported" / "cache").glob("clicks-*/vocabulary")
    works.water_line(folder / "packed")
    [packed] = (folder / "packed").glob("runs/*/table.packed")
    encoded = partial(_encoded, cached, source)
    return {
        "snapshot": Kind(alias / "40.npz", "npz", snapshots.read),
        "initial table": Kind(alias / "initial.npz", "npz", snapshots.read),
        "search.json": Kind(alias / "search.json", "json",
                            lambda path: snapshots.owner_of(path.parent)),
        "checkpoint": Kind(checkpoint, "safetensors",
                           lambda path: checked(load_checkpoint(path), path, hooks)),
        "model.safetensors": Kind(weights, "safetensors",
                                  lambda path: loaded_run.weights_of(path.parent)),
        "result.json": Kind(weights.with_name("result.json"), "json", lambda path:
                            loaded_run.find_result(run_id, works.context(out))),
        "result.json, by pages": Kind(weights.with_name("result.json"), "json", _by_pages),
        "chosen widths": Kind(widths, "npz", darts.read_choice),
        # made to be edited
        "tuned settings": Kind(out / "tuned" / "movielens_fm_uniform.json", "json", tuning.chosen,
                               lambda content: isinstance(content, list)),
        "split": Kind(folder / "parts.npz", "npz", _split, _is_split),
        "runs.csv": Kind(folder / "csv" / "runs.csv", "csv", runs_csv.read,
                         lambda content: isinstance(content, list)),
        "encoded ids": Kind(cached / "ids.npy", "npy", encoded),
        "encoded labels": Kind(cached / "labels.npy", "npy", encoded),
        "encoded manifest": Kind(cached / "manifest.json", "json", encoded),
        "vocabulary": Kind(own / "ids.npy", "npy", partial(_vocabulary, own.parent)),
        "packed table": Kind(packed, "bytes", _packed),
        "exported manifest": Kind(model / artefact.MANIFEST, "json", _scores),
        "exported tensors": Kind(model / artefact.TENSORS, "safetensors", _scores),
        "exported vocabulary": Kind(model / "vocabulary" / "text.npy", "npy", _scores)}


def _checkpoint(out: Path) -> Path:
    """That of a search which was stopped in its second epoch."""
    class Stop(Exception):
        pass

    def stop(report: Any) -> None:
        if report.share > 0.4:
            raise Stop

    context = works.context(out, report=stop)
    with contextlib.suppress(Stop):
        works.stages.train(works.settings(**works.PEP), works.SEED, context)
    [path] = out.glob("runs/*/checkpoint.safetensors")
    return path


def _by_pages(path: Path) -> Any:
    """The result among those of its folder; a refusal is what standard error says of it."""
    said: list[str] = []
    before, sys.stderr = sys.stderr, type("Said", (), {"write": said.append, "flush": lambda: 0})
    try:
        found = result_files.in_folder(path.parents[2])
    finally:
        sys.stderr = before
    if said:
        raise ValueError("".join(said))
    return next(each for each in found if each["run_id"] == path.parent.name)


def _split(path: Path) -> Any:
    return split.split_indices(f"ids:{path}", works.ROWS, 1)


def _is_split(parts: Any) -> bool:
    return sorted(np.concatenate(parts).tolist()) == list(range(works.ROWS))


def _encoded(folder: Path, source: Any, path: Path) -> Any:
    dataset = store.load(folder, source)
    if dataset is None:
        return None
    return dataset.schema, dataset.counts, dataset.manifest, dataset.ids[:], dataset.labels[:]


def _vocabulary(folder: Path, path: Path) -> Any:
    """The words of an encoded set, with their ids and counts."""
    source = json.loads((folder / "manifest.json").read_text())["source"]
    dataset = store.load(folder, source)
    return None if dataset is None else _words(dataset.vocabulary)


def _words(vocabulary: Vocabulary | None) -> Any:
    fields = vocabulary.fields if vocabulary is not None else ()
    return [(field.name, list(field.entries())) for field in fields]


def _packed(path: Path) -> Any:
    """All rows of a packed table."""
    table = packed_table.load(path)
    return table.lookup(torch.arange(table.num_rows)[:, None])


def _scores(path: Path) -> Any:
    """What an exported model gives for a few rows, and its words."""
    model = next(parent for parent in path.parents if (parent / artefact.MANIFEST).exists())
    loaded = scorer.load(model)
    rows = [{"user": f"u{row % 33}", "item": f"é {row % 13}", "price": row / 40}
            for row in range(40)]
    return loaded.manifest, loaded.score(rows), _words(loaded.vocabulary)


def trial(seed: int, folder: Path) -> Outcome:
    """One file, changed, read and put back."""
    rng = np.random.default_rng(seed)
    with works.silent():
        known = kinds(folder / "whole")
        name = sorted(known)[seed % len(known)]
        return _tried(name, known[name], rng, folder)


def _tried(name: str, kind: Kind, rng: np.random.Generator, folder: Path) -> Outcome:
    whole = kind.path.read_bytes()
    written = kind.read(kind.path)
    mark = folder / MARK
    ways = mutations.BY_FORM[kind.form]
    way = ways[rng.integers(len(ways))]
    changed = way(whole, rng, mark) if way is mutations.pickled else way(whole, rng)
    about = f"{name}, {way.__name__}"
    _put(kind.path, changed)
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU) or 0
    try:
        with works.changed(npz, {"available_memory": lambda: MEMORY}):
            found = kind.read(kind.path)
        outcome = _judged(found, written, kind, about)
    except (ValueError, OSError) as error:
        named = str(kind.path.parent.name) in str(error) or kind.path.name in str(error)
        outcome = Outcome("refused", "" if named else f"{about}: no file is named: {error}")
    except Exception as error:
        outcome = Outcome("crash", f"{about}: {type(error).__name__}: {str(error)[:150]}")
    finally:
        _put(kind.path, whole)
    if mark.exists():
        mark.rmdir()
        return Outcome("code run", f"{about}: code in the file was run")
    if (took := (peak_memory_bytes(CPU) or 0) - before) > MOST_BYTES:
        return Outcome("memory", f"{about}: reading it took {took >> 20} MiB")
    return outcome


def _put(path: Path, content: bytes) -> None:
    """As another file: tensors that were read before are maps of the old one."""
    path.unlink()
    path.write_bytes(content)


def _judged(found: Any, written: Any, kind: Kind, about: str) -> Outcome:
    if found is None:
        return Outcome("made again")
    if same(written, found):
        return Outcome("read as written")
    if kind.others(found):
        return Outcome("another valid file")
    return Outcome("changed", f"{about}: another content than was written was taken")


def same(one: Any, other: Any) -> bool:
    """Whether all that was written is read: values, types, shapes. More beside it is no harm."""
    if isinstance(one, dict):
        return isinstance(other, dict) and all(name in other and same(value, other[name])
                                               for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(
            map(same, one, other))
    if isinstance(one, PrunedTables):
        return same(vars(one), vars(other))
    if isinstance(one, torch.Tensor):
        one, other = one.numpy(), other.numpy()
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    return repr(one) == repr(other)
