"""Rows of float16 or int8 looked up as float32, without anything of their size in between.

Torch looks rows up in their own type first, widens them, and multiplies them by their scales: two
further arrays of the size of the result. Importing this file imports numba.
"""

from typing import Any

import numpy as np
from numba.core import types

from .avx512 import LANES, int32_at, int64_at, store_at, vector_at
from .jit import njit
from .words import typed


def _writer(lanes: int) -> Any:
    """An intrinsic: write so many values from `start` on as float32 at an address."""

    @typed
    def write(typingctx, values, start, scale, address):
        def codegen(context, builder, signature, arguments):
            given, start, scale, address = arguments
            loaded = vector_at(context, builder, signature.args[0], given, start, scale, lanes)
            store_at(builder, loaded, address)
            return context.get_dummy_value()

        return types.none(values, types.int64, types.float32, types.int64), codegen

    return write


_write_sixteen, _write_one = _writer(LANES), _writer(1)


@njit(nogil=True, error_model="numpy")
def widen(values, scales, ids, wide, count, out, width):
    """Write rows of stored values as float32.

    Args:
        values: (N * width,) uint16 (bits of float16) or int8.
        scales: (N,) of int8 values, or none.
        ids: address of `count` whole numbers, of 8 bytes if `wide`, else of 4.
        out: address of (count, width) float32.

    Returns:
        0; or less where an id is not in 0 .. N-1.
    """
    last = values.size // width - 1
    wrong = np.int64(0)
    whole = width // 16 * 16
    for i in range(count):
        row = int64_at(ids + 8 * i) if wide else int32_at(ids + 4 * i)
        wrong |= row | (last - row)
        row = np.int64(min(np.uint64(row), np.uint64(last)))
        scale = scales[row] if scales.size else np.float32(1)
        source, target = row * width, out + 4 * i * width
        for column in range(0, whole, 16):
            _write_sixteen(values, source + column, scale, target + 4 * column)
        for column in range(whole, width):
            _write_one(values, source + column, scale, target + 4 * column)
    return wrong
