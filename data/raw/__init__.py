"""Raw files, larger than memory if need be, to encoded sets."""
