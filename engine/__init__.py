"""Training: settings, one loop, hooks, evaluation, checkpoints."""
