"""`compress.py afm`: factor the table and the layers of a trained model by their outputs on data.

    python compress.py afm --run ID --emb-rank 8 --mlp-rank 16
    python compress.py afm --run ID --ratio 0.2 --finetune-epochs 0

The first fine-tunes the factored model for an epoch, and the dense one as a control. The second
chooses a rank for each field, and only measures.
"""

import argparse
from pathlib import Path

from engine import cli


def add_options(method: argparse.ArgumentParser) -> None:
    """What `afm` takes."""
    method.add_argument("--run", required=True,
                        help="id of a finished training or retraining, or its start")
    cli.add_place_options(method)
    which = method.add_mutually_exclusive_group()
    which.add_argument("--emb-rank", type=int,
                       help="rank of every field's vectors (of the cores, for tt)")
    which.add_argument("--emb-energy", type=float,
                       help="share of each field's variance to keep; a rank for each")
    which.add_argument("--ratio", type=float,
                       help="share of the table's parameters to keep; ranks go where they "
                       "keep most per parameter")
    which.add_argument("--field-rank-file", type=Path,
                       help="a JSON file with a rank for each field by its name, "
                       "{\"zip\": 16, ...}; 0 leaves a field its mean")
    layers = method.add_mutually_exclusive_group()
    layers.add_argument("--mlp-rank", type=int, help="rank of every chosen layer")
    layers.add_argument("--mlp-energy", type=float,
                        help="share of each chosen layer's variance to keep")
    method.add_argument("--layers", help="numbers, from 1, or names, with commas (default: all but "
                                         "first and output)")
    method.add_argument("--act", default="none", choices=("none", "relu"),
                        help="between the two thin layers")
    method.add_argument("--act-init", default="paper", choices=("paper", "shift"),
                        help="with relu: as published, or shifted so that the function is kept on "
                             "the calibration rows")
    method.add_argument("--method", dest="basis", default="afm",
                        choices=("afm", "svd", "random", "tt"),
                        help="principal directions of the outputs; or a baseline at the same "
                             "ranks: singular vectors of the weights, a random basis, "
                             "tensor-train tables")
    method.add_argument("--no-fuse", action="store_true",
                        help="reconstruct vectors for the first deep layer too")
    method.add_argument("--sequential", action="store_true",
                        help="calibrate each layer on what is factored so far")
    method.add_argument("--max-samples", type=int,
                        help="rows that layers are calibrated on (default: all)")
    method.add_argument("--smoothing", type=float, default=0.0,
                        help="added to every id's count; 0 as published")
    method.add_argument("--finetune-epochs", type=int, default=1,
                        help="of the factored model and of the control")
    method.add_argument("--finetune-lr", type=float, default=0.1,
                        help="as a factor of the training's lr")
    method.add_argument("--freeze-emb", action="store_true",
                        help="leave the table out of that training, and the "
                        "control's too")
    method.add_argument("--no-control", action="store_true",
                        help="do not train the dense model on beside it")
    method.add_argument("--force", action="store_true", help="run again what is finished")
