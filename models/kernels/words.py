"""Some bytes of an array at once, for loops over text. Importing this file imports numba."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

SPAN = 16  # bytes that `first_equal` looks at
_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = ir.VectorType(_BYTE, SPAN)


def _load(context, builder, array_type, array, index, kind) -> Any:
    """What stands from array[index] on, read as another kind; it need not be aligned."""
    data = context.make_array(array_type)(context, builder, array).data
    address = builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
    loaded = builder.load(address)
    loaded.align = 1
    return loaded


@intrinsic
def word_at(typingctx, array, index):
    """The eight bytes array[index:index + 8] as one uint64; not checked against the length."""
    def codegen(context, builder, signature, arguments):
        return _load(context, builder, signature.args[0], *arguments, _LONG)

    return types.uint64(array, types.int64), codegen


@intrinsic
def first_equal(typingctx, array, index, value, skipped):
    """The first i with array[index + skipped + i] == value among the SPAN bytes from `index` on;
    SPAN or more where there is none. Not checked against the length."""
    def codegen(context, builder, signature, arguments):
        array, index, value, skipped = arguments
        loaded = _load(context, builder, signature.args[0], array, index, _BYTES)
        undefined = ir.Constant(_BYTES, ir.Undefined)
        first = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
        same = builder.shuffle_vector(first, undefined,
                                      ir.Constant(ir.VectorType(_INT, SPAN), [0] * SPAN))
        equal = builder.bitcast(builder.icmp_unsigned("==", loaded, same), ir.IntType(SPAN))
        bits = builder.lshr(builder.zext(equal, _LONG), skipped)
        none = ir.Constant(_LONG, 1 << SPAN)
        return builder.cttz(builder.or_(bits, none), cgutils.true_bit)

    return types.int64(array, types.int64, types.uint8, types.int64), codegen
