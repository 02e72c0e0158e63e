"""Exported models: read, scored, looked up. Nothing but torch and numpy is needed; numba speeds it
up."""
