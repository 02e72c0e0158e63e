"""Cells of delimited text: where each starts and ends. Importing this file imports numba."""

import numpy as np

from ..kernels.jit import njit

_NEWLINE, _RETURN = 10, 13


@njit(nogil=True)
def find_cells(text, separator, columns, starts, ends):
    """Split whole lines into cells; each line, the last too, ends in a newline.

    Args:
        columns: cells of a line.
        starts, ends: (rows, columns) int64, filled; a line of another number of cells has -1 in
            its first cell, and its number of cells in `ends`.

    Returns:
        The lines.
    """
    row, column, start = 0, 0, 0
    for at in range(len(text)):
        here = text[at]
        if here != separator and here != _NEWLINE:
            continue
        end = at
        if here == _NEWLINE and end > start and text[end - 1] == _RETURN:
            end -= 1
        if column < columns:
            starts[row, column] = start
            ends[row, column] = end
        column += 1
        start = at + 1
        if here == _NEWLINE:
            if column != columns:
                starts[row, 0] = -1
                ends[row, 0] = column
            row += 1
            column = 0
    return row


@njit(nogil=True)
def pack_column(text, starts, ends, packed, packed_starts):
    """Copy the cells of one column one behind the other."""
    at = 0
    for row in range(len(starts)):
        for place in range(starts[row], ends[row]):
            packed[at] = text[place]
            at += 1
        packed_starts[row + 1] = at


def column_of(text, starts, ends):
    """The texts and starts of one column's cells, as `Packed` takes them."""
    packed = np.empty(int((ends - starts).sum()), np.uint8)
    packed_starts = np.zeros(len(starts) + 1, np.int64)
    pack_column(text, starts, ends, packed, packed_starts)
    return packed, packed_starts
