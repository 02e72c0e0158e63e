"""Codes of a packed table's rows to float32, four columns at a time: the loop of `kernels.packed`.

Four codes have 32 bits at most, so one unaligned word of eight bytes holds them wherever they
start. Importing this file imports numba.
"""

import numpy as np
from llvmlite import ir
from numba.core import types

from .jit import njit
from .words import load, same_in_all, typed, unaligned, word_at

LANES = 4
_BYTE, _INT, _LONG, _FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTES, _INTS, _LONGS, _FLOATS = (ir.VectorType(kind, LANES)
                                  for kind in (_BYTE, _INT, _LONG, _FLOAT))


@typed
def _store_values(typingctx, word, place, shifts, masks, halves, steps, out, at):
    """out[at + j] = (((word >> shifts[p]) & masks[p]) - halves[p]) * steps[p], p = place + j, for j
    in 0 .. LANES-1; not checked against the lengths."""
    def codegen(context, builder, signature, arguments):
        word, place, shifts, masks, halves, steps, out, at = arguments

        def four(array, which, kind):
            return load(context, builder, signature.args[which], array, place, kind)

        moved = builder.lshr(same_in_all(builder, word, _LONGS),
                             builder.zext(four(shifts, 2, _BYTES), _LONGS))
        codes = builder.and_(builder.trunc(moved, _INTS),
                             builder.zext(four(masks, 3, _BYTES), _INTS))
        levels = builder.fsub(builder.sitofp(codes, _FLOATS), four(halves, 4, _FLOATS))
        values = builder.fmul(levels, four(steps, 5, _FLOATS))
        builder.store(values, unaligned(context, builder, signature.args[6], out, at,
                                        _FLOATS)).align = 4
        return context.get_dummy_value()

    return types.none(word, types.int64, shifts, masks, halves, steps, out, types.int64), codegen


@njit(nogil=True, error_model="numpy")
def unpack(stream, first, start, width, of_row, groups, shifts, masks, halves, steps, at, ids, out):
    """out (n, 4 G) = the rows ids (n,) of a packed table of S slots and 4 G columns, each unpacked
    once; returns -1, or the first i of an id that is not in 0 .. N-1.

    Args:
        stream: uint8, with eight bytes behind the last code.
        first, start, width: of `Slots`.
        of_row: (N,) the slot of each row.
        groups: (S, G) int64, the bit of a row at which four columns start.
        shifts: (S * 4 G,) uint8, how far a code lies behind its group's first bit.
        masks: (S * 4 G,) uint8, as many ones as a code has bits.
        halves: (S * 4 G,) float32, what is taken off a code: half of 2^bits, less a half.
        steps: (S * 4 G,) float32.
        at: (N,) int32, where a row stood in the last batch; what stands there is checked, so it
            may be anything.
    """
    columns, values = LANES * groups.shape[1], out.reshape(-1)
    for i in range(ids.size):
        row = np.int64(ids[i])
        if row < 0 or row >= of_row.size:
            return i
        before = np.int64(at[row])
        if before < i and ids[before] == row:  # unpacked already
            source, target = out[before], out[i]
            for d in range(columns):
                target[d] = source[d]
            continue
        at[row] = i
        slot = np.int64(of_row[row])
        begin = start[slot] + (row - first[slot]) * width[slot]
        for group in range(groups.shape[1]):
            bit = begin + groups[slot, group]
            word = word_at(stream, bit >> 3) >> np.uint64(bit & 7)
            _store_values(word, slot * columns + LANES * group, shifts, masks, halves, steps,
                          values, i * columns + LANES * group)
    return -1
