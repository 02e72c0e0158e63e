"""What a PEP search does between steps: budgets, records of thresholds and sizes, checks of its
start."""
