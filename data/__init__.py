"""Data sets: raw files in, encoded and split rows out."""
