"""Some bytes of an array at once. Importing this file imports numba."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

SPAN = 16  # bytes that `first_equal` looks at
WIDE = 64  # bytes that `either_of` looks at
_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def typed(function: Callable) -> Any:
    """numba's decorator, whose own types hide the signature that callers see."""
    return intrinsic(prefer_literal=True)(function)


def unaligned(context, builder, array_type, array, index, kind) -> Any:
    """The address of array[index] as that of another kind."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def load(context, builder, array_type, array, index, kind) -> Any:
    """What stands from array[index] on, read as another kind; it need not be aligned."""
    loaded = builder.load(unaligned(context, builder, array_type, array, index, kind))
    loaded.align = 1
    return loaded


def same_in_all(builder, value, vector) -> Any:
    """A vector with a value in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
    lanes = ir.Constant(ir.VectorType(_INT, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, lanes)


@typed
def word_at(typingctx, array, index):
    """The eight bytes array[index:index + 8] as one uint64; not checked against the length."""
    def codegen(context, builder, signature, arguments):
        array, index = arguments
        return load(context, builder, signature.args[0], array, index, _LONG)

    return types.uint64(array, types.int64), codegen


def _equal(builder, loaded, value) -> Any:
    """A bit for each byte of a vector that is a value, as one whole number."""
    same = same_in_all(builder, value, loaded.type)
    return builder.bitcast(builder.icmp_unsigned("==", loaded, same),
                           ir.IntType(loaded.type.count))


@typed
def first_equal(typingctx, array, index, value, skipped):
    """The first i with array[index + skipped + i] == value among the SPAN bytes from `index` on;
    SPAN or more where there is none. Not checked against the length."""
    def codegen(context, builder, signature, arguments):
        array, index, value, skipped = arguments
        loaded = load(context, builder, signature.args[0], array, index,
                      ir.VectorType(_BYTE, SPAN))
        bits = builder.lshr(builder.zext(_equal(builder, loaded, value), _LONG), skipped)
        none = ir.Constant(_LONG, 1 << SPAN)
        return builder.cttz(builder.or_(bits, none), cgutils.true_bit)

    return types.int64(array, types.int64, types.uint8, types.int64), codegen


@typed
def either_of(typingctx, array, index, one, other):
    """A uint64 with bit i set where array[index + i] is one or the other, of the WIDE bytes from
    `index` on. Not checked against the length."""
    def codegen(context, builder, signature, arguments):
        array, index, one, other = arguments
        loaded = load(context, builder, signature.args[0], array, index,
                      ir.VectorType(_BYTE, WIDE))
        return builder.or_(_equal(builder, loaded, one), _equal(builder, loaded, other))

    return types.uint64(array, types.int64, types.uint8, types.uint8), codegen


@typed
def count_ones(typingctx, value):
    """Of a uint64."""
    def codegen(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), codegen


@typed
def trailing_zeros(typingctx, value):
    """Of a uint64; 64 of 0."""
    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], cgutils.false_bit)

    return types.int64(types.uint64), codegen


@typed
def prefetch(typingctx, array, index):
    """Ask for the cache line of array[index], and wait for nothing."""
    def codegen(context, builder, signature, arguments):
        array_type = signature.args[0]
        data = context.make_array(array_type)(context, builder, arguments[0]).data
        pointer = ir.PointerType(_BYTE)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer, _INT, _INT, _INT]),
            "llvm.prefetch.p0")
        address = builder.bitcast(builder.gep(data, [arguments[1]]), pointer)
        builder.call(function, [address, *(ir.Constant(_INT, each) for each in (0, 3, 1))])
        return context.get_dummy_value()

    return types.none(array, types.int64), codegen
