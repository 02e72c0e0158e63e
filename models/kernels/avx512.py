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

from .jit import njit
from .words import prefetch, same_in_all, typed

LANES = 16
AHEAD = 4  # rows of a batch from which on memory is asked for early
_BYTE, _HALF, _FLOAT = ir.IntType(8), ir.HalfType(), ir.FloatType()
_WORD, _INT, _LONG = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


def _element(context, builder, kind, array, index):
    """The address of an element of a one-dimensional array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _integer_at(bits: int) -> Any:
    """An intrinsic: the signed number of so many bits at an address."""

    @typed
    def load(typingctx, address):
        def codegen(context, builder, signature, arguments):
            kind = ir.IntType(bits)
            loaded = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))
            loaded.align = bits // 8
            return loaded if bits == 64 else builder.sext(loaded, _LONG)

        return types.int64(types.int64), codegen

    return load


int32_at, int64_at = _integer_at(32), _integer_at(64)


def vector_at(context, builder, kind, array, start, scale, lanes):
    """So many values as float32, scaled if they are int8."""
    stored = {types.float32: _FLOAT, types.uint16: _HALF, types.int8: _BYTE}[kind.dtype]
    source = _element(context, builder, kind, array, start)
    vector, floats = ir.VectorType(stored, lanes), ir.VectorType(_FLOAT, lanes)
    loaded = builder.load(builder.bitcast(source, vector.as_pointer()))
    loaded.align = 1
    if kind.dtype == types.uint16:
        return builder.fpext(loaded, floats)
    if kind.dtype == types.int8:
        return builder.fmul(builder.sitofp(loaded, floats), same_in_all(builder, scale, floats))
    return loaded


def store_at(builder, values, address):
    """Store a vector of float32 at an address."""
    builder.store(values, builder.inttoptr(address, values.type.as_pointer())).align = 4


def _spread(builder, values, word):
    """The first of 16 values where the bits of a word are set, 0 elsewhere."""
    expand = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS, _FLOATS, _MASK]),
        "llvm.x86.avx512.mask.expand.v16f32")
    zeros = ir.Constant(_FLOATS, [0.0] * LANES)
    return builder.call(expand, [values, zeros, builder.bitcast(word, _MASK)])


def _store_some(builder, values, address, lanes):
    """Store the first so many of 16 values."""
    target = builder.inttoptr(address, _BYTE.as_pointer())
    store = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [_FLOATS, _BYTE.as_pointer(), _INT, _MASK]),
        "llvm.masked.store.v16f32.p0")
    few = builder.sub(builder.shl(ir.Constant(_WORD, 1), builder.trunc(lanes, _WORD)),
                      ir.Constant(_WORD, 1))
    builder.call(store, [values, target, ir.Constant(_INT, 4), builder.bitcast(few, _MASK)])


def _spread_row(context, builder, kinds, arguments, count) -> list[Any]:
    """A row's `count` vectors of 16 numbers; `arguments` are values, masks, offsets, row and scale,
    and `kinds` their types."""
    given, masks, offsets, row, scale = arguments
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
    return [_spread(builder, vector_at(context, builder, kinds[0], given,
                                       builder.add(start, before[place]), scale, LANES), word)
            for place, word in enumerate(own)]


@typed
def _write_row(typingctx, values, masks, offsets, row, scale, target, lanes, words):
    """Write a row of `words` * 16 numbers at the address `target`, `lanes` of the last word's;
    `words` is known when this is compiled, and there is no loop over them."""
    count = words.literal_value

    def codegen(context, builder, signature, arguments):
        target, lanes = arguments[5:7]
        spread = _spread_row(context, builder, signature.args, arguments[:5], count)
        for place, vector in enumerate(spread):
            there = builder.add(target, ir.Constant(_LONG, 4 * LANES * place))
            if place < count - 1:
                store_at(builder, vector, there)
                continue
            whole = builder.icmp_signed("==", lanes, ir.Constant(_LONG, LANES))
            with builder.if_else(whole) as (full, part):
                with full:
                    store_at(builder, vector, there)
                with part:
                    _store_some(builder, vector, there, lanes)
        return context.get_dummy_value()

    return types.none(values, masks, offsets, types.int64, types.float32, types.int64, types.int64,
                      words), codegen


@typed
def _pairs(typingctx, values, masks, offsets, scales, ids, first, fields, words):
    """The summed products of every two of the rows ids[first:first + fields], as `fm` of
    `models.kernels.fm` has them; their sums stay in registers."""
    count = words.literal_value

    def codegen(context, builder, signature, arguments):
        kinds = signature.args
        values, masks, offsets, scales, ids, first, fields, _ = arguments
        zeros = ir.Constant(_FLOATS, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, zeros) for _ in range(count)]
        squares = [cgutils.alloca_once_value(builder, zeros) for _ in range(count)]
        size = cgutils.create_struct_proxy(kinds[1])(context, builder, masks).nitems
        last = builder.sub(builder.udiv(size, ir.Constant(_LONG, count)), ir.Constant(_LONG, 1))
        with cgutils.for_range(builder, fields) as loop:
            place = builder.add(first, loop.index)
            row = builder.load(_element(context, builder, kinds[4], ids, place))
            row = builder.sext(row, _LONG) if kinds[4].dtype.bitwidth < 64 else row
            row = builder.select(builder.icmp_unsigned("<", row, last), row, last)
            scale = ir.Constant(_FLOAT, 1.0)
            if kinds[0].dtype == types.int8:
                scale = builder.load(_element(context, builder, kinds[3], scales, row))
            spread = _spread_row(context, builder, kinds, (values, masks, offsets, row, scale),
                                 count)
            for vector, total, square in zip(spread, sums, squares, strict=True):
                builder.store(builder.fadd(builder.load(total), vector), total)
                own = builder.fmul(vector, vector, flags=("contract",))
                builder.store(builder.fadd(builder.load(square), own, flags=("contract",)), square)
        found = zeros
        for total, square in zip(sums, squares, strict=True):
            whole = builder.load(total)
            found = builder.fadd(found, builder.fsub(builder.fmul(whole, whole),
                                                     builder.load(square)))
        add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOAT, [_FLOAT, _FLOATS]),
            "llvm.vector.reduce.fadd.v16f32")
        added = builder.call(add, [ir.Constant(_FLOAT, -0.0), found], fastmath=("reassoc",))
        return builder.fmul(added, ir.Constant(_FLOAT, 0.5))

    return types.float32(values, masks, offsets, scales, ids, types.int64, types.int64,
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
            row = int64_at(ids + 8 * i) if wide else int32_at(ids + 4 * i)
            wrong |= row
            if places.size:
                wrong |= places.size - 1 - row
                row = np.int64(places[min(np.uint64(row), np.uint64(places.size - 1))])
            row = np.int64(min(np.uint64(row), np.uint64(last)))  # a negative one is a large one
            scale = scales[row] if scales.size else np.float32(1)
            _write_row(values, masks, offsets, row, scale, out + 4 * i * width, lanes, words)
        return wrong

    return expand


@functools.cache
def fm_of(words: int) -> Callable[..., int]:
    """A factorisation machine over a compact table of so many words of 16 columns.

    Its arguments are the arrays of `models.kernels.expand.Kept` but its places, and:

        weights  (N,) float32, one for each id
        bias     a float32
        ids      (rows * fields,) whole numbers
        fields   of a row
        logits   (rows,) float32, filled

    It returns 0, or less where an id is not in 0 .. N - 1.
    """

    @njit(nogil=True, error_model="numpy")
    def factorisation_machine(values, masks, offsets, scales, weights, bias, ids, fields, logits):
        wrong, most, last = np.int64(0), weights.size - 1, masks.size // words - 1
        for i in range(logits.size):
            first = i * fields
            later = min(first + AHEAD * fields, ids.size - fields)
            for place in range(later, later + fields):
                row = np.int64(ids[place])
                prefetch(weights, row)
                prefetch(masks, words * min(row, last))
            linear = np.float32(0)
            for place in range(first, first + fields):
                row = np.int64(ids[place])
                wrong |= row | (most - row)
                linear += weights[min(np.uint64(row), np.uint64(most))]
            pairs = _pairs(values, masks, offsets, scales, ids, first, fields, words)
            logits[i] = linear + bias + pairs
        return wrong

    return factorisation_machine
