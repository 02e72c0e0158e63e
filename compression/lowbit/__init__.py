"""Tables of few bits an entry: their bytes, their retraining, and the schemes to compare with."""
