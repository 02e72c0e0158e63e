"""Checks before a PEP search: does its start leave a table to search, and when does decay alone
raise the thresholds to the values of the table?
"""

import logging
import math

from torch import Tensor

from engine.settings import Settings
from models.embedding.pep import Pep
from models.start import fitting_start, share_below

log = logging.getLogger("pep")

BEGIN = 0.01  # pruning has begun when this share of V0 lies under the thresholds
WARN = 0.05  # of a share of the table, or more, that is pruned at the start
MOST = 0.2  # of an untrained table, that a start by rule prunes at most
# a start by rule lets decay reach the median of a trained table after this part of its epochs
PART_OF_EPOCHS = 0.4
EPS = 1e-8  # of Adam


def check_start(embedding: Pep, settings: Settings, targets: tuple[int, ...]) -> None:
    """Refuse a start that leaves fewer entries than the largest budget; warn if it prunes many.

    Such a budget would be cut from pruned entries: the largest |V0| of an untrained table.

    Raises:
        ValueError: with the share that is pruned and a start that fits.
    """
    model, size = settings.embedding, embedding.weight.numel()
    left = embedding.num_params()
    gone = share_below(embedding.weight, model.g_type, model.gk, model.threshold_init)
    if left < max(targets):
        most = min(BEGIN, 1 - max(targets) / size)  # that may be pruned
        fits = fitting_start(embedding.weight, model.g_type, model.gk, most)
        raise ValueError(
            f"threshold_init={model.threshold_init:g} prunes {gone:.1%} of the table before the "
            f"first step: {left:,} of {size:,} entries are left, and candidate_p asks for "
            f"{max(targets):,}. Start at {fits:g} or lower (--set threshold_init={fits:g})")
    if gone >= WARN:
        log.warning("threshold_init=%g prunes %.1f %% of the table before the first step, whatever "
                    "the data say", model.threshold_init, 100 * gone)


def announce_pruning(values: Tensor, settings: Settings, batches: int) -> None:
    """Say in which epoch pruning is expected to begin; warn when the search ends before that.

    Args:
        values: V0 (N, D).
        batches: of an epoch.
    """
    epochs = settings.train.max_epochs
    steps = steps_to_pruning(values, settings)
    if steps <= epochs * batches:
        log.info("thresholds: by decay alone, pruning begins after about %s steps, in epoch %d of "
                 "%d", f"{steps:,.0f}", int(steps / batches) + 1, epochs)
        return
    when = "decay never moves the thresholds"
    if steps < math.inf:
        when = (f"by decay alone, pruning begins after about {steps:,.0f} steps, in epoch "
                f"{int(steps / batches) + 1:,}, and the search ends with epoch {epochs:,}")
    log.warning("%s: unless the loss moves them, every budget will be a cut by magnitude, not "
                "PEP's. %s", when, _advice(settings))


def _advice(settings: Settings) -> str:
    if settings.embedding.threshold_decay != "coupled" or not settings.train.l2_regularization:
        return ("Coupled decay is what moves the thresholds: set threshold_decay=coupled and "
                "l2_regularization to more than 0")
    return "Set a higher threshold_init or more max_epochs"


def steps_to_pruning(values: Tensor, settings: Settings) -> float:
    """Steps until decay alone lifts s to where BEGIN of the table lies under g(s); infinite if it
    never does.

    Coupled decay in Adam moves s by about lr a step (the gradient is wd * |s|, which Adam divides
    by its own size); any other decay takes the share lr * wd of s at each step. Both stop at s = 0.

    Args:
        values: V0 (N, D).

    >>> import torch
    >>> from engine.settings import parse
    >>> settings = parse({"threshold_init": -15.0})
    >>> round(steps_to_pruning(torch.full((4, 2), 0.01), settings), -2)  # from -15 to -4.6
    10400.0
    """
    model, train = settings.embedding, settings.train
    target = fitting_start(values, model.g_type, model.gk, BEGIN)
    decay = 0.0 if model.threshold_decay == "none" else train.l2_regularization
    if not decay or not train.lr or target >= 0:
        return math.inf
    if model.threshold_init >= target:
        return 0.0
    if train.optimizer == "adam" and model.threshold_decay == "coupled":
        force = decay * abs(model.threshold_init + target) / 2
        return (target - model.threshold_init) * (force + EPS) / (force * train.lr)
    return math.log(target / model.threshold_init) / math.log1p(-train.lr * decay)


def start_by_rule(initial: Tensor, trained: Tensor, steps: int, settings: Settings,
                  largest: int = 0) -> float:
    """The start from which decay alone lifts s to the median of a trained table after
    PART_OF_EPOCHS of the steps that the table took to its best validation score.

    A model that overfits early needs its small tables early, so its thresholds start higher.
    Coupled decay in Adam moves s by about lr a step, wherever s is. docs/thresholds.md has the
    starts that the rule was found on and those that it was tried on.

    Args:
        initial: V0 (N, D) of the search; the start prunes at most MOST of it.
        trained: V (N, D) of a uniform table at its best epoch.
        steps: that it took until then.
        largest: the largest budget; the start leaves at least as many entries.

    Returns:
        s, in tenths.

    >>> import torch
    >>> from engine.settings import parse
    >>> table = torch.full((4, 2), 0.05)  # sigmoid(-2.9) = 0.052
    >>> start_by_rule(table, table, 10_000, parse({}))  # 4,000 steps of 0.001
    -7.0
    """
    model = settings.embedding
    median = fitting_start(trained, model.g_type, model.gk, 0.5)
    start = median - settings.train.lr * PART_OF_EPOCHS * steps
    most = max(min(MOST, 1 - largest / initial.numel()), 0)
    return round(min(start, fitting_start(initial, model.g_type, model.gk, most)), 1)
