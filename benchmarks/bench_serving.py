"""Time an exported model beside a dense one: lookups in each form, files, loading, raw rows.

    python -m benchmarks.bench_serving --json times.json
    python -m benchmarks.bench_serving --only lookups --seconds 1    # a shorter look
    python -m benchmarks.bench_serving --only files --json files.json

One thread. What is compared is called in turn, call by call, so that both meet the same state of
the machine; shown are the fastest tenth's limit of all calls, and its ratio to the dense table's.
Tables are drawn: one of MovieLens' size at a budget of its figures, and one of Criteo's size of
which 1 % is kept. Loading and raw rows run in a process of their own; the file of rows is scored
in turn by the one pass that reads lines and by its definition.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from benchmarks import criteo_shape
from engine.record import peak_memory_bytes, provenance
from models.serving import FLOAT32, TYPES, artefact
from models.serving.compact import Compact, CompactRows
from models.serving.model import ServedModel
from models.serving.parts import FirstOrder, Pairs
from models.serving.plain import FORMS
from models.serving.scorer import load
from models.serving.tables import CompactTable, DenseTable
from models.serving.values import Rows

SHAPES = {"movielens": (4129, 64, 23_675),
          "criteo": (criteo_shape.ROWS, criteo_shape.WIDTH,
                     int(criteo_shape.SHARE * criteo_shape.ROWS * criteo_shape.WIDTH))}
BATCHES = (1, 1024, 16_384)
FIELDS = 7
PARTS = ("lookups", "models", "files")
RAW_ROWS = 200_000
Calls = dict[str, Callable[[], Any]]


def in_turn(calls: Calls, seconds: float) -> dict[str, float]:
    """Microseconds of a call of each: the limit of the fastest tenth, of 20 calls or more."""
    for call in calls.values():  # compiled, and its memory there
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(times[next(iter(times))]) < 20:
        for name, call in calls.items():
            started = time.perf_counter()
            found = call()
            times[name].append(time.perf_counter() - started)
            del found  # its memory is the next call's
    return {name: 1e6 * float(np.quantile(each, 0.1)) for name, each in times.items()}


def lookups(shape: tuple[int, int, int], seconds: float) -> dict[str, Any]:
    """Times by batch and form, and bytes of the compact table by type."""
    rows, width, entries = shape
    table = criteo_shape.pruned(rows, width, entries)
    dense, sparse = torch.from_numpy(table), csr_matrix(table)
    packed = {values: CompactRows.pack(table, values)[0] for values in TYPES}
    new_ids = CompactRows.pack(table, FLOAT32)[1]
    by_mask = {values: Compact(each) for values, each in packed.items()}
    by_row = {values: Compact(each, by_mask=False) for values, each in packed.items()}
    found: dict[str, Any] = {"rows": rows, "width": width, "entries": entries, "bytes": {
        values: sum(array.nbytes for array in each.tensors("").values())
        for values, each in packed.items()}, "microseconds": {}}
    for batch in BATCHES:
        drawn = np.random.default_rng(batch).integers(rows, size=(batch, FIELDS))
        ids, own = (torch.from_numpy(each.astype(np.int32)) for each in (drawn, new_ids[drawn]))
        calls: Calls = {"dense": lambda ids=ids: nn.functional.embedding(ids, dense)}
        for values in TYPES:
            calls[f"compact {values}"] = lambda own=own, values=values: by_mask[values](own)
            calls[f"kept rows {values}"] = lambda own=own, values=values: by_row[values](own)
        # torch looks no rows up in its own CSR tensors
        calls["csr scipy"] = lambda ids=ids: sparse[ids.reshape(-1).numpy()].toarray()
        found["microseconds"][batch] = in_turn(calls, seconds)
        kept = by_mask[FLOAT32].kept
        if batch == 1 and kept is not None:
            found["kernel_one_row"] = in_turn({"": _kernel(kept, own[:, :1].contiguous())}, 0.2)[""]
    return found


def _kernel(kept: Any, ids: Tensor) -> Callable[[], Any]:
    """One call of the loop alone, for one id."""
    out = torch.empty((1, kept.width))
    loop, given = kept.loop, (*kept.arrays, ids.data_ptr(), False, 1, out.data_ptr(), kept.width)
    return lambda: (loop(*given), out)  # the address stays valid


def models(shape: tuple[int, int, int], seconds: float) -> dict[str, Any]:
    """Times of a whole FM, ids to logits, ours and by onnxruntime if that is installed."""
    rows, width, entries = shape
    table = criteo_shape.pruned(rows, width, entries)
    rng = np.random.default_rng(1)
    weights = Rows.of(rng.normal(size=(rows, 1)).astype(np.float32), FLOAT32)
    parts = [FirstOrder(weights, torch.zeros(1)), Pairs()]
    dense = ServedModel(DenseTable(Rows.of(table, FLOAT32), FIELDS), parts)
    made = {"dense": dense}
    for values in TYPES:
        packed, _ = CompactRows.pack(table, values)
        made[f"compact {values}"] = ServedModel(CompactTable(packed, rows, FIELDS), parts)
    sessions = _sessions(dense, made["compact float16"])
    found: dict[str, Any] = {"onnx_bytes": {name: size for name, (_, size) in sessions.items()},
                             "microseconds": {}}
    for batch in BATCHES:
        ids = torch.from_numpy(rng.integers(rows, size=(batch, FIELDS)))
        calls: Calls = {name: lambda model=model, ids=ids: model(ids)
                        for name, model in made.items()}
        for name, (session, _) in sessions.items():
            calls[name] = lambda session=session, ids=ids: session.run(None, {"ids": ids.numpy()})
        with torch.inference_mode():
            found["microseconds"][batch] = in_turn(calls, seconds)
    return found


def _sessions(dense: ServedModel, compact: ServedModel) -> dict[str, tuple[Any, int]]:
    """onnxruntime's models and the bytes of their files."""
    try:
        import onnxruntime

        from serving import onnx

        onnx.require()
    except ImportError as error:
        print(f"no times of onnxruntime: {error}", file=sys.stderr)
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    given = {"onnx dense": (dense, FORMS[0])}
    given |= {f"onnx {form}, compact float16": (compact, form) for form in FORMS}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, form) in given.items():
            path = Path(folder) / "model.onnx"
            onnx.write(model, path, form)
            found[name] = (onnxruntime.InferenceSession(path, options), path.stat().st_size)
    return found


def files(values: str) -> dict[str, Any]:
    """Bytes of an exported FM of Criteo's shape by part; its time and memory to load, and its raw
    rows a second, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = artefact.write(criteo_shape.artefact(values), folder / "model")
        criteo_shape.write_rows(folder / "rows.tsv", RAW_ROWS)
        command = [sys.executable, "-m", "benchmarks.bench_serving", "--opened", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"bytes": manifest["bytes"], **json.loads(done.stdout.splitlines()[-1])}


def opened(folder: Path) -> dict[str, Any]:
    """What `files` measures, in this process."""
    before = peak_memory_bytes(torch.device("cpu")) or 0
    started = time.perf_counter()
    scorer = load(folder / "model")
    seconds = time.perf_counter() - started
    row = (folder / "rows.tsv").read_text().partition("\n")[0].split("\t")
    scorer.score([row])
    first = time.perf_counter() - started
    after = peak_memory_bytes(torch.device("cpu")) or 0
    scorer.score_file(folder / "rows.tsv", folder / "out.csv")
    peak = peak_memory_bytes(torch.device("cpu")) or 0
    plain = load(folder / "model")
    vars(plain)["_encoder"], plain.model.kept = None, None  # columns, look-ups, vectors, products
    seconds_of: dict[str, list[tuple[float, float]]] = {"one_pass": [], "definition": []}
    for _ in range(4):
        for name, each in (("one_pass", scorer), ("definition", plain)):
            wall, cpu = time.perf_counter(), time.process_time()
            each.score_file(folder / "rows.tsv", folder / "out.csv")
            seconds_of[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    (wall, cpu), (_, plain_cpu) = (min(each[1:]) for each in seconds_of.values())
    return {"load_seconds": seconds, "first_score_seconds": first,
            "added_peak_memory_bytes": after - before, "peak_memory_bytes": after,
            "file_added_peak_memory_bytes": peak - before,
            "raw_rows_per_second": RAW_ROWS / wall, "raw_rows_per_cpu_second": RAW_ROWS / cpu,
            "definition_rows_per_cpu_second": RAW_ROWS / plain_cpu}


def shown(times: dict[int, dict[str, float]]) -> str:
    """A line for each form: microseconds by batch, and the ratio to the dense one's."""
    lines = []
    for name in next(iter(times.values())):
        cells = [f"{batch:,}: {each[name]:,.1f} ({each[name] / each['dense']:.2f})"
                 for batch, each in times.items()]
        lines.append(f"  {name:32} {'  '.join(cells)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the times, and write them where --json says."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    options.add_argument("--seconds", type=float, default=4.0, help="for each number of rows")
    options.add_argument("--json", type=Path, help="file to write")
    options.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args(arguments)
    torch.set_num_threads(1)
    if args.opened:
        print(json.dumps(opened(args.opened)))
        return
    record: dict[str, Any] = {"fields": FIELDS}
    for name, shape in SHAPES.items():
        own = record[name] = {}
        print(f"{name}: {shape[0]:,} x {shape[1]}, {shape[2]:,} entries; microseconds for rows x "
              f"{FIELDS} ids (ratio)")
        if "lookups" in args.only:
            own["lookups"] = lookups(shape, args.seconds)
            print(shown(own["lookups"]["microseconds"]))
            print(f"  bytes of the table: {own['lookups']['bytes']}")
            print(f"  one row in the loop: {own['lookups'].get('kernel_one_row')}")
        if "models" in args.only:
            own["models"] = models(shape, args.seconds)
            print("  a whole FM:\n" + shown(own["models"]["microseconds"]))
    if "files" in args.only:
        record["criteo"]["files"] = {values: files(values) for values in TYPES}
        print(json.dumps(record["criteo"]["files"], indent=1))
    if args.json:
        args.json.write_text(json.dumps({**record, **provenance(torch.device("cpu"))},
                                        indent=1) + "\n")


if __name__ == "__main__":
    main()
