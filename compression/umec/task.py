"""What `compress.py umec` is asked for: a task, and the command's options.

Torch is not imported here: --help does not need it.
"""

import argparse
import math
from dataclasses import dataclass, field

from compression.umec.dynamics import Dynamics
from engine import cli
from utils.text import unknown

AS_UMEC = "as-umec"  # magnitude, with as many units of each layer as UMEC has left
BASELINES = ("magnitude", "taylor", "group-lasso", "random", "uniform", "handmade")
METHODS = ("umec", *BASELINES, AS_UMEC, "dense")
KINDS = ("flops_top", "flops_all", "params_all", "bytes")  # of a resource
DESCENT = ("slr", "ylr", "zlr", "sl2wd", "zclamp")  # of UMEC's dynamics
GROUPS = ("field", "field_dim")  # units of the first layer
DENSE = "numbers"  # the branch of the dense features, among the names of fields


@dataclass(frozen=True)
class Task:
    """What to make of a trained DLRM.

    Args:
        budget: B, a fraction of the whole model's `resource`.
        method: one of METHODS.
        resource, groups: of KINDS and GROUPS, see `compression.umec.resources`.
        dynamics: of UMEC; its limits hold for the baselines too.
        keep_fields: names of fields that stay.
        epochs: of the descent; a baseline without one is fine-tuned for as many epochs more.
        finetune_epochs: of the small model, at most; validation chooses among them.
        scratch: initialise the small model again instead of keeping the weights that are left.
        strength: of group LASSO.
        along: budgets that one descent passes, this one among them; (): this budget alone.
    """

    budget: float
    method: str = "umec"
    resource: str = "flops_top"
    groups: str = "field"
    dynamics: Dynamics = field(default_factory=Dynamics)
    keep_fields: tuple[str, ...] = ()
    epochs: int = 2
    finetune_epochs: int = 2
    scratch: bool = False
    strength: float = 0.01
    along: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.along and (self.method not in ("umec", AS_UMEC) or self.budget not in self.along):
            raise ValueError(f"one descent through the budgets {self.along} is for umec and "
                             f"{AS_UMEC} at one of them; this is {self.method} at {self.budget}")
        if self.method not in METHODS:
            raise ValueError(unknown("method", self.method, METHODS))
        if not 0 < self.strength < math.inf:
            raise ValueError(f"--strength must be a positive number, got {self.strength}")
        usual = Dynamics()
        given: list[tuple[str, tuple[str, ...]]] = [
            (name, ("umec", AS_UMEC)) for name in DESCENT
            if getattr(self.dynamics, name) != getattr(usual, name)]
        if self.strength != Task.strength:
            given.append(("strength", ("group-lasso",)))
        for option, methods in given:
            if self.method not in methods:
                raise ValueError(f"--{option} changes nothing for {self.method}; it is of "
                                 f"{' and '.join(methods)}. Leave it out")
        if min(self.epochs, self.finetune_epochs) < 1:
            raise ValueError(f"epochs and finetune_epochs must be at least 1, got {self.epochs} "
                             f"and {self.finetune_epochs}")


def add_options(method: argparse.ArgumentParser) -> None:
    """The options of `compress.py umec`."""
    rates = Dynamics()
    method.add_argument("--run", required=True,
                        help="id of a finished training of a DLRM, or its start")
    method.add_argument("--budget", type=float, action="append", required=True,
                        help="fraction of the resource that may be spent; may be repeated")
    method.add_argument("--one-descent", action="store_true",
                        help="to the least budget, through the others on the way")
    method.add_argument("--method", default="umec", choices=METHODS, help="umec or a baseline")
    method.add_argument("--mode", default="joint", choices=("joint", "fields"),
                        help="neurons too, or fields alone")
    method.add_argument("--groups", default="field", choices=GROUPS,
                        help="whole fields, or a width for each field")
    method.add_argument("--resource", default="flops_top", choices=KINDS,
                        help="what the budget is of")
    for name, default, what in (("slr", rates.slr, "rate of s"), ("ylr", rates.ylr, "rate of y"),
                                ("zlr", rates.zlr, "rate of z"),
                                ("sl2wd", rates.sl2wd, "decay of s")):
        method.add_argument(f"--{name}", type=float, default=default, help=what)
    method.add_argument("--punit", type=int, default=1,
                        help="remove neurons in multiples of it; with --faithful at least as many "
                             "fields stay")
    method.add_argument("--min-keep", type=int, default=1, help="units that each layer keeps")
    method.add_argument("--keep-fields", default="",
                        help=f"names of fields that stay, with commas; also {DENSE}")
    method.add_argument("--zclamp", action="store_true",
                        help="faithful: bound z by what holds the hardest layer")
    method.add_argument("--faithful", action="store_true",
                        help="the published dynamics; the budget may be exceeded")
    method.add_argument("--score", choices=("weight", "weight_x_emb_rms"),
                        help="what orders fields: the energy of their "
                        "weights (published, and the default of --faithful), or this times their "
                        "vectors' mean square")
    method.add_argument("--epochs", type=int, default=Task.epochs, help="of the descent")
    method.add_argument("--finetune-epochs", type=int, default=Task.finetune_epochs,
                        help="of the small model, at most")
    method.add_argument("--finetune-from", default="pruned", choices=("pruned", "scratch"),
                        help="its first values")
    method.add_argument("--strength", type=float, default=Task.strength, help="of group LASSO")
    method.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change a setting of the base's training: lr=0.1, batch_size=128, ...")
    method.add_argument("--force", action="store_true", help="run again what is finished")
    cli.add_place_options(method)
