"""The paper and beyond: schemes, plans of runs, records, pages."""
