"""PEP in the tables of any PyTorch model."""
