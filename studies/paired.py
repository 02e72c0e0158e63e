"""Means over paired seeds with their confidence: is one scheme better than another with the same
seeds?"""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and half the width of its confidence interval (Student's t); NaN for one value."""

    mean: float
    half: float
    seeds: int

    def __str__(self) -> str:
        """As a text has it, with the sign that a difference needs."""
        return f"{self.mean:+.4f}" + ("" if math.isnan(self.half) else f" ± {self.half:.4f}")

    @property
    def holds(self) -> bool | None:
        """Whether zero lies outside of it; None for one value, which shows nothing."""
        return None if math.isnan(self.half) else abs(self.mean) > self.half

    @property
    def words(self) -> str:
        """The interval and its verdict, to stand beside the mean.

        >>> interval([0.1, 0.11, 0.12]).words, interval([1.0]).words
        ('95 % interval ± 0.0248: higher', 'one seed shows nothing')
        """
        known = "" if math.isnan(self.half) else f"{100 * LEVEL:.0f} % interval ± {self.half:.4f}: "
        return known + self.verdict

    @property
    def verdict(self) -> str:
        """Whether zero lies in it.

        >>> [interval(each).verdict for each in ([0.1, 0.2, 0.3], [0.1, 0.11, 0.12], [1.0])]
        ['no difference shown', 'higher', 'one seed shows nothing']
        """
        if not self.holds:
            return "one seed shows nothing" if self.holds is None else "no difference shown"
        return "higher" if self.mean > 0 else "lower"


def interval(values: Sequence[float]) -> Interval:
    """The mean's confidence interval at LEVEL.

    >>> str(interval([0.1, 0.2, 0.3]))
    '+0.2000 ± 0.2484'
    """
    count = len(values)
    if count < 2:
        return Interval(values[0], math.nan, count)
    from scipy.special import stdtrit  # a quarter of a second

    factor = float(stdtrit(count - 1, (1 + LEVEL) / 2))
    return Interval(statistics.mean(values), factor * statistics.stdev(values) / math.sqrt(count),
                    count)


def differences(ours: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]],
                quantity: str) -> list[float]:
    """Ours less the other's, one a seed that both have."""
    theirs = {result["seed"]: result[quantity] for result in others}
    return [result[quantity] - theirs[result["seed"]] for result in ours
            if result["seed"] in theirs]
