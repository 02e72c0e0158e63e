"""Anybody's table of rows with a label, from CSV, TSV, Parquet or memory, to an encoded set."""
