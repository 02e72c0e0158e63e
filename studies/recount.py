"""Count the bytes of shipped runs anew, as the file of an exported model takes them.

    python -m studies.recount tmp                # what would change
    python -m studies.recount tmp other --write  # and change experiments/runs.csv

Older runs counted a place for every row, and more for an entry. What their file takes follows from
their record, or, of a pruned table, from how many entries each of its rows keeps: from the run's
weights or any snapshot of the same mask in the folders, or from the mask that is shipped of its
search. All is exact, and a run of which nothing is there is left as it is. Nothing else of a record
is changed.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from engine import snapshots
from engine.checkpoint import load_checkpoint
from engine.run import WEIGHTS
from models.serving.compact import stored_bytes
from studies import curves, runs_csv
from studies.curves import RUNS_CSV, SHIPPED
from utils import flat
from utils.files import atomic_path

COUNTED, FILE = "bytes_counted", "exported file"
UNCHANGED = ("mgqe", "hash", "qr", "tt", "uniform")  # counted as before
SMALL_TABLE = 1 << 16  # rows below which a place in a mixed-width table took 2 bytes


Masks = dict[str, np.ndarray]  # by their hash, entries that each row keeps


def masks_in(folders: Sequence[Path]) -> Masks:
    """Of all snapshots in the folders."""
    found: Masks = {}
    for path in sorted(chain.from_iterable(folder.glob("embedding/**/*.npz")
                                           for folder in folders)):
        try:
            pruned = snapshots.read(path)[0]
            found[snapshots.mask_hash(pruned)] = np.count_nonzero(pruned.table, axis=1)
        except (ValueError, KeyError):  # initial tables, and others' files
            continue
    return found


def recounted(result: dict[str, Any], folders: Sequence[Path], masks: Masks) -> int | None:
    """Bytes of a run's table in the file of an exported model; None where they cannot be known."""
    made = result.get("compression", {})
    scheme, width = result["settings"]["embedding"], result["settings"]["latent_dim"]
    rows = result["num_embedding_params_dense"] // max(width, 1)
    if result["stage"] not in ("train", "retrain", "finetune") or "inference_bytes" not in result:
        return None
    if "base" in made:  # fields without columns; a place and a width of each was counted
        return 4 * result["num_embedding_params"]
    if result["stage"] == "train" and scheme in ("mde", "darts"):
        return result["inference_bytes"] - rows * (2 if rows < SMALL_TABLE else 4)
    if result["stage"] == "retrain":
        kept = _kept(result, folders, (rows, width), masks)
        return None if kept is None else min(4 * rows * width, stored_bytes(kept, width))
    return result["inference_bytes"] if scheme in UNCHANGED else None


def _kept(result: dict[str, Any], folders: Sequence[Path], shape: tuple[int, int],
          masks: Masks) -> np.ndarray | None:
    """(N,) entries that each row of a ticket keeps.

    Raises:
        ValueError: the weights keep another number of entries than the record says.
    """
    run_id, count = result["run_id"], result["num_embedding_params"]
    for folder in folders:
        path = folder / "runs" / run_id / WEIGHTS
        if path.exists():
            kept = load_checkpoint(path)["model"]
            table = kept["embedding.weight"] * (kept["embedding.mask"] != 0)
            own = np.count_nonzero(table.numpy(), axis=1)
            if own.sum() != count or table.shape != shape:
                raise ValueError(f"{path} keeps {own.sum():,} entries of {tuple(table.shape)}, the "
                                 f"record of run {run_id} says {count:,} of {shape}; it is of "
                                 "another run, leave its folder out")
            return own
    own = masks.get(result["identity"]["extra"].get("mask", ""), np.zeros(0))
    if own.sum() == count and len(own) == shape[0]:
        return own
    try:
        mask = curves.mask(result.get("snapshot", {}).get("run_id", ""), count)
    except FileNotFoundError:
        return None
    return mask.sum(axis=1) if int(mask.sum()) == count and mask.shape == shape else None


def recount(path: Path, folders: Sequence[Path], write: bool) -> Counter[str]:
    """Recount the lines of a csv.

    Returns:
        How many lines were counted so already, are now, and could not be.
    """
    results: dict[str, dict[str, Any]] = {}
    for planted in runs_csv.kinds(path):
        results |= {result["run_id"]: result for result in runs_csv.read(path, planted)}
    done: Counter[str] = Counter()
    lines, masks = runs_csv.lines(path), masks_in(folders)
    for line in lines:
        result = results[line["run_id"]]
        if COUNTED in result:
            done["counted so already"] += 1
        elif (size := recounted(result, folders, masks)) is None:
            done[f"left as they are ({result['stage']})"] += 1
        else:
            line["inference_bytes"] = flat.as_text(size)
            line["other"] = flat.dump({**flat.load(line["other"]), COUNTED: FILE})
            done["counted anew"] += 1
    if write:
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, runs_csv.HEAD, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    return done


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was counted."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folders", nargs="*", type=Path,
                         help="the --out of scripts, with weights and snapshots")
    options.add_argument("--csv", type=Path, default=SHIPPED / RUNS_CSV)
    options.add_argument("--write", action="store_true", help="change the csv")
    args = options.parse_args(arguments)
    for what, count in sorted(recount(args.csv, args.folders, args.write).items()):
        print(f"{count:,} runs {what}")
    if not args.write:
        print("nothing was written; add --write")


if __name__ == "__main__":
    main()
