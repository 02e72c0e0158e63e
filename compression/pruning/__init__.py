"""Pruning a trained uniform table: by magnitude, iteratively, at random."""

KEEP = 0.5  # share of the entries that a round of iterative pruning leaves
