"""Scores of a split, exact AUC, log-loss, and the published code's own way of measuring."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from data.loader import choose_place, in_order, put
from data.store import Dataset
from utils.jit import njit

log = logging.getLogger("pep")


@dataclass(frozen=True)
class Metrics:
    """Of one split: `auc` over all its rows at once, `logloss` weighted by row, the share that is
    right at 0.5."""

    auc: float
    logloss: float
    accuracy: float


class Split:
    """Rows that are evaluated in their stored order: ids (rows, F), labels (rows,), numbers (rows,
    M) if any."""

    def __init__(self, ids: np.ndarray, labels: np.ndarray, device: torch.device | str = "cpu",
                 numbers: np.ndarray | None = None) -> None:
        self.device = torch.device(device)
        arrays = [ids] if numbers is None else [ids, numbers]
        place = choose_place(sum(array.nbytes for array in arrays), self.device)
        self.ids, *self.numbers = (put(array, place, self.device) for array in arrays)
        self.labels = np.asarray(labels)

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """What a model is called with, batch by batch."""
        return zip(*(in_order(array, self.device) for array in (self.ids, *self.numbers)),
                   strict=True)


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties
    counting half.

    Args:
        labels: (rows,) of 0 and 1.
        scores: (rows,).

    Raises:
        ValueError: only one class is there.

    >>> auc(np.array([0, 1, 1, 0]), np.array([0.1, 0.4, 0.35, 0.35]))
    0.875
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError(f"AUC needs both classes, got {positives} positives and {negatives} "
                         f"negatives")
    ranks = rankdata(scores)
    return float((ranks[labels > 0].sum() - positives * (positives + 1) / 2)
                 / (positives * negatives))


def logloss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross entropy of logits, in double precision.

    >>> round(logloss(np.array([1.0]), np.array([0.0])), 4)
    0.6931
    """
    logits = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def base_rate_logloss(labels: np.ndarray, train_labels: np.ndarray) -> float:
    """Log-loss of predicting the training rows' share of positives for every row.

    Args:
        labels: (rows,) of 0 and 1, of the rows that are predicted.
        train_labels: (training rows,) of 0 and 1. With one class only, the share is taken for half
            a row away from 0 or 1, so that the log-loss is finite.

    >>> round(base_rate_logloss(np.array([0.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0])), 4)
    0.837
    """
    half_a_row = 0.5 / len(train_labels)
    share = np.clip(np.mean(train_labels, dtype=np.float64), half_a_row, 1 - half_a_row)
    return logloss(labels, np.full(len(labels), np.log(share / (1 - share))))


def with_base_rate(result: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """A run's result with what a constant prediction scores; a warning if the run does worse.

    Args:
        result: with `run_id` and `validation_logloss`.
        dataset: that the run was trained and validated on.

    Returns:
        The result with `validation_logloss_base_rate`, see `base_rate_logloss`.
    """
    base = base_rate_logloss(dataset.split("validation")[1], dataset.split("train")[1])
    if not result["validation_logloss"] <= base:
        log.warning("run %s: its validation log-loss %.6g is worse than %.6g, that of predicting "
                    "the training rows' share of positives for every row: as probabilities its "
                    "predictions are of no use. Try a smaller lr, more epochs, more decay "
                    "(l2_regularization), or --set early_stop_metric=loss", result["run_id"],
                    result["validation_logloss"], base)
    return {**result, "validation_logloss_base_rate": base}


def accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Share of the rows whose probability is on their label's side of 0.5.

    >>> accuracy(np.array([0.0, 1.0, 1.0]), np.array([-1.0, 2.0, -0.1])).__round__(3)
    0.667
    """
    return float(np.mean((logits > 0) == (labels > 0)))


def mean_of_batch_aucs(labels: np.ndarray, scores: np.ndarray, batch_size: int) -> float:
    """The published code's measure: the mean of the AUCs of random batches of the rows.

    The batches are always the same ones. (In stored order they would not do: neighbouring MovieLens
    rows share their user, and AUC within a few users is lower, 0.848 where it is 0.851 over all.)
    Batches with one class only have no AUC and are left out; NaN when none is left.
    """
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(labels))
    batches = [(labels[rows], scores[rows])
               for rows in np.split(order, range(batch_size, len(order), batch_size))]
    values = [auc(y, x) for y, x in batches if 0 < y.sum() < len(y)]
    return float(np.mean(values)) if values else float("nan")


@torch.no_grad()
def logits_of(model: nn.Module, split: Split) -> np.ndarray:
    """Logits (rows,) of all rows in evaluation mode; the model's mode is put back."""
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(*inputs) for inputs in split.batches()]).float().cpu().numpy()
    finally:
        model.train(was_training)


def measure(model: nn.Module, split: Split) -> Metrics:
    """AUC, log-loss and accuracy of the validation (or training) rows."""
    logits = logits_of(model, split)
    return Metrics(auc(split.labels, logits), logloss(split.labels, logits),
                   accuracy(split.labels, logits))


def measure_test(model: nn.Module, test: Split, batch_size: int) -> dict[str, float]:
    """With `resample_test` the place where test labels are read. Its result goes into curves and
    results, never into a choice.
    """
    logits = logits_of(model, test)
    return {"test_auc": auc(test.labels, logits), "test_logloss": logloss(test.labels, logits),
            "test_accuracy": accuracy(test.labels, logits),
            "test_auc_mean_of_batches": mean_of_batch_aucs(test.labels, logits, batch_size)}


def auc_of_counts(labels: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], float]:
    """A function of how often each row is drawn, counts (rows,), that gives `auc` of the rows
    drawn; sorted once.

    NaN where only one class is drawn.

    >>> labels, scores = np.array([0, 1, 1, 0]), np.array([0.1, 0.4, 0.35, 0.35])
    >>> found = auc_of_counts(labels, scores)
    >>> found(np.array([1, 1, 1, 1])), found(np.array([0, 0, 2, 1]))
    (0.875, 0.5)
    """
    order = np.argsort(scores)
    positive, ranked = labels[order] > 0, scores[order]
    higher = np.r_[False, ranked[1:] != ranked[:-1]]  # than the row before
    return lambda counts: _auc_of_counts(order, positive, higher, counts)


@njit(nogil=True)
def _auc_of_counts(order, positive, higher, counts):
    """One pass from the lowest score up."""
    pairs, positives, negatives = 0.0, 0, 0  # in the right order; passed so far
    ups, downs = 0, 0  # positives and negatives of the score that is being passed
    for place in range(len(order)):
        if higher[place]:
            pairs += ups * (negatives + 0.5 * downs)
            positives, negatives, ups, downs = positives + ups, negatives + downs, 0, 0
        if positive[place]:
            ups += counts[order[place]]
        else:
            downs += counts[order[place]]
    pairs += ups * (negatives + 0.5 * downs)
    total = (positives + ups) * (negatives + downs)
    return pairs / total if total else np.nan


def resample_test(models: Sequence[nn.Module], test: Split, draws: int,
                  seed: int) -> list[dict[str, np.ndarray]]:
    """What models score on `draws` samples of the test rows, drawn with replacement (the bootstrap,
    Efron 1979).

    Every model sees the same samples, so that differences between them are paired.

    Returns:
        test_auc and test_logloss (draws,) of each model.
    """
    logits = [logits_of(model, test).astype(np.float64) for model in models]
    ranked = [auc_of_counts(test.labels, each) for each in logits]
    losses = [np.logaddexp(0, each) - test.labels * each for each in logits]
    found = [{name: np.empty(draws) for name in ("test_auc", "test_logloss")} for _ in models]
    generator, rows = np.random.default_rng(seed), len(test.labels)
    for draw in range(draws):
        counts = np.bincount(generator.integers(rows, size=rows), minlength=rows)
        for scores, of, loss in zip(found, ranked, losses, strict=True):
            scores["test_auc"][draw], scores["test_logloss"][draw] = (
                of(counts),
                counts @ loss / rows,
            )
    return found
