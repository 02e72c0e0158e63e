"""Adam by row on a GPU, the twins of `engine.optim.cpu`, and the recording of a step."""
