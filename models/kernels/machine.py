"""What numba does not offer of the machine: flushing denormal numbers, and fetching memory ahead of
its use.

Whether denormals are flushed is a mode of a thread, and threads are made by many hands. A loop that
flushes in one thread and not in another has other bits, and rows without data, which decay into
denormals, are many times slower where they are kept. The loops here set the mode themselves.
"""

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
# FTZ and DAZ; FZ
_FLUSH = {"x86_64": 0x8040, "amd64": 0x8040, "aarch64": 1 << 24, "arm64": 1 << 24}
MACHINE = platform.machine().lower()
# bits of the control register; 0: a machine whose register is not known
ON = _FLUSH.get(MACHINE, 0)


def _typed(function: Callable) -> Any:
    """numba's decorator, whose own types hide the signature that callers see."""
    return intrinsic(function)


def _function(builder: ir.IRBuilder, name: str, result: ir.Type,
              arguments: list[ir.Type]) -> ir.Function:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


@_typed
def control(typingctx):
    """The thread's floating-point control register as int64; 0 on an unknown machine."""

    def codegen(context, builder, signature, arguments):
        if not ON:
            return ir.Constant(_INT64, 0)
        if MACHINE in ("aarch64", "arm64"):
            return builder.call(_function(builder, "llvm.aarch64.get.fpcr", _INT64, []), [])
        place = cgutils.alloca_once(builder, _INT32)
        byte = ir.IntType(8).as_pointer()
        store = _function(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [byte])
        builder.call(store, [builder.bitcast(place, byte)])
        return builder.zext(builder.load(place), _INT64)

    return types.int64(), codegen


@_typed
def set_control(typingctx, value):
    """Set the register to what `control` gave, or to that with `ON` added."""

    def codegen(context, builder, signature, arguments):
        if ON and MACHINE in ("aarch64", "arm64"):
            builder.call(_function(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [_INT64]),
                         [arguments[0]])
        elif ON:
            byte = ir.IntType(8).as_pointer()
            place = cgutils.alloca_once(builder, _INT32)
            builder.store(builder.trunc(arguments[0], _INT32), place)
            load = _function(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [byte])
            builder.call(load, [builder.bitcast(place, byte)])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@_typed
def fetch(typingctx, array, index):
    """Ask for the cache line of array[index] (one-dimensional, contiguous) and do not wait for
    it."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        prefetch = _function(builder, "llvm.prefetch.p0", ir.VoidType(),
                             [byte, _INT32, _INT32, _INT32])
        # to write, keep, data
        builder.call(prefetch, [place, *(ir.Constant(_INT32, number) for number in (1, 3, 1))])
        return context.get_dummy_value()

    return types.none(array, types.int64), codegen
