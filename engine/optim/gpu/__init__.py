"""Adam by row on a GPU: the twins of `engine.optim.cpu`. None of it has run on one yet."""
