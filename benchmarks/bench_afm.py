"""How fast a factored DeepFM scores rows beside the dense one: fused with its first layer, and not.

    python benchmarks/bench_afm.py
    python benchmarks/bench_afm.py --shape criteo --batch 1024 --json tmp/afm.json

All variants run in one process, in turns, on the same rows; the median of the turns is shown.
Widths and ranks are the published ones where there are any (Criteo: d 16, 400-400-400, ranks 2 and
64). Values are random: they change no time. With one thread its processor time is measured
(`compression.speed`). On a GPU the device is waited for before each look at the clock.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# so that it also runs as a plain script
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks  # noqa: F401 - its engine says how torch's threads wait, before torch

# isort: split
import torch
from torch import Tensor, nn

from benchmarks.bench_scale import field_sizes
from benchmarks.bench_step import FIELD_SIZES
from compression.afm.factor import choose_layers, factor_layer, factor_table, fuse, linear_at, probe
from compression.afm.low_rank import random_factor
from compression.afm.structure import multiply_adds, parameters_by_part
from compression.speed import samples_per_second
from engine.record import commit, device_name, pick_device
from models.build import build_embedding, build_model
from utils.files import write_json

BATCHES = (1, 1024, 16_384)
TURNS = 5


@dataclass(frozen=True)
class Shape:
    """A DeepFM and the ranks that it is factored to."""

    rows: int  # of the table, 0 for MovieLens-1M's own fields
    width: int
    mlp: tuple[int, ...]
    emb_rank: int
    mlp_rank: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each field."""
        return field_sizes(self.rows) if self.rows else tuple(FIELD_SIZES)


SHAPES = {"movielens": Shape(0, 64, (100, 100), 8, 16),
          "criteo": Shape(1_086_810, 16, (400, 400, 400), 2, 64)}


def variants(shape: Shape, device: torch.device) -> dict[str, nn.Module]:
    """The dense model and what is made of it."""
    values = {"model": "deepfm", "embedding": "uniform", "latent_dim": shape.width,
              "mlp_dims": shape.mlp,
              "dropout": 0.2}
    dense = build_model(shape.sizes, values, 1, build_embedding(shape.sizes, values, 1)).eval()
    generator = torch.Generator().manual_seed(1)

    def factor(width: int, rank: int) -> Any:
        return random_factor(torch.zeros(width, dtype=torch.float64), rank, generator)

    low = factor_table(dense, [factor(shape.width, shape.emb_rank) for _ in shape.sizes],
                       shape.sizes)
    fused = fuse(low, probe(low, shape.sizes))
    both = fused
    for name in choose_layers(fused, None):
        both = factor_layer(both, name, factor(linear_at(both, name).out_features, shape.mlp_rank))
    made = {"dense": dense, "table, not fused": low, "table, fused": fused,
            "table, fused, and layers": both}
    return {name: model.to(device) for name, model in made.items()}


def measure(name: str, batches: Sequence[int], seconds: float,
            device: torch.device) -> list[dict[str, Any]]:
    """A line for each variant and batch size."""
    shape = SHAPES[name]
    models = variants(shape, device)
    ids = probe(models["dense"], shape.sizes, max(batches))
    lines = []
    for batch in batches:
        turns: dict[str, list[float]] = {variant: [] for variant in models}
        for _ in range(TURNS):
            for variant, model in models.items():
                turns[variant].append(samples_per_second(model, ids, batch, seconds / TURNS))
        lines += [_line(variant, model, ids[:1], turns[variant], statistics.median(turns["dense"]))
                  | {"shape": name, "batch": batch} for variant, model in models.items()]
    about = {"threads": torch.get_num_threads(), "device": device_name(device), "commit": commit()}
    return [line | about for line in lines]


def _line(variant: str, model: nn.Module, row: Tensor, turns: list[float],
          dense: float) -> dict[str, Any]:
    median = statistics.median(turns)
    return {"variant": variant, "samples_per_second": median, "slowest_turn": min(turns),
            "fastest_turn": max(turns),
            "times_dense": median / dense, "parameters": sum(parameters_by_part(model).values()),
            "multiply_adds": sum(multiply_adds(model, row).values())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--shape", choices=SHAPES, action="append", help="default: all")
    options.add_argument("--batch", type=int, action="append", help=f"default: {BATCHES}")
    options.add_argument("--seconds", type=float, default=2.0,
                         help="for each variant and batch size")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    chosen = options.parse_args(arguments)
    lines = []
    for name in chosen.shape or SHAPES:
        lines += measure(name, chosen.batch or BATCHES, chosen.seconds, pick_device(chosen.device))
    print(f"{lines[0]['device']}, {lines[0]['threads']} threads, commit {lines[0]['commit']}")
    for line in lines:
        print("{shape:<10} {batch:>7,}  {variant:<25} {samples_per_second:>12,.0f} samples/s  "
              "{times_dense:>6.2f}x  {parameters:>12,} parameters  {multiply_adds:>10,} "
              "multiply-adds".format(**line))
    if chosen.json:
        write_json(chosen.json, lines)


if __name__ == "__main__":
    main()
