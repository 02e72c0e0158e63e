"""From a finished run to a folder that scores raw rows: `export`."""
