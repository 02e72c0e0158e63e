"""Exported models: read, scored, looked up. Nothing but torch and numpy is needed; numba speeds it
up."""

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
TYPES = (FLOAT32, FLOAT16, INT8)  # of the numbers that an exported model stores
