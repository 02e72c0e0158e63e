"""Training: settings, one loop, hooks, evaluation, checkpoints."""

import os

# torch's idle threads wait for work in a loop that keeps a core busy for milliseconds, while
# `engine.optim.cpu.rowwise` has work for it: 33 against 24 ms a step (Criteo's size, 2 cores). Read
# when torch is first imported, so this stands here.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
