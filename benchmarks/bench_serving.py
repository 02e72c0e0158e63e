"""Time lookups of a pruned table in each of its forms beside a dense one.

    python -m benchmarks.bench_serving --json times.json
    python -m benchmarks.bench_serving --rows 100000 --share 0.01   # other tables

One process, one thread; all forms of one number of ids are timed in turn, and the smallest of the
medians of three rounds is shown.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from benchmarks.bench_packed import microseconds
from engine.record import provenance
from models.serving.compact import Compact, CompactRows
from models.serving.values import TYPES

BATCHES = (1, 1024, 16_384)
FIELDS = 7
ROUNDS = 3


def pruned(rows: int, width: int, share: float, seed: int = 0) -> np.ndarray:
    """A table in which few rows keep much and many keep nothing."""
    rng = np.random.default_rng(seed)
    own = np.clip(rng.pareto(1.2, (rows, 1)) * share / 2, 0, 1)
    kept = rng.random((rows, width)) < own
    return np.where(kept, rng.normal(size=(rows, width)), 0).astype(np.float32)


def forms(table: np.ndarray) -> tuple[dict[str, Callable[[torch.Tensor], Any]], np.ndarray]:
    """Lookups by name, and the number of each row in the compact ones, (N,)."""
    dense, sparse = torch.from_numpy(table), csr_matrix(table)
    found: dict[str, Callable[[torch.Tensor], Any]] = {
        "dense": lambda ids: torch.nn.functional.embedding(ids, dense),
        # torch looks no rows up in its own CSR tensors
        "csr scipy": lambda ids: sparse[ids.reshape(-1).numpy()].toarray()}
    new_ids = np.arange(len(table))
    for values in TYPES:
        packed, new_ids = CompactRows.pack(table, values)
        found[f"compact {values}"] = Compact(packed)
        found[f"kept rows {values}"] = Compact(packed, by_mask=False)
    return found, new_ids


def main() -> None:
    """Print the times, and write them where --json says."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=4129, help="of the table")
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--share", type=float, default=0.09, help="of the entries kept, about")
    options.add_argument("--json", type=Path, help="file to write")
    args = options.parse_args()
    torch.set_num_threads(1)
    table = pruned(args.rows, args.width, args.share)
    lookups, new_ids = forms(table)
    moved = torch.from_numpy(new_ids).int()
    times: dict[str, dict[int, float]] = {name: {} for name in lookups}
    for batch in BATCHES:
        drawn = np.random.default_rng(batch).integers(args.rows, size=(batch, FIELDS))
        ids = torch.from_numpy(drawn.astype(np.int32))
        own = {name: moved[ids.long()] if name.startswith(("compact", "kept")) else ids
               for name in lookups}
        rounds = [{name: microseconds(partial(lookups[name], own[name]), 0.2) for name in lookups}
                  for _ in range(ROUNDS)]
        for name in lookups:
            times[name][batch] = min(each[name] for each in rounds)
    entries = int(np.count_nonzero(table))
    print(f"{args.rows:,} x {args.width}, {entries:,} entries; microseconds for rows x {FIELDS} "
          f"ids")
    for name, by_batch in times.items():
        shown = "  ".join(f"{batch:,}: {value:,.1f} ({value / times['dense'][batch]:.2f})"
                          for batch, value in by_batch.items())
        print(f"{name:18} {shown}")
    if args.json:
        args.json.write_text(json.dumps({
            "rows": args.rows, "width": args.width, "entries": entries, "microseconds": times,
            **provenance(torch.device("cpu"))}, indent=1) + "\n")


if __name__ == "__main__":
    main()
