"""One file a figure or table, drawn from records."""
