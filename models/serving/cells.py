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


ROW_BYTES = 48  # at most, of a line that `write_scores` writes
_ZERO, _COMMA, _POINT, _E, _MINUS = 48, 44, 46, 101, 45
_LEAST, _MOST = 1_000_000, 10_000_000  # of seven digits
_PLAIN = 10  # decimals up to which a number is written without an exponent


@njit(nogil=True)
def _write_digits(number, count, out, at):
    """The last `count` digits of a whole number; returns where it has ended."""
    for place in range(at + count - 1, at - 1, -1):
        out[place] = _ZERO + number % 10
        number //= 10
    return at + count


@njit(nogil=True)
def _digits(number):
    count = 1
    while number >= 10:
        number //= 10
        count += 1
    return count


@njit(nogil=True)
def write_scores(scores, first, out):
    """Write lines of `row,probability`, rows counted from `first`, with seven significant digits as
    Python's `.7g` has them; nothing behind the comma for NaN.

    Args:
        scores: (rows,) of 0 to 1, or NaN.
        out: uint8, of rows * ROW_BYTES.

    Returns:
        The bytes that were written.
    """
    at = 0
    for i in range(len(scores)):
        row = first + i
        at = _write_digits(row, _digits(row), out, at)
        out[at] = _COMMA
        at += 1
        score = float(scores[i])
        if score == score and (score <= 0 or score >= 1):
            out[at] = _ZERO + (score >= 1)
            at += 1
        elif score == score:
            scaled, decimals = score * _MOST, 7
            while scaled < _LEAST:
                scaled *= 10
                decimals += 1
            digits = int(scaled + 0.5)
            if digits == _MOST:  # rounded up to one digit more
                digits = _LEAST
                decimals -= 1
            if decimals < 7:
                out[at] = _ZERO + 1
                at += 1
            elif decimals <= _PLAIN:
                while digits % 10 == 0:
                    digits //= 10
                    decimals -= 1
                out[at], out[at + 1] = _ZERO, _POINT
                at = _write_digits(digits, decimals, out, at + 2)
            else:
                exponent, places = decimals - 6, 6
                while digits % 10 == 0 and places > 0:
                    digits //= 10
                    places -= 1
                power = 1
                for _ in range(places):
                    power *= 10
                out[at] = _ZERO + digits // power
                at += 1
                if places:
                    out[at] = _POINT
                    at = _write_digits(digits % power, places, out, at + 1)
                out[at], out[at + 1] = _E, _MINUS
                at = _write_digits(exponent, max(2, _digits(exponent)), out, at + 2)
        out[at] = _NEWLINE
        at += 1
    return at
