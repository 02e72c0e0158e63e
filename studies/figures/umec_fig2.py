"""UMEC's Figure 2: accuracy against compression, fields and neurons removed together (Shen et al.
2021)."""

from pathlib import Path

from studies.figures import umec_curves
from studies.kinds import Results
from studies.page import Page, shown

# read off the figure
PAPER = {0.5: 0.78982, 0.35: 0.78981, 0.29: 0.78971, 0.18: 0.78943, 0.1: 0.78916, 0.05: 0.78903}
METHODS = ("umec", "magnitude", "as-umec", "taylor", "handmade", "random", "dense")


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set; its model is DLRM, whatever `model` says.

    Args:
        results: of any data sets and models.
        out: not looked at.
    """
    page = Page("umec-fig2", dataset, "dlrm",
                f"UMEC, Figure 2: joint compression, DLRM on {shown(dataset)}")
    return umec_curves.build(page, results, True, METHODS, PAPER)
