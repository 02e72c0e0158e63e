"""What things cost, measured: each file is a script that prints a table and writes its rows to
results/."""
