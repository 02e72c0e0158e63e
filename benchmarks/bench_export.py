"""What an exported model takes and how near it is to its run, in each type of values.

    python -m benchmarks.bench_export --run ID --json benchmarks/results/DATE_export_amd-epyc.json
    python -m studies.docs    # the table of docs/deploy.md, from the newest record
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data.store import cache_folder
from engine.record import provenance
from engine.run import RunContext
from models.serving import TYPES
from serving.export import export
from utils.files import write_json


def measure(run_id: str, context: RunContext) -> dict[str, Any]:
    """Bytes by part and parity of a run's export, by type; and what the export says of the run."""
    found: dict[str, Any] = {"values": {}}
    for values in TYPES:
        with tempfile.TemporaryDirectory() as folder:
            manifest = export(run_id, Path(folder) / "model", values, context).manifest
        found["values"][values] = {"bytes": manifest["bytes"], "parity": manifest["parity"]}
        found |= {name: manifest[name] for name in ("run_id", "seed", "metrics", "field_sizes")}
        found["settings"] = {name: manifest["settings"][name]
                             for name in ("dataset", "model", "embedding", "latent_dim")}
    return {**found, **provenance(torch.device("cpu"))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, and write the record where asked."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", required=True, help="id of a finished run, or its beginning")
    options.add_argument("--runs", default="tmp", help="the folder that holds runs/")
    options.add_argument("--data", help="the raw files, as for the training")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    args = options.parse_args(arguments)
    context = RunContext(Path(args.runs), cache_folder(None), args.data, "cpu")
    record = measure(args.run, context)
    for values, made in record["values"].items():
        print(f"{values:<8} table {made['bytes']['table']:>10,} bytes, probabilities differ by "
              f"{made['parity']['largest_difference']:.1g} at most")
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    main()
