"""What things cost, measured: each file is a script that prints a table and writes its rows to
results/."""

# it says how torch's threads wait, which torch reads when it is imported
import engine  # noqa: F401
