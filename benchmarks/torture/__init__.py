"""Trials that try to break the project: what went wrong is counted, and nothing may be lost."""
