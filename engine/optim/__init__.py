"""The optimiser and the training step, and their fast forms for a CPU and for a GPU."""
