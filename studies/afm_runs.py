"""The runs behind AFM's page: what is factored, how, and each one's dense control."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from compression import finetune
from compression.afm.command import compared, control, factored
from compression.afm.compress import Choice
from compression.finetune import FineTuning
from compression.loaded_run import LoadedRun, load_model
from engine.run import RunContext, pick_device
from studies.plan import PlannedRun

RANKS = (8, 2, 4, 16, 32)
# what the page compares, for each seed; what says most comes first
STUDY: list[tuple[Choice, FineTuning]] = [
    *((Choice(method, emb_rank=rank), FineTuning())
      for rank, method in itertools.product(RANKS, ("afm", "svd"))),
    (Choice(mlp_rank=16), FineTuning()),
    *((Choice(emb_rank=8, mlp_rank=16, act=act, act_init=start), FineTuning())
      for act, start in (("none", "paper"), ("relu", "paper"), ("relu", "shift"))),
    (Choice(ratio=0.14), FineTuning()),
    # sizes near those of ranks 2 and 8 or less
    *((Choice("tt", emb_rank=rank), FineTuning()) for rank in (16, 32)),
    (Choice(emb_rank=8), FineTuning(freeze_embedding=True)),
    (Choice(emb_rank=8), FineTuning(epochs=5)),
    *((Choice("random", emb_rank=rank), FineTuning()) for rank in RANKS),
    (Choice("svd", mlp_rank=16), FineTuning()), (Choice(ratio=0.28), FineTuning()),
    (Choice(emb_rank=8, mlp_rank=16, sequential=True), FineTuning()),
    *((Choice("tt", emb_rank=rank), FineTuning()) for rank in (24, 56)),
    (Choice(emb_rank=32), FineTuning(epochs=5)),
]


def study(base: Callable[[RunContext], str], about: tuple[str, int]) -> list[PlannedRun]:
    """The runs behind the page for one seed, each with its dense control.

    Args:
        base: trains the dense model at a place, if it is not, and gives its run's id.
        about: the model's name and the seed.
    """
    model, seed = about
    needs = []
    for choice, how in STUDY:
        if model == "fm" and choice.mlp:  # FM has no layers
            continue
        what = " ".join(f"{name}={value}" for name, value in choice.identity().items())
        frozen = " frozen table" if how.freeze_embedding else ""
        needs.append(PlannedRun(f"{model} afm {what} epochs={how.epochs}{frozen} seed {seed}",
                                (model, "low_rank"), partial(_compress, base, choice, how)))
    return needs


def _compress(base: Callable[[RunContext], str], choice: Choice, how: FineTuning,
              context: RunContext) -> None:
    loaded = _loaded(base(context), context.out, context.cache, context.data, context.device)
    trained = replace(loaded, run=replace(loaded.run, context=context))
    made = factored(trained, choice, how, pick_device(context.device))
    compared(trained, made, control(trained, how), finetune.run_of(trained, how, choice.identity()))


@lru_cache(maxsize=1)  # all runs of a seed start from the same model
def _loaded(run_id: str, out: Path, cache: Path, data: str | None, device: str) -> LoadedRun:
    return load_model(run_id, RunContext(out, cache, data, device))
