"""Logits of a split, exact AUC, log-loss, and the published code's mean of per-batch AUCs."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.loader import choose_place, in_order, put
from data.store import Dataset
from models.base import ClickModel
from models.embedding.uniform import Uniform

log = logging.getLogger("pep")


@dataclass(frozen=True)
class Metrics:
    """Of one split: AUC over all its rows at once, mean log-loss of the rows, and the share of rows
    that is right at a probability of 0.5."""

    auc: float
    logloss: float
    accuracy: float


class Split:
    """Rows that are evaluated in their stored order: ids (rows, F), labels (rows,), and for some
    models dense features (rows, M)."""

    def __init__(self, ids: np.ndarray, labels: np.ndarray, device: torch.device | str = "cpu",
                 dense: np.ndarray | None = None) -> None:
        self.device = torch.device(device)
        arrays = [ids] if dense is None else [ids, dense]
        self.ids, *self.dense = self._put(arrays)
        self.labels = np.asarray(labels)

    def _put(self, arrays: list[np.ndarray]) -> list[Tensor]:
        place = choose_place(sum(array.nbytes for array in arrays), self.device)
        return [put(array, place, self.device) for array in arrays]

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Tensor, ...]]:
        """What a model is called with, batch by batch; `batch_size` as of `in_order`."""
        arrays = [self.ids, *self.dense]
        return zip(*(in_order(array, self.device, batch_size) for array in arrays), strict=True)

    @contextlib.contextmanager
    def prepared(self, model: nn.Module) -> Iterator[None]:
        """In the block, an embedding that computes its rows in every batch is replaced by a table
        that is computed once; not where the split has fewer ids than the table has rows."""
        embedding: Any = model.embedding if isinstance(model, ClickModel) else None
        if embedding is None or not embedding.computes_rows or (
                embedding.num_rows > self.ids.numel()):
            yield
            return
        model.embedding = Uniform(embedding.table(), embedding.num_fields)
        try:
            yield
        finally:
            model.embedding = embedding

    def logits(self, model: nn.Module) -> Tensor:
        """What a model in evaluation mode gives for all rows, (rows,)."""
        batch_size = None
        if isinstance(model, ClickModel) and self.device.type == "cpu":
            batch_size = model.rows_in_cache
        with self.prepared(model):
            return torch.cat([model(*inputs) for inputs in self.batches(batch_size)])


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order; a tie
    counts half.

    The pairs are counted, by sorting both classes and looking the smaller one up in the larger
    one. scikit-learn's gives the same to 1e-15 and takes 100 times as long for a batch of 1,024,
    of which the published measure needs thousands.

    Args:
        labels: (rows,) of 0 and 1.
        scores: (rows,); where one is NaN, so is the result.

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
    chosen = labels > 0
    up, down = np.sort(scores[chosen]), np.sort(scores[~chosen])
    if np.isnan(up[-1]) or np.isnan(down[-1]):  # NaNs are sorted to the end
        return math.nan
    pairs = positives * negatives
    if positives < negatives:
        twice_right = _twice_below(up, down)
    else:
        twice_right = 2 * pairs - _twice_below(down, up)
    return twice_right / (2 * pairs)


def _twice_below(few: np.ndarray, many: np.ndarray) -> int:
    """Pairs with the one of `many` below that of `few`, both sorted, twice; equal ones once."""
    return int(np.searchsorted(many, few, "left").sum() + np.searchsorted(many, few,
                                                                          "right").sum())


def logloss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross entropy of logits, in double precision.

    scikit-learn's takes probabilities, which cannot tell logits apart beyond about 36.

    >>> round(logloss(np.array([1.0]), np.array([0.0])), 4)
    0.6931
    """
    logits = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def base_rate_logloss(labels: np.ndarray, train_labels: np.ndarray) -> float:
    """Log-loss of predicting the training rows' share of positives for every row.

    Args:
        labels: (rows,) of 0 and 1, of the rows that are predicted.
        train_labels: (training rows,) of 0 and 1. With one class only, the share is set half a row
            away from 0 or 1, so that the log-loss is finite.

    >>> round(base_rate_logloss(np.array([0.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0])), 4)
    0.837
    """
    half_a_row = 0.5 / len(train_labels)
    share = np.clip(np.mean(train_labels, dtype=np.float64), half_a_row, 1 - half_a_row)
    return logloss(labels, np.full(len(labels), np.log(share / (1 - share))))


def with_base_rate(result: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """A run's result with the log-loss of a constant prediction; a warning if the run's is worse.

    Args:
        result: with `run_id` and `validation_logloss`.
        dataset: that the run was trained and validated on.

    Returns:
        The result with `validation_logloss_base_rate`, see `base_rate_logloss`.
    """
    base = base_rate_logloss(dataset.split("validation")[1], dataset.split("train")[1])
    if not result["validation_logloss"] <= base:
        by_loss = ("" if result.get("stage") == "search"
                   else ", or early_stop_metric=loss where a command has settings")
        log.warning("run %s: its validation log-loss %.6g is worse than %.6g, that of predicting "
                    "the training rows' share of positives for every row: as probabilities its "
                    "predictions are of no use. Try a smaller learning rate, more epochs, more "
                    "decay of the table%s", result["run_id"], result["validation_logloss"], base,
                    by_loss)
    return {**result, "validation_logloss_base_rate": base}


def accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Share of the rows whose probability is on their label's side of 0.5.

    >>> accuracy(np.array([0.0, 1.0, 1.0]), np.array([-1.0, 2.0, -0.1])).__round__(3)
    0.667
    """
    return float(np.mean((logits > 0) == (labels > 0)))


def mean_of_batch_aucs(labels: np.ndarray, scores: np.ndarray, batch_size: int) -> float:
    """The published code's measure: the mean of the AUCs of random batches of the rows.

    The batches are always the same ones. They are random because neighbouring rows of MovieLens
    have the same user, and the AUC within a few users is lower (0.848 where it is 0.851 over all).
    Batches with one class have no AUC and are left out; NaN when none is left.
    """
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(labels))
    batches = np.split(order, range(batch_size, len(order), batch_size))
    values = [auc(labels[rows], scores[rows]) for rows in batches
              if 0 < labels[rows].sum() < len(rows)]
    return float(np.mean(values)) if values else float("nan")


@torch.no_grad()
def logits_of(model: nn.Module, split: Split) -> np.ndarray:
    """Logits (rows,) of all rows in evaluation mode; the model's mode is put back."""
    was_training = model.training
    model.eval()
    try:
        return split.logits(model).float().cpu().numpy()
    finally:
        model.train(was_training)


def measure(model: nn.Module, split: Split) -> Metrics:
    """AUC, log-loss and accuracy of the validation (or training) rows."""
    logits = logits_of(model, split)
    return Metrics(auc(split.labels, logits), logloss(split.labels, logits),
                   accuracy(split.labels, logits))


def measure_test(model: nn.Module, test: Split, batch_size: int) -> dict[str, float]:
    """Scores of the test rows, for curves and results, never for a choice. Only this function and
    `resample_test` read test labels."""
    logits = logits_of(model, test)
    return {"test_auc": auc(test.labels, logits), "test_logloss": logloss(test.labels, logits),
            "test_accuracy": accuracy(test.labels, logits),
            "test_auc_mean_of_batches": mean_of_batch_aucs(test.labels, logits, batch_size)}


def measure_both(model: nn.Module, validation: Split, test: Split,
                 batch_size: int) -> tuple[Metrics, dict[str, float]]:
    """`measure` and `measure_test` of a model whose table is computed once for both."""
    with validation.prepared(model):
        return measure(model, validation), measure_test(model, test, batch_size)


def auc_of_counts(labels: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], float]:
    """A function of how often each row is drawn, counts (rows,), that gives the AUC of the rows
    drawn; NaN where only one class is drawn. The scores are sorted once.

    >>> labels, scores = np.array([0, 1, 1, 0]), np.array([0.1, 0.4, 0.35, 0.35])
    >>> auc_of = auc_of_counts(labels, scores)
    >>> auc_of(np.array([1, 1, 1, 1])), auc_of(np.array([0, 0, 2, 1]))
    (0.875, 0.5)
    """
    order = np.argsort(scores)
    positives, negatives = order[labels[order] > 0], order[labels[order] == 0]
    # how many of the sorted negatives lie below each positive, without and with those of its score
    below, up_to = (np.searchsorted(scores[negatives], scores[positives], side)
                    for side in ("left", "right"))

    def auc_of(counts: np.ndarray) -> float:
        drawn, passed = counts[positives], np.r_[0, np.cumsum(counts[negatives])]
        total = int(drawn.sum()) * int(passed[-1])
        return float(drawn @ (passed[below] + passed[up_to])) / 2 / total if total else np.nan

    return auc_of


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
        for scores, auc_of, loss in zip(found, ranked, losses, strict=True):
            scores["test_auc"][draw] = auc_of(counts)
            scores["test_logloss"][draw] = counts @ loss / rows
    return found
