"""Training: settings, one loop, hooks, evaluation, checkpoints."""

import os
import sys
from types import TracebackType

# torch's idle threads wait for work in a loop that keeps a core busy for milliseconds, while
# `engine.optim.cpu.rowwise` has work for it: 33 against 24 ms a step (Criteo's size, 2 cores). Read
# when torch is first imported, so this stands here.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


_usual = sys.excepthook


def _one_line_for_ctrl_c(kind: type[BaseException], error: BaseException,
                         trace: TracebackType | None) -> None:
    """Show a Ctrl-C that nobody has caught as one line: scripts spend their first seconds with
    imports, before `engine.cli.main` can catch it."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        _usual(kind, error, trace)


sys.excepthook = _one_line_for_ctrl_c
