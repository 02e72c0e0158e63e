"""Cells of delimited text: where each starts and ends. Importing this file imports numba."""

from ..kernels.jit import njit

_NEWLINE, _RETURN = 10, 13


@njit(nogil=True)
def find_cells(text, separator, places, starts, ends, counts):
    """Split whole lines into cells; each line, the last too, ends in a newline.

    Args:
        places: (columns,) of each column the row of `starts` and `ends` that its cells go to; -1:
            it is not wanted.
        starts, ends: (wanted columns, lines) of whole numbers, filled.
        counts: (lines,), filled with the cells of each line; where that is not the number of
            columns, its starts and ends mean nothing.

    Returns:
        The lines.
    """
    columns = len(places)
    line, column, start = 0, 0, 0
    for at in range(len(text)):
        here = text[at]
        if here != separator and here != _NEWLINE:
            continue
        end = at
        if here == _NEWLINE and end > start and text[end - 1] == _RETURN:
            end -= 1
        if column < columns and places[column] >= 0:
            starts[places[column], line] = start
            ends[places[column], line] = end
        column += 1
        start = at + 1
        if here == _NEWLINE:
            counts[line] = column
            line += 1
            column = 0
    return line
