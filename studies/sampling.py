"""How far a score on the test rows may lie from that on all such rows: an error that no seed shows.

Every run of a data set is scored on the same test rows, so that the spread over seeds does not
hold what another draw of test rows would have given.
"""

import math
from collections.abc import Mapping
from typing import Any

TEST_SHARE = 10  # one row in ten is for the test


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC, by Hanley and McNeil (1982).

    It follows from the area and the numbers of rows alone, with the two probabilities of
    exponential scores: Q1 = A / (2 - A), Q2 = 2 A^2 / (1 + A).

    Args:
        auc: A, from 0 to 1.
        positives, negatives: rows that it was measured on, at least 1 each.

    Raises:
        ValueError: a class is empty, or `auc` is no share.

    >>> round(auc_error(0.85, 57_528, 16_373), 4)  # MovieLens-1M's test rows
    0.0014
    """
    if min(positives, negatives) < 1 or not 0 <= auc <= 1:
        raise ValueError(f"an AUC in [0, 1] and rows of both classes are needed, got AUC {auc}, "
                         f"{positives} positives and {negatives} negatives")
    first, second, square = auc / (2 - auc), 2 * auc ** 2 / (1 + auc), auc ** 2
    variance = (auc * (1 - auc) + (positives - 1) * (first - square)
                + (negatives - 1) * (second - square)) / (positives * negatives)
    return math.sqrt(variance)


def of_data(auc: float, data: Mapping[str, Any] | None) -> float | None:
    """The same for the test split of a result's `data`; None for older records without rows.

    >>> round(of_data(0.85, {"rows": 739_012, "positives": 575_281}), 4), of_data(0.85, None)
    (0.0014, None)
    """
    if not data or "rows" not in data or "positives" not in data:
        return None
    rows = data["rows"] // TEST_SHARE
    positives = round(rows * data["positives"] / data["rows"])
    if not 0 < positives < rows or not 0 <= auc <= 1:
        return None
    return auc_error(auc, positives, rows - positives)
