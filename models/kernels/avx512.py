"""Rows of a compact table by AVX-512: sixteen stored values at a time are spread over the set bits
of a mask (VEXPANDPS).

Importing this file imports numba; the loops compile on processors with AVX-512 alone (see
`models.kernels.expand.has_avx512`). The values are loaded side by side and spread in a register:
loading them through the mask is microcode on some processors, and twice as slow.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import njit

LANES = 16
_BYTE, _HALF, _FLOAT = ir.IntType(8), ir.HalfType(), ir.FloatType()
_WORD, _INT, _LONG = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


def _typed(function: Callable) -> Any:
    """numba's decorator, whose own types hide the signature that callers see."""
    return intrinsic(prefer_literal=True)(function)


def _element(context, builder, kind, array, index):
    """The address of an element of a one-dimensional array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _same(builder, value, vector):
    """A scalar in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
    lanes = ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, lanes)


def _integer_at(bits: int) -> Any:
    """An intrinsic: the signed number of so many bits at an address."""

    @_typed
    def load(typingctx, address):
        def codegen(context, builder, signature, arguments):
            kind = ir.IntType(bits)
            loaded = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))
            loaded.align = bits // 8
            return loaded if bits == 64 else builder.sext(loaded, _LONG)

        return types.int64(types.int64), codegen

    return load


_int32_at, _int64_at = _integer_at(32), _integer_at(64)


def _sixteen(context, builder, kind, array, start, scale):
    """16 values as float32, scaled if they are int8."""
    stored = {types.float32: _FLOAT, types.uint16: _HALF, types.int8: _BYTE}[kind.dtype]
    source = _element(context, builder, kind, array, start)
    vector = ir.VectorType(stored, LANES)
    loaded = builder.load(builder.bitcast(source, vector.as_pointer()))
    loaded.align = 1
    if kind.dtype == types.uint16:
        return builder.fpext(loaded, _FLOATS)
    if kind.dtype == types.int8:
        return builder.fmul(builder.sitofp(loaded, _FLOATS), _same(builder, scale, _FLOATS))
    return loaded


def _spread(builder, values, word):
    """The first of 16 values where the bits of a word are set, 0 elsewhere."""
    expand = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS, _FLOATS, _MASK]),
        "llvm.x86.avx512.mask.expand.v16f32")
    zeros = ir.Constant(_FLOATS, [0.0] * LANES)
    return builder.call(expand, [values, zeros, builder.bitcast(word, _MASK)])


def _store_some(builder, values, target, lanes):
    """Store the first so many of 16 values."""
    store = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [_FLOATS, _BYTE.as_pointer(), _INT, _MASK]),
        "llvm.masked.store.v16f32.p0")
    few = builder.sub(builder.shl(ir.Constant(_WORD, 1), builder.trunc(lanes, _WORD)),
                      ir.Constant(_WORD, 1))
    builder.call(store, [values, builder.bitcast(target, _BYTE.as_pointer()),
                         ir.Constant(_INT, 4), builder.bitcast(few, _MASK)])


@_typed
def _write_row(typingctx, values, masks, offsets, row, scale, target, lanes, words):
    """Write a row of `words` * 16 numbers at the address `target`, `lanes` of the last word's;
    `words` is known when this is compiled, and there is no loop over them."""
    count = words.literal_value

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        given, masks, offsets, row, scale, target, lanes, _ = arguments
        first = builder.mul(row, ir.Constant(_LONG, count))
        own = [builder.load(_element(context, builder, kinds[1], masks,
                                     builder.add(first, ir.Constant(_LONG, place))))
               for place in range(count)]
        before = [ir.Constant(_LONG, 0)]  # entries of the row in the words before each
        for word in own:
            before.append(builder.add(before[-1], builder.zext(builder.ctpop(word), _LONG)))
        kept = before[-1]
        offset = builder.load(_element(context, builder, kinds[2], offsets, kept))
        start = builder.add(offset, builder.mul(row, kept))
        for place, word in enumerate(own):
            loaded = _sixteen(context, builder, kinds[0], given,
                              builder.add(start, before[place]), scale)
            spread = _spread(builder, loaded, word)
            there = builder.add(target, ir.Constant(_LONG, 4 * LANES * place))
            pointer = builder.inttoptr(there, _FLOATS.as_pointer())
            if place < count - 1:
                builder.store(spread, pointer).align = 4
                continue
            whole = builder.icmp_signed("==", lanes, ir.Constant(_LONG, LANES))
            with builder.if_else(whole) as (full, part):
                with full:
                    builder.store(spread, pointer).align = 4
                with part:
                    _store_some(builder, spread, pointer, lanes)
        return context.get_dummy_value()

    return types.none(values, masks, offsets, types.int64, types.float32, types.int64, types.int64,
                      words), codegen


@functools.cache
def expand_of(words: int) -> Callable[..., int]:
    """The loop for tables of so many words of 16 columns.

    Its arguments are the arrays of `models.kernels.expand.Kept`, and:

        ids      address of `count` whole numbers, of 8 bytes if `wide`, else of 4
        out      address of (count, width) float32

    Ids and vectors come as addresses, because numba takes longer to look at a tensor's array than
    the loop takes for a row. No branch depends on a row: one that is predicted wrong costs as much
    as a row does. It returns 0, or less where an id is negative or, with places, N or more.
    """

    @njit(nogil=True, error_model="numpy")
    def expand(values, masks, offsets, scales, places, ids, wide, count, out, width):
        last = masks.size // words - 1
        lanes = width - 16 * (words - 1)
        wrong = np.int64(0)
        for i in range(count):
            row = _int64_at(ids + 8 * i) if wide else _int32_at(ids + 4 * i)
            wrong |= row
            if places.size:
                wrong |= places.size - 1 - row
                row = np.int64(places[min(np.uint64(row), np.uint64(places.size - 1))])
            row = np.int64(min(np.uint64(row), np.uint64(last)))  # a negative one is a large one
            scale = scales[row] if scales.size else np.float32(1)
            _write_row(values, masks, offsets, row, scale, out + 4 * i * width, lanes, words)
        return wrong

    return expand
