"""AUC by counting pairs, log-loss by probabilities, and the published code's batch measure."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.metrics import log_loss, roc_auc_score

from engine.evaluate import (
    Split,
    auc,
    auc_of_counts,
    logits_of,
    logloss,
    mean_of_batch_aucs,
    measure,
    measure_test,
    resample_test,
)

SCORED = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([-2.0, -1.0, 0.0, 0.5, 0.5000001,
                                                                3.0])), min_size=2, max_size=40)


def by_counting(labels, scores):
    """Share of (positive, negative) pairs in the right order; a tie counts half."""
    right = pairs = 0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            right += (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
            pairs += 1
    return right / pairs


def arrays(rows):
    return np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows])


@given(SCORED.filter(lambda rows: len({label for label, _ in rows}) == 2))
def test_auc_counts_pairs_and_ties(rows):
    labels, scores = arrays(rows)
    assert auc(labels, scores) == pytest.approx(by_counting(labels, scores), abs=1e-12)
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores), abs=1e-12)
    assert auc(labels, 3 * scores + 7) == pytest.approx(auc(labels, scores), abs=1e-12)


@given(SCORED.filter(lambda rows: len({label for label, _ in rows}) == 2),
       st.randoms(use_true_random=False))
def test_auc_does_not_depend_on_the_order_of_the_rows(rows, random):
    labels, scores = arrays(rows)
    random.shuffle(rows)
    assert auc(*arrays(rows)) == auc(labels, scores)


@pytest.mark.parametrize("share", [0.2, 0.8])
@pytest.mark.parametrize("digits", [1, 9])
def test_auc_is_the_rank_sum_to_the_last_bit(share, digits):
    rng = np.random.default_rng(2)
    labels = (rng.random(5000) < share).astype(np.float32)
    scores = np.round(rng.normal(labels, 2.0), digits).astype(np.float32)
    positives = int(labels.sum())
    above = rankdata(scores.astype(np.float64))[labels > 0].sum() - positives * (positives + 1) / 2
    assert auc(labels, scores) == above / (positives * (5000 - positives))


@pytest.mark.parametrize("row", [0, 1])
def test_auc_of_a_nan_is_nan(row):
    scores = np.arange(4.0)
    scores[row] = np.nan
    assert np.isnan(auc(np.array([0.0, 1.0, 0.0, 1.0]), scores))


def test_auc_of_many_float32_labels_is_exact():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.array([0, 1], np.float32), 500_000)
    scores = np.concatenate([np.zeros(500_000, np.float32), np.ones(500_000, np.float32)])
    scores[rng.integers(0, 500_000, 1)] = 2.0  # one negative above all positives
    assert auc(labels, scores) == pytest.approx(1 - 1 / 500_000, abs=1e-12)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_auc_of_one_class_is_an_error_that_counts_both(label):
    with pytest.raises(ValueError,
                       match=r"needs both classes, got \d+ positives and \d+ negatives"):
        auc(np.full(4, label), np.arange(4.0))


def test_auc_and_logloss_are_those_of_scikit_learn():
    rng = np.random.default_rng(5)
    labels = (rng.random(20_000) < 0.3).astype(np.float32)
    logits = np.round(rng.normal(labels, 2.0), 2)  # with ties
    assert auc(labels, logits) == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    assert logloss(labels, logits) == pytest.approx(log_loss(labels, expit(logits)), abs=1e-12)


@given(SCORED)
def test_logloss_is_the_mean_over_rows_of_the_negative_log_probability(rows):
    labels, logits = arrays(rows)
    p = 1 / (1 + np.exp(-logits))
    assert logloss(labels, logits) == pytest.approx(-np.mean(labels * np.log(p) + (1 - labels)
                                                             * np.log(1 - p)))


def test_logloss_is_finite_and_exact_for_huge_logits():
    assert logloss(np.array([0.0, 1.0]), np.array([800.0, -800.0], np.float32)) == 800.0
    assert logloss(np.array([1.0, 0.0]), np.array([800.0, -800.0], np.float32)) == 0.0


@pytest.mark.parametrize(("rows", "batch_size"), [(200, 50), (203, 50), (30, 50)])
def test_mean_of_batch_aucs_is_over_random_batches_that_are_always_the_same(rows, batch_size):
    rng = np.random.default_rng(1)
    labels, scores = (rng.random(rows) < 0.4).astype(np.float32), rng.normal(0, 1, rows)
    order = np.random.default_rng(0).permutation(rows)
    expected = []
    for start in range(0, rows, batch_size):
        part = order[start:start + batch_size]
        if len(set(labels[part])) == 2:
            expected.append(by_counting(labels[part], scores[part]))
    result = mean_of_batch_aucs(labels, scores, batch_size)
    assert result == pytest.approx(np.mean(expected), abs=1e-12)
    assert mean_of_batch_aucs(labels, scores, batch_size) == result


def test_batches_of_one_class_are_left_out_and_none_left_is_nan():
    labels, scores = np.zeros(40), np.arange(40.0)
    labels[7] = 1
    order = np.random.default_rng(0).permutation(40)
    batch = next(order[start:start + 10] for start in range(0, 40, 10)
                 if 7 in order[start:start + 10])
    assert mean_of_batch_aucs(labels, scores,
                              10) == pytest.approx(by_counting(labels[batch], scores[batch]))
    assert np.isnan(mean_of_batch_aucs(np.zeros(40), scores, 10))


class Scores(torch.nn.Module):
    """Logit of a row is its first id, halved in training."""

    def forward(self, ids):
        return ids[:, 0].float() * (0.5 if self.training else 1.0)


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_of_all_rows_in_order_in_evaluation_mode_and_the_mode_is_put_back(training):
    model = Scores().train(training)
    ids = np.arange(40_000, dtype=np.int32)[:, None]
    assert np.array_equal(logits_of(model, Split(ids, ids[:, 0])),
                          np.arange(40_000, dtype=np.float32))
    assert model.training == training


def test_evaluation_puts_the_mode_back_after_an_error():
    with pytest.raises(IndexError):
        logits_of(model := Scores().train(), Split(np.zeros(3, np.int32), np.zeros(3, np.float32)))
    assert model.training


def test_measures_of_a_split():
    ids = np.arange(6, dtype=np.int32)[:, None]
    labels = np.array([0, 1, 0, 1, 1, 0], np.float32)
    split = Split(ids, labels)
    metrics, test = measure(Scores(), split), measure_test(Scores(), split, 3)
    assert metrics.auc == test["test_auc"] == pytest.approx(by_counting(labels, ids[:, 0]))
    assert metrics.logloss == test["test_logloss"] == logloss(labels, ids[:, 0])
    assert test["test_auc_mean_of_batches"] == mean_of_batch_aucs(labels, ids[:, 0], 3)


def test_auc_of_counts_is_the_auc_of_rows_that_are_there_so_often():
    rng = np.random.default_rng(3)
    # many ties
    labels, scores = (rng.random(80) < 0.4).astype(np.float32), rng.integers(0, 12, 80) / 12
    of = auc_of_counts(labels, scores)
    for _ in range(20):
        counts = rng.integers(0, 4, 80)
        assert of(counts) == pytest.approx(auc(np.repeat(labels, counts),
                                               np.repeat(scores, counts)), abs=1e-12)
    assert np.isnan(of((labels > 0).astype(int)))


def test_a_bootstrap_finds_the_spread_of_an_accuracy_like_mean():
    """The log-loss of a constant model is a mean over rows, whose standard error has a closed
    form."""
    rng = np.random.default_rng(4)
    labels = (rng.random(2000) < 0.3).astype(np.float32)
    model = torch.nn.Sequential(torch.nn.Flatten(0))
    split = Split(np.ones((2000, 1), np.float32), labels)
    [found] = resample_test([model], split, 400, 1)
    losses = np.logaddexp(0, 1.0) - labels
    assert found["test_logloss"].mean() == pytest.approx(losses.mean(),
                                                         abs=3 * losses.std() / np.sqrt(2000 * 400))
    assert found["test_logloss"].std() == pytest.approx(losses.std() / np.sqrt(2000), rel=0.15)
    assert np.ptp(found["test_auc"]) == 0  # every score is the same
