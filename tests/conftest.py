"""Shared fixtures, and an honest last line about real data."""

import os
from pathlib import Path

import pytest
import torch

torch.set_flush_denormal(True)


def pytest_collection_modifyitems(items):
    if not os.environ.get("PEP_DATA"):
        skip = pytest.mark.skip(reason="needs real data: PEP_DATA is not set")
        for item in items:
            if "real" in item.keywords:
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    skipped = [report.nodeid for report in terminalreporter.stats.get("skipped", []) if "real" in report.keywords]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} real-data tests were skipped (set PEP_DATA to run them):")
        for name in skipped:
            terminalreporter.write_line(f"  {name}")
    else:
        terminalreporter.write_line("no real-data test was skipped")


@pytest.fixture
def real_data() -> Path:
    return Path(os.environ["PEP_DATA"])
