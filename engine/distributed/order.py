"""Which process has which rows of a table that is cut over all of them.

Rows are put into a fixed pseudo-random order, so that the frequent ones are spread evenly, and the
order is cut into as many parts as the run has lanes; a process holds the parts of its lanes. What
is computed entry by entry over a part (vectors of the CPU's instructions and what is left over) or
added up over it therefore has the same bits for any number of processes.
"""

import math
from itertools import pairwise

import numpy as np

from engine.distributed import launch

GOLDEN = (math.sqrt(5) - 1) / 2
# neighbours that stay together: frequent ones often are in one batch, and Adam moves rows in blocks
GROUP = 8


class Order:
    """The order of N rows, and where the rows of one process stand in it.

    Args:
        num_rows: N.
        lanes: of the run.
        size: number of processes; it divides the lanes.
        rank: of the process, from 0.

    >>> order = Order(40, lanes=4, size=2, rank=1)
    >>> order.own()[:9].tolist(), order.places(order.own())[:3].tolist()
    ([36, 37, 38, 39, 8, 9, 10, 11, 12], [20, 21, 22])
    """

    def __init__(self, num_rows: int, lanes: int, size: int, rank: int) -> None:
        self.num_rows = num_rows
        self.groups = groups = max(num_rows // GROUP, 1)
        self.factor = next(factor for factor in range(max(int(GOLDEN * groups), 1), 2 * groups)
                           if math.gcd(factor, groups) == 1)
        self.inverse = pow(self.factor, -1, groups)
        bounds = np.array([num_rows * lane // lanes for lane in range(lanes + 1)])
        share = lanes // size
        self.edges = bounds[::share]  # of the processes' rows
        self.first, self.last = self.edges[rank], self.edges[rank + 1]
        parts = bounds[rank * share:(rank + 1) * share + 1] - self.first
        self.parts = [slice(int(one), int(end)) for one, end in pairwise(parts)]  # of the own rows

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where rows stand in the pseudo-random order."""
        return self._moved(rows.astype(np.int64), self.factor)

    def rows_at(self, places: np.ndarray) -> np.ndarray:
        """The inverse of `places`."""
        return self._moved(places.astype(np.int64), self.inverse)

    def own(self) -> np.ndarray:
        """The rows of this process, in its order of them."""
        return self.rows_at(np.arange(self.first, self.last))

    def _moved(self, rows: np.ndarray, factor: int) -> np.ndarray:
        group, within = np.divmod(rows, GROUP)
        moved = group * factor % self.groups * GROUP + within
        return np.where(group < self.groups, moved, rows)  # the last rows are no whole group


def own_rows(num_rows: int, lanes: int) -> np.ndarray | slice:
    """The rows that this process will have of N, before it has met the others; all where it is
    alone."""
    size = launch.size()
    if size == 1 or lanes % size:  # such lanes are refused when the processes meet
        return slice(None)
    return Order(num_rows, lanes, size, launch.rank()).own()
