"""Embedding schemes, one file each."""
