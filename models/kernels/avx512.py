"""Sixteen stored values spread over the set bits of a mask, by AVX-512's VEXPANDPS.

Importing this file imports numba; `spread` compiles on processors with AVX-512 alone (see
`models.kernels.expand.has_avx512`). The values are loaded side by side and spread in a register:
loading them through the mask is microcode on some processors, and twice as slow.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 16
_BYTE, _HALF, _FLOAT = ir.IntType(8), ir.HalfType(), ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


def _typed(function: Callable) -> Any:
    """numba's decorator, whose own types hide the signature that callers see."""
    return intrinsic(function)


def _address(context, builder, kind, array, index):
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _same(builder, value, vector):
    """A scalar in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, lanes)


@_typed
def popcount(typingctx, value):
    """Set bits of a uint64."""

    def codegen(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), codegen


@_typed
def spread(typingctx, values, start, mask, scale, out, place, lanes):
    """out[place + j] = scale * the next of values[start], .. where bit j of `mask` is set, else 0;
    for j below `lanes`, 1 to 16.

    Args:
        values: one-dimensional, float32, uint16 (bits of float16) or int8; 16 from `start` on are
            read. float32 and float16 are not scaled.
        out: one-dimensional float32.
    """

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0].dtype
        given, start, mask, scale, out, place, lanes = arguments
        source = _address(context, builder, signature.args[0], given, start)
        stored = {types.float32: _FLOAT, types.uint16: _HALF, types.int8: _BYTE}[kind]
        vector = ir.VectorType(stored, LANES)
        loaded = builder.load(builder.bitcast(source, vector.as_pointer()))
        loaded.align = 1
        if kind == types.uint16:
            loaded = builder.fpext(loaded, _FLOATS)
        elif kind == types.int8:
            loaded = builder.fmul(builder.sitofp(loaded, _FLOATS), _same(builder, scale, _FLOATS))
        bits = builder.bitcast(builder.trunc(mask, ir.IntType(16)), _MASK)
        expand = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS, _FLOATS, _MASK]),
            "llvm.x86.avx512.mask.expand.v16f32")
        zeros = ir.Constant(_FLOATS, [0.0] * LANES)
        spread = builder.call(expand, [loaded, zeros, bits])
        target = builder.bitcast(_address(context, builder, signature.args[4], out, place),
                                 _FLOATS.as_pointer())
        whole = builder.icmp_signed("==", lanes, ir.Constant(lanes.type, LANES))
        with builder.if_else(whole) as (full, part):
            with full:
                builder.store(spread, target).align = 4
            with part:
                one = ir.Constant(ir.IntType(16), 1)
                few = builder.sub(builder.shl(one, builder.trunc(lanes, ir.IntType(16))), one)
                store = cgutils.get_or_insert_function(
                    builder.module, ir.FunctionType(ir.VoidType(), [
                        _FLOATS, _BYTE.as_pointer(), ir.IntType(32), _MASK]),
                    "llvm.masked.store.v16f32.p0")
                builder.call(store, [spread, builder.bitcast(target, _BYTE.as_pointer()),
                                     ir.Constant(ir.IntType(32), 4), builder.bitcast(few, _MASK)])
        return context.get_dummy_value()

    return types.none(values, types.int64, types.uint64, types.float32, out, types.int64,
                      types.int64), codegen
