"""Adam by row on a CPU: the loops and what they need of the machine."""
