"""numba's compiler with a cache on disk where there is a folder for it, and without one where not.

`numba.njit(cache=True)` raises when the function is defined, that is at import, if neither the
source's folder nor the user's cache folder can be written: a read-only installation without HOME.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

try:
    import numba
except ImportError as error:
    raise ImportError("files, and numbers that fall into buckets, are read by numba, which is not "
                      "installed: pip install numba") from error

log = logging.getLogger("pep")


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: numba.njit(cache=True, **options), or the same without a cache, with a log line.

    Args:
        options: of numba.njit, but `cache`.

    >>> @njit(nogil=True)
    ... def double(x):
    ...     return 2 * x
    >>> double(3)
    6
    """
    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            _say_once()
            return numba.njit(**options)(function)
    return compiled


@functools.cache
def _say_once() -> None:
    log.warning("numba finds no folder that it may write its cache to, so every process compiles "
                "its loops anew, which takes seconds; set NUMBA_CACHE_DIR to a writable folder")
