"""Loops that numba compiles at their first call, so that importing them does not import numba."""

import functools
from collections.abc import Callable
from typing import Any


def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator as `models.kernels.jit.njit`; the loop can be called from Python alone.

    >>> @njit(nogil=True)
    ... def double(x):
    ...     return 2 * x
    >>> double(3)
    6
    """
    def deferred(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache
        def loop() -> Callable[..., Any]:
            from .jit import njit as compiled

            return compiled(**options)(function)

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            return loop()(*arguments)

        return call

    return deferred
