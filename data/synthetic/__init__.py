"""Data made from a known teacher."""
