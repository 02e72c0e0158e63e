"""The sampling error of an AUC."""

import numpy as np
import pytest
from scipy.stats import rankdata

from studies import sampling


def test_movielens_test_rows():
    assert sampling.auc_error(0.85, 57_528, 73_901 - 57_528) == pytest.approx(0.0014, abs=5e-5)


def test_it_is_the_spread_of_aucs_over_samples_of_exponential_scores():
    """With exponential scores of both classes, Hanley and McNeil's formula holds exactly."""
    rng, positives, negatives, auc = np.random.default_rng(0), 60, 40, 0.8
    aucs = []
    for _ in range(4000):
        scores = np.concatenate([rng.exponential(auc / (1 - auc), positives),
                                 rng.exponential(1, negatives)])
        ranks = rankdata(scores)[:positives].sum()
        aucs.append((ranks - positives * (positives + 1) / 2) / (positives * negatives))
    assert np.mean(aucs) == pytest.approx(auc, abs=0.005)
    assert np.std(aucs) == pytest.approx(sampling.auc_error(auc, positives, negatives), rel=0.05)


@pytest.mark.parametrize("given", [(0.8, 0, 10), (0.8, 10, 0), (1.2, 10, 10)])
def test_what_has_no_error_is_refused(given):
    with pytest.raises(ValueError,
                       match=f"got AUC {given[0]}, {given[1]} positives and {given[2]} negatives"):
        sampling.auc_error(*given)


@pytest.mark.parametrize("data", [None, {}, {"rows": 9, "positives": 3},
                                  {"rows": 100, "positives": 0}])
def test_data_without_test_rows_of_both_classes_have_none(data):
    assert sampling.of_data(0.8, data) is None
