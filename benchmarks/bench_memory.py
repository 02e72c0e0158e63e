"""What each tensor of a training costs in memory at the size of Criteo's table, and what the
process holds at its peak.

    python benchmarks/bench_memory.py
    python benchmarks/bench_memory.py --model deepfm --set threshold_type=dimension

The table has 1,086,810 rows in 39 fields of Criteo's kind; the batches are random. A few steps of
the search are taken,
with its own hooks. Encoded data are not in it: they cost 160 bytes a row, in memory or mapped from
the disk. How long a step takes is for `bench_scale.py` to say.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks  # noqa: F401 - its engine says how torch's threads wait, before torch

# isort: split
import torch

from benchmarks.bench_scale import batches, field_sizes
from engine.loop import State
from engine.optim.step import Step, build_optimizer
from engine.pep.budgets import SaveAtBudgets
from engine.record import commit, device_name, peak_memory_bytes, pick_device, reset_peak_memory
from engine.settings import parse, parse_assignment
from models.build import build_embedding, build_model
from studies.published import PRESETS
from utils.files import write_json

ROWS = 1_086_810  # Table 3's features of Criteo
STEPS = 8


def measure(given: dict[str, Any], rows: int, device: torch.device) -> dict[str, Any]:
    """Bytes by what they hold, after a few steps of a search."""
    settings = parse({**PRESETS["criteo"], **given})
    values, sizes = settings.flat(), field_sizes(rows)
    reset_peak_memory(device)
    before = peak_memory_bytes(device)
    model = build_model(sizes, values, 1, build_embedding(sizes, values, 1)).to(device)
    train = settings.train
    optimizer = build_optimizer(model, train.lr, train.l2_regularization, train.decay_of_others)
    offsets = torch.tensor(np.cumsum((0, *sizes[:-1])), dtype=torch.int32, device=device)
    saver = SaveAtBudgets(model.embedding, (1,), True, lambda name, table, meta: None)
    step = Step(model, optimizer, train.grad_clip)
    for codes, labels in batches(sizes, train.batch_size, device)[:STEPS]:
        step(codes + offsets, labels)
    saver(State(model, optimizer, torch.zeros((), device=device)))
    parts = []
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        parts.append({"tensor": name, "shape": list(parameter.shape), "value": parameter.nbytes,
                      "gradient": parameter.grad.nbytes if parameter.grad is not None else 0,
                      "moments": sum(moment.nbytes for moment in state.values()
                                     if moment.shape == parameter.shape)})
    return {"model": settings.model.model, "threshold_type": settings.embedding.threshold_type,
            "parts": parts,
            "threshold_init": settings.embedding.threshold_init, "num_rows": rows,
            "width": settings.model.latent_dim,
            "last_count_above_a_budget": sum(tensor.nbytes for tensor in saver.above.values()),
            "process_before_bytes": before, "peak_memory_bytes": peak_memory_bytes(device),
            "threads": torch.get_num_threads(), "device": device_name(device), "commit": commit()}


def table(result: dict[str, Any]) -> str:
    """One line a tensor of a megabyte or more, MB each."""
    lines = [f"{'MB':<28}{'shape':>18}{'value':>9}{'gradient':>10}{'moments':>9}"]
    small = 0
    for part in result["parts"]:
        if part["value"] < 1e6:
            small += part["value"] + part["gradient"] + part["moments"]
            continue
        shape = " x ".join(f"{size:,}" for size in part["shape"])
        lines.append(f"{part['tensor']:<28}{shape:>18}" + "".join(
            f"{part[name] / 1e6:>{width}.1f}" for name,
            width in (("value", 9), ("gradient", 10), ("moments", 9))))
    lines += [
        f"{'all other parameters':<28}{'':>18}{small / 1e6:>9.1f}",
        f"{'copy for exact budgets':<28}{'':>18}{result['last_count_above_a_budget'] / 1e6:>9.1f}",
        f"{'process before the model':<28}{'':>18}{result['process_before_bytes'] / 1e6:>9.1f}",
        f"{'process at its peak':<28}{'':>18}{result['peak_memory_bytes'] / 1e6:>9.1f}",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--model", default="fm", choices=("fm", "deepfm", "autoint"))
    options.add_argument("--rows", type=int, default=ROWS, help="of the table")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                         help="change one setting")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    chosen = options.parse_args(arguments)
    given = {"model": chosen.model, **dict(parse_assignment(text) for text in chosen.set)}
    result = measure(given, chosen.rows, pick_device(chosen.device))
    print("{model}, {threshold_type}, {device}, commit {commit}".format(**result))
    print(table(result))
    if chosen.json:
        write_json(chosen.json, result)


if __name__ == "__main__":
    main()
