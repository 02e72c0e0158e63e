"""Pruning a trained uniform table: by magnitude, iteratively, at random."""
